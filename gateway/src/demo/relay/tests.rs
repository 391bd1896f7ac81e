//! The relay over real sockets. A deadline stands around every wait, and none of
//! them is a measurement.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

/// A relay, and the listener that it relays to.
struct Bench {
    relay: Relay,
    gateway: TcpListener,
}

impl Bench {
    async fn new(faults: Faults) -> Self {
        let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(gateway.local_addr().unwrap(), faults)
            .await
            .unwrap();
        Self { relay, gateway }
    }

    /// Dials through the relay: the board's end and the gateway's end.
    async fn dial(&self) -> (TcpStream, TcpStream) {
        let board = TcpStream::connect(self.relay.address()).await.unwrap();
        let (gateway, _) = timeout(LONG, self.gateway.accept()).await.unwrap().unwrap();
        (board, gateway)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

async fn receive(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    timeout(LONG, stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

/// Everything until the connection ends, and how it ended.
async fn until_end(stream: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = timeout(LONG, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .map(|_| ());
    (bytes, end)
}

fn was_reset(end: &io::Result<()>) -> bool {
    end.as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Nothing comes for a while, and the connection does not end.
async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SHORT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_a_fin_goes_on() {
    let bench = Bench::new(Faults::default()).await;
    let (mut board, mut gateway) = bench.dial().await;
    board.write_all(b"hello").await.unwrap();
    assert_eq!(receive(&mut gateway, 5).await, b"hello");
    gateway.write_all(b"welcome").await.unwrap();
    assert_eq!(receive(&mut board, 7).await, b"welcome");
    board.shutdown().await.unwrap();
    assert!(matches!(until_end(&mut gateway).await, (rest, Ok(())) if rest.is_empty()));
    // The other direction still works: a half-close is not a close.
    gateway.write_all(b"bye").await.unwrap();
    drop(gateway);
    assert!(matches!(until_end(&mut board).await, (rest, Ok(())) if rest == b"bye"));
    let stats = timeout(LONG, bench.relay.wait_until(|stats| stats.open == 0))
        .await
        .unwrap();
    assert_eq!(
        (
            stats.connections,
            stats.to_gateway,
            stats.to_board,
            stats.cuts()
        ),
        (1, 5, 10, 0)
    );
}

#[tokio::test]
async fn split_and_merged_bytes_stay_in_order() {
    let faults = Faults {
        seed: 7,
        segment: Some(1..700),
        merge: Some(Duration::from_millis(2)),
        stall_every: Some(10_000..50_000),
        stall_for: Duration::from_micros(100)..Duration::from_millis(3),
        tap: true,
        ..Faults::default()
    };
    let bench = Bench::new(faults).await;
    let (mut board, mut gateway) = bench.dial().await;
    let sent = pattern(300_000);
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        gateway.write_all(&copy).await.unwrap();
        gateway
    });
    assert!(receive(&mut board, sent.len()).await == sent);
    let _gateway = sending.await.unwrap();
    let tap = bench.relay.tap();
    assert!(tap.segments.iter().all(|segment| segment.len < 700));
    assert_eq!(
        tap.segments
            .iter()
            .map(|segment| segment.len)
            .sum::<usize>(),
        sent.len()
    );
    assert!(bench.relay.stats().stalls > 0);
}

#[tokio::test]
async fn cut_after_bytes_lets_exactly_that_many_through() {
    let bench = Bench::new(Faults {
        tap: true,
        ..Faults::default()
    })
    .await;
    bench.relay.cut_after_bytes(Direction::ToBoard, 12_345);
    let (mut board, mut gateway) = bench.dial().await;
    let sent = pattern(20_000);
    board.write_all(b"opening").await.unwrap();
    assert_eq!(receive(&mut gateway, 7).await, b"opening");
    gateway.write_all(&sent).await.unwrap();
    let (got, end) = until_end(&mut board).await;
    assert!(
        got == sent[..12_345] && was_reset(&end),
        "{} bytes, then {end:?}",
        got.len()
    );
    assert!(was_reset(&until_end(&mut gateway).await.1));
    assert_eq!((bench.relay.stats().resets, bench.relay.armed()), (1, 0));
    assert_eq!(bench.relay.tap().openings[&1], b"opening");
    // The next connection has nothing to fear.
    let (mut board, mut gateway) = bench.dial().await;
    gateway.write_all(&sent).await.unwrap();
    assert!(receive(&mut board, sent.len()).await == sent);
}

#[tokio::test]
async fn two_armed_faults_happen_each_at_its_own_place() {
    let bench = Bench::new(Faults::default()).await;
    bench
        .relay
        .arm(Direction::ToGateway, 300, Action::Cut(Cut::Close));
    bench.relay.arm(Direction::ToGateway, 100, Action::FlipBit);
    let (mut board, mut gateway) = bench.dial().await;
    let sent = pattern(400);
    board.write_all(&sent).await.unwrap();
    let (got, end) = until_end(&mut gateway).await;
    let mut expected = sent[..300].to_vec();
    expected[100] ^= 0x10;
    assert!(
        got == expected && end.is_ok(),
        "{} bytes, then {end:?}",
        got.len()
    );
}

#[tokio::test]
async fn idle_mapping_is_forgotten_without_a_word() {
    let faults = Faults {
        idle_timeout: Some(Duration::from_millis(100)),
        dead_after: Duration::from_secs(3600),
        ..Faults::default()
    };
    let bench = Bench::new(faults).await;
    let (mut board, mut gateway) = bench.dial().await;
    board.write_all(b"x").await.unwrap();
    assert_eq!(receive(&mut gateway, 1).await, b"x");
    let stats = timeout(LONG, bench.relay.wait_until(|stats| stats.silenced == 1))
        .await
        .unwrap();
    assert_eq!(stats.open, 1, "both sockets are still there");
    // Either side can still write, and hears nothing of it.
    board.write_all(b"anybody").await.unwrap();
    gateway.write_all(b"there").await.unwrap();
    timeout(LONG, bench.relay.wait_until(|stats| stats.vanished == 12))
        .await
        .unwrap();
    assert!(is_silent(&mut board).await && is_silent(&mut gateway).await);
    // A close of one side is not passed on either; with both gone the sockets are freed.
    drop(board);
    assert!(is_silent(&mut gateway).await);
    drop(gateway);
    timeout(LONG, bench.relay.wait_until(|stats| stats.open == 0))
        .await
        .unwrap();
}

#[tokio::test]
async fn silent_mapping_is_reset_when_it_was_dead_long_enough() {
    let bench = Bench::new(Faults {
        dead_after: SHORT,
        ..Faults::default()
    })
    .await;
    let (mut board, mut gateway) = bench.dial().await;
    bench.relay.silence();
    assert!(was_reset(&until_end(&mut board).await.1));
    assert!(was_reset(&until_end(&mut gateway).await.1));
    timeout(LONG, bench.relay.wait_until(|stats| stats.open == 0))
        .await
        .unwrap();
}

#[tokio::test]
async fn half_open_resets_the_board_and_leaves_the_gateway_waiting() {
    let bench = Bench::new(Faults::default()).await;
    let (mut board, mut gateway) = bench.dial().await;
    bench.relay.end_all(Cut::HalfOpen);
    assert!(was_reset(&until_end(&mut board).await.1));
    gateway.write_all(b"are you there?").await.unwrap();
    assert!(is_silent(&mut gateway).await);
    assert_eq!(bench.relay.stats().half_opened, 1);
    // And it can be cut for good.
    bench.relay.cut_all();
    assert!(was_reset(&until_end(&mut gateway).await.1));
}

#[tokio::test]
async fn stall_holds_bytes_and_lets_them_go_in_order() {
    let bench = Bench::new(Faults::default()).await;
    let (mut board, mut gateway) = bench.dial().await;
    let held = Duration::from_millis(300);
    let began = Instant::now();
    bench.relay.stall(held);
    gateway.write_all(b"late").await.unwrap();
    assert_eq!(receive(&mut board, 4).await, b"late");
    assert!(began.elapsed() >= held);
}

#[tokio::test]
async fn rate_is_an_upper_bound() {
    let bench = Bench::new(Faults {
        rate: Some(100_000),
        ..Faults::default()
    })
    .await;
    let (mut board, mut gateway) = bench.dial().await;
    let began = Instant::now();
    let sent = pattern(30_000);
    gateway.write_all(&sent).await.unwrap();
    assert!(receive(&mut board, sent.len()).await == sent);
    // The last piece is sent before its time is up, and 20 ms may be caught up.
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn refused_and_swallowed_arrivals() {
    let bench = Bench::new(Faults::default()).await;
    bench.relay.set_arrivals(Arrivals::Refuse);
    let mut board = TcpStream::connect(bench.relay.address()).await.unwrap();
    assert!(was_reset(&until_end(&mut board).await.1));
    bench.relay.set_arrivals(Arrivals::Swallow);
    let mut board = TcpStream::connect(bench.relay.address()).await.unwrap();
    board.write_all(b"hello").await.unwrap();
    timeout(LONG, bench.relay.wait_until(|stats| stats.silenced == 1))
        .await
        .unwrap();
    assert!(is_silent(&mut board).await);
    bench.relay.set_arrivals(Arrivals::Relay);
    let (mut board, mut gateway) = bench.dial().await;
    board.write_all(b"hello").await.unwrap();
    assert_eq!(receive(&mut gateway, 5).await, b"hello");
}

#[tokio::test]
async fn a_gateway_that_is_away_refuses_and_one_that_moved_is_found() {
    let bench = Bench::new(Faults::default()).await;
    // tcpmux: nobody listens there.
    bench.relay.set_upstream((Ipv4Addr::LOCALHOST, 1).into());
    let mut board = TcpStream::connect(bench.relay.address()).await.unwrap();
    assert!(was_reset(&until_end(&mut board).await.1));
    assert_eq!(bench.relay.stats().refused, 1);
    bench
        .relay
        .set_upstream(bench.gateway.local_addr().unwrap());
    let (mut board, mut gateway) = bench.dial().await;
    board.write_all(b"hello").await.unwrap();
    assert_eq!(receive(&mut gateway, 5).await, b"hello");
}

#[tokio::test]
async fn drawn_cuts_follow_from_the_seed_and_stop_at_their_maximum() {
    let cut_places = async |seed| {
        let faults = Faults {
            seed,
            cut_after: Some(1..5000),
            cut_kinds: vec![Cut::Reset, Cut::Close],
            cuts_max: 5,
            ..Faults::default()
        };
        let bench = Bench::new(faults).await;
        let mut places = Vec::new();
        for _ in 0..5 {
            let (mut board, mut gateway) = bench.dial().await;
            gateway.write_all(&pattern(6000)).await.unwrap();
            let (got, end) = until_end(&mut board).await;
            places.push((got.len(), end.is_ok()));
        }
        let (mut board, mut gateway) = bench.dial().await;
        gateway.write_all(&pattern(6000)).await.unwrap();
        drop(gateway);
        assert_eq!(
            until_end(&mut board).await.0.len(),
            6000,
            "the sixth mapping is left alone"
        );
        places
    };
    let first = cut_places(1).await;
    assert_eq!(first, cut_places(1).await);
    assert_ne!(first, cut_places(2).await);
}

#[tokio::test]
async fn dropping_the_relay_frees_its_port_and_sockets() {
    let bench = Bench::new(Faults::default()).await;
    let address = bench.relay.address();
    let (mut board, mut gateway) = bench.dial().await;
    drop(bench.relay);
    let _ = until_end(&mut board).await;
    let _ = until_end(&mut gateway).await;
    timeout(LONG, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
