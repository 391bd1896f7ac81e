//! A new key and a new list of gateways, in band, with either side killed or the link cut
//! at every step: the device is never lost.

mod support;

use dialhome_gateway::demo::relay::{Action, Direction, Faults};
use serde_json::Value;
use std::time::Duration;
use support::line::Line;
use support::{Bench, Transport, random_bytes};

support::over_both! {
    a_key_rotation_cut_or_killed_at_every_step_loses_no_device,
    a_new_list_of_gateways_cut_or_killed_at_every_step_loses_no_device,
}

const SETTINGS: &str =
    "[agent]\nping_s = 5\nwindow = 16384\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 100\n";

/// What happens at the chosen byte.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Cut,
    Agent,
    Gateway,
}

const BLOWS: [Blow; 3] = [Blow::Cut, Blow::Agent, Blow::Gateway];

/// Every so many bytes from where a command meets an idle session on: through NewKey,
/// KeyStored, Close, and the next session's handshake, Hello, Welcome and Settled. Over QUIC there are fewer places,
/// and each gets one of the blows; the next handshake outlives neither a new port nor another gateway
/// (RFC 9000 section 9), and the board waits long for it: from `handshake` on only the agent is killed.
fn places(transport: Transport, handshake: u64) -> Vec<(Direction, u64, Blow)> {
    let step = std::env::var("STEP").map_or(60, |text| text.parse().expect("STEP is a number"));
    let both = [Direction::ToBoard, Direction::ToGateway].into_iter();
    match transport {
        Transport::Tcp => both
            .flat_map(move |direction| {
                (1..330)
                    .step_by(step)
                    .flat_map(move |at| BLOWS.map(|blow| (direction, at, blow)))
            })
            .collect(),
        Transport::Quic => both
            .flat_map(move |direction| (1..330).step_by(step).map(move |at| (direction, at)))
            .zip(BLOWS.into_iter().cycle())
            .map(|((direction, at), blow)| match at < handshake {
                true => (direction, at, blow),
                false => (direction, at, Blow::Agent),
            })
            .collect(),
    }
}

/// Holds the mapping for longer than any test: only the blow ends it.
const HELD: Duration = Duration::from_secs(3600);

async fn is_well(bench: &Bench, image: &support::Image) {
    let update = bench.push("board", &image.name, &[]).await.confirmed();
    assert_eq!(update["digest"], image.digest.as_str());
    let current = bench.path().join("boards/board/state/current");
    assert!(std::fs::read(current).unwrap() == image.bytes);
}

async fn a_key_rotation_cut_or_killed_at_every_step_loses_no_device(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    bench.board("board", Faults::default(), SETTINGS).await;
    let mut handle = bench.online("board").await["key_handle"].clone();
    let mut struck = 0;
    for (direction, at, blow) in places(transport, 180) {
        let place = format!("{direction:?} {at} {blow:?}");
        eprintln!("{place}");
        let stalls = bench.relay("board").stats().stalls;
        bench.relay("board").arm(direction, at, Action::Stall(HELD));
        bench.json(&["device", "rotate-key", "board"]).await;
        let finished = async {
            bench
                .until(&["device", "show", "board"], |device| {
                    device["key_rotation"] == false
                })
                .await
        };
        let reached = tokio::select! {
            _ = bench.relay("board").wait_until(|stats| stats.stalls > stalls) => true,
            _ = finished => false,
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
        let device = bench
            .until(&["device", "show", "board"], |device| {
                device["key_rotation"] == false
                    && device["online"] == true
                    && device["key_handle"] != handle
            })
            .await;
        assert_ne!(device["key_handle"], Value::Null, "{place}: {device}");
        handle = device["key_handle"].clone();
    }
    let most = places(transport, 180).len();
    assert!(struck > most / 2, "only {struck} of {most} blows fell");
    // It is still the device that it was, also after it has been off.
    bench.restart_agent("board").await;
    let image = bench.image("1.0", &random_bytes(1, 30_000)).await;
    is_well(&bench, &image).await;
    eprintln!("{struck} blows");
}

async fn a_new_list_of_gateways_cut_or_killed_at_every_step_loses_no_device(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    bench.board("board", Faults::default(), SETTINGS).await;
    let second = Line::start(transport, bench.site.listen(), Faults::default()).await;
    let key = bench.site.key().to_str().unwrap().to_owned();
    let mut struck = 0;
    let mut epoch = 0;
    for (number, (direction, at, blow)) in places(transport, 330).into_iter().enumerate() {
        let place = format!("{direction:?} {at} {blow:?}");
        eprintln!("{place}");
        // To the other way and back: the board must be found where its list says.
        let (now, next) = if number % 2 == 0 {
            (bench.relay("board").address(), second.address())
        } else {
            (second.address(), bench.relay("board").address())
        };
        let relay = if number % 2 == 0 {
            bench.relay("board")
        } else {
            &second
        };
        assert_eq!(relay.address(), now);
        let stalls = relay.stats().stalls;
        relay.arm(direction, at, Action::Stall(HELD));
        let list = next.to_string();
        bench
            .json(&["device", "set-gateways", "board", &list, "--key", &key])
            .await;
        let stored = async {
            bench
                .until(&["device", "show", "board"], |device| {
                    device["gateways_stored"] == true
                })
                .await
        };
        let reached = tokio::select! {
            _ = relay.wait_until(|stats| stats.stalls > stalls) => true,
            _ = stored => false,
        };
        relay.disarm();
        if reached {
            struck += 1;
            match blow {
                Blow::Cut => relay.cut_all(),
                Blow::Agent => {
                    bench.kill_agent("board").await;
                    bench.start_agent("board");
                }
                Blow::Gateway => {
                    bench.kill_gateway().await;
                    // The held relay would hide its end.
                    bench.relay("board").cut_all();
                    second.cut_all();
                    bench.start_gateway().await;
                }
            }
        }
        let device = bench
            .until(&["device", "show", "board"], |device| {
                device["gateways_stored"] == true && device["online"] == true
            })
            .await;
        let told = device["gateways_epoch"].as_u64().unwrap();
        assert!(told > epoch, "{place}: {device}");
        epoch = told;
        assert_eq!(device["gateways"][0], list.as_str(), "{place}: {device}");
        // The next dial goes there.
        bench.relay("board").cut_all();
        second.cut_all();
        let arrived = |bench: &Bench| {
            let first = bench.relay("board").stats().connections;
            [second.stats().connections, first][number % 2]
        };
        let before = arrived(&bench);
        bench.restart_agent("board").await;
        assert!(arrived(&bench) > before, "{place}: not at {list}");
    }
    let most = places(transport, 330).len();
    assert!(struck > most / 4, "only {struck} of {most} blows fell");
    let image = bench.image("1.0", &random_bytes(1, 30_000)).await;
    is_well(&bench, &image).await;
    eprintln!("{struck} blows");
}
