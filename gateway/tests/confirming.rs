//! One small update after the other, each with the link cut or a side killed at another
//! byte of it: from the offer through activation and trial to the last receipt. Each ends
//! confirmed, on a board that runs it, also after one more boot.
//!
//! `STEP=10` strikes at more places.

mod support;

use dialhome_gateway::demo::relay::{Action, Direction, Faults};
use serde_json::Value;
use std::time::Duration;
use support::{BOARD, Bench, random_bytes};

#[derive(Clone, Copy, Debug)]
enum Blow {
    Cut,
    Agent,
    Gateway,
}

/// Offer, chunk, Activate, handshake, Welcome, Confirm and Settled are 650 bytes and some;
/// Accept, acks, reports, handshake and Hello are more.
fn places() -> impl Iterator<Item = (Direction, u64, Blow)> {
    let step = std::env::var("STEP").map_or(55, |text| text.parse().expect("STEP is a number"));
    [(Direction::ToBoard, 750), (Direction::ToGateway, 850)]
        .into_iter()
        .flat_map(move |(direction, end)| {
            (1..end).step_by(step).flat_map(move |at| {
                [Blow::Cut, Blow::Agent, Blow::Gateway].map(|blow| (direction, at, blow))
            })
        })
}

/// Holds the mapping for longer than any test: only the blow ends it.
const HELD: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_cut_or_killed_at_every_step_ends_confirmed_and_runs() {
    let mut bench = Bench::start().await;
    let settings = BOARD.replace("max_ms = 200", "max_ms = 50");
    bench.board("board", Faults::default(), &settings).await;
    let current = bench.path().join("boards/board/state/current");
    let mut struck = 0;
    for (number, (direction, at, blow)) in (1..).zip(places()) {
        let place = format!("{direction:?} {at} {blow:?}");
        let counter = number.to_string();
        let options = ["--counter", &counter, "--trial-dials", "1000"];
        let image = bench
            .image_with(&format!("{number}.0"), &random_bytes(number, 64), &options)
            .await;
        let stalls = bench.relay("board").stats().stalls;
        bench.relay("board").arm(direction, at, Action::Stall(HELD));
        let update = bench.push_no_wait("board", &image.name, &[]).await;
        let ended = bench.reaches(&update, "confirmed");
        let reached = tokio::select! {
            _ = bench.relay("board").wait_until(|stats| stats.stalls > stalls) => true,
            _ = ended => false,
        };
        bench.relay("board").disarm();
        if reached {
            struck += 1;
            match blow {
                Blow::Cut => bench.relay("board").cut_all(),
                Blow::Agent => {
                    bench.kill_agent("board").await;
                    bench.start_agent("board");
                }
                Blow::Gateway => {
                    bench.kill_gateway().await;
                    // The held relay would hide its end.
                    bench.relay("board").cut_all();
                    bench.start_gateway().await;
                }
            }
        }
        bench.reaches(&update, "confirmed").await;
        assert!(std::fs::read(&current).unwrap() == image.bytes, "{place}");
        assert!(bench.installed("board").unwrap() == image.bytes, "{place}");
        bench.kill_agent("board").await;
        bench.offline("board").await;
        bench.start_agent("board");
        let device = bench.online("board").await;
        let component = &device["components"][0];
        assert_eq!(
            component["digest"],
            image.digest.as_str(),
            "{place}: {device}"
        );
        assert_eq!(component["trial"], Value::Null, "{place}: {device}");
    }
    assert!(struck > 40, "only {struck} blows fell");
    eprintln!("{struck} blows");
}
