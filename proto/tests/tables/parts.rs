//! The gateway's delivery of a plan with three parts: components 3, 0 and 7.

use crate::board::hello;
use dialhome_proto::code::{CloseCode, DigestFrom, Reason, SelfTest, Statement};
use dialhome_proto::frame::{
    Accept, Ack, Claim, Component, Decline, Defer, DeviceFrame, Report, Trial,
};
use dialhome_proto::gateway::{Command, Counters, Delivery, Part, Plan, Standing, State};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::time::Millis;

const UPDATE: UpdateId = UpdateId([6; 8]);
const MANIFEST: Digest = Digest([2; 32]);
const NOW: Millis = Millis(1000);
const PARTS: [(u8, u32); 3] = [(3, 1024), (0, 2048), (7, 4096)];
const WHOLE: u64 = 1024 + 2048 + 4096;

fn image(component: u8) -> Digest {
    Digest([0x80 | component; 32])
}

fn plan() -> Plan {
    let parts = PARTS.into_iter().map(|(component, size)| Part {
        component,
        image: image(component),
        size,
    });
    Plan {
        update: UPDATE,
        manifest: MANIFEST,
        parts: parts.collect(),
        downgrade: false,
    }
}

/// What Hello says of a component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Old,
    New,
    Unknown,
    Claims,
    Trial(SelfTest),
    OldOnTrial,
}

/// The board's components; they stand in another order than the plan's parts.
fn board(says: [Says; 3]) -> Vec<Component<'static>> {
    let base = hello(|_| {}).components[0];
    let [of_3, of_0, of_7] = says;
    [(0, of_0), (3, of_3), (7, of_7)]
        .into_iter()
        .map(|(component, says)| {
            let new = matches!(says, Says::New | Says::Trial(_));
            let self_test = match says {
                Says::Trial(verdict) => Some(verdict),
                Says::OldOnTrial => Some(SelfTest::PASSED),
                _ => None,
            };
            Component {
                component,
                digest_from: if says == Says::Unknown {
                    DigestFrom::UNKNOWN
                } else {
                    DigestFrom::BOOTED
                },
                digest: if new {
                    image(component)
                } else {
                    Digest([9; 32])
                },
                trial: self_test.map(|self_test| Trial {
                    update: UPDATE,
                    self_test,
                }),
                claim: (says == Says::Claims).then_some(Claim {
                    manifest: MANIFEST,
                    committed: 512,
                    staged: false,
                }),
                ..base
            }
        })
        .collect()
}

fn start(says: [Says; 3]) -> Delivery {
    Delivery::start(plan(), &board(says), 1088, Counters::default(), false)
}

/// Carries out every command; chunks are told together.
fn drain(delivery: &mut Delivery) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    while let Some(command) = delivery.poll_command(NOW) {
        let named = match command {
            Command::Record(record) => {
                delivery.recorded();
                format!("{} {}", record.state, record.part)
            }
            Command::SendOffer { part, flags } => format!("Offer {part} {flags}"),
            Command::SendResume { part, .. } => format!("Resume {part}"),
            Command::CheckPrefix { part, len, .. } => format!("prefix {part} {len}"),
            Command::SendChunk(range) => format!("chunks {}", range.part),
            Command::SendActivate(_) => "Activate".to_owned(),
            Command::SendCancel(_) => "Cancel".to_owned(),
            Command::SendConfirm(_) => "Confirm".to_owned(),
        };
        let checks = matches!(command, Command::CheckPrefix { .. });
        if seen.last() != Some(&named) {
            seen.push(named);
        }
        if checks {
            break;
        }
    }
    seen
}

fn give(delivery: &mut Delivery, frame: impl Into<DeviceFrame<'static>>) -> Vec<String> {
    let given = delivery.handle_frame(&frame.into(), NOW);
    assert_eq!(given, Ok(()), "the frame is allowed");
    drain(delivery)
}

fn accept(offset: u32) -> Accept {
    Accept {
        update: UPDATE,
        image_offset: offset,
        prefix: Digest([7; 32]),
        payload_offset: offset,
        limit: offset,
        commit_ms: 100,
    }
}

fn report(component: u8, state: Statement, reason: Reason) -> Report<'static> {
    Report {
        sequence: 0,
        update: UPDATE,
        component,
        state,
        reason,
        detail: "",
    }
}

fn staged(component: u8) -> Report<'static> {
    report(component, Statement::STAGED, Reason::NONE)
}

/// The part under way, from its answer to the last byte.
fn transfer(delivery: &mut Delivery, part: u8, from: u32) {
    let size = PARTS[usize::from(part)].1;
    let asked = give(delivery, accept(from));
    assert_eq!(
        asked,
        [format!("accepted {part}"), format!("prefix {part} {from}")]
    );
    assert_eq!(delivery.handle_prefix(true, NOW), Ok(()));
    drain(delivery);
    let limit = size;
    let sent = give(
        delivery,
        Ack {
            committed: from,
            limit,
        },
    );
    assert!(sent.contains(&format!("chunks {part}")), "{sent:?}");
    let done = give(
        delivery,
        Ack {
            committed: size,
            limit,
        },
    );
    assert_eq!(done, [format!("verifying {part}")]);
}

#[test]
fn parts_go_in_order_and_activate_comes_after_the_last() {
    let mut delivery = start([Says::Old; 3]);
    assert_eq!(drain(&mut delivery), ["offered 0", "Offer 0 0"]);
    transfer(&mut delivery, 0, 0);
    assert_eq!(delivery.counters().committed, 1024);
    // The board has verified the manifest: what follows is asked for without it.
    assert_eq!(give(&mut delivery, staged(3)), ["offered 1", "Resume 1"]);
    transfer(&mut delivery, 1, 0);
    assert_eq!(delivery.counters().committed, 3072);
    assert_eq!(give(&mut delivery, staged(0)), ["offered 2", "Resume 2"]);
    assert!(delivery.is_part_done(1) && !delivery.is_part_done(2));
    transfer(&mut delivery, 2, 0);
    assert_eq!(give(&mut delivery, staged(7)), ["staged 2", "Activate"]);
    let counters = delivery.counters();
    assert_eq!((counters.committed, counters.sent), (WHOLE, WHOLE));
    assert_eq!(counters.resent, 0);
}

#[test]
fn what_runs_already_is_skipped_and_counts_as_committed() {
    let mut delivery = start([Says::New, Says::Old, Says::New]);
    assert!(delivery.skips(0) && !delivery.skips(1) && delivery.skips(2));
    assert_eq!(drain(&mut delivery), ["offered 1", "Offer 1 0"]);
    transfer(&mut delivery, 1, 0);
    assert_eq!(delivery.counters().committed, 3072);
    assert_eq!(give(&mut delivery, staged(0)), ["staged 1", "Activate"]);
    let counters = delivery.counters();
    assert_eq!((counters.committed, counters.sent), (WHOLE, 2048));

    // Where all run the board is asked all the same, and says so.
    let mut delivery = start([Says::New; 3]);
    assert!(!delivery.skips(0));
    assert_eq!(drain(&mut delivery), ["offered 0", "Offer 0 0"]);
    let confirmed = report(3, Statement::CONFIRMED, Reason::ALREADY_RUNNING);
    assert_eq!(give(&mut delivery, confirmed), ["confirmed 0"]);
}

#[test]
fn a_claimed_part_is_resumed_and_a_wrong_prefix_restarts_that_part_alone() {
    let mut delivery = start([Says::Claims, Says::Claims, Says::Old]);
    assert_eq!(drain(&mut delivery), ["offered 0", "Resume 0"]);
    // It is whole: nothing is sent of it.
    give(&mut delivery, accept(1024));
    assert_eq!(give(&mut delivery, staged(3)), ["offered 1", "Resume 1"]);
    give(&mut delivery, accept(512));
    assert_eq!(delivery.handle_prefix(false, NOW), Ok(()));
    assert_eq!(drain(&mut delivery), ["offered 1", "Offer 1 2"]);
    transfer(&mut delivery, 1, 0);
    assert_eq!(delivery.counters().committed, 3072);
    assert_eq!(give(&mut delivery, staged(0)), ["offered 2", "Resume 2"]);
    // A board that keeps nothing of the others has the manifest sent again.
    let unknown = Decline {
        update: UPDATE,
        reason: Reason::MANIFEST_UNKNOWN,
    };
    assert_eq!(give(&mut delivery, unknown), ["offered 2", "Offer 2 0"]);
    assert_eq!(delivery.part(), 2);
}

#[test]
fn a_part_that_is_deferred_or_declined_or_staged_out_of_turn() {
    let mut delivery = start([Says::Old; 3]);
    drain(&mut delivery);
    transfer(&mut delivery, 0, 0);
    // Another component's word, and a late one, move nothing on.
    assert_eq!(give(&mut delivery, staged(7)), [""; 0]);
    give(&mut delivery, staged(3));
    assert_eq!(give(&mut delivery, staged(3)), [""; 0]);
    assert_eq!(delivery.part(), 1);
    let defer = Defer {
        update: UPDATE,
        reason: Reason::BUSY,
        for_s: 5,
    };
    assert_eq!(give(&mut delivery, defer), ["deferred 1"]);
    assert_eq!(delivery.handle_timeout(NOW.after(5000)), Ok(()));
    assert_eq!(drain(&mut delivery), ["offered 1", "Offer 1 0"]);
    let beyond = delivery.handle_frame(&accept(2049).into(), NOW);
    assert_eq!(
        beyond.map_err(|fault| fault.0),
        Err(CloseCode::ACK_BEYOND_SENT)
    );
    let declined = Decline {
        update: UPDATE,
        reason: Reason::TOO_BIG,
    };
    assert_eq!(give(&mut delivery, declined), ["declined 1"]);
}

#[test]
fn between_two_parts_it_can_be_held_and_canceled() {
    let mut delivery = start([Says::Old; 3]);
    drain(&mut delivery);
    transfer(&mut delivery, 0, 0);
    delivery.hold(true, NOW);
    assert_eq!(give(&mut delivery, staged(3)), [""; 0]);
    delivery.hold(false, NOW);
    assert_eq!(drain(&mut delivery), ["offered 1", "Resume 1"]);
    delivery.cancel();
    assert_eq!(drain(&mut delivery), ["canceling 1", "Cancel"]);
    let canceled = report(0, Statement::CANCELED, Reason::CANCELED);
    assert_eq!(give(&mut delivery, canceled), ["canceled 1"]);
}

#[test]
fn the_whole_is_confirmed_only_where_every_part_is_well() {
    use Says::{New, Old, OldOnTrial, Trial, Unknown};
    let passed = Trial(SelfTest::PASSED);
    let not_run = Trial(SelfTest::NOT_RUN);
    let failed = Trial(SelfTest::FAILED);
    for (says, standing) in [
        ([passed, passed, passed], Standing::Well),
        ([passed, not_run, passed], Standing::Well),
        ([New, passed, New], Standing::Well),
        ([passed, failed, passed], Standing::OnTrial),
        ([passed, Old, passed], Standing::OnTrial),
        ([passed, passed, Unknown], Standing::OnTrial),
        ([OldOnTrial, passed, passed], Standing::OnTrial),
        ([New, New, failed], Standing::OnTrial),
        ([New, New, New], Standing::Unknown),
        ([Old, Says::Claims, Old], Standing::Unknown),
        ([Says::Claims, Old, Old], Standing::Claims),
        ([New, Says::Claims, Old], Standing::Claims),
    ] {
        assert_eq!(Standing::of(&plan(), &board(says)), standing);
        let mut delivery = start(says);
        let seen = drain(&mut delivery);
        assert_eq!(
            seen.contains(&"Confirm".to_owned()),
            standing == Standing::Well,
            "{seen:?}"
        );
        // A word that Hello contradicts is not taken; where Hello does not know, an earlier one
        // must have said it.
        let contradicts = says
            .iter()
            .any(|of| matches!(of, Old | OldOnTrial | Says::Claims));
        for seen in [false, true] {
            let mut delivery = start(says);
            if seen {
                delivery.seen_on_trial();
            }
            drain(&mut delivery);
            let words = give(&mut delivery, report(3, Statement::CONFIRMED, Reason::NONE));
            let expected = if contradicts || says.contains(&Unknown) && !seen {
                State::Reverted
            } else {
                State::Confirmed
            };
            let said = words.iter().any(|word| word.starts_with(expected.name()));
            assert!(said, "{words:?}, not {expected}");
        }
    }
}

#[test]
fn a_component_that_is_missing_ends_it_without_a_frame() {
    let mut components = board([Says::Old; 3]);
    components.retain(|component| component.component != 7);
    assert_eq!(Standing::of(&plan(), &components), Standing::Missing);
    let start = |components: &[Component<'_>]| {
        Delivery::start(plan(), components, 1088, Counters::default(), false)
    };
    let mut delivery = start(&components);
    assert_eq!(drain(&mut delivery), ["declined 0"]);
    assert!(delivery.has_ended());
    // On trial it is the board's to end it.
    let mut components = board([Says::Trial(SelfTest::PASSED); 3]);
    components.retain(|component| component.component != 7);
    assert_eq!(Standing::of(&plan(), &components), Standing::OnTrial);
}
