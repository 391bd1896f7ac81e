//! One update with several entries, with each fault at each component: the whole is confirmed
//! only when every component is, and put back together where the components allow it.

mod lost;

use crate::common::DAY;
use dialhome_loadtest::sim::boot::{Loader, Nature, Part};
use dialhome_loadtest::sim::fixture::{Image, bytes, plan_of};
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::net::{Break, Cut, Manners, Way};
use dialhome_loadtest::sim::world::{Setup, World};
use dialhome_proto::code::Reason;
use dialhome_proto::device::Cell;
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::rc::Rc;

/// The order of the components; the bootloader of component 0, and those of the others.
type Shape = (&'static [u8], Loader, &'static [(u8, Loader)]);

/// The main component first, last, and in between.
const SHAPES: [Shape; 4] = [
    (&[0, 3], Loader::Patient, &[(3, Loader::Direct)]),
    (&[3, 0], Loader::Patient, &[(3, Loader::Direct)]),
    (
        &[3, 0, 7],
        Loader::Patient,
        &[(3, Loader::Direct), (7, Loader::Direct)],
    ),
    (
        &[7, 0, 3],
        Loader::Direct,
        &[(3, Loader::Patient), (7, Loader::Patient)],
    ),
];

fn small(shape: Shape) -> Setup {
    let mut setup = Setup {
        loader: shape.1,
        beside: shape.2.to_vec(),
        ..Setup::default()
    };
    setup.component.erase_unit = 256;
    setup.component.window = 512;
    setup.component.claim_every = 512;
    setup
}

/// The old image of component 0, then one of each component; that of `bad` has this nature.
fn library(order: &[u8], bad: Option<(u8, Nature)>, budget: TrialBudget) -> Rc<Vec<Image>> {
    let mut all = vec![Image::new(Nature::Good, 700, 1, budget, 1)];
    let parts = order.iter().map(|component| {
        let nature = bad.filter(|(of, _)| of == component);
        let nature = nature.map_or(Nature::Good, |(_, nature)| nature);
        let size = 600 + 150 * usize::from(*component);
        (*component, bytes(nature, size, 50 + u64::from(*component)))
    });
    all.extend(Image::several(parts.collect(), 2, budget));
    Rc::new(all)
}

fn pushed(setup: Setup, library: &Rc<Vec<Image>>) -> World {
    let world = World::new(setup, Rc::clone(library));
    let plan = plan_of(&library[1..], update_id(1));
    world.store.borrow_mut().push(plan);
    world
}

fn outcome(world: &World) -> (State, Reason) {
    let store = world.store.borrow();
    (store.updates[0].state, store.updates[0].reason)
}

fn runs(part: &Part, image: &[u8]) -> bool {
    part.images.borrow().running() == image
}

/// What the record says is so, at every moment.
fn check_now(world: &World, what: &str) {
    let (state, reason) = outcome(world);
    for image in &world.library[1..] {
        let part = world.part(image.component);
        let (new, old) = (runs(part, &image.bytes), runs(part, &part.first));
        let component = image.component;
        assert!(
            new || old,
            "{what}: component {component} runs a mixed image"
        );
        match state {
            State::Confirmed => assert!(
                new && part.images.borrow().is_final(),
                "{what}: confirmed, and component {component} is not: {}",
                world.describe()
            ),
            State::Reverted => assert!(
                old && reason != Reason::WRONG_IMAGE_RUNNING,
                "{what}: reverted {reason}, and component {component} is not: {}",
                world.describe()
            ),
            State::Canceled | State::Declined => {
                assert!(
                    old,
                    "{what}: {state}, and component {component} was changed"
                );
            }
            _ => {}
        }
    }
}

/// Runs to the end, looking at every step.
fn run(world: &mut World, what: &str) {
    run_to_end(world, what);
    let state = outcome(world).0;
    let cells = world.client().expect("it is at rest").machine().cells();
    for (place, part) in world.parts.iter().enumerate() {
        let planned = world.library[1..]
            .iter()
            .any(|image| image.component == part.number);
        let counter = if state == State::Confirmed && planned {
            2
        } else {
            0
        };
        assert_eq!(
            cells.images[place].counter, counter,
            "{what}: {state}, component {}",
            part.number
        );
    }
}

fn run_to_end(world: &mut World, what: &str) {
    let done = world.run_until(2 * DAY, |world| {
        check_now(world, what);
        world.is_at_rest()
    });
    assert!(done, "{what}: stuck: {}", world.describe());
    let store = world.store.borrow();
    let finals = store.updates[0].history.iter();
    let mut finals: Vec<_> = finals.filter(|(state, _)| state.is_terminal()).collect();
    finals.dedup();
    assert_eq!(finals.len(), 1, "{what}: {finals:?}");
    let (state, reason) = (store.updates[0].state, store.updates[0].reason);
    for place in 0..world.parts.len() {
        // What has ended leaves nothing behind.
        let stays = matches!(reason, Reason::NO_CONTACT | Reason::GATEWAY_SILENT);
        let kept = world.cells.borrow();
        let entry = kept.contains_key(&Cell::Entry(u8::try_from(place).unwrap()).number());
        assert!(
            !entry || stays || state == State::Canceled,
            "{what}: {state}"
        );
    }
    assert!(!world.cells.borrow().contains_key(&Cell::Trial.number()));
}

#[test]
fn each_part_is_sent_once_and_the_whole_is_confirmed() {
    for shape in SHAPES {
        let library = library(shape.0, None, TrialBudget::default());
        let mut world = pushed(small(shape), &library);
        run(&mut world, "clean");
        assert_eq!(outcome(&world).0, State::Confirmed, "{}", world.describe());
        let store = world.store.borrow();
        let whole: usize = library[1..].iter().map(|image| image.bytes.len()).sum();
        let counters = store.updates[0].counters;
        assert_eq!(counters.sent, whole as u64);
        assert_eq!((counters.resent, counters.committed), (0, whole as u64));
    }
}

/// Faults of images, and what becomes of an update of which one has it.
fn faults() -> impl Iterator<Item = (usize, Shape, u8, Nature)> {
    let shapes = SHAPES.into_iter().enumerate();
    shapes.flat_map(|(number, shape)| {
        shape.0.iter().flat_map(move |component| {
            Nature::ALL
                .into_iter()
                .filter(|nature| *nature != Nature::Good)
                .map(move |nature| (number, shape, *component, nature))
        })
    })
}

#[test]
fn one_bad_component_puts_all_back() {
    for (number, shape, component, nature) in faults() {
        let what = format!("shape {number}, component {component} {nature:?}");
        let library = library(shape.0, Some((component, nature)), TrialBudget::default());
        let mut world = pushed(small(shape), &library);
        run(&mut world, &what);
        let (state, reason) = outcome(&world);
        if nature == Nature::CrashesLater {
            assert!(
                matches!(state, State::Confirmed | State::Reverted),
                "{what}: {}",
                world.describe()
            );
            continue;
        }
        assert_eq!(state, State::Reverted, "{what}: {}", world.describe());
        let expected: &[Reason] = match nature {
            Nature::FailsSelfTest => &[Reason::SELF_TEST],
            Nature::Crashes => &[Reason::SELF_TEST, Reason::CRASHED],
            Nature::DoesNotInstall => &[Reason::INSTALL_FAILED],
            _ => &[Reason::OLD_IMAGE_RUNNING],
        };
        assert!(expected.contains(&reason), "{what}: {reason}");
        assert_eq!(world.store.borrow().named, Some(component), "{what}");
    }
}

#[test]
fn what_cannot_be_put_back_is_named_and_the_others_are_put_back() {
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let last = *shape.0.last().expect("there is one");
        for component in shape.0 {
            for keeps_none in [true, false] {
                let what = format!("shape {number}, component {component} {keeps_none}");
                let bad = Some((last, Nature::FailsSelfTest));
                let library = library(shape.0, bad, TrialBudget::default());
                let mut world = pushed(small(shape), &library);
                {
                    let mut images = world.part(*component).images.borrow_mut();
                    images.keeps_none = keeps_none;
                    images.bad_reverts = if keeps_none { 0 } else { u32::MAX };
                }
                run(&mut world, &what);
                assert_eq!(
                    outcome(&world),
                    (State::Failed, Reason::REVERT_FAILED),
                    "{what}: {}",
                    world.describe()
                );
                for image in &library[1..] {
                    let part = world.part(image.component);
                    let new = runs(part, &image.bytes);
                    assert_eq!(new, image.component == *component, "{what}");
                }
                let store = world.store.borrow();
                let name = format!("component {component} could not be put back");
                assert!(store.detail.contains(&name), "{what}: {}", store.detail);
                assert_eq!(store.named, Some(*component), "{what}");
            }
        }
    }
}

#[test]
fn a_revert_that_fails_some_times_is_tried_again() {
    for shape in SHAPES {
        for component in shape.0 {
            let last = *shape.0.last().expect("there is one");
            let library = library(
                shape.0,
                Some((last, Nature::FailsSelfTest)),
                TrialBudget::default(),
            );
            let mut world = pushed(small(shape), &library);
            world.part(*component).images.borrow_mut().bad_reverts = 3;
            run(&mut world, "tried again");
            assert_eq!(outcome(&world), (State::Reverted, Reason::SELF_TEST));
        }
    }
}

#[test]
fn two_that_cannot_be_put_back_are_both_named() {
    let shape = SHAPES[2];
    let bad = Some((7, Nature::FailsSelfTest));
    let library = library(shape.0, bad, TrialBudget::default());
    let mut world = pushed(small(shape), &library);
    for component in [0, 3] {
        world.part(component).images.borrow_mut().keeps_none = true;
    }
    run(&mut world, "two");
    let store = world.store.borrow();
    assert!(
        store
            .detail
            .starts_with("component 3, component 0 could not be put back"),
        "{}",
        store.detail
    );
}

#[test]
fn a_component_that_runs_its_image_is_skipped_and_left_alone() {
    for shape in SHAPES {
        for component in shape.0 {
            let bad = shape.0.iter().find(|of| *of != component);
            for nature in [Nature::Good, Nature::FailsSelfTest] {
                let library = library(
                    shape.0,
                    bad.map(|bad| (*bad, nature)),
                    TrialBudget::default(),
                );
                let of = |image: &&Image| image.component == *component;
                let planned = library[1..].iter().find(of).expect("it is planned");
                let mut world = pushed(small(shape), &library);
                world.run_first(*component, planned.bytes.clone());
                let left = world.part(*component).clone();
                let done = world.run_until(DAY, World::is_at_rest);
                assert!(done, "{}", world.describe());
                assert_eq!(left.images.borrow().changes, 0);
                let store = world.store.borrow();
                let whole: usize = library[1..].iter().map(|image| image.bytes.len()).sum();
                let sent = whole - planned.bytes.len();
                assert_eq!(store.updates[0].counters.sent, sent as u64);
                let expected = if nature == Nature::Good {
                    State::Confirmed
                } else {
                    State::Reverted
                };
                assert_eq!(store.updates[0].state, expected, "{}", world.describe());
                if expected == State::Confirmed {
                    assert_eq!(store.updates[0].counters.committed, whole as u64);
                    let cells = world.client().unwrap().machine().cells();
                    let known = cells.images.iter().filter(|image| image.counter == 2);
                    assert_eq!(known.count(), shape.0.len(), "counters of all move");
                }
            }
        }
    }
}

#[test]
fn where_all_run_already_the_board_says_so_and_nothing_is_sent() {
    let shape = SHAPES[2];
    let library = library(shape.0, None, TrialBudget::default());
    let mut world = pushed(small(shape), &library);
    for image in &library[1..] {
        world.run_first(image.component, image.bytes.clone());
    }
    assert!(world.run_until(DAY, World::is_at_rest));
    assert_eq!(
        outcome(&world),
        (State::Confirmed, Reason::ALREADY_RUNNING),
        "{}",
        world.describe()
    );
    assert_eq!(world.store.borrow().chunks, 0);
    let cells = world.client().unwrap().machine().cells();
    assert!(cells.images.iter().all(|image| image.counter == 2));
}

#[test]
fn a_component_that_the_board_has_not_is_declined_before_a_byte_is_sent() {
    let shape = SHAPES[0];
    let library = library(&[0, 3, 9], None, TrialBudget::default());
    let world = World::new(small(shape), Rc::clone(&library));
    let plan = plan_of(&library[1..], update_id(1));
    world.store.borrow_mut().push(plan);
    let mut world = world;
    assert!(world.run_until(DAY, World::is_at_rest));
    assert_eq!(outcome(&world), (State::Declined, Reason::WRONG_COMPONENT));

    // A gateway that does not look sends an Offer, and the board declines it.
    let mut plan = plan_of(&library[1..], update_id(2));
    plan.parts.pop();
    world.store.borrow_mut().push(plan);
    assert!(world.run_until(DAY, World::is_at_rest));
    let store = world.store.borrow();
    assert_eq!(
        (store.updates[1].state, store.updates[1].reason),
        (State::Declined, Reason::WRONG_COMPONENT)
    );
    assert_eq!(store.chunks, 0);
    for part in &*world.parts {
        assert_eq!(part.medium.borrow().erased, 0, "nothing went to flash");
    }
}

/// Every step of the board's storage, or every `every`th.
fn power_cuts(shape: Shape, bad: Option<(u8, Nature)>, every: u64, what: &str) -> u64 {
    let library = library(shape.0, bad, TrialBudget::default());
    let mut clean = pushed(small(shape), &library);
    run(&mut clean, what);
    let (steps, expected) = (clean.power.steps(), outcome(&clean).0);
    let mut runs = 0;
    for step in (0..steps).step_by(usize::try_from(every).unwrap()) {
        for (is_file, torn_lands) in [(false, false), (false, true), (true, true)] {
            let setup = Setup {
                seed: step,
                is_file,
                torn_lands,
                ..small(shape)
            };
            let mut world = pushed(setup, &library);
            world.power.cut_at(step);
            let what = format!("{what} file {is_file} lands {torn_lands} step {step} of {steps}");
            run(&mut world, &what);
            assert!(world.power_cuts >= 1, "{what}");
            let (state, reason) = outcome(&world);
            let later = bad.is_some_and(|(_, nature)| nature == Nature::CrashesLater);
            if !later {
                assert_eq!(state, expected, "{what} {reason}: {}", world.describe());
            }
            runs += 1;
        }
    }
    runs
}

#[test]
fn the_boards_power_is_cut_in_every_step_of_several() {
    let mut runs = 0;
    for (number, shape) in SHAPES.into_iter().enumerate() {
        runs += power_cuts(shape, None, 1, &format!("shape {number}"));
    }
    for (number, shape, component, nature) in faults() {
        let what = format!("shape {number} component {component} {nature:?}");
        runs += power_cuts(shape, Some((component, nature)), 3, &what);
    }
    // How many steps there are depends on what a build has: it must not become few.
    assert!(runs > 4000, "{runs} cuts");
}

#[test]
fn a_strict_bootloader_that_goes_back_takes_the_others_along() {
    let shape: Shape = (
        &[3, 0, 7],
        Loader::Strict,
        &[(3, Loader::Direct), (7, Loader::Direct)],
    );
    let library = library(shape.0, None, TrialBudget::default());
    let mut clean = pushed(small(shape), &library);
    run(&mut clean, "strict");
    let mut reverted = 0;
    for step in 0..clean.power.steps() {
        let setup = Setup {
            seed: step,
            ..small(shape)
        };
        let mut world = pushed(setup, &library);
        world.power.cut_at(step);
        run(&mut world, &format!("strict step {step}"));
        let (state, reason) = outcome(&world);
        // What is final already cannot be put back.
        assert!(
            matches!(state, State::Confirmed | State::Reverted)
                || (state, reason) == (State::Failed, Reason::REVERT_FAILED),
            "{step}: {}",
            world.describe()
        );
        reverted += u32::from(state == State::Reverted);
    }
    assert!(reverted > 0);
}

#[test]
fn the_link_is_cut_all_along_an_update_of_several() {
    let shape = SHAPES[2];
    let library = library(shape.0, None, TrialBudget::default());
    let mut clean = pushed(small(shape), &library);
    run(&mut clean, "clean");
    let (up, down) = clean.net.borrow().bytes;
    for (way, total) in [(Way::Up, up), (Way::Down, down)] {
        for after in (0..total).step_by(3) {
            let how = [Break::Reset, Break::Silent, Break::HalfSilent];
            let how = how[usize::try_from(after % 7 % 3).unwrap()];
            let setup = Setup {
                seed: after,
                ..small(shape)
            };
            let mut world = pushed(setup, &library);
            let cut = Cut { way, after, how };
            world.net.borrow_mut().cuts.push_back(cut);
            let what = format!("{way:?} {how:?} after {after}");
            run(&mut world, &what);
            assert_eq!(outcome(&world).0, State::Confirmed, "{what}");
            // What a part has staged is not sent again.
            let resent = world.store.borrow().updates[0].counters.resent;
            let window = u64::from(small(shape).component.window);
            assert!(resent < 2 * window, "{what}: {}", world.describe());
        }
    }
}

#[test]
fn the_gateway_is_killed_at_every_command_of_several() {
    let kinds = [Nature::Good, Nature::FailsSelfTest, Nature::DoesNotInstall];
    for (number, shape) in SHAPES.into_iter().enumerate() {
        for nature in kinds {
            let last = *shape.0.last().expect("there is one");
            let library = library(shape.0, Some((last, nature)), TrialBudget::default());
            let mut clean = pushed(small(shape), &library);
            run(&mut clean, "clean");
            let (expected, steps) = (outcome(&clean), clean.store.borrow().steps);
            for step in 0..steps {
                let setup = Setup {
                    seed: step,
                    ..small(shape)
                };
                let mut world = pushed(setup, &library);
                world.store.borrow_mut().kill_at = Some(step);
                let what = format!("shape {number} {nature:?} step {step}");
                run(&mut world, &what);
                assert_eq!(world.kills, 1, "{what}");
                assert_eq!(outcome(&world), expected, "{what}: {}", world.describe());
            }
        }
    }
}

#[test]
fn a_cancel_at_every_moment_of_several_has_the_boards_answer() {
    let shape = SHAPES[2];
    let library = library(shape.0, None, TrialBudget::default());
    let mut clean = pushed(small(shape), &library);
    run(&mut clean, "clean");
    let (mut canceled, mut confirmed) = (0, 0);
    for at in (0..clean.now).step_by(11) {
        let mut world = pushed(small(shape), &library);
        while world.step(at) {}
        world.store.borrow_mut().updates[0].cancel = true;
        run(&mut world, &format!("cancel at {at}"));
        match outcome(&world).0 {
            State::Canceled => canceled += 1,
            State::Confirmed => confirmed += 1,
            _ => panic!("{at}: {}", world.describe()),
        }
    }
    assert!(canceled > 10 && confirmed > 3, "{canceled} {confirmed}");
}

#[test]
fn a_silent_gateway_reverts_all_and_a_second_push_sends_no_chunk() {
    let budget = TrialBudget {
        dials: 4,
        ..TrialBudget::default()
    };
    for shape in SHAPES {
        let library = library(shape.0, None, budget);
        let mut world = pushed(small(shape), &library);
        let in_trial = |world: &World| {
            world
                .client()
                .is_some_and(|client| client.machine().stage_name() == "Trial")
        };
        assert!(world.run_until(DAY, in_trial), "{}", world.describe());
        world.outage_ms = (3 * 3_600_000, 3 * 3_600_000);
        world.kill_gateway();
        world.outage_ms = (500, 500);
        run(&mut world, "silent");
        assert_eq!(
            outcome(&world),
            (State::Reverted, Reason::GATEWAY_SILENT),
            "{}",
            world.describe()
        );
        let chunks = world.store.borrow().chunks;
        let plan = plan_of(&library[1..], update_id(2));
        world.store.borrow_mut().push(plan);
        assert!(world.run_until(4 * DAY, World::is_at_rest));
        let store = world.store.borrow();
        assert_eq!(
            store.updates[1].state,
            State::Confirmed,
            "{}",
            world.describe()
        );
        assert_eq!(store.chunks, chunks, "not one chunk more");
        for image in &library[1..] {
            assert!(runs(world.part(image.component), &image.bytes));
        }
    }
}

/// Every fault at once, as chance has it.
fn chance(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5EE5);
    let shape = SHAPES[rng.random_range(0..SHAPES.len())];
    let bad = rng.random_bool(0.5).then(|| {
        let component = shape.0[rng.random_range(0..shape.0.len())];
        (
            component,
            Nature::ALL[rng.random_range(0..Nature::ALL.len())],
        )
    });
    let library = library(shape.0, bad, TrialBudget::default());
    let manners = if rng.random_bool(0.7) {
        Manners {
            delay_ms: rng.random_range(1..500),
            jitter_ms: rng.random_range(0..500),
            stall: (0.02, 30_000),
            piece: [1, 7, 100, 1500][rng.random_range(0..4)],
            room: 20_000,
            cut: (rng.random_range(0.0..0.9), 4000),
        }
    } else {
        Manners::GOOD
    };
    let setup = Setup {
        seed,
        manners,
        is_file: rng.random_bool(0.5),
        torn_lands: rng.random_bool(0.5),
        ..small(shape)
    };
    let what = format!("seed {seed} {:?} {bad:?}", shape.0);
    let mut world = pushed(setup, &library);
    for _ in 0..rng.random_range(0..6) {
        let until = world.now + rng.random_range(0..20_000);
        while world.step(until) {
            check_now(&world, &what);
        }
        if rng.random_bool(0.6) {
            world.cut_power();
        } else if world.gateway_is_up() {
            world.kill_gateway();
        }
        let next = world.power.steps() + rng.random_range(0..200);
        if rng.random_bool(0.3) {
            world.power.cut_at(next);
        }
    }
    world.net.borrow_mut().manners = Manners::GOOD;
    run(&mut world, &what);
    if bad.is_none() {
        assert_eq!(
            outcome(&world).0,
            State::Confirmed,
            "{what}: {}",
            world.describe()
        );
    }
}

#[test]
fn several_entries_by_seed() {
    for seed in 0..1500 {
        chance(seed);
    }
}

#[test]
fn what_nobody_can_read_any_more_is_never_called_confirmed_or_reverted() {
    for (number, shape) in SHAPES.into_iter().enumerate() {
        for component in shape.0 {
            let what = format!("shape {number}, component {component} unreadable");
            let library = library(shape.0, None, TrialBudget::default());
            let mut world = pushed(small(shape), &library);
            world.part(*component).images.borrow_mut().unreadable = true;
            run(&mut world, &what);
            assert_eq!(
                outcome(&world),
                (State::Failed, Reason::REVERT_FAILED),
                "{what}: {}",
                world.describe()
            );
            assert_eq!(world.store.borrow().named, Some(*component), "{what}");
            for image in &library[1..] {
                let part = world.part(image.component);
                assert!(runs(part, &part.first), "{what}: {}", image.component);
            }
        }
    }
}

#[test]
fn other_updates_take_over_half_way_and_back() {
    let shape = SHAPES[2];
    let mut taken_over = 0;
    for at in (0..6000).step_by(50) {
        let what = format!("taken over at {at}");
        let mut images = Vec::from(&library(shape.0, None, TrialBudget::default())[..]);
        // One image of component 3 alone, then another manifest with several.
        let alone = bytes(Nature::Good, 900, 77);
        images.extend(Image::several(vec![(3, alone)], 5, TrialBudget::default()));
        let others = [(7, 600, 81), (0, 800, 82)];
        let others = others.map(|(of, size, seed)| (of, bytes(Nature::Good, size, seed)));
        images.extend(Image::several(others.to_vec(), 7, TrialBudget::default()));
        let library = Rc::new(images);
        let mut world = World::new(small(shape), Rc::clone(&library));
        let push = |world: &World, images: &[Image], number| {
            let plan = plan_of(images, update_id(number));
            world.store.borrow_mut().push(plan);
        };
        push(&world, &library[1..4], 1);
        while world.step(at) {}
        if world
            .parts
            .iter()
            .any(|part| part.images.borrow().changes > 0)
        {
            break;
        }
        world.store.borrow_mut().updates[0].state = State::Abandoned;
        world.kill_gateway();
        push(&world, &library[4..5], 2);
        assert!(
            world.run_until(DAY, World::is_at_rest),
            "{what}: {}",
            world.describe()
        );
        push(&world, &library[5..7], 3);
        assert!(
            world.run_until(2 * DAY, World::is_at_rest),
            "{what}: {}",
            world.describe()
        );
        let store = world.store.borrow();
        let states: Vec<_> = store.updates.iter().map(|of| of.state).collect();
        // What the board had begun to change when the operator gave it up goes its own way.
        if states[1] == State::Confirmed {
            assert_eq!(states[2], State::Confirmed, "{what}: {}", world.describe());
            for image in &library[4..7] {
                let part = world.part(image.component);
                assert!(runs(part, &image.bytes), "{what}: {}", image.component);
            }
            taken_over += 1;
        }
    }
    assert!(taken_over > 5, "{taken_over}");
}
