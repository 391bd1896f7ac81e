//! Cards that are missing, full, too small, protected, or pulled out: each ends in a
//! named reason at the gateway, and the board still dials home. And what a good card
//! sees of a transfer.

use crate::{ID, PRODUCT, Rig, ended};
use dialhome_board_harness::card::Card;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::lm3s::Board;
use dialhome_board_harness::site::Bench;
use dialhome_gateway::demo::relay::Faults;
use serde_json::Value;
use std::collections::HashSet;

/// A transfer of about four seconds, so that something can happen within it.
const SLOW: u64 = 40_000;

/// Waits until the operator is told that it is the storage: the update has ended for that
/// reason, or is put off for it.
async fn told(rig: &Rig, update: &str) -> Value {
    let show = ["update", "show", update];
    let told = rig
        .bench
        .until(&show, |update| update["reason"] == "storage");
    let update = told.await.unwrap();
    let states = ["failed", "declined", "deferred"];
    assert!(
        states.iter().any(|state| update["state"] == *state),
        "{update:#}"
    );
    update
}

/// An update is refused or put off for the storage, and the board is there.
async fn storage_is_told(rig: &Rig, board: Board) {
    let board = board.start().await.unwrap();
    rig.bench.online(ID).await.unwrap();
    let (_, name) = rig.image(2, Behaviour::Good, &[]).await;
    let update = rig.bench.push_no_wait(ID, &name, &[]).await.unwrap();
    told(rig, &update).await;
    rig.bench.online(ID).await.unwrap();
    // Also after a restart.
    let board = board.off().await.unwrap();
    assert!(board.holds(&rig.old));
    let board = board.start().await.unwrap();
    let component = rig.component().await;
    assert_eq!(component["version"], "1.0.0", "{component:#}");
    board.off().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_card_is_told_and_the_board_dials_home() {
    let rig = Rig::new().await;
    let board = rig.board(None);
    storage_is_told(&rig, board).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_card_is_told_and_the_board_dials_home() {
    let rig = Rig::new().await;
    let card = rig.card();
    // Room for the journal, not for an image.
    card.fill("PHOTOS.DAT", 80_000).unwrap();
    let board = rig.board(Some(card));
    storage_is_told(&rig, board).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_too_small_for_a_file_system_is_told_and_the_board_dials_home() {
    let rig = Rig::new().await;
    let card = Card::blank(&rig.bench.path().join("small.img"), 64 * 1024).unwrap();
    let board = rig.board(Some(card));
    storage_is_told(&rig, board).await;
}

/// A card with its switch on "lock", as the machine can play it: what is written is not
/// there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_keeps_nothing_is_told_and_the_board_dials_home() {
    let rig = Rig::new().await;
    let card = rig.card();
    let rules = rig.bench.path().join("protected.conf");
    let rule =
        "[inject-error]\nevent = \"none\"\niotype = \"write\"\nerrno = \"30\"\nonce = \"off\"\n";
    std::fs::write(&rules, rule).unwrap();
    let drive = format!(
        "format=raw,file=blkdebug:{}:{}",
        rules.display(),
        card.path().display()
    );
    let mut board = rig.board(Some(card));
    board.drive = Some(drive);
    storage_is_told(&rig, board).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_pulled_out_in_a_transfer_is_told_and_works_again_when_it_is_back() {
    let bench = Bench::start(PRODUCT).await.unwrap();
    let faults = Faults {
        rate: Some(SLOW),
        ..Faults::default()
    };
    let relay = bench.relay(faults).await.unwrap();
    let rig = Rig::dialing(bench, relay.address().port()).await;
    let board = rig.online().await;
    let (_, name) = rig.image(2, Behaviour::Good, &[]).await;
    let update = rig.bench.push_no_wait(ID, &name, &[]).await.unwrap();
    relay.wait_until(|stats| stats.to_board > 30_000).await;
    board.pull_card().await.unwrap();
    let document = told(&rig, &update).await;
    rig.bench.online(ID).await.unwrap();
    // The card comes back, and somebody switches the board off and on.
    let board = board.off().await.unwrap().start().await.unwrap();
    rig.bench.online(ID).await.unwrap();
    if document["state"] == "deferred" {
        let cancel = ["update", "cancel", &update];
        rig.bench.cli().json(&cancel).await.unwrap();
        rig.bench.ends(&update).await.unwrap();
    }
    let (good, name) = rig.image(3, Behaviour::Good, &[]).await;
    ended(&rig.push(&name).await, "confirmed", None);
    assert!(board.off().await.unwrap().holds(&good));
}

/// From the first chunk to the last no sector of the file system changes, but only
/// contents of the image's file and of the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_metadata_changes_while_chunks_commit() {
    const SECTOR: usize = 512;
    let bench = Bench::start(PRODUCT).await.unwrap();
    let faults = Faults {
        rate: Some(SLOW),
        ..Faults::default()
    };
    let relay = bench.relay(faults).await.unwrap();
    let rig = Rig::dialing(bench, relay.address().port()).await;
    let card = rig.card();
    let board = rig.board(Some(card.clone())).start().await.unwrap();
    rig.bench.online(ID).await.unwrap();
    let (new, name) = rig.image(2, Behaviour::Good, &[]).await;
    let update = rig.bench.push_no_wait(ID, &name, &[]).await.unwrap();
    let some = |least: u64| move |update: &Value| update["committed"].as_u64().unwrap_or(0) > least;
    let show = ["update", "show", &update];
    rig.bench.until(&show, some(0)).await.unwrap();
    let before = card.bytes().unwrap();
    rig.bench.until(&show, some(80_000)).await.unwrap();
    board.command("stop", serde_json::json!({})).await.unwrap();
    let after = card.bytes().unwrap();
    let journal = card.read("DIALHOME.JNL").unwrap().unwrap();
    board.command("cont", serde_json::json!({})).await.unwrap();
    let contents: HashSet<&[u8]> = new
        .bytes
        .chunks(SECTOR)
        .chain(journal.chunks(SECTOR))
        .collect();
    let mut changed = 0;
    for (sector, (old, new)) in before.chunks(SECTOR).zip(after.chunks(SECTOR)).enumerate() {
        if old != new {
            changed += 1;
            assert!(contents.contains(new), "sector {sector} is no content");
        }
    }
    println!("lm3s6965evb: {changed} sectors changed within a transfer, all of them contents");
    assert!(changed >= 100, "{changed}");
    let update = rig.bench.ends(&update).await.unwrap();
    ended(&update, "confirmed", None);
    board.off().await.unwrap();
}
