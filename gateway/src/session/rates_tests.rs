use super::*;
use std::net::Ipv4Addr;

/// A transfer of chunks of one length that sends whatever it may.
struct Sender {
    funds: Funds,
    chunk: u64,
    sent: u64,
}

fn sender(rates: &Arc<Rates>, generation: u64, network: u64, chunk: u64) -> Sender {
    let (names, _) = tokio::sync::mpsc::unbounded_channel();
    let network = IpAddr::from(Ipv4Addr::new(192, 0, network.to_le_bytes()[0], 0));
    let handle = Arc::new(Handle::new(generation, (network, 1).into(), names));
    let funds = rates.funds(&handle, network, Millis(0));
    Sender {
        funds: funds.expect("a rate is limited"),
        chunk,
        sent: 0,
    }
}

/// Lets all of them send for so long, on a clock of this test's own.
fn run(rates: &Rates, senders: &mut [Sender], from_ms: u64, for_ms: u64) {
    for now in (from_ms..from_ms + for_ms).step_by(20) {
        for sender in &mut *senders {
            while sender.funds.cover(sender.chunk) {
                sender.funds.spend(sender.chunk);
                sender.sent += sender.chunk;
            }
        }
        rates.serve(Millis(now));
    }
}

fn rates(rate: Option<u64>, network_rate: Option<u64>) -> Arc<Rates> {
    Arc::new(Rates::new(&Limits::new(1_000, None, rate, network_rate)))
}

#[test]
fn a_thousand_transfers_share_a_rate_evenly_and_use_it_up() {
    for rate in [1_000_000, 50_000_000] {
        let rates = rates(Some(rate), None);
        // Boards take chunks of 1 KiB, 4 KiB or 16 KiB.
        let chunks = [1_024 + 32, 4_096 + 32, CHUNK_MOST];
        let mut senders: Vec<_> = (0..1_000)
            .zip(chunks.into_iter().cycle())
            .map(|(n, chunk)| sender(&rates, n, n % 9, chunk))
            .collect();
        run(&rates, &mut senders, 0, 200_000);
        let sent = senders.iter().map(|sender| sender.sent);
        let (least, most) = (sent.clone().min().unwrap(), sent.clone().max().unwrap());
        assert!(most <= 2 * least, "at {rate}: {least} to {most}");
        let (all, asked) = (sent.sum::<u64>(), rate * 200);
        assert!(all <= asked + asked / 50, "{all} of {asked}");
        assert!(all >= asked - asked / 10, "{all} of {asked}");
    }
}

#[test]
fn a_network_spends_its_own_rate_and_the_others_what_is_left() {
    let rates = rates(Some(1_000_000), Some(300_000));
    // Twenty in one network, one in another.
    let mut senders: Vec<_> = (0..21)
        .map(|n| sender(&rates, n, n / 20, 4_096 + 32))
        .collect();
    run(&rates, &mut senders, 0, 20_000);
    let crowd: u64 = senders[..20].iter().map(|sender| sender.sent).sum();
    let single = senders[20].sent;
    for (whose, sent) in [("twenty", crowd), ("one", single)] {
        assert!((5_400_000..=6_300_000).contains(&sent), "{whose}: {sent}");
    }
    let least = senders[..20].iter().map(|sender| sender.sent).min();
    assert!(least.unwrap() * 2 >= crowd / 20, "{least:?} of {crowd}");
}

#[test]
fn what_a_transfer_did_not_spend_goes_back_and_its_network_is_forgotten_once_it_is_full() {
    let rates = rates(Some(100_000), Some(100_000));
    for network in 0..256 {
        let one = sender(&rates, network, network, 4_096 + 32);
        assert!(!one.funds.cover(one.chunk));
        rates.serve(Millis(0));
        assert!(one.funds.cover(one.chunk), "network {network}");
    }
    assert_eq!(rates.waiting(), 0);
    let mut state = rates.state();
    let held = state.all.as_mut().unwrap().look(Millis(0));
    assert!(held >= 10_000, "{held} of a full bucket");
}

#[test]
fn the_lowest_rate_still_moves_the_longest_chunk() {
    let rates = rates(Some(1_000), None);
    let mut one = [sender(&rates, 1, 0, CHUNK_MOST)];
    run(&rates, &mut one, 0, 60_000);
    assert!(one[0].sent >= 2 * CHUNK_MOST, "{}", one[0].sent);
}
