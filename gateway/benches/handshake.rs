//! What one core answers: the gateway's part of a handshake, without sockets.
//!
//! ```text
//! cargo bench -p dialhome-gateway
//! ```
//!
//! What a whole gateway does with sockets and a store is measured by `dialhome-loadtest compare`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use dialhome_device::crypto::Initiator;
use dialhome_gateway::link::Responder;
use dialhome_proto::link::{DeviceKey, FIRST_FLIGHT_LEN, MESSAGE_1_LEN, PREAMBLE_LEN, Preamble};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::time::Instant;

/// What a benchmark gives back; an error is a sentence for the person who runs it.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 15;
const PER_ROUND: usize = 2_000;

struct Dial {
    key: DeviceKey,
    preamble: Preamble,
    message_1: [u8; MESSAGE_1_LEN],
}

fn main() -> Outcome {
    // `cargo bench` says so; `cargo test --all-targets`, which does not, must not take its time.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("Nothing is measured without `cargo bench -p dialhome-gateway`.");
        return Ok(());
    }
    let mut random = StdRng::seed_from_u64(1);
    let (mut good, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dials = (0..PER_ROUND)
            .map(|_| dial(&mut random))
            .collect::<Outcome<Vec<_>>>()?;
        let responder = Responder::default();
        // Strangers first: a message that has passed once is a replay afterwards.
        let began = Instant::now();
        for dial in &dials {
            let refused = responder.check(&dial.preamble, &dial.message_1, None);
            if black_box(refused).is_ok() {
                return Err("a handshake without a key was answered".into());
            }
        }
        unknown.push(PER_ROUND as f64 / began.elapsed().as_secs_f64());
        let began = Instant::now();
        for dial in &dials {
            let checked = responder.check(&dial.preamble, &dial.message_1, Some(&dial.key))?;
            black_box(checked.reply()?);
        }
        good.push(PER_ROUND as f64 / began.elapsed().as_secs_f64());
    }
    println!("one thread, {ROUNDS} rounds of {PER_ROUND}, no sockets");
    println!("answered (check and reply)   {} per second", median(good));
    println!(
        "refused, key not known       {} per second",
        median(unknown)
    );
    Ok(())
}

fn dial(random: &mut StdRng) -> Outcome<Dial> {
    let (mut secret, mut ephemeral) = ([0; 32], [0; 32]);
    random.fill_bytes(&mut secret);
    random.fill_bytes(&mut ephemeral);
    let key = DeviceKey::new(secret);
    let mut flight = [0; FIRST_FLIGHT_LEN];
    // The board never hears the answer.
    let _ = Initiator::start(&key, ephemeral, &mut flight);
    let (preamble, message_1) = flight
        .split_first_chunk::<PREAMBLE_LEN>()
        .ok_or("a first flight is longer than its preamble")?;
    Ok(Dial {
        preamble: Preamble::decode(preamble).map_err(|fault| format!("{fault:?}"))?,
        message_1: message_1.try_into()?,
        key,
    })
}

/// The median, and the least and greatest value.
fn median(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match &values[..] {
        [least, .., greatest] => {
            let middle = values[values.len() / 2];
            format!("{middle:.0} ({least:.0} to {greatest:.0})")
        }
        _ => "too few values".to_owned(),
    }
}
