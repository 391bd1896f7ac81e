//! Bad links: mappings that die without a word, ends that only one side knows of, and a
//! cable that is pulled.

use crate::{ID, PRODUCT, Rig, ended};
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::site::Bench;
use dialhome_gateway::demo::relay::{Action, Cut, Direction, Faults, Relay};

async fn behind_a_relay(faults: Faults) -> (Rig, Relay) {
    let bench = Bench::start(PRODUCT).await.unwrap();
    let relay = bench.relay(faults).await.unwrap();
    let port = relay.address().port();
    (Rig::dialing(bench, port).await, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_after_links_that_died_without_a_word() {
    let (rig, relay) = behind_a_relay(Faults::default()).await;
    let board = rig.online().await;
    relay.arm(Direction::ToBoard, 40_000, Action::Cut(Cut::Silent));
    relay.arm(Direction::ToBoard, 90_000, Action::Cut(Cut::HalfOpen));
    let (new, name) = rig.image(2, Behaviour::Good, &[]).await;
    let update = rig.push(&name).await;
    ended(&update, "confirmed", None);
    let stats = relay.stats();
    assert_eq!((stats.silenced, stats.half_opened), (1, 1), "{stats:?}");
    // What was committed before a cut was not sent again.
    let resent = update["resent"].as_u64().unwrap();
    assert!(resent < 2 * 16 * 1024, "{update:#}");
    assert!(board.off().await.unwrap().holds(&new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cable_that_is_pulled_in_a_transfer_costs_time_only() {
    let faults = Faults {
        rate: Some(40_000),
        ..Faults::default()
    };
    let (rig, relay) = behind_a_relay(faults).await;
    let board = rig.online().await;
    let (new, name) = rig.image(2, Behaviour::Good, &[]).await;
    let update = rig.bench.push_no_wait(ID, &name, &[]).await.unwrap();
    relay.wait_until(|stats| stats.to_board > 30_000).await;
    board.set_link(false).await.unwrap();
    board.says("offline", 1).await.unwrap();
    board.set_link(true).await.unwrap();
    let update = rig.bench.ends(&update).await.unwrap();
    ended(&update, "confirmed", None);
    assert!(board.off().await.unwrap().holds(&new));
}
