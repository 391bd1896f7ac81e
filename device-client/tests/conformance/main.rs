//! The conformance checks on good implementations, which pass, and on one broken
//! implementation per check, which that check alone must name.

mod example;
mod linux;
mod memory;
mod nor;
mod sd;

use dialhome_device::conformance::{
    self, Board, Check, Context, Fault, Finding, SCRATCH_LEN, SecondImage, Stage, Verdict, What,
};
use memory::{MemoryBoot, MemoryJournal, MemorySlot, Silence, World};
use std::collections::BTreeSet;

/// More stages than any run has.
const STAGES_MAX: usize = 100;

/// Runs every stage, with a reset between any two, and with `cuts` power cuts, the first
/// of them after `cut_after` durable steps.
fn drive(world: &World, cuts: u8, cut_after: u32) -> Result<BTreeSet<Check>, Fault> {
    let mut passed = BTreeSet::new();
    let mut stage = Stage::FIRST;
    for turn in 0.. {
        assert!(turn < STAGES_MAX, "the run does not end");
        let mut slot = MemorySlot::new(world);
        let mut journal = MemoryJournal::new(world);
        let mut boot = MemoryBoot::new(world);
        let mut board = Board {
            slot: &mut slot,
            journal: &mut journal,
            boot: &mut boot,
        };
        let mut scratch = [0; SCRATCH_LEN];
        let mut watch = |check, finding| {
            if finding == Finding::Passed {
                passed.insert(check);
            }
        };
        let image = world.other_image();
        let read = |offset: u32, piece: &mut [u8]| {
            let offset = offset as usize;
            piece.copy_from_slice(&image[offset..offset + piece.len()]);
        };
        let mut context = Context::new(&mut scratch, &mut watch);
        context.components = &[0, 3];
        context.stores = 120;
        context.cuts = cuts;
        context.image = Some(SecondImage {
            size: u32::try_from(image.len()).unwrap(),
            read: &read,
        });
        match conformance::run(&mut board, &mut context, stage) {
            Verdict::Reset { next } => stage = next,
            Verdict::CutPower { next } => {
                world.cut_after(cut_after);
                let cut = conformance::churn(&mut board, &mut context, next, 3);
                assert_eq!(cut.is_err(), world.is_cut());
                stage = next;
            }
            Verdict::Done => break,
            Verdict::Failed(fault) => return Err(fault),
        }
        world.reset();
    }
    assert!(world.journal_is_empty());
    Ok(passed)
}

#[test]
fn a_good_board_passes_every_check() {
    let mut passed = drive(&World::good(), 2, 17).unwrap();
    passed.extend(transport(None).unwrap());
    let all: BTreeSet<Check> = Check::ALL.iter().copied().collect();
    let missing: Vec<&Check> = all.difference(&passed).collect();
    assert_eq!(missing, [&Check::Stage], "checks that were not made");
}

#[test]
fn every_cut_of_a_good_board_passes() {
    for cut_after in 0..60 {
        let passed = drive(&World::good(), 1, cut_after).unwrap();
        assert!(passed.contains(&Check::CutStore) && passed.contains(&Check::CutSlot));
    }
}

/// The broken implementation of a check is the good one with one `is(check)` in it.
#[test]
fn each_broken_contract_is_caught_by_its_own_check() {
    for &check in Check::ALL {
        let fault = match check {
            Check::Stage => bad_stage(),
            Check::Nobody
            | Check::Bound
            | Check::ClosedSend
            | Check::ClosedReceive
            | Check::Facts => transport(Some(check)).unwrap_err(),
            // Some cut of a store or of an erase must show it.
            Check::CutStore | Check::CutSlot => (0..60)
                .find_map(|cut_after| drive(&World::broken(check), 1, cut_after).err())
                .unwrap_or_else(|| panic!("no cut shows {}", check.name())),
            _ => match drive(&World::broken(check), 0, 0) {
                Err(fault) => fault,
                Ok(_) => panic!("{} did not catch what breaks it", check.name()),
            },
        };
        assert_eq!(fault.check, check, "{fault}");
    }
}

fn bad_stage() -> Fault {
    let world = World::good();
    let mut scratch = [0; SCRATCH_LEN];
    let mut watch = |_, _| {};
    let verdict = conformance::run(
        &mut Board {
            slot: &mut MemorySlot::new(&world),
            journal: &mut MemoryJournal::new(&world),
            boot: &mut MemoryBoot::new(&world),
        },
        &mut Context::new(&mut scratch, &mut watch),
        Stage::from_raw(77),
    );
    match verdict {
        Verdict::Failed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

fn transport(broken: Option<Check>) -> Result<BTreeSet<Check>, Fault> {
    let mut passed = BTreeSet::new();
    let times = std::cell::Cell::new(0);
    let mut clock = || {
        let slow = broken == Some(Check::Bound);
        times.set(times.get() + if slow { 5_001 } else { 5_000 });
        times.get()
    };
    conformance::transport(
        &mut Silence {
            broken,
            fails_after: None,
        },
        "127.0.0.1:9",
        &mut conformance::Patience {
            connect_ms: 5_000,
            clock: &mut clock,
        },
        &mut |check, _| {
            passed.insert(check);
        },
    )?;
    Ok(passed)
}

#[test]
fn a_connection_that_is_only_begun_may_fail_later() {
    let dial = |calls| {
        let mut time = 0;
        let mut clock = || {
            time += 100;
            time
        };
        let mut silence = Silence {
            broken: None,
            fails_after: Some(calls),
        };
        let mut patience = conformance::Patience {
            connect_ms: 5_000,
            clock: &mut clock,
        };
        conformance::transport(&mut silence, "127.0.0.1:9", &mut patience, &mut |_, _| {})
    };
    assert_eq!(dial(20), Ok(()));
    assert_eq!(dial(90).unwrap_err().check, Check::Nobody);
}

/// The stage in the journal under test, without anything else that survives a reset.
#[test]
fn the_stage_can_be_kept_in_the_journal_under_test() {
    let world = World::good();
    let mut verdicts = Vec::new();
    while verdicts.last() != Some(&Verdict::Done) {
        assert!(verdicts.len() < STAGES_MAX, "{verdicts:?}");
        let mut slot = MemorySlot::new(&world);
        let mut journal = MemoryJournal::new(&world);
        let mut boot = MemoryBoot::new(&world);
        let mut scratch = [0; SCRATCH_LEN];
        let mut watch = |_, _| {};
        let mut context = Context::new(&mut scratch, &mut watch);
        context.cuts = 3;
        let mut board = Board {
            slot: &mut slot,
            journal: &mut journal,
            boot: &mut boot,
        };
        let verdict = conformance::run_kept(&mut board, &mut context);
        if let Verdict::CutPower { next } = verdict {
            world.cut_after(11);
            assert!(conformance::churn(&mut board, &mut context, next, 9).is_err());
        }
        assert!(!matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        verdicts.push(verdict);
        world.reset();
    }
    let cuts = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Verdict::CutPower { .. }));
    assert_eq!(cuts.count(), 3);
    assert_eq!(verdicts.len(), 4 + 3 + 1);
}

#[test]
fn a_fault_reads_as_a_sentence() {
    let fault = Fault {
        stage: Stage::FIRST,
        check: Check::FlushKeeps,
        what: What::Found("the slot holds other bytes"),
        part: 0,
        at: 1024,
    };
    assert_eq!(
        fault.to_string(),
        "FlushKeeps (Slot::flush): after a flush, a reset loses no byte; but the slot holds other bytes (stage 0, component or cell 0, offset 1024)"
    );
    // Names and sentences are each a check's own.
    let names: BTreeSet<&str> = Check::ALL.iter().map(|check| check.name()).collect();
    let texts: BTreeSet<&str> = Check::ALL.iter().map(|check| check.text()).collect();
    assert_eq!(
        (names.len(), texts.len()),
        (Check::ALL.len(), Check::ALL.len())
    );
}
