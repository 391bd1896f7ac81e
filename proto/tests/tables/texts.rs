//! Longer texts (spec/protocol.md section 12): when the machine says that one is due.
#![cfg(feature = "texts")]

use crate::board::{Board, NOW, UPDATE, at, config, name, old};
use dialhome_proto::device::{Cells, Config, Machine, TASK_LOG, TextDue, Work};
use dialhome_proto::frame::{Cancel, DeviceFrame, Ping, ReadLog, Welcome};

const READ: ReadLog = ReadLog {
    request: 9,
    lines: 50,
    bytes: 6144,
};

/// What is said in turn, texts in two parts each, as a shell does it.
fn said(machine: &mut Machine<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    let mut buffer = [0; 1008];
    loop {
        assert!(seen.len() < 32, "it spins: {seen:?}");
        if let Some(due) = machine.text_due() {
            for part in 1..=2 {
                let len = machine.say_part(due, (part, 2), "text", &mut buffer, NOW);
                match DeviceFrame::decode(&buffer[..len.expect("it fits")]) {
                    Ok(DeviceFrame::Output(output)) => {
                        seen.push(format!("Output({}, {part})", output.sequence));
                    }
                    Ok(DeviceFrame::LogPart(log)) => {
                        seen.push(format!("LogPart({}, {part})", log.request));
                    }
                    other => panic!("{other:?}"),
                }
            }
            machine.text_said(due);
        } else if let Some(len) = machine.poll_transmit(&mut buffer, NOW) {
            seen.push(name(&DeviceFrame::decode(&buffer[..len]).expect("a frame")));
        } else {
            match machine.poll_work(NOW) {
                Some(Work::Store(_)) => machine.worked(Ok(()), NOW),
                Some(Work::Dial { .. }) => machine.dialed(Ok(()), NOW),
                _ => return seen,
            }
        }
    }
}

fn allowed() -> Board {
    let mut all = heapless::Vec::new();
    assert!(all.push(old()).is_ok());
    let mut cells = Cells::default();
    assert!(cells.images.push(Default::default()).is_ok());
    let config = Config {
        tasks: TASK_LOG,
        ..config()
    };
    let machine = Machine::new(config, cells, all, 1, NOW);
    let record = Vec::new();
    Board { machine, record }.online()
}

#[test]
fn an_output_goes_before_its_report_each_time_that_this_is_stated() {
    let mut board = at("Receiving");
    assert_eq!(board.machine.text_due(), None);
    assert!(board.frame(&Cancel { update: UPDATE }.into()));
    // Not before the outcome is in the journal.
    assert_eq!(board.machine.text_due(), None);
    let report = ["Output(1, 1)", "Output(1, 2)", "Report(canceled, canceled)"];
    assert_eq!(said(&mut board.machine), report);
    assert_eq!(said(&mut board.machine), [""; 0]);
    // Asked again, the board states it again.
    assert!(board.frame(&Cancel { update: UPDATE }.into()));
    assert_eq!(said(&mut board.machine), report);
    for _ in 0..2 {
        board.machine.link_lost(NOW);
        assert_eq!(board.machine.text_due(), None);
        let due = board.machine.deadline().expect("it dials");
        assert!(matches!(
            board.machine.poll_work(due),
            Some(Work::Dial { .. })
        ));
        board.machine.dialed(Ok(()), due);
        assert_eq!(board.machine.text_due(), None, "Hello is the first");
        let mut again = vec!["Hello"];
        again.extend(report);
        assert_eq!(said(&mut board.machine), again);
    }
}

#[test]
fn a_log_is_read_where_it_is_allowed_and_waits_for_what_is_more_urgent() {
    let mut board = allowed();
    assert!(board.frame(&READ.into()));
    assert!(board.frame(&Ping { nonce: 1 }.into()));
    assert_eq!(board.machine.text_due(), None, "the Pong first");
    assert_eq!(
        said(&mut board.machine),
        ["Pong", "LogPart(9, 1)", "LogPart(9, 2)"]
    );
    assert_eq!(board.machine.text_due(), None);
    // A newer request takes the place of an older one, also of one that is being answered.
    assert!(board.frame(&READ.into()));
    let old = board.machine.text_due().expect("it is due");
    let newer = ReadLog {
        request: 10,
        ..READ
    };
    assert!(board.frame(&newer.into()));
    board.machine.text_said(old);
    assert_eq!(board.machine.text_due(), Some(TextDue::Log(newer)));
    // It is nobody's in the next session.
    board.machine.link_lost(NOW);
    let due = board.machine.deadline().expect("it dials");
    assert!(board.machine.poll_work(due).is_some());
    board.machine.dialed(Ok(()), due);
    assert_eq!(said(&mut board.machine), ["Hello"]);
    let welcome = Welcome {
        time_s: 0,
        ping_s: 0,
    };
    assert!(board.frame(&welcome.into()));
    assert_eq!(said(&mut board.machine), [""; 0]);
}

#[test]
fn a_log_that_the_configuration_does_not_allow_is_unsupported() {
    let mut board = Board::new(|_| {}).online();
    assert!(board.frame(&READ.into()));
    assert_eq!(board.machine.text_due(), None);
    assert_eq!(said(&mut board.machine), ["Unsupported"]);
}
