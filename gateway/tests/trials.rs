//! Images on trial: what is not well goes back, says why, and is never called confirmed;
//! what is well is not given up because a gateway was away.

mod support;

use dialhome_gateway::demo::relay::{Arrivals, Faults};
use dialhome_gateway::demo::site::Board;
use serde_json::Value;
use std::path::PathBuf;
use support::{Bench, Events, Image, PATIENCE, Transport, random_bytes};
use tokio::time::timeout;

support::over_both! {
    a_failed_self_test_brings_the_old_image_back,
    an_install_command_that_fails_says_why,
    an_image_that_cannot_run_goes_back,
    an_image_that_crashes_the_board_is_given_up_after_its_boots,
    a_board_that_boots_the_old_image_is_reverted_and_never_confirmed,
    a_gateway_that_is_away_for_less_than_the_budget_reverts_nothing,
    after_gateway_silent_the_image_stays_staged_and_needs_no_chunk_again,
    of_two_agents_with_one_identity_the_newest_stays_and_the_other_backs_off,
}

/// A board that installs by copying, whose commands each test names. A dial over UDP to nobody fails by its time.
fn board(commands: &str) -> String {
    format!(
        "[agent]\nping_s = 5\nwindow = 32768\nconnect_ms = 2000\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 200\n\n{commands}"
    )
}

const INSTALL: &str = r#"
[install]
command = ["sh", "-c", "cp \"$DIALHOME_IMAGE\" FOLDER/installed.new && mv FOLDER/installed.new FOLDER/installed"]
"#;

/// Bytes that begin with this mark, so that a command can tell images apart.
fn marked(mark: &str, seed: u64) -> Vec<u8> {
    let mut bytes = mark.as_bytes().to_vec();
    bytes.extend(random_bytes(seed, 40_000));
    bytes
}

struct Trial {
    bench: Bench,
    board: Board,
    old: Image,
}

impl Trial {
    /// A board that runs a good image, confirmed.
    async fn start(transport: Transport, commands: &str) -> Self {
        let mut bench = Bench::start_over(transport).await;
        let board = bench
            .board("board", Faults::default(), &board(commands))
            .await;
        let old = bench
            .image_with("1.0", &marked("GOOD", 1), &["--counter", "1"])
            .await;
        bench.push("board", &old.name, &[]).await.confirmed();
        Self { bench, board, old }
    }

    fn folder(&self) -> PathBuf {
        self.bench.path().join("boards/board")
    }

    /// The old image runs, is installed, and is what the gateway knows.
    async fn old_is_back(&self) {
        let device = self.device().await;
        assert_eq!(
            component(&device)["digest"],
            self.old.digest.as_str(),
            "{device}"
        );
        assert_eq!(component(&device)["trial"], Value::Null, "{device}");
        let current = self.board.current().expect("a current image");
        assert!(std::fs::read(current).unwrap() == self.old.bytes);
        assert!(self.bench.installed("board").unwrap() == self.old.bytes);
    }

    async fn device(&self) -> Value {
        self.bench.online("board").await
    }
}

fn component(device: &Value) -> &Value {
    &device["components"][0]
}

#[track_caller]
fn reverted(update: &Value, reason: &str) {
    assert_eq!(update["state"], "reverted", "{update}");
    assert_eq!(update["reason"], reason, "{update}");
}

async fn a_failed_self_test_brings_the_old_image_back(transport: Transport) {
    let test = r#"
[self_test]
command = ["sh", "-c", "head -c4 FOLDER/installed; echo ' of the pump does not turn'; head -c4 FOLDER/installed | grep -q GOOD"]
"#;
    let trial = Trial::start(transport, &format!("{INSTALL}{test}")).await;
    let bad = trial
        .bench
        .image_with("2.0", &marked("EVIL", 2), &["--counter", "2"])
        .await;
    let pushed = trial.bench.push("board", &bad.name, &[]).await;
    let stderr = pushed.outcome.stderr.clone();
    let update = pushed.ended("reverted", 1);
    reverted(&update, "self_test");
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("EVIL of the pump does not turn"),
        "{update}"
    );
    assert!(
        stderr.contains("reverted") && stderr.contains("self"),
        "{stderr}"
    );
    trial.old_is_back().await;
    // The same image again takes the same way; nothing was remembered in its favour.
    let update = trial.bench.push("board", &bad.name, &[]).await;
    reverted(&update.ended("reverted", 1), "self_test");
    trial.old_is_back().await;
    // And a good one still goes through.
    let good = trial
        .bench
        .image_with("3.0", &marked("GOOD", 3), &["--counter", "3"])
        .await;
    trial.bench.push("board", &good.name, &[]).await.confirmed();
}

async fn an_install_command_that_fails_says_why(transport: Transport) {
    let install = r#"
[install]
command = ["sh", "-c", "if head -c4 \"$DIALHOME_IMAGE\" | grep -q GOOD; then cp \"$DIALHOME_IMAGE\" FOLDER/installed; else echo the programmer finds no chip; exit 7; fi"]
"#;
    let trial = Trial::start(transport, install).await;
    let bad = trial
        .bench
        .image_with("2.0", &marked("EVIL", 2), &["--counter", "2"])
        .await;
    let pushed = trial.bench.push("board", &bad.name, &[]).await;
    let stderr = pushed.outcome.stderr.clone();
    let update = pushed.ended("reverted", 1);
    reverted(&update, "install_failed");
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("code 7") && detail.contains("finds no chip"),
        "{update}"
    );
    assert!(stderr.contains("finds no chip"), "{stderr}");
    trial.old_is_back().await;
}

async fn an_image_that_cannot_run_goes_back(transport: Transport) {
    let run = r#"
[self_test]
command = ["FOLDER/state/current"]
"#;
    let script = b"#!/bin/sh\nexit 0\n".to_vec();
    let mut bench = Bench::start_over(transport).await;
    let board = bench
        .board(
            "board",
            Faults::default(),
            &board(&format!("{INSTALL}{run}")),
        )
        .await;
    let old = bench.image_with("1.0", &script, &["--counter", "1"]).await;
    bench.push("board", &old.name, &[]).await.confirmed();
    let trial = Trial { bench, board, old };
    let bad = trial
        .bench
        .image_with("2.0", &random_bytes(2, 30_000), &["--counter", "2"])
        .await;
    let pushed = trial.bench.push("board", &bad.name, &[]).await;
    reverted(&pushed.ended("reverted", 1), "self_test");
    trial.old_is_back().await;
}

/// The image kills the board in each of its boots, as a crash would.
async fn an_image_that_crashes_the_board_is_given_up_after_its_boots(transport: Transport) {
    let test = r#"
[self_test]
command = ["sh", "-c", "head -c4 FOLDER/installed | grep -q GOOD || kill -9 $PPID"]
"#;
    let mut trial = Trial::start(transport, &format!("{INSTALL}{test}")).await;
    let options = ["--counter", "2", "--trial-boots", "2"];
    let bad = trial
        .bench
        .image_with("2.0", &marked("EVIL", 2), &options)
        .await;
    let update = trial.bench.push_no_wait("board", &bad.name, &[]).await;
    for _ in 0..2 {
        // The process ends by signal, again and again.
        let status = trial.bench.agent_ends("board").await;
        assert!(!status.success(), "{status}");
        trial.bench.start_agent("board");
    }
    let update = trial.bench.reaches(&update, "reverted").await;
    reverted(&update, "crashed");
    trial.old_is_back().await;
}

/// A board that writes the image, restarts, and runs the old one all the same.
async fn a_board_that_boots_the_old_image_is_reverted_and_never_confirmed(transport: Transport) {
    let commands = r#"
[install]
command = ["sh", "-c", "test -e FOLDER/installed || cp \"$DIALHOME_IMAGE\" FOLDER/installed"]

[running]
command = ["sh", "-c", "touch FOLDER/installed.none; cat FOLDER/installed FOLDER/installed.none | sha256sum"]
"#;
    let trial = Trial::start(transport, commands).await;
    let new = trial
        .bench
        .image_with("2.0", &marked("GOOD", 2), &["--counter", "2"])
        .await;
    let pushed = trial.bench.push("board", &new.name, &[]).await;
    reverted(&pushed.ended("reverted", 1), "old_image_running");
    let device = trial.device().await;
    assert_eq!(
        component(&device)["digest"],
        trial.old.digest.as_str(),
        "{device}"
    );
    assert_eq!(component(&device)["digest_from"], "booted", "{device}");
}

/// Waits until the board has told that it activates, and its session has ended.
async fn activating(bench: &Bench, update: &str, events: &mut Events) {
    events
        .wait(|event| event["update"] == update && event["to"] == "activating")
        .await;
    bench.offline("board").await;
}

async fn a_gateway_that_is_away_for_less_than_the_budget_reverts_nothing(transport: Transport) {
    let test = r#"
[self_test]
command = ["sh", "-c", "head -c4 FOLDER/installed | grep -q GOOD && exit 0; touch FOLDER/testing; until test -e FOLDER/go; do sleep 0.02; done"]
"#;
    let mut trial = Trial::start(transport, &format!("{INSTALL}{test}")).await;
    let options = ["--counter", "2", "--trial-dials", "200"];
    let new = trial
        .bench
        .image_with("2.0", &marked("SLOW", 2), &options)
        .await;
    let update = trial.bench.push_no_wait("board", &new.name, &[]).await;
    trial
        .bench
        .until(&["status"], |_| trial.folder().join("testing").exists())
        .await;
    trial.bench.kill_gateway().await;
    let before = trial.bench.relay("board").stats().refused;
    std::fs::write(trial.folder().join("go"), "").unwrap();
    let dials = match transport {
        Transport::Tcp => 10,
        Transport::Quic => 3,
    };
    let refused = |stats: &dialhome_gateway::demo::relay::Stats| stats.refused >= before + dials;
    timeout(PATIENCE, trial.bench.relay("board").wait_until(refused))
        .await
        .expect("dials that fail");
    trial.bench.start_gateway().await;
    trial.bench.reaches(&update, "confirmed").await;
    assert!(trial.bench.installed("board").unwrap() == new.bytes);
}

async fn after_gateway_silent_the_image_stays_staged_and_needs_no_chunk_again(
    transport: Transport,
) {
    let test = r#"
[self_test]
command = ["sh", "-c", "head -c4 FOLDER/installed | grep -q GOOD && exit 0; touch FOLDER/testing; until test -e FOLDER/go; do sleep 0.02; done"]
"#;
    let mut trial = Trial::start(transport, &format!("{INSTALL}{test}")).await;
    let options = ["--counter", "2", "--trial-dials", "3"];
    let new = trial
        .bench
        .image_with("2.0", &marked("SLOW", 2), &options)
        .await;
    let mut events = Events::follow(&trial.bench.cli());
    let first = trial.bench.push_no_wait("board", &new.name, &[]).await;
    activating(&trial.bench, &first, &mut events).await;
    let relay = trial.bench.relay("board");
    relay.set_arrivals(Arrivals::Refuse);
    std::fs::write(trial.folder().join("go"), "").unwrap();
    // The fourth failed dial spends the budget; the old image dials in its turn.
    timeout(PATIENCE, relay.wait_until(|stats| stats.refused >= 6))
        .await
        .expect("dials that fail");
    relay.set_arrivals(Arrivals::Relay);
    let update = trial.bench.reaches(&first, "reverted").await;
    reverted(&update, "gateway_silent");
    trial.old_is_back().await;
    let pushed = trial.bench.push("board", &new.name, &[]).await;
    let update = pushed.confirmed();
    assert_ne!(update["update"], first.as_str());
    assert_eq!(update["sent"], 0, "{update}");
    assert!(trial.bench.installed("board").unwrap() == new.bytes);
    // A restart later it is still the new one.
    let device = trial.bench.restart_agent("board").await;
    assert_eq!(
        component(&device)["digest"],
        new.digest.as_str(),
        "{device}"
    );
}

/// Two boards that were given one key: the newest has the session, the other one stays
/// away for minutes, and a gateway that sees it again and again says so.
async fn of_two_agents_with_one_identity_the_newest_stays_and_the_other_backs_off(
    transport: Transport,
) {
    let mut bench = Bench::start_over(transport).await;
    let first = bench.board("one", Faults::default(), &board("")).await;
    let logged = |what: &str| {
        let log = std::fs::read_to_string(bench.site.log("gateway")).unwrap();
        log.matches(what).count()
    };
    let mut twins = Vec::new();
    for number in 1..=4 {
        let state = bench.path().join(format!("boards/twin/state{number}"));
        let twin = Board {
            id: format!("twin{number}"),
            config: first.config.clone(),
            state,
        };
        twins.push(bench.must(bench.site.start_agent(&twin)));
        bench
            .until(&["status"], |_| logged("superseded") == number)
            .await;
        let online = bench.online("one").await;
        let connections = bench.relay("one").stats().connections;
        // A board that did not back off would be there again within 200 ms.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(bench.relay("one").stats().connections, connections);
        assert_eq!(bench.online("one").await["peer"], online["peer"]);
    }
    // The fourth within the hour.
    bench
        .until(&["status"], |_| logged("duplicate identity") == 1)
        .await;
}
