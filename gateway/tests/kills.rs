//! Programs that are killed in the middle, and images that do not work: what a
//! board and its gateway make of it, seen from the operator's side.

mod support;

use dialhome_gateway::demo::relay::{Direction, Faults};
use serde_json::Value;
use support::{BOARD, Bench, random_bytes};

/// The boards' window, as in [`BOARD`].
const WINDOW: u64 = 32 * 1024;

fn number(document: &Value, key: &str) -> u64 {
    document[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number `{key}` in {document:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_killed_in_the_middle_goes_on_where_its_flash_is() {
    let mut bench = Bench::start().await;
    let image = bench.image("1.0.0", &random_bytes(3, 2 << 20)).await;
    bench
        .board(
            "board-1",
            Faults {
                rate: Some(2 << 20),
                ..Faults::default()
            },
            BOARD,
        )
        .await;
    let push = bench.push_in_background("board-1", &image.name, &[]);
    for part in 1..4 {
        bench
            .relay("board-1")
            .wait_until(|stats| stats.to_board > part * (512 << 10))
            .await;
        bench.kill_agent("board-1").await;
        bench.start_agent("board-1");
    }
    let update = push.await.unwrap().confirmed();
    assert!(number(&update, "resent") < 3 * 2 * WINDOW, "{update:#}");
    assert!(bench.installed("board-1") == Some(image.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_the_middle_goes_on_where_the_board_is() {
    let mut bench = Bench::start().await;
    let image = bench.image("1.0.0", &random_bytes(4, 2 << 20)).await;
    bench
        .board(
            "board-1",
            Faults {
                rate: Some(2 << 20),
                ..Faults::default()
            },
            BOARD,
        )
        .await;
    let push = bench.push_in_background("board-1", &image.name, &[]);
    for part in 1..4 {
        bench
            .relay("board-1")
            .wait_until(|stats| stats.to_board > part * (512 << 10))
            .await;
        bench.kill_gateway().await;
        bench.start_gateway().await;
    }
    push.await.unwrap().confirmed();
    let relayed = bench.relay("board-1").stats().bytes(Direction::ToBoard);
    assert!(
        relayed < (2 << 20) + 3 * 2 * WINDOW + (256 << 10),
        "{relayed} bytes went to the board"
    );
    assert!(bench.installed("board-1") == Some(image.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_self_test_puts_the_old_image_back() {
    let mut bench = Bench::start().await;
    let good = bench.image("1.0.0", &random_bytes(5, 50_000)).await;
    let bad = bench.image("1.1.0", &random_bytes(6, 50_000)).await;
    let settings = BOARD.replace(
        "cmp \\\"$DIALHOME_IMAGE\\\" FOLDER/installed\"]",
        &format!(
            "! echo '{}  FOLDER/installed' | sha256sum --check --status\"]",
            bad.digest
        ),
    );
    assert_ne!(settings, BOARD);
    bench.board("board-1", Faults::default(), &settings).await;
    bench.push("board-1", &good.name, &[]).await.confirmed();
    let update = bench
        .push("board-1", &bad.name, &[])
        .await
        .ended("reverted", 1);
    assert_eq!(update["reason"], "self_test");
    assert!(bench.installed("board-1") == Some(good.bytes));
    let device = bench.online("board-1").await;
    assert_eq!(device["components"][0]["digest"], good.digest.as_str());
}
