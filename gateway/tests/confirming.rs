//! One small update after the other, each with the link cut or a side killed at another
//! byte of it: from the offer through activation and trial to the last receipt. Each ends
//! confirmed, on a board that runs it, also after one more boot.
//!
//! `STEP=10` strikes at more places.

mod support;

use dialhome_gateway::demo::relay::{Action, Direction, Faults};
use serde_json::Value;
use std::time::Duration;
use support::{BOARD, Bench, Transport, random_bytes};

support::over_both! {
    an_update_cut_or_killed_at_every_step_ends_confirmed_and_runs,
}

#[derive(Clone, Copy, Debug)]
enum Blow {
    Cut,
    Agent,
    Gateway,
}

const BLOWS: [Blow; 3] = [Blow::Cut, Blow::Agent, Blow::Gateway];

/// Offer, chunk, Activate, handshake, Welcome, Confirm and Settled are 650 bytes and some;
/// Accept, acks, reports, handshake and Hello are more.
fn places(transport: Transport) -> Vec<(Direction, u64, Blow)> {
    let step = std::env::var("STEP").map_or(55, |text| text.parse().expect("STEP is a number"));
    if transport == Transport::Quic {
        return places_of_datagrams(step);
    }
    [(Direction::ToBoard, 750), (Direction::ToGateway, 850)]
        .into_iter()
        .flat_map(move |(direction, end)| {
            (1..end)
                .step_by(step)
                .flat_map(move |at| BLOWS.map(|blow| (direction, at, blow)))
        })
        .collect()
}

/// Fewer, and each gets one of the blows. The handshake after the restart has datagrams of 1,200 bytes. It outlives
/// neither a new port nor another gateway (RFC 9000 section 9): the board waits its 30 s for the answer then, so that
/// one such blow has to do.
fn places_of_datagrams(step: usize) -> Vec<(Direction, u64, Blow)> {
    let handshakes = [
        (Direction::ToBoard, 600..2_600),
        (Direction::ToGateway, 600..2_900),
    ];
    let mut places = vec![(Direction::ToBoard, 1_500, Blow::Gateway)];
    for (direction, handshake) in handshakes {
        let after = handshake.end..handshake.end + 400;
        let around = (1..handshake.start).chain(after).step_by(2 * step);
        let blows = around.zip(BLOWS.into_iter().cycle());
        places.extend(blows.map(|(at, blow)| (direction, at, blow)));
        let within = handshake.step_by(10 * step);
        places.extend(within.map(|at| (direction, at, Blow::Agent)));
    }
    places
}

/// Holds the mapping for longer than any test: only the blow ends it.
const HELD: Duration = Duration::from_secs(3600);

async fn an_update_cut_or_killed_at_every_step_ends_confirmed_and_runs(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    let settings = BOARD.replace("max_ms = 200", "max_ms = 50");
    bench.board("board", Faults::default(), &settings).await;
    let current = bench.path().join("boards/board/state/current");
    let mut struck = 0;
    for (number, (direction, at, blow)) in (1..).zip(places(transport)) {
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
        let device = bench.restart_agent("board").await;
        let component = &device["components"][0];
        assert_eq!(
            component["digest"],
            image.digest.as_str(),
            "{place}: {device}"
        );
        assert_eq!(component["trial"], Value::Null, "{place}: {device}");
    }
    let most = places(transport).len();
    assert!(struck > most / 2, "only {struck} of {most} blows fell");
    eprintln!("{struck} blows");
}
