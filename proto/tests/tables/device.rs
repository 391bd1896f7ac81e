//! The tables of the board's machine.

use crate::board::{
    Board, Finds, NOW, SIZE, STATES, UPDATE, after_boot, at, chunk, gateways, image, manifest, new,
    offer, old, running, unknown,
};
use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Reason, Refusal, SelfTest};
use dialhome_proto::device::{BootAction, DialFault, LinkState, Machine, TrialPhase, Work};
use dialhome_proto::frame::{
    Activate, Cancel, Close, Confirm, DeviceFrame, GatewayFrame, Keepalive, NewKey, Ping, Pong,
    RESTART, ReadLog, Resume, SetGateways, Settled, Unsupported, Welcome,
};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::manifest::Manifest;

pub(crate) fn frame_table() -> String {
    let (manifest, gateways, image) = (manifest(), gateways(), image());
    let digest = Manifest::parse(&manifest).expect("it is one").digest();
    let other = UpdateId([2; 8]);
    let resume = |manifest| -> GatewayFrame<'static> {
        Resume {
            update: UPDATE,
            group: 0,
            order: 0,
            component: 0,
            flags: 0,
            encoding: 0,
            base: None,
            payload_size: SIZE,
            manifest,
        }
        .into()
    };
    let frames: Vec<(&str, GatewayFrame<'_>)> = vec![
        (
            "Welcome",
            Welcome {
                time_s: 0,
                ping_s: 0,
            }
            .into(),
        ),
        (
            "Close",
            Close {
                code: CloseCode::STOPPING,
                reconnect_after_s: 0,
            }
            .into(),
        ),
        ("Ping", Ping { nonce: 1 }.into()),
        ("Pong, not asked for", Pong { nonce: 1 }.into()),
        ("Unsupported", Unsupported { number: 1 }.into()),
        ("Keepalive", Keepalive { ping_s: 60 }.into()),
        ("Settled, unknown sequence", Settled { sequence: 77 }.into()),
        ("NewKey", NewKey { key: [3; 32] }.into()),
        (
            "SetGateways",
            SetGateways {
                statement: &gateways,
            }
            .into(),
        ),
        ("Offer", offer(&manifest, 0)),
        ("Offer(restart)", offer(&manifest, RESTART)),
        ("Resume of the claim", resume(digest)),
        ("Resume of another manifest", resume(Digest([8; 32]))),
        ("Chunk", chunk(0, &image[..1024])),
        ("Chunk out of place", chunk(1024, &image[1024..])),
        ("Activate", Activate { update: UPDATE }.into()),
        (
            "Activate of another update",
            Activate { update: other }.into(),
        ),
        ("Cancel", Cancel { update: UPDATE }.into()),
        ("Cancel of another update", Cancel { update: other }.into()),
        (
            "ReadLog, not allowed",
            ReadLog {
                request: 1,
                lines: 10,
                bytes: 1000,
            }
            .into(),
        ),
        ("Confirm", Confirm { update: UPDATE }.into()),
        (
            "Confirm of another update",
            Confirm { update: other }.into(),
        ),
    ];
    let mut rows: Vec<(&str, Vec<String>)> = frames
        .iter()
        .map(|(name, frame)| {
            let cells = STATES.map(|state| {
                let mut board = at(state);
                if board.frame(frame) {
                    board.outcome(state)
                } else if state == "Activating, leaving" {
                    "ignored".to_owned()
                } else {
                    "waits".to_owned()
                }
            });
            (*name, cells.to_vec())
        })
        .collect();
    for (name, record) in [
        ("a number not known", &[0x70_u8][..]),
        ("a malformed body", &[0x43, 1]),
    ] {
        let cells = STATES.map(|state| {
            let mut board = at(state);
            if !board.machine.wants_record() {
                let leaving = state == "Activating, leaving";
                return if leaving { "ignored" } else { "waits" }.to_owned();
            }
            board.machine.handle_record(record, NOW);
            board.outcome(state)
        });
        rows.push((name, cells.to_vec()));
    }
    let lost = STATES.map(|state| {
        let mut board = at(state);
        board.machine.link_lost(NOW);
        let name = board.name();
        format!("*{name}*")
    });
    rows.push(("the link is lost", lost.to_vec()));
    crate::table(&STATES, &rows)
}

pub(crate) fn link_table() -> String {
    let states = ["Down", "Dialing", "Greeting", "Online", "Leaving"];
    let reach = |state: &str| -> Board {
        let mut board = match state {
            "Greeting" => at("Greeting"),
            "Online" => at("Idle"),
            "Leaving" => {
                let mut board = at("Idle");
                board.frame(
                    &Close {
                        code: CloseCode::STOPPING,
                        reconnect_after_s: 0,
                    }
                    .into(),
                );
                board
            }
            _ => Board::new(|_| {}),
        };
        if matches!(state, "Dialing" | "Leaving") {
            board.drain();
        }
        board
    };
    let name = |board: &Board| match board.machine.link_state() {
        LinkState::Down { .. } => "Down",
        LinkState::Dialing => "Dialing",
        LinkState::Greeting { .. } => "Greeting",
        LinkState::Online => "Online",
        LinkState::Leaving { .. } => "Leaving",
    };
    type Event = (
        &'static str,
        &'static [&'static str],
        fn(&mut Machine<'static>),
    );
    let events: [Event; 10] = [
        ("the wait is over", &["Down"], |machine| {
            let _ = machine.poll_work(NOW.after(900_000));
        }),
        ("the handshake is done", &["Dialing"], |machine| {
            machine.dialed(Ok(()), NOW)
        }),
        ("no network", &["Dialing"], |machine| {
            machine.dialed(Err(DialFault::NoLink), NOW)
        }),
        ("no answer", &["Dialing"], |machine| {
            machine.dialed(Err(DialFault::NoAnswer), NOW)
        }),
        ("refused", &["Dialing"], |machine| {
            let fault = DialFault::Refused {
                code: Refusal::REFUSED,
                retry_after_s: 1,
            };
            machine.dialed(Err(fault), NOW);
        }),
        ("the answer is not of this key", &["Dialing"], |machine| {
            machine.dialed(Err(DialFault::WrongKey), NOW)
        }),
        (
            "the link is lost",
            &["Down", "Dialing", "Greeting", "Online", "Leaving"],
            |machine| machine.link_lost(NOW),
        ),
        ("the connection is closed", &["Leaving"], |machine| {
            machine.hung_up(NOW)
        }),
        ("its deadline", &["Greeting", "Online"], |machine| {
            let due = machine.deadline().expect("it has one");
            machine.handle_timeout(due);
        }),
        ("no Pong for that Ping", &["Online"], |machine| {
            for _ in 0..2 {
                let due = machine.deadline().expect("it has one");
                machine.handle_timeout(due);
            }
        }),
    ];
    let rows: Vec<(&str, Vec<String>)> = events
        .iter()
        .map(|(event, in_states, apply)| {
            let cells = states.map(|state| {
                if !in_states.contains(&state) {
                    return "cannot be".to_owned();
                }
                let mut board = reach(state);
                apply(&mut board.machine);
                let next = name(&board);
                let mut buffer = [0; 1008];
                let sent = board.machine.poll_transmit(&mut buffer, NOW);
                let sent = sent.map(|len| {
                    DeviceFrame::decode(&buffer[..len])
                        .expect("it made it")
                        .name()
                        .to_owned()
                });
                let moved = (next != state).then(|| format!("*{next}*"));
                let parts: Vec<String> = [moved, sent].into_iter().flatten().collect();
                if parts.is_empty() {
                    "–".to_owned()
                } else {
                    parts.join(", ")
                }
            });
            (*event, cells.to_vec())
        })
        .collect();
    crate::table(&states, &rows)
}

pub(crate) fn boot_table() -> String {
    let phases = [
        ("activating", TrialPhase::Activating),
        ("switched", TrialPhase::Switched),
        ("testing", TrialPhase::Testing),
        ("confirming", TrialPhase::Confirming),
        ("reverting", TrialPhase::Reverting),
    ];
    let gone_back = running(Digest([9; 32]), DigestFrom::BOOTED, BootReason::REVERT);
    let found = [new(), old(), gone_back, unknown()];
    let rows: Vec<(&str, Vec<String>)> = phases
        .iter()
        .map(|(name, phase)| {
            let cells = found.iter().map(|running| {
                let mut board = after_boot(*phase, running.clone());
                let stage = board.machine.stage_name();
                // What it will say when it has dialed.
                if board.machine.cells().outbox.entries().is_empty() {
                    return format!("*{stage}*");
                }
                board.drain();
                board.machine.dialed(Ok(()), NOW);
                let said = board.drain().0.pop().unwrap_or_default();
                format!("*{stage}*, {said}")
            });
            (*name, cells.collect())
        })
        .collect();
    crate::table(
        &[
            "the new image runs",
            "another image runs",
            "another, and the bootloader went back",
            "unknown what runs",
        ],
        &rows,
    )
}

type Answer = fn(&mut Board, Work);

fn fails(board: &mut Board, work: Work) {
    match work {
        Work::CheckManifest => {
            let record = board.record.clone();
            board
                .machine
                .check_manifest(&record, &mut Finds(false), NOW);
        }
        Work::CheckGateways => {
            let record = board.record.clone();
            board.machine.check_gateways(&record, &mut Finds(false));
        }
        Work::Boot(BootAction::SelfTest) => board.machine.self_tested(SelfTest::FAILED, "", NOW),
        Work::Boot(BootAction::Look) => board.machine.looked(unknown(), NOW),
        Work::Boot(_) => board.machine.booted(Err(Reason::INSTALL_FAILED), "", NOW),
        _ => board.machine.worked(Err(Reason::STORAGE), NOW),
    }
}

fn works(board: &mut Board, work: Work) {
    match work {
        Work::Boot(BootAction::SelfTest) => board.machine.self_tested(SelfTest::PASSED, "", NOW),
        Work::Boot(BootAction::Look) => board.machine.looked(new(), NOW),
        Work::Boot(_) => board.machine.booted(Ok(true), "", NOW),
        other => board.carry_out(other),
    }
}

fn works_without_restart(board: &mut Board, work: Work) {
    match work {
        Work::Boot(BootAction::Look) => board.machine.looked(old(), NOW),
        Work::Boot(BootAction::SelfTest) => board.machine.self_tested(SelfTest::NOT_RUN, "", NOW),
        Work::Boot(_) => board.machine.booted(Ok(false), "", NOW),
        other => board.carry_out(other),
    }
}

/// A board that has this work to do next.
fn working(name: &str) -> Board {
    let chunked = || {
        let mut board = at("Receiving");
        assert!(board.frame(&chunk(0, &image()[..1024])));
        board
    };
    let mut board = match name {
        "CheckGateways" => {
            let mut board = at("Idle");
            assert!(
                board.frame(
                    &SetGateways {
                        statement: &gateways()
                    }
                    .into()
                )
            );
            board
        }
        "CheckManifest" => at("Checking"),
        "Read, proving" => at("Proving"),
        "Prepare" | "Erase" => at("Preparing"),
        "Write" | "Read, what was written" | "Flush" | "Read, into the digest" => chunked(),
        "Activate" | "Restart(update)" | "Look" => after_boot(TrialPhase::Activating, old()),
        "SelfTest" => after_boot(TrialPhase::Switched, new()),
        "Confirm" => at("Confirming"),
        _ => after_boot(TrialPhase::Reverting, new()),
    };
    let before = match name {
        "Erase" | "Read, what was written" | "Restart(update)" | "Look" => 1,
        "Flush" => 2,
        "Read, into the digest" => 3,
        _ => 0,
    };
    for _ in 0..before {
        let (_, work) = board.drain();
        let work = work.expect("there is work");
        if name == "Look" {
            works_without_restart(&mut board, work);
        } else {
            works(&mut board, work);
        }
    }
    board
}

pub(crate) fn work_table() -> String {
    let names = [
        "CheckGateways",
        "CheckManifest",
        "Read, proving",
        "Prepare",
        "Erase",
        "Write",
        "Read, what was written",
        "Flush",
        "Read, into the digest",
        "Activate",
        "Restart(update)",
        "Look",
        "SelfTest",
        "Confirm",
        "Revert",
    ];
    let rows: Vec<(&str, Vec<String>)> = names
        .iter()
        .map(|name| {
            let answers: [Answer; 3] = [works, works_without_restart, fails];
            let stage = working(name).machine.stage_name();
            let mut cells = vec![format!("*{stage}*")];
            cells.extend(answers.iter().enumerate().map(|(place, answer)| {
                let boots = matches!(
                    *name,
                    "Activate" | "Restart(update)" | "Look" | "SelfTest" | "Revert"
                );
                if place == 1 && !boots {
                    return String::new();
                }
                let mut board = working(name);
                let (_, work) = board.drain();
                let work = work.expect("there is work");
                let before = board.name();
                answer(&mut board, work);
                board.outcome(&before)
            }));
            (*name, cells)
        })
        .collect();
    crate::table(
        &[
            "in",
            "done (Boot: a restart is needed; Look: the new image; SelfTest: passed)",
            "no restart is needed (Look: the old image; SelfTest: not_run)",
            "failed (Look: unknown)",
        ],
        &rows,
    )
}
