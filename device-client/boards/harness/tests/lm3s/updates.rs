//! Whole updates, good and bad, without faults of power or link.

use crate::{ID, Rig, ended};
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::lm3s;
use dialhome_board_harness::sdu::UPDATE;

/// What the whole program may use of the stack, in bytes: the client's 10 KiB, and the
/// frames of the drivers below it and of the main loop above it.
const STACK_MAX: u32 = 12 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_confirmed_and_the_old_image_is_kept_on_the_card() {
    let rig = Rig::new().await;
    let board = rig.online().await;
    let component = rig.component().await;
    assert_eq!(component["digest_from"], "booted", "{component:#}");
    assert_eq!(component["revert"], "by_image", "{component:#}");
    let (new, name) = rig.image(2, Behaviour::Good, &[]).await;
    let pushed = rig.bench.push(ID, &name, &[]).await.unwrap();
    ended(&pushed.json, "confirmed", None);
    // The operator is told what this board cannot do.
    assert!(pushed.stderr.contains("Warning"), "{}", pushed.stderr);
    let component = rig.component().await;
    assert_eq!(component["boot_reason"], "update", "{component:#}");
    assert_eq!(component["version"], "2.0.0", "{component:#}");
    let board = board.off().await.unwrap();
    assert!(board.holds(&new));
    let card = board.card.as_ref().unwrap();
    assert!(card.read("PREVIOUS.BIN").unwrap().unwrap() == rig.old.bytes);
    assert_eq!(card.read(UPDATE).unwrap(), None);
    // The next start is no update any more, and the next update goes the same way.
    let board = board.start().await.unwrap();
    let component = rig.component().await;
    assert_eq!(component["boot_reason"], "power_on", "{component:#}");
    let (newest, name) = rig.image(3, Behaviour::Good, &[]).await;
    ended(&rig.push(&name).await, "confirmed", None);
    let board = board.off().await.unwrap();
    assert!(board.holds(&newest));
    let stack = lm3s::largest(board.log(), "stack");
    let room = lm3s::largest(board.log(), "room for the stack");
    println!(
        "lm3s6965evb: image {} bytes with its 16 KiB stage, static RAM {} bytes, stack {stack} of {room} bytes",
        newest.bytes.len(),
        32 * 1024 - room,
    );
    assert!((1..=STACK_MAX).contains(&stack), "the stack: {stack} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_whose_self_test_fails_puts_the_old_one_back() {
    let rig = Rig::new().await;
    let board = rig.online().await;
    let (_, name) = rig.image(2, Behaviour::FailsSelfTest, &[]).await;
    ended(&rig.push(&name).await, "reverted", Some("self_test"));
    let component = rig.component().await;
    assert_eq!(component["version"], "1.0.0", "{component:#}");
    assert_eq!(component["boot_reason"], "revert", "{component:#}");
    // A good one still goes through.
    let (good, name) = rig.image(3, Behaviour::Good, &[]).await;
    ended(&rig.push(&name).await, "confirmed", None);
    assert!(board.off().await.unwrap().holds(&good));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_never_dials_is_undone_when_its_budget_is_spent() {
    let rig = Rig::new().await;
    let board = rig.online().await;
    let options = ["--trial-dials", "3"];
    let (_, name) = rig.image(2, Behaviour::NeverDials, &options).await;
    ended(&rig.push(&name).await, "reverted", Some("gateway_silent"));
    let component = rig.component().await;
    assert_eq!(component["version"], "1.0.0", "{component:#}");
    assert!(board.off().await.unwrap().holds(&rig.old));
}

/// What SDU cannot undo: the image crashes before the client runs. The operator sees a
/// board that is away and an update that does not end; the way back is a programmer, and
/// then the truth is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_crashes_at_its_start_stays_and_the_update_stays_open() {
    let rig = Rig::new().await;
    let board = rig.online().await;
    let (bad, name) = rig.image(2, Behaviour::CrashesAtStart, &[]).await;
    let update = rig.bench.push_no_wait(ID, &name, &[]).await.unwrap();
    board.says("starts: panic", 3).await.unwrap();
    rig.bench.offline(ID).await.unwrap();
    let open = rig.bench.reaches(&update, "activating").await.unwrap();
    println!(
        "lm3s6965evb: an image that crashes at its start: the update stays {}, waiting for {}",
        open["state"], open["waiting_for"]
    );
    let board = board.off().await.unwrap();
    assert!(board.holds(&bad));
    // Somebody comes with a programmer.
    let board = rig.board(board.card.clone()).start().await.unwrap();
    let update = rig.bench.ends(&update).await.unwrap();
    ended(&update, "reverted", Some("old_image_running"));
    let (good, name) = rig.image(3, Behaviour::Good, &[]).await;
    ended(&rig.push(&name).await, "confirmed", None);
    assert!(board.off().await.unwrap().holds(&good));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_resets_the_board_and_is_told() {
    let rig = Rig::new().await;
    let board = rig.online().await;
    let (new, name) = rig.image(2, Behaviour::PanicsOnce, &[]).await;
    ended(&rig.push(&name).await, "confirmed", None);
    let component = rig.component().await;
    assert_eq!(component["boot_reason"], "panic", "{component:#}");
    assert!(board.off().await.unwrap().holds(&new));
}
