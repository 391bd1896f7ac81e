//! A journal that does not take what it is handed, and a gateway that sends nothing.

use crate::board::{Board, NOW, UPDATE, at, gateways, name};
use dialhome_proto::code::Reason;
use dialhome_proto::device::{Cell, LinkState, Work};
use dialhome_proto::frame::{Cancel, Confirm, DeviceFrame, NewKey, Ping, Pong, SetGateways};
use dialhome_proto::limits::{CHUNK_MS, STORE_AGAIN_MS};
use dialhome_proto::time::Millis;

/// Stores what the journal takes and sends all there is, at `now`; what was refused and said.
fn drain(board: &mut Board, now: Millis, takes: impl Fn(Cell) -> bool) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        assert!(seen.len() < 32, "it spins: {seen:?}");
        let mut buffer = [0; 1008];
        if let Some(len) = board.machine.poll_transmit(&mut buffer, now) {
            let frame = DeviceFrame::decode(&buffer[..len]).expect("it made it");
            seen.push(name(&frame));
            continue;
        }
        match board.machine.poll_work(now) {
            Some(Work::Store(cell)) if takes(cell) => board.machine.worked(Ok(()), now),
            Some(Work::Store(cell)) => {
                seen.push(format!("refuses {cell:?}"));
                board.machine.worked(Err(Reason::STORAGE), now);
            }
            Some(Work::Boot(_)) => board.machine.booted(Ok(false), "", now),
            Some(Work::CheckGateways) => board.carry_out(Work::CheckGateways),
            Some(Work::HangUp | Work::Dial { .. }) | None => return seen,
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_is_reported_before_the_journal_has_it() {
    let mut board = at("Receiving");
    assert!(board.frame(&Cancel { update: UPDATE }.into()));
    let no = |cell| cell != Cell::Outbox;
    assert_eq!(drain(&mut board, NOW, no), ["refuses Outbox"]);
    // The board goes on with everything else.
    assert!(board.frame(&Ping { nonce: 3 }.into()));
    assert_eq!(drain(&mut board, NOW, no), ["Pong"]);
    let mut now = NOW;
    for nonce in 1..=3 {
        let again = now.after(STORE_AGAIN_MS);
        assert!(board.machine.deadline().is_some_and(|due| due <= again));
        now = again;
        board.machine.handle_timeout(now);
        let seen = drain(&mut board, now, no);
        assert!(board.frame(&Pong { nonce }.into()));
        assert_eq!(
            seen.iter().filter(|seen| *seen == "refuses Outbox").count(),
            1
        );
        assert!(
            !seen.iter().any(|seen| seen.starts_with("Report")),
            "{seen:?}"
        );
    }
    now = now.after(STORE_AGAIN_MS);
    board.machine.handle_timeout(now);
    let seen = drain(&mut board, now, |_| true);
    assert!(
        seen.contains(&"Report(canceled, canceled)".to_owned()),
        "{seen:?}"
    );
}

#[test]
fn a_new_session_hands_the_journal_what_it_refused() {
    let mut board = at("Receiving");
    assert!(board.frame(&NewKey { key: [3; 32] }.into()));
    let no = |cell| cell != Cell::Keys;
    // No statement of a key that is not stored, and none in the journal either.
    assert_eq!(
        drain(&mut board, NOW, no),
        ["refuses Keys", "Defer(storage)"]
    );
    board.machine.link_lost(NOW);
    let LinkState::Down { retry_at } = *board.machine.link_state() else {
        panic!("it is not down");
    };
    assert!(matches!(
        board.machine.poll_work(retry_at),
        Some(Work::Dial { .. })
    ));
    board.machine.dialed(Ok(()), retry_at);
    assert_eq!(
        drain(&mut board, retry_at, |_| true),
        ["Hello", "KeyStored"]
    );
}

#[test]
fn an_outcome_is_in_the_journal_before_the_end_of_its_trial() {
    let mut board = at("Trial");
    assert!(board.frame(&Confirm { update: UPDATE }.into()));
    let mut stored = std::cell::RefCell::new(Vec::new());
    let takes = |cell| {
        stored.borrow_mut().push(cell);
        cell != Cell::Outbox
    };
    assert_eq!(drain(&mut board, NOW, takes), ["refuses Outbox"]);
    // The step of the trial, the confirmed image, and no end of the trial.
    assert_eq!(
        stored.get_mut()[..],
        [Cell::Trial, Cell::Image(0), Cell::Outbox]
    );
    assert!(board.machine.cells().trial.is_none());
    let now = NOW.after(STORE_AGAIN_MS);
    board.machine.handle_timeout(now);
    let order = std::cell::RefCell::new(Vec::new());
    let seen = drain(&mut board, now, |cell| {
        order.borrow_mut().push(cell);
        true
    });
    assert!(seen.contains(&"Report(confirmed)".to_owned()), "{seen:?}");
    assert_eq!(order.into_inner(), [Cell::Outbox, Cell::Claim, Cell::Trial]);
}

#[test]
fn a_list_of_gateways_that_was_not_stored_is_not_in_force() {
    let mut board = at("Idle");
    let statement = gateways();
    let set = SetGateways {
        statement: &statement,
    };
    assert!(board.frame(&set.into()));
    assert_eq!(
        drain(&mut board, NOW, |cell| cell != Cell::Gateways),
        ["refuses Gateways", "GatewaysStored"]
    );
    assert_eq!(board.machine.cells().gateways_epoch, 0);
    assert!(board.machine.cells().outbox.entries().is_empty());
    assert!(board.frame(&set.into()));
    assert_eq!(drain(&mut board, NOW, |_| true), ["GatewaysStored"]);
    assert_eq!(board.machine.cells().gateways_epoch, 1);
}

#[test]
fn a_gateway_that_sends_no_chunk_ends_the_transfer_and_not_the_session() {
    let mut board = at("Receiving");
    let mut now = NOW;
    let mut pings = 0;
    while board.machine.stage_name() == "Receiving" {
        now = board.machine.deadline().expect("a ping, or the end");
        assert!(now <= NOW.after(CHUNK_MS));
        board.machine.handle_timeout(now);
        let mut buffer = [0; 1008];
        while let Some(len) = board.machine.poll_transmit(&mut buffer, now) {
            let Ok(DeviceFrame::Ping(ping)) = DeviceFrame::decode(&buffer[..len]) else {
                panic!("no ping");
            };
            pings += 1;
            assert!(board.frame(&Pong { nonce: ping.nonce }.into()));
        }
        assert_eq!(board.machine.poll_work(now), None);
    }
    assert_eq!(now, NOW.after(CHUNK_MS));
    assert_eq!((board.machine.stage_name(), pings > 10), ("Idle", true));
    assert_eq!(*board.machine.link_state(), LinkState::Online);
    assert!(board.machine.cells().claim.is_some());
    let next = board.machine.deadline().expect("a ping").since(now);
    assert!(
        next > 30_000 - 1,
        "the ping interval is the long one again: {next}"
    );
}
