//! `kill -9` at any instant, on either side: what an operator was told is kept, every
//! update ends, every outcome of a board arrives, and a board always has a whole image.
//!
//! `ROUNDS=40` kills longer, `SEED=7` at other instants; the seed is printed.

mod support;

use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::demo::site::Cli;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::time::Duration;
use support::{Bench, Events, Image, Transport, random_bytes};

support::over_both! {
    a_gateway_killed_during_50_transfers_loses_no_command_and_no_outcome,
    an_agent_killed_at_any_instant_is_never_confirmed_over_a_revert,
    both_killed_again_and_again_still_end_confirmed,
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

/// Those over QUIC are some of the same: a board hears later there that its gateway has been killed.
fn rounds(transport: Transport) -> u64 {
    let rounds = number("ROUNDS", 10);
    match transport {
        Transport::Tcp => rounds,
        Transport::Quic => rounds.div_ceil(3),
    }
}

fn random() -> StdRng {
    let seed = number("SEED", 11);
    eprintln!("SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Images that begin with `EVIL` fail their test.
const SETTINGS: &str = r#"
[agent]
ping_s = 5
window = 16384

[reconnect]
first_ms = 20
max_ms = 100

[install]
command = ["sh", "-c", "cp \"$DIALHOME_IMAGE\" FOLDER/installed.new && mv FOLDER/installed.new FOLDER/installed"]

[self_test]
command = ["sh", "-c", "cmp -s \"$DIALHOME_IMAGE\" FOLDER/installed && ! head -c4 FOLDER/installed | grep -q EVIL"]
"#;

async fn image(bench: &Bench, number: u64, evil: bool) -> Image {
    let mut bytes = if evil { b"EVIL" } else { b"GOOD" }.to_vec();
    bytes.extend(random_bytes(number, 80_000));
    let counter = number.to_string();
    bench
        .image_with(
            &format!("{number}.0"),
            &bytes,
            &[
                "--counter",
                &counter,
                "--trial-dials",
                "1000",
                "--trial-boots",
                "50",
            ],
        )
        .await
}

/// Pushes until the gateway, which may be killed meanwhile, has acknowledged it.
async fn acknowledged(cli: Cli, id: String, image: String) -> String {
    loop {
        let outcome = cli
            .run(&["push", &id, &image, "--no-wait"])
            .await
            .expect("the command runs");
        match outcome.json["update"].as_str() {
            Some(update) => return update.to_owned(),
            // Not reached, or killed before the answer: nothing was acknowledged.
            None => assert!(
                outcome.code == Some(4) || outcome.code == Some(1),
                "{outcome:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_gateway_killed_during_50_transfers_loses_no_command_and_no_outcome(
    transport: Transport,
) {
    let mut random = random();
    let rounds = rounds(transport);
    let mut bench = Bench::start_over(transport).await;
    let boards: Vec<String> = (1..=5).map(|board| format!("board-{board}")).collect();
    for board in &boards {
        bench.board(board, Faults::default(), SETTINGS).await;
    }
    let mut told = Vec::new();
    let mut kills = 0;
    for round in 1..=rounds {
        let evil = round % 4 == 0;
        let image = image(&bench, round, evil).await;
        let pushes: Vec<_> = boards
            .iter()
            .map(|board| tokio::spawn(acknowledged(bench.cli(), board.clone(), image.name.clone())))
            .collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..250))).await;
            bench.kill_gateway().await;
            kills += 1;
            bench.start_gateway().await;
        }
        for push in pushes {
            let update = push.await.expect("a push");
            let ended = if evil { "reverted" } else { "confirmed" };
            let doc = bench.reaches(&update, ended).await;
            assert_eq!(doc["image"], image.name.as_str(), "{doc}");
            if evil {
                assert_eq!(doc["reason"], "self_test", "{doc}");
            }
            told.push((update, doc));
        }
        if !evil {
            for board in &boards {
                assert!(bench.installed(board).unwrap() == image.bytes, "{board}");
            }
        }
    }
    assert_eq!(told.len() as u64, 5 * rounds);
    // Once more after all of it: what was told is what is on record.
    bench.kill_gateway().await;
    bench.start_gateway().await;
    for (update, doc) in told {
        let kept = bench.json(&["update", "show", &update]).await;
        assert_eq!(kept["state"], doc["state"], "{kept}");
    }
    for board in &boards {
        let device = bench.online(board).await;
        assert_eq!(device["update"], Value::Null, "{device}");
    }
    eprintln!("{kills} kills");
}

/// The two images that may be there, and which of them is.
struct Pair {
    old: Option<Image>,
    new: Image,
}

impl Pair {
    /// `current` is always one of the two, whole.
    fn check(&self, bench: &Bench) {
        let current = bench.path().join("boards/board/state/current");
        match std::fs::read(current) {
            Ok(bytes) => assert!(
                bytes == self.new.bytes || self.old.as_ref().is_some_and(|old| old.bytes == bytes),
                "the image that runs is neither the old one nor the new one"
            ),
            Err(_) => assert!(self.old.is_none(), "there is no image"),
        }
    }
}

async fn an_agent_killed_at_any_instant_is_never_confirmed_over_a_revert(transport: Transport) {
    let mut random = random();
    let rounds = rounds(transport);
    let mut bench = Bench::start_over(transport).await;
    bench.board("board", Faults::default(), SETTINGS).await;
    let mut old: Option<Image> = None;
    let points = [
        "transferring",
        "staged",
        "activating",
        "trial",
        "confirmed",
        "offered",
    ];
    for round in 1..=rounds {
        let evil = round % 3 == 0;
        let new = image(&bench, round, evil).await;
        let pair = Pair { old, new };
        let mut events = Events::follow(&bench.cli());
        let update = bench.push_no_wait("board", &pair.new.name, &[]).await;
        // One kill around a state that the round chooses, then some at random.
        let point = points[random.random_range(0..points.len())];
        events
            .wait(|event| {
                event["update"] == update.as_str()
                    && (event["to"] == point
                        || event["to"] == "confirmed"
                        || event["to"] == "reverted")
            })
            .await;
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..60_000))).await;
            bench.kill_agent("board").await;
            pair.check(&bench);
            bench.start_agent("board");
        }
        let doc = bench
            .until(&["update", "show", &update], |update| {
                update["state"] == "confirmed" || update["state"] == "reverted"
            })
            .await;
        pair.check(&bench);
        // What it is after one more boot is what it said.
        let device = bench.restart_agent("board").await;
        let component = &device["components"][0];
        assert_eq!(component["trial"], Value::Null, "{device}");
        let current = std::fs::read(bench.path().join("boards/board/state/current")).ok();
        if doc["state"] == "confirmed" {
            assert!(!evil, "{doc}");
            assert_eq!(component["digest"], pair.new.digest.as_str(), "{device}");
            assert!(current.as_ref() == Some(&pair.new.bytes));
            assert!(bench.installed("board").as_ref() == Some(&pair.new.bytes));
            old = Some(pair.new);
        } else {
            // Killed as often as it activated: the board gives up, and says so.
            let given_up = doc["reason"] == "install_failed";
            assert!(given_up || evil, "{doc} {}", bench.logs());
            assert!(given_up || doc["reason"] == "self_test", "{doc}");
            let digest = pair.old.as_ref().map(|old| old.digest.as_str());
            assert_eq!(component["digest"].as_str(), digest, "{device}");
            assert!(current.as_ref() == pair.old.as_ref().map(|old| &old.bytes));
            old = pair.old;
        }
    }
}

/// Both at once, as in a storm: in the end everything is what the operator wanted.
async fn both_killed_again_and_again_still_end_confirmed(transport: Transport) {
    let mut random = random();
    let mut bench = Bench::start_over(transport).await;
    bench.board("board", Faults::default(), SETTINGS).await;
    for round in 1..=rounds(transport).div_ceil(2) {
        let image = image(&bench, round, false).await;
        let update = bench.push_no_wait("board", &image.name, &[]).await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..120))).await;
            if random.random_bool(0.5) {
                bench.kill_gateway().await;
                bench.start_gateway().await;
            } else {
                bench.kill_agent("board").await;
                bench.start_agent("board");
            }
        }
        let doc = bench
            .until(&["update", "show", &update], |update| {
                update["state"] == "confirmed" || update["state"] == "reverted"
            })
            .await;
        if doc["state"] == "reverted" {
            // Killed as often as it activated: the board gave up, and is asked again.
            assert_eq!(doc["reason"], "install_failed", "{doc}");
            bench.push("board", &image.name, &[]).await.confirmed();
        }
        let device = bench.online("board").await;
        let digest = &device["components"][0]["digest"];
        assert_eq!(digest, image.digest.as_str(), "{device}");
        assert!(bench.installed("board").as_ref() == Some(&image.bytes));
    }
}
