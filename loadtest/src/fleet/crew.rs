//! One process of a fleet.

use super::board::{Crew, Switch, play};
use super::exchange::Exchange;
use super::flash::Images;
use super::gang;
use super::tally::Tally;
use super::words::{Gang, Order, RECEIVE_BUFFERS, Roll, Seat, Word};
use crate::Error;
use dialhome_device::slot::Geometry;
use dialhome_proto::device::ComponentConfig;
use dialhome_proto::trust::TrustSet;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::index;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Files that a crew opens beside its boards' sockets, with room to spare.
const FILES: u64 = 64;
/// Least bytes between two claims in a board's journal (spec/limits.md section 7).
const CLAIM_EVERY_MIN: u32 = 16 * 1024;
/// Longest wait for the boards when the crew ends.
const END: Duration = Duration::from_secs(10);

/// Plays the boards that standard input names, until it is closed.
///
/// # Errors
/// Standard input holds something else, or a limit of the system was hit; both have been said
/// as [`Word::Failed`] too.
pub fn run() -> Result<(), Error> {
    let (voice, words) = mpsc::channel();
    let speaker = std::thread::spawn(move || speak(&words));
    let result = play_roll(&voice);
    if let Err(error) = &result {
        let why = error.to_string();
        let _ = voice.send(Word::Failed { why });
    }
    drop(voice);
    let _ = speaker.join();
    result
}

/// Writes each word at once, until nobody can say one any more or nobody listens.
fn speak(words: &mpsc::Receiver<Word>) {
    let mut out = std::io::stdout().lock();
    for word in words {
        // These types have no value that JSON cannot say.
        let mut line = serde_json::to_vec(&word).unwrap_or_default();
        line.push(b'\n');
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn play_roll(voice: &mpsc::Sender<Word>) -> Result<(), Error> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Error::of("no roll on standard input", &error))?;
    let roll: Roll = serde_json::from_str(&line)
        .map_err(|error| Error::of("no roll on standard input", &error))?;
    drop(line);
    let limit = open_files()?;
    let peers: u64 = roll.gangs.iter().map(|gang| u64::from(gang.peers)).sum();
    let boards = roll.boards.len() as u64 + peers;
    if boards + FILES > limit {
        return Err(Error::new(format!(
            "this process may have {limit} open files, too few for {boards} boards and other peers: share them among more crews of at most {}",
            limit.saturating_sub(FILES)
        )));
    }
    let company = assemble(roll, voice)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::of("no runtime", &error))?;
    let (tell, orders) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = match line {
                Ok(line) => serde_json::from_str(&line)
                    .map_err(|error| Error::of(&format!("`{line}` is no order"), &error)),
                Err(error) => Err(Error::of("standard input cannot be read", &error)),
            };
            if tell.send(order).is_err() {
                return;
            }
        }
    });
    LocalSet::new().block_on(&runtime, conduct(company, orders))
}

/// Raises the limit on open files as far as the system allows, and gives it.
fn open_files() -> Result<u64, Error> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| Error::of("the limit on open files cannot be raised", &error))?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// A crew that has yet to begin, and its boards with their keys.
struct Company {
    crew: Crew,
    seats: Vec<(Seat, [u8; 32])>,
    gangs: Vec<Gang>,
    tick: Duration,
}

fn assemble(roll: Roll, voice: &mpsc::Sender<Word>) -> Result<Company, Error> {
    let client = &roll.client;
    if !RECEIVE_BUFFERS.contains(&client.receive_buffer) {
        return Err(Error::new(format!(
            "boards with a receive buffer of {} bytes cannot be played: it is one of {RECEIVE_BUFFERS:?}",
            client.receive_buffer
        )));
    }
    let unit = client.erase_unit.max(1);
    let images = roll
        .images
        .iter()
        .map(|path| {
            std::fs::read(path).map_err(|error| {
                Error::of(
                    &format!("the image {} cannot be read", path.display()),
                    &error,
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let longest = images.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let size = u32::try_from(longest)
        .ok()
        .and_then(|size| size.checked_next_multiple_of(unit))
        .ok_or_else(|| Error::new("an image is too long for a slot"))?;
    let claim_every = CLAIM_EVERY_MIN.max(client.window).max(unit);
    let geometry = Geometry {
        size,
        write_unit: 1,
        erase_unit: unit,
    };
    let tally = Rc::new(Tally::new(
        images.len(),
        roll.gangs.len(),
        roll.seed,
        voice.clone(),
    ));
    let trust = TrustSet {
        epoch: 1,
        threshold: 1,
        keys: [key(&roll.trust, "whom the boards trust")?]
            .into_iter()
            .collect(),
        minimums: Default::default(),
    };
    let seats = roll
        .boards
        .into_iter()
        .map(|seat| {
            if seat.link >= roll.links.len() {
                return Err(Error::new(format!(
                    "board {} has a link that the roll has not",
                    seat.id
                )));
            }
            let key = key(&seat.key, &seat.id)?;
            Ok((seat, key))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let crew = Crew {
        exchange: Rc::new(Exchange::new(roll.gateway, Rc::clone(&tally))),
        tally,
        // A claim is stored once it has grown by so much, and what it grows by is at most a
        // window.
        images: Rc::new(Images::new(images, geometry, claim_every + client.window)),
        links: roll.links,
        trust,
        product: roll.product,
        components: [ComponentConfig {
            component: 0,
            slot_size: size,
            write_unit: 1,
            erase_unit: unit,
            window: client.window,
            commit_ms: 1_000,
            claim_every,
        }],
        ping_s: client.ping_s,
        redial_ms: client.redial_ms,
        restart: Duration::from_millis(client.restart_ms.into()),
        receive_buffer: client.receive_buffer,
        seed: roll.seed,
        began: Instant::now(),
    };
    let tick = Duration::from_millis(roll.tick_ms.max(1).into());
    Ok(Company {
        crew,
        seats,
        gangs: roll.gangs,
        tick,
    })
}

fn key(hex: &str, whose: &str) -> Result<[u8; 32], Error> {
    let wrong = || Error::new(format!("the key of {whose} is not 64 hex digits"));
    let mut key = [0; 32];
    if hex.len() != 64 {
        return Err(wrong());
    }
    for (place, byte) in key.iter_mut().enumerate() {
        let digits = hex.get(2 * place..2 * place + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(key)
}

/// Follows the orders until the end.
async fn conduct(
    company: Company,
    mut orders: UnboundedReceiver<Result<Order, Error>>,
) -> Result<(), Error> {
    let Company {
        mut crew,
        seats,
        gangs,
        tick,
    } = company;
    let (tally, exchange) = (Rc::clone(&crew.tally), Rc::clone(&crew.exchange));
    tally.say(Word::Ready);
    match orders.recv().await.transpose()? {
        Some(Order::Begin) => {}
        None | Some(Order::End) => {
            tally.say(Word::Ended);
            return Ok(());
        }
        Some(order) => return Err(Error::new(format!("{order:?} before begin"))),
    }
    crew.began = Instant::now();
    let crew = Rc::new(crew);
    let mut gangs_at_work = JoinSet::new();
    for (place, gang) in gangs.into_iter().enumerate() {
        let exchange = Rc::clone(&exchange);
        let seed = crew.seed.wrapping_add(place as u64);
        gangs_at_work.spawn_local(gang::play(gang, place, exchange, crew.began, seed));
    }
    let mut rng = SmallRng::seed_from_u64(!crew.seed);
    let mut boards = JoinSet::new();
    let mut switches = Vec::with_capacity(seats.len());
    let mut places = HashMap::with_capacity(seats.len());
    for (seat, key) in seats {
        let switch = Rc::new(Switch::default());
        places.insert(seat.id.clone(), switches.len());
        switches.push(Rc::clone(&switch));
        play(&mut boards, Rc::clone(&crew), seat, key, switch);
    }
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order.transpose()?,
            why = exchange.failure() => return Err(Error::new(why)),
            Some(ended) = boards.join_next() => {
                // A board ends only where it is told to.
                return Err(Error::new(format!("a board's task ended: {ended:?}")));
            }
            _ = ticks.tick() => {
                tally.tick();
                continue;
            }
        };
        match order {
            Some(Order::Begin) => return Err(Error::new("begin for a second time")),
            Some(Order::Blackout { share, for_ms }) => {
                let until = Instant::now() + Duration::from_millis(for_ms.into());
                for place in some(&mut rng, switches.len(), share) {
                    switches.get(place).inspect(|switch| switch.darken(until));
                }
            }
            Some(Order::PowerCut { share, for_ms }) => {
                let off = Duration::from_millis(for_ms.into());
                for place in some(&mut rng, switches.len(), share) {
                    switches.get(place).inspect(|switch| switch.cut(off));
                }
            }
            Some(Order::WatchFirstBytes { ids }) => {
                for id in ids {
                    let switch = places.get(&id).and_then(|place| switches.get(*place));
                    // Boards of other crews may be named too.
                    switch.inspect(|switch| switch.watch());
                }
            }
            None | Some(Order::End) => break,
        }
    }
    for switch in &switches {
        switch.end();
    }
    let left = timeout(END, async { while boards.join_next().await.is_some() {} }).await;
    tally.tick();
    if left.is_err() {
        return Err(Error::new(format!(
            "{} boards did not end within {} s",
            boards.len(),
            END.as_secs()
        )));
    }
    tally.say(Word::Ended);
    Ok(())
}

/// The places of a share of so many boards, by chance.
fn some(rng: &mut SmallRng, of: usize, share: f64) -> Vec<usize> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of boards"
    )]
    let amount = (share.clamp(0.0, 1.0) * of as f64).round() as usize;
    index::sample(rng, of, amount).into_vec()
}
