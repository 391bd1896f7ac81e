//! In the middle of a transfer the board's address changes as its gateway sees it, or nothing passes for some
//! seconds. A connection over QUIC goes on; one over TCP is dialed anew, and resumes.

use std::time::Duration;

use serde_json::Value;

use crate::network::{GATEWAY, Network};
use crate::support::{Bench, Transport, programs, random_bytes};

/// Bytes of each image.
const SIZE: usize = 300_000;
/// At this rate a transfer takes some 3 s.
const KBIT: u32 = 800;
/// As long as a blackout lasts.
const DARK: Duration = Duration::from_secs(4);

const SETTINGS: &str = "[agent]\nwindow = 32768\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 200\n";

/// What an update cost, as the gateway counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Bytes to the board, everything from the offer to the last receipt.
    air: u64,
    /// Sessions that began, the one after the restart among them.
    sessions: usize,
}

/// A gateway, and a board behind a router.
pub(crate) struct Roaming {
    pub(crate) bench: Bench,
    pub(crate) network: Network,
}

impl Roaming {
    /// The agent does not run yet.
    pub(crate) async fn prepare(settings: &str) -> Self {
        let network = Network::new();
        let mut bench = Bench::prepare_as(Transport::Tcp, network.programs(&programs()));
        bench.site.set_listen(GATEWAY);
        bench.start_gateway().await;
        let made = bench.site.make_key().await;
        bench.must(made);
        let gateway = GATEWAY.to_string();
        bench.add_board_at("board", &gateway, settings).await;
        Self { bench, network }
    }

    async fn start(transport: Transport) -> Self {
        let mut roaming = Self::prepare(&transport.settings(SETTINGS)).await;
        roaming.bench.start_agent("board");
        roaming.bench.online("board").await;
        roaming
    }

    async fn device(&self) -> Value {
        self.bench.json(&["device", "show", "board"]).await
    }

    /// Bytes to the board and events until now.
    async fn spent(&self) -> Cost {
        let air = self.device().await["air_bytes"]["sent"].as_u64();
        let events = self.bench.run(&["events", "--since", "0"]).await;
        let count = |kind: &str| events.stdout.matches(kind).count();
        Cost {
            air: air.expect("bytes over the air"),
            sessions: count("\"device.online\""),
        }
    }

    /// Pushes an image, has something happen when a third of it is committed, and gives the update's document and
    /// what it cost.
    async fn update(&self, number: u64, happens: impl AsyncFnOnce(&Self)) -> (Value, Cost) {
        let before = self.spent().await;
        let image = self
            .bench
            .image(&format!("{number}.0"), &random_bytes(number, SIZE))
            .await;
        let update = self.bench.push_no_wait("board", &image.name, &[]).await;
        let third = SIZE as u64 / 3;
        self.bench
            .until(&["update", "show", &update], |update| {
                update["committed"].as_u64() >= Some(third)
            })
            .await;
        happens(self).await;
        let update = self.bench.reaches(&update, "confirmed").await;
        let current = self.bench.path().join("boards/board/state/current");
        assert!(std::fs::read(current).unwrap() == image.bytes);
        let after = self.spent().await;
        let cost = Cost {
            air: after.air - before.air,
            sessions: after.sessions - before.sessions,
        };
        (update, cost)
    }
}

/// The same update twice: undisturbed, then with this in its middle, which gives the board as many other addresses.
async fn moved(transport: Transport, addresses: u64, happens: impl AsyncFnOnce(&Roaming)) {
    let roaming = Roaming::start(transport).await;
    let (update, undisturbed) = roaming.update(1, async |_| ()).await;
    assert_eq!(update["sent"], SIZE, "{update}");
    roaming.network.slow(KBIT);
    let (update, disturbed) = roaming.update(2, happens).await;
    eprintln!("{undisturbed:?}\n{disturbed:?}\n{update}");
    let device = roaming.device().await;
    match transport {
        Transport::Quic => {
            assert_eq!(device["transport"], "quic", "{device}");
            assert_eq!(disturbed, undisturbed, "{update}");
            assert_eq!(update["sent"], SIZE, "{update}");
            assert_eq!(update["resent"], 0, "{update}");
            // What was lost on the way was sent again below the session, and all of it is told.
            let quic = &roaming.bench.json(&["status"]).await["quic"];
            eprintln!("{quic}");
            assert_eq!(quic["address_changes"], addresses, "{quic}");
            // A change of address may be quick enough to lose nothing.
            let lost = quic["lost_packets"]
                .as_u64()
                .zip(quic["lost_bytes"].as_u64());
            assert!(
                lost.is_some_and(|lost| addresses > 0 || lost > (0, 0)),
                "{quic}"
            );
        }
        // It is not lost either, but it is dialed anew.
        Transport::Tcp => {
            assert_eq!(device["transport"], "tcp", "{device}");
            assert!(disturbed.sessions > undisturbed.sessions, "{update}");
        }
    }
}

/// Waits until the gateway sees the board elsewhere, and gives where.
async fn elsewhere(roaming: &Roaming, happens: impl FnOnce(&Network)) -> String {
    let before = roaming.device().await["peer"].clone();
    happens(&roaming.network);
    let moved = roaming.bench.until(&["device", "show", "board"], |device| {
        device["online"] == true && device["peer"] != before
    });
    let peer = moved.await["peer"].clone();
    eprintln!("{before} is {peer} now");
    peer.as_str().expect("an address").to_owned()
}

/// Where the gateway sees the board once the router has another address.
const MOVED: &str = "198.51.100.77:";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_goes_on_where_the_nat_forgets_its_mapping() {
    let move_to_another_port = async |roaming: &Roaming| {
        elsewhere(roaming, Network::forget).await;
    };
    moved(Transport::Quic, 1, move_to_another_port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_dialed_anew_where_the_nat_forgets_its_mapping() {
    let move_to_another_port = async |roaming: &Roaming| {
        elsewhere(roaming, Network::forget).await;
    };
    moved(Transport::Tcp, 1, move_to_another_port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_goes_on_where_the_router_gets_another_address() {
    let move_to_another_address = async |roaming: &Roaming| {
        let peer = elsewhere(roaming, Network::move_router).await;
        assert!(peer.starts_with(MOVED), "{peer}");
    };
    moved(Transport::Quic, 1, move_to_another_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_dialed_anew_where_the_router_gets_another_address() {
    let move_to_another_address = async |roaming: &Roaming| {
        let peer = elsewhere(roaming, Network::move_router).await;
        assert!(peer.starts_with(MOVED), "{peer}");
    };
    moved(Transport::Tcp, 1, move_to_another_address).await;
}

/// Another address in the same network, then the other interface, which is in another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_goes_on_where_the_board_gets_another_address_and_another_interface() {
    let twice = async |roaming: &Roaming| {
        elsewhere(roaming, Network::move_board).await;
        elsewhere(roaming, Network::other_interface).await;
    };
    moved(Transport::Quic, 2, twice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_goes_on_after_some_seconds_in_which_nothing_passes() {
    let darkness = async |roaming: &Roaming| {
        roaming.network.dark();
        tokio::time::sleep(DARK).await;
        roaming.network.pass();
    };
    moved(Transport::Quic, 0, darkness).await;
}
