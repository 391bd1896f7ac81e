//! A cell of an entry that the journal has lost when the power comes back.

use super::{SHAPES, Shape, library, outcome, pushed, run, run_to_end, runs, small};
use crate::common::DAY;
use dialhome_loadtest::sim::boot::Nature;
use dialhome_loadtest::sim::fixture::{Image, bytes, plan_of};
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::world::{Setup, World};
use dialhome_proto::code::Reason;
use dialhome_proto::device::{Cell, Cells};
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;
use std::rc::Rc;

/// The power fails in this step, and the journal has lost the entry at this place when it comes
/// back. Whether it had one, and a trial of which the outcome was not stated.
fn lose_an_entry(world: &mut World, step: u64, place: usize) -> Option<bool> {
    world.power.cut_at(step);
    assert!(
        world.run_until(2 * DAY, |world| world.power_cuts > 0),
        "no cut"
    );
    let mut kept = world.cells.borrow_mut();
    let entry = Cell::Entry(u8::try_from(place).unwrap()).number();
    kept.remove(&entry)?;
    let mut cells = Cells::default();
    for cell in [Cell::Outbox, Cell::Trial] {
        if let Some(bytes) = kept.get(&cell.number()) {
            assert!(cells.load(cell, bytes), "{cell:?}");
        }
    }
    let (_, trial) = cells.tried().unzip();
    Some(trial.is_some_and(|trial| !cells.outbox.has_outcome_of(&trial.update)))
}

/// One cell is lost at a power cut: nothing is called confirmed or reverted that is not, and all
/// that can be put back is.
fn one_entry_is_lost(shape: Shape, bad: Option<(u8, Nature)>, every: usize, what: &str) -> u32 {
    let library = library(shape.0, bad, TrialBudget::default());
    let mut clean = pushed(small(shape), &library);
    run(&mut clean, what);
    let (steps, expected) = (clean.power.steps(), outcome(&clean));
    let mut lost = 0;
    for step in (0..steps).step_by(every) {
        for place in 0..shape.0.len() {
            let what = format!("{what} step {step} of {steps}, entry {place} lost");
            let mut world = pushed(small(shape), &library);
            let Some(in_trial) = lose_an_entry(&mut world, step, place) else {
                continue;
            };
            let finals: Vec<_> = (library[1..].iter())
                .filter(|image| {
                    let images = world.part(image.component).images.borrow();
                    images.running() == image.bytes && images.is_final()
                })
                .map(|image| image.component)
                .collect();
            // The power may fail again at any step of what follows.
            let again = world.power.steps() + step % 17;
            if again.is_multiple_of(2) {
                world.power.cut_at(again);
            }
            run_to_end(&mut world, &what);
            if !in_trial {
                assert_eq!(outcome(&world), expected, "{what}: {}", world.describe());
                continue;
            }
            lost += 1;
            assert_eq!(
                outcome(&world),
                (State::Failed, Reason::REVERT_FAILED),
                "{what}: {}",
                world.describe()
            );
            // Nothing changes any more, whatever the board does. A counter rises only where
            // every component was final before.
            for _ in 0..2 {
                for image in &library[1..] {
                    let part = world.part(image.component);
                    let is_final = finals.contains(&image.component);
                    assert!(
                        is_final || runs(part, &part.first),
                        "{what}: component {} is not put back",
                        image.component
                    );
                }
                let cells = world.client().expect("it is at rest").machine().cells();
                let all_final = finals.len() == shape.0.len();
                let risen = cells.images.iter().any(|image| image.counter != 0);
                assert!(all_final || !risen, "{what}: {}", world.describe());
                world.cut_power();
                let until = world.now + DAY;
                world.run_until(until, World::is_at_rest);
            }
        }
    }
    lost
}

#[test]
fn an_entry_that_is_lost_in_a_trial_puts_all_back() {
    let mut lost = 0;
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let last = *shape.0.last().expect("there is one");
        for (bad, every) in [(None, 1), (Some((last, Nature::FailsSelfTest)), 3)] {
            let what = format!("shape {number} {bad:?}");
            lost += one_entry_is_lost(shape, bad, every, &what);
        }
    }
    assert!(lost > 150, "{lost} trials");
}

#[test]
fn entries_that_the_journal_has_no_room_for_do_not_hold_up_other_updates() {
    let shape = SHAPES[2];
    let mut images = Vec::from(&library(shape.0, None, TrialBudget::default())[..]);
    let alone = bytes(Nature::Good, 900, 77);
    images.extend(Image::several(vec![(3, alone)], 5, TrialBudget::default()));
    let library = Rc::new(images);
    let setup = Setup {
        no_entries: true,
        ..small(shape)
    };
    let mut world = World::new(setup, Rc::clone(&library));
    let push = |world: &World, images: &[Image], number| {
        let plan = plan_of(images, update_id(number));
        world.store.borrow_mut().push(plan);
    };
    push(&world, &library[1..4], 1);
    let until = world.now + 3_600_000;
    world.run_until(until, World::is_at_rest);
    assert!(!outcome(&world).0.is_terminal(), "{}", world.describe());
    assert_eq!(world.store.borrow().chunks, 0, "{}", world.describe());
    world.store.borrow_mut().updates[0].state = State::Abandoned;
    world.kill_gateway();
    push(&world, &library[4..5], 2);
    let until = world.now + DAY;
    assert!(
        world.run_until(until, World::is_at_rest),
        "{}",
        world.describe()
    );
    assert_eq!(
        world.store.borrow().updates[1].state,
        State::Confirmed,
        "{}",
        world.describe()
    );
    assert_eq!(world.starts, 1, "it takes no restart");
}
