//! The gateway's delivery.

use dialhome_proto::code::{DigestFrom, Phase, Reason, SelfTest, Statement};
use dialhome_proto::frame::{
    Accept, Ack, Claim, Decline, Defer, DeviceFrame, Nack, Progress, Report, Trial,
};
use dialhome_proto::gateway::{Awaits, Command, Counters, Delivery, Part, Plan};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::time::Millis;

const UPDATE: UpdateId = UpdateId([1; 8]);
const SIZE: u32 = 4096;
const NOW: Millis = Millis(1000);

const MANIFEST: Digest = Digest([2; 32]);

const PART: Part = Part {
    component: 0,
    image: Digest([3; 32]),
    size: SIZE,
};

fn plan() -> Plan {
    Plan {
        update: UPDATE,
        manifest: MANIFEST,
        parts: [PART].into_iter().collect(),
        downgrade: false,
    }
}

/// How the board's Hello stands to the plan.
#[derive(Clone, Copy, Default)]
struct Stand {
    claims: bool,
    trial: Option<SelfTest>,
    runs: bool,
    cancel: bool,
}

fn start(stand: Stand) -> Delivery {
    start_from(stand, Counters::default())
}

/// The same, with what earlier sessions have counted.
fn start_from(stand: Stand, counters: Counters) -> Delivery {
    let hello = crate::board::hello(|hello| {
        let component = &mut hello.components[0];
        component.claim = stand.claims.then_some(Claim {
            manifest: MANIFEST,
            committed: 1024,
            staged: false,
        });
        component.trial = stand.trial.map(|self_test| Trial {
            update: UPDATE,
            self_test,
        });
        component.digest_from = DigestFrom::BOOTED;
        component.digest = if stand.runs {
            PART.image
        } else {
            Digest([9; 32])
        };
    });
    Delivery::start(plan(), &hello.components, 1088, counters, stand.cancel)
}

/// Carries out every command, and names those that were seen.
fn drain(delivery: &mut Delivery) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(command) = delivery.poll_command(NOW) {
        let named = match command {
            Command::Record(record) => {
                delivery.recorded();
                format!("stores `{}`", record.state)
            }
            Command::SendOffer { flags: 0, .. } => "Offer".to_owned(),
            Command::SendOffer { .. } => "Offer(restart)".to_owned(),
            Command::SendResume { .. } => "Resume".to_owned(),
            Command::CheckPrefix { .. } => "checks the prefix".to_owned(),
            Command::SendChunk(_) => "Chunks".to_owned(),
            Command::SendActivate(_) => "Activate".to_owned(),
            Command::SendCancel(_) => "Cancel".to_owned(),
            Command::SendConfirm(_) => "Confirm".to_owned(),
        };
        if seen.last() != Some(&named) {
            seen.push(named);
        }
        if matches!(command, Command::CheckPrefix { .. }) {
            break;
        }
    }
    seen
}

fn accept(offset: u32) -> DeviceFrame<'static> {
    Accept {
        update: UPDATE,
        image_offset: offset,
        prefix: Digest([7; 32]),
        payload_offset: offset,
        limit: offset,
        commit_ms: 100,
    }
    .into()
}

fn ack(committed: u32, limit: u32) -> DeviceFrame<'static> {
    Ack { committed, limit }.into()
}

fn report(state: Statement, reason: Reason) -> DeviceFrame<'static> {
    Report {
        sequence: 1,
        update: UPDATE,
        component: 0,
        state,
        reason,
        detail: "",
    }
    .into()
}

fn feed(delivery: &mut Delivery, frame: &DeviceFrame<'_>) {
    delivery
        .handle_frame(frame, NOW)
        .expect("it is allowed here");
    drain(delivery);
}

const STATES: [&str; 15] = [
    "Asking, held",
    "Offering",
    "Offering (Resume)",
    "Deferred",
    "Proving",
    "Transferring, shut",
    "Transferring",
    "Verifying",
    "Staged, held",
    "ActivateSent",
    "Activating",
    "Trial",
    "Confirming",
    "Canceling",
    "Ended",
];

/// A delivery in the state of this name.
fn at(state: &str) -> Delivery {
    let mut delivery = match state {
        "Offering (Resume)" => start(Stand {
            claims: true,
            ..Stand::default()
        }),
        "Trial" => start(Stand {
            trial: Some(SelfTest::FAILED),
            ..Stand::default()
        }),
        "Confirming" => start(Stand {
            trial: Some(SelfTest::PASSED),
            runs: true,
            ..Stand::default()
        }),
        "Canceling" => start(Stand {
            cancel: true,
            ..Stand::default()
        }),
        _ => start(Stand::default()),
    };
    if state == "Asking, held" {
        delivery.hold(true, NOW);
    }
    drain(&mut delivery);
    let defer = Defer {
        update: UPDATE,
        reason: Reason::BUSY,
        for_s: 60,
    }
    .into();
    match state {
        "Deferred" => feed(&mut delivery, &defer),
        "Proving" => feed(&mut delivery, &accept(1024)),
        "Transferring, shut" | "Transferring" | "Verifying" => {
            feed(&mut delivery, &accept(1024));
            delivery
                .handle_prefix(true, NOW)
                .expect("the Accept is right");
            drain(&mut delivery);
            if state != "Transferring, shut" {
                feed(&mut delivery, &ack(1024, SIZE));
            }
            if state == "Verifying" {
                feed(&mut delivery, &ack(SIZE, SIZE));
            }
        }
        "Staged, held" => {
            delivery.hold(true, NOW);
            feed(&mut delivery, &report(Statement::STAGED, Reason::NONE));
        }
        "ActivateSent" => feed(&mut delivery, &report(Statement::STAGED, Reason::NONE)),
        "Activating" => feed(&mut delivery, &report(Statement::ACTIVATING, Reason::NONE)),
        "Ended" => feed(&mut delivery, &report(Statement::FAILED, Reason::STORAGE)),
        _ => {}
    }
    let expected = state.split([',', ' ']).next().unwrap_or(state);
    assert_eq!(delivery.stage_name(), expected, "the way to {state}");
    delivery
}

fn cell(
    state: &str,
    event: &dyn Fn(&mut Delivery) -> Result<(), dialhome_proto::gateway::Fault>,
) -> String {
    let mut delivery = at(state);
    let before = delivery.clone();
    match event(&mut delivery) {
        Err(fault) => format!("Close(`{}`)", fault.0),
        Ok(()) => {
            let seen = drain(&mut delivery);
            let mut parts = Vec::new();
            if delivery.stage_name() != before.stage_name() {
                parts.push(format!("*{}*", delivery.stage_name()));
            }
            if seen.is_empty() && parts.is_empty() && delivery.deadline() != before.deadline() {
                parts.push("its time starts afresh".to_owned());
            }
            parts.extend(seen);
            if parts.is_empty() {
                "–".to_owned()
            } else {
                parts.join(", ")
            }
        }
    }
}

type Event = Box<dyn Fn(&mut Delivery) -> Result<(), dialhome_proto::gateway::Fault>>;

fn events() -> Vec<(&'static str, Event)> {
    // Time passes, so that a deadline that starts afresh can be told from the old one.
    let later = NOW.after(5000);
    let frame = move |frame: DeviceFrame<'static>| -> Event {
        Box::new(move |delivery: &mut Delivery| delivery.handle_frame(&frame, later))
    };
    let decline = |reason| {
        frame(
            Decline {
                update: UPDATE,
                reason,
            }
            .into(),
        )
    };
    vec![
        ("Accept", frame(accept(1024))),
        ("Accept beyond the image", frame(accept(SIZE + 1))),
        (
            "Defer",
            frame(
                Defer {
                    update: UPDATE,
                    reason: Reason::BUSY,
                    for_s: 60,
                }
                .into(),
            ),
        ),
        (
            "Decline(manifest_unknown)",
            decline(Reason::MANIFEST_UNKNOWN),
        ),
        ("Decline, another reason", decline(Reason::TOO_BIG)),
        (
            "Progress",
            frame(
                Progress {
                    update: UPDATE,
                    phase: Phase::PREPARING,
                    done: 0,
                    total: 1,
                }
                .into(),
            ),
        ),
        ("Ack", frame(ack(1024, SIZE))),
        ("Ack of the end", frame(ack(SIZE, SIZE))),
        ("Ack beyond the image", frame(ack(SIZE + 1, SIZE + 1))),
        (
            "Nack",
            frame(
                Nack {
                    offset: 1024,
                    reason: Reason::READ_BACK,
                }
                .into(),
            ),
        ),
        (
            "Nack below an Ack",
            frame(
                Nack {
                    offset: 0,
                    reason: Reason::READ_BACK,
                }
                .into(),
            ),
        ),
        (
            "Report(staged)",
            frame(report(Statement::STAGED, Reason::NONE)),
        ),
        (
            "Report(activating)",
            frame(report(Statement::ACTIVATING, Reason::NONE)),
        ),
        (
            "Report(confirmed)",
            frame(report(Statement::CONFIRMED, Reason::NONE)),
        ),
        (
            "Report(reverted)",
            frame(report(Statement::REVERTED, Reason::SELF_TEST)),
        ),
        (
            "Report(failed)",
            frame(report(Statement::FAILED, Reason::BAD_FLASH)),
        ),
        (
            "Report(canceled)",
            frame(report(Statement::CANCELED, Reason::CANCELED)),
        ),
        (
            "the prefix is right",
            Box::new(move |delivery| delivery.handle_prefix(true, later)),
        ),
        (
            "the prefix is wrong",
            Box::new(move |delivery| delivery.handle_prefix(false, later)),
        ),
        (
            "an operator cancels",
            Box::new(|delivery| {
                delivery.cancel();
                Ok(())
            }),
        ),
        (
            "an operator holds",
            Box::new(|delivery| {
                delivery.hold(true, NOW);
                Ok(())
            }),
        ),
        (
            "an operator releases",
            Box::new(|delivery| {
                delivery.hold(false, NOW);
                Ok(())
            }),
        ),
        (
            "its time is up",
            Box::new(|delivery| {
                let due = delivery.deadline().unwrap_or(NOW);
                delivery.handle_timeout(due)
            }),
        ),
    ]
}

#[test]
fn what_the_board_has_beyond_a_lost_count_was_sent_by_this_update_or_was_there_before_it() {
    let recorded = Counters {
        committed: 256,
        sent: 612,
        resent: 100,
        reached: 512,
    };
    let go_on = |begun: bool| {
        let stand = Stand {
            claims: true,
            ..Stand::default()
        };
        let mut delivery = start_from(stand, recorded);
        if begun {
            delivery.had_begun(0);
        }
        assert!(drain(&mut delivery).contains(&"Resume".to_owned()));
        feed(&mut delivery, &accept(1024));
        assert_eq!(delivery.handle_prefix(true, NOW), Ok(()));
        *delivery.counters()
    };
    let reached = Counters {
        committed: 1024,
        reached: 1024,
        ..recorded
    };
    // The gateway was killed within the transfer: 512 bytes more had been sent than it knew.
    assert_eq!(
        go_on(true),
        Counters {
            sent: 1124,
            ..reached
        }
    );
    // They are those of an earlier update.
    assert_eq!(go_on(false), reached);
}

#[test]
fn a_delivery_that_waits_for_its_turn_offers_and_sends_nothing_and_nothing_is_due_from_the_board() {
    let mut delivery = at("Asking, held");
    delivery.wait(true, NOW);
    assert!(!delivery.wants_place(), "it is held");
    delivery.hold(false, NOW);
    assert!(delivery.wants_place());
    assert_eq!(drain(&mut delivery), [""; 0]);
    assert_eq!(
        (delivery.awaits(), delivery.deadline()),
        (Awaits::Turn, None)
    );
    delivery.wait(false, NOW);
    assert!(drain(&mut delivery).contains(&"Offer".to_owned()));

    // With a part of the window sent, and the rest to come.
    let mut delivery = at("Transferring, shut");
    feed(&mut delivery, &ack(1024, SIZE));
    assert!(delivery.deadline().is_some() && delivery.wants_place());
    let due = delivery.deadline();
    let mut waiting = at("Transferring, shut");
    waiting.wait(true, NOW);
    let window = waiting.handle_frame(&ack(1024, SIZE), NOW);
    assert_eq!(window, Ok(()));
    assert!(matches!(
        waiting.poll_command(NOW),
        Some(Command::Record(_))
    ));
    waiting.recorded();
    assert!(waiting.next_chunk() > 0);
    assert_eq!(
        (waiting.poll_command(NOW), waiting.deadline()),
        (None, None)
    );
    let later = NOW.after(600_000);
    assert_eq!(waiting.handle_timeout(later), Ok(()));
    waiting.wait(false, later);
    assert!(matches!(
        waiting.poll_command(later),
        Some(Command::SendChunk(_))
    ));
    assert!(waiting.deadline() > due, "its time starts afresh");

    // Past its last byte, deferred or canceled it takes no place.
    for state in [
        "Verifying",
        "Deferred",
        "Trial",
        "Confirming",
        "Canceling",
        "Ended",
    ] {
        assert!(!at(state).wants_place(), "{state}");
    }
}

pub(crate) fn frame_table() -> String {
    let rows: Vec<(&str, Vec<String>)> = events()
        .iter()
        .map(|(name, event)| {
            (
                *name,
                STATES.iter().map(|state| cell(state, event)).collect(),
            )
        })
        .collect();
    crate::table(&STATES, &rows)
}

pub(crate) fn start_table() -> String {
    let trial = |self_test, runs| Stand {
        trial: Some(self_test),
        runs,
        ..Stand::default()
    };
    let stands = [
        ("nothing of the update", Stand::default()),
        (
            "a claim of the manifest",
            Stand {
                claims: true,
                ..Stand::default()
            },
        ),
        (
            "on trial, self-test passed, the image runs",
            trial(SelfTest::PASSED, true),
        ),
        (
            "on trial, self-test not_run, the image runs",
            trial(SelfTest::NOT_RUN, true),
        ),
        ("on trial, self-test failed", trial(SelfTest::FAILED, true)),
        (
            "on trial, another image runs",
            trial(SelfTest::PASSED, false),
        ),
    ];
    let rows: Vec<(&str, Vec<String>)> = stands
        .into_iter()
        .map(|(name, stand)| {
            let cells = [false, true].map(|cancel| {
                let mut delivery = start(Stand { cancel, ..stand });
                let seen = drain(&mut delivery);
                format!("*{}*, {}", delivery.stage_name(), seen.join(", "))
            });
            (name, cells.to_vec())
        })
        .collect();
    crate::table(&["not canceled", "canceled"], &rows)
}
