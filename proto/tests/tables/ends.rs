//! How an image on its way ends where something else went wrong as well.

use crate::board::{Board, NOW, UPDATE, after_boot, at, new, old, on_trial, unknown};
use dialhome_proto::code::{Reason, Refusal, SelfTest};
use dialhome_proto::device::{BootAction, DialFault, KeyUse, LinkState, TrialPhase, Work};
use dialhome_proto::frame::{Cancel, GatewayFrame, NewKey, SetGateways, Settled};
use dialhome_proto::id::UpdateId;
use dialhome_proto::limits::{BOOT_ATTEMPTS_MAX, PING_TRANSFER_S};

fn next(board: &mut Board) -> Option<Work> {
    board.drain().1
}

/// What the board states once it has dialed.
fn said(board: &mut Board) -> Vec<String> {
    let work = next(board);
    assert!(matches!(work, Some(Work::Dial { .. })), "{work:?}");
    board.machine.dialed(Ok(()), NOW);
    board.drain().0
}

#[test]
fn an_old_image_that_runs_is_reverted_by_the_boot_side_before_it_is_stated() {
    for phase in [
        TrialPhase::Switched,
        TrialPhase::Testing,
        TrialPhase::Confirming,
    ] {
        let mut board = after_boot(phase, old());
        assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Revert)));
        assert!(board.machine.cells().outbox.entries().is_empty());
        // The boot side had nothing to undo.
        board.machine.booted(Ok(false), "", NOW);
        assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Look)));
        board.machine.looked(old(), NOW);
        let said = said(&mut board);
        assert!(
            said.contains(&"Report(reverted, old_image_running)".to_owned()),
            "{said:?}"
        );
    }
}

#[test]
fn a_confirmed_image_that_cannot_be_asked_is_made_final() {
    let mut board = after_boot(TrialPhase::Confirming, unknown());
    assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Confirm)));
    board.machine.booted(Ok(false), "", NOW);
    let said = said(&mut board);
    assert!(said.contains(&"Report(confirmed)".to_owned()), "{said:?}");
}

#[test]
fn nothing_is_reverted_while_it_is_unknown_what_runs() {
    let mut board = after_boot(TrialPhase::Reverting, unknown());
    let mut attempts = 0;
    while next(&mut board) == Some(Work::Boot(BootAction::Revert)) {
        attempts += 1;
        board.machine.booted(Ok(false), "", NOW);
        assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Look)));
        board.machine.looked(unknown(), NOW);
    }
    // One was made before the boot.
    assert_eq!(attempts, BOOT_ATTEMPTS_MAX - 1);
    board.machine.dialed(Ok(()), NOW);
    let said = board.drain().0;
    assert!(
        said.contains(&"Report(failed, revert_failed)".to_owned()),
        "{said:?}"
    );
    // Known at the second look: reverted after all.
    let mut board = after_boot(TrialPhase::Reverting, unknown());
    assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Revert)));
    board.machine.booted(Ok(false), "", NOW);
    board.drain();
    board.machine.looked(old(), NOW);
    let said = self::said(&mut board);
    assert!(
        said.contains(&"Report(reverted, self_test)".to_owned()),
        "{said:?}"
    );
}

#[test]
fn a_board_that_kept_no_older_image_says_so_with_its_reason() {
    let mut board = after_boot(TrialPhase::Switched, new());
    board.drain();
    board
        .machine
        .self_tested(SelfTest::FAILED, "sensor missing", NOW);
    assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Revert)));
    board
        .machine
        .booted(Err(Reason::REVERT_FAILED), "no older image", NOW);
    let outbox = &board.machine.cells().outbox;
    assert_eq!(
        outbox.detail(outbox.entries()[0].sequence),
        "no older image"
    );
    let said = said(&mut board);
    assert!(
        said.contains(&"Report(failed, revert_failed)".to_owned()),
        "{said:?}"
    );
}

#[test]
fn a_trial_that_ends_while_the_board_dials_does_not_wait_for_the_session() {
    let mut board = after_boot(TrialPhase::Switched, new());
    board.drain();
    board.machine.self_tested(SelfTest::PASSED, "", NOW);
    assert!(matches!(next(&mut board), Some(Work::Dial { .. })));
    let mut now = NOW;
    while board.machine.stage_name() == "Trial" {
        now = board.machine.deadline().expect("the budget");
        board.machine.handle_timeout(now);
        assert_eq!(next(&mut board), None);
    }
    assert_eq!(board.machine.stage_name(), "Reverting");
    board.machine.dialed(Ok(()), now);
    assert_eq!(
        board.drain(),
        (vec!["stores Trial".to_owned()], Some(Work::HangUp))
    );
    board.machine.hung_up(now);
    assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Revert)));
}

#[test]
fn only_a_refused_key_gives_another_its_turn() {
    let dials_with = |fault: DialFault| {
        let mut board = Board::new(|cells| cells.keys.pending = Some([7; 32]));
        let work = next(&mut board);
        assert!(
            matches!(
                work,
                Some(Work::Dial {
                    key: KeyUse::Pending,
                    ..
                })
            ),
            "{work:?}"
        );
        board.machine.dialed(Err(fault), NOW);
        board.drain();
        let LinkState::Down { retry_at } = *board.machine.link_state() else {
            panic!("it does not wait");
        };
        match board.machine.poll_work(retry_at) {
            Some(Work::Dial { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    };
    let refused = |code| DialFault::Refused {
        code,
        retry_after_s: 1,
    };
    for code in [Refusal::BUSY, Refusal::VERSION, Refusal::SUITE] {
        assert_eq!(dials_with(refused(code)), KeyUse::Pending, "{code}");
    }
    assert_eq!(dials_with(refused(Refusal::REFUSED)), KeyUse::Current);
    assert_eq!(dials_with(DialFault::WrongKey), KeyUse::Current);
}

/// Hands a frame in, and what the board does and says about it; nothing is settled.
fn hand(board: &mut Board, frame: &GatewayFrame<'_>) -> Vec<String> {
    assert!(board.frame(frame));
    let (said, work) = board.drain();
    if let Some(work @ Work::CheckGateways) = work {
        board.carry_out(work);
        board.drain();
    }
    said
}

#[test]
fn an_outcome_finds_room_beside_a_key_and_a_list_of_gateways() {
    let mut board = at("Receiving");
    let gateways = crate::board::gateways();
    let set = SetGateways {
        statement: &gateways,
    };
    hand(&mut board, &NewKey { key: [3; 32] }.into());
    hand(&mut board, &set.into());
    let cancel = |number| Cancel {
        update: UpdateId([number; 8]),
    };
    let first = hand(&mut board, &cancel(2).into());
    assert!(
        first.contains(&"Report(canceled, canceled)".to_owned()),
        "{first:?}"
    );
    // The next place belongs to the update under way.
    assert_eq!(hand(&mut board, &cancel(3).into()), ["Defer(outbox_full)"]);
    hand(&mut board, &Cancel { update: UPDATE }.into());
    let outbox = &board.machine.cells().outbox;
    assert!(outbox.has_outcome_of(&UPDATE));
    assert_eq!(outbox.entries().len(), 4);
    let mut full = on_trial();
    assert_eq!(
        hand(&mut full, &cancel(2).into()),
        ["stores Outbox", "Report(canceled, canceled)"]
    );
    assert_eq!(hand(&mut full, &cancel(3).into()), ["Defer(outbox_full)"]);
}

#[test]
fn a_board_whose_outcome_is_not_settled_looks_after_its_link() {
    let interval = |board: &Board| board.machine.deadline().expect("a ping").since(NOW);
    let own = interval(&at("Idle"));
    let under_way = u64::from(PING_TRANSFER_S) * 1000;
    assert!(own > under_way, "the board's own interval is longer: {own}");
    let mut board = at("Confirming");
    assert_eq!(next(&mut board), Some(Work::Boot(BootAction::Confirm)));
    board.machine.booted(Ok(false), "", NOW);
    let said = board.drain().0;
    assert!(said.contains(&"Report(confirmed)".to_owned()), "{said:?}");
    assert_eq!(interval(&board), under_way);
    board.machine.handle_timeout(NOW.after(under_way));
    assert_eq!(board.drain().0, ["Ping"]);
    let mut board = at("Confirming");
    board.drain();
    board.machine.booted(Ok(false), "", NOW);
    board.drain();
    let sequence = board.machine.cells().outbox.entries()[0].sequence;
    assert!(board.frame(&Settled { sequence }.into()));
    board.drain();
    assert_eq!(interval(&board), own);
}
