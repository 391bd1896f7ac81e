//! One promise a test: proven resume, honest outcomes, trial budgets, keys that are never lost.

use crate::common::{DAY, check_end, library, library_with, one_update, outcome, place_of};
use dialhome_loadtest::sim::boot::{Loader, Nature};
use dialhome_loadtest::sim::fixture::gateways;
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::net::{Break, Cut, Way};
use dialhome_loadtest::sim::world::{KEY, Setup, World};
use dialhome_proto::code::Reason;
use dialhome_proto::device::Cell;
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;

const SIZE: usize = 20_000;

fn committed(world: &World) -> u64 {
    world.store.borrow().updates[0].counters.committed
}

fn stage(world: &World) -> &'static str {
    world
        .client()
        .map_or("", |client| client.machine().stage_name())
}

/// A transfer that has come half-way; the board then lost its power.
fn half_way(loader: Loader) -> World {
    let setup = Setup {
        loader,
        ..Setup::default()
    };
    let mut world = one_update(setup, &library(SIZE), Nature::Good);
    assert!(world.run_until(DAY, |world| committed(world) > 9000));
    world.cut_power();
    world
}

fn confirmed(world: &mut World, what: &str) {
    assert!(
        world.run_until(2 * DAY, World::is_at_rest),
        "{what}: {}",
        world.describe()
    );
    check_end(world, what);
    assert_eq!(
        outcome(world).0,
        State::Confirmed,
        "{what}: {}",
        world.describe()
    );
}

#[test]
fn a_resume_goes_on_from_the_proven_prefix() {
    let mut world = half_way(Loader::Patient);
    confirmed(&mut world, "resume");
    let store = world.store.borrow();
    assert_eq!(store.prefixes, (2, 0));
    assert!(
        store.updates[0].counters.resent <= 2 * 4096,
        "{}",
        world.describe()
    );
}

#[test]
fn a_slot_changed_behind_the_journals_back_restarts_from_zero() {
    for offset in [0, 1, 4095, 5000] {
        let mut world = half_way(Loader::Patient);
        world.tampered = true;
        world.medium.borrow_mut().flip(offset);
        confirmed(&mut world, "flipped");
        let store = world.store.borrow();
        assert_eq!(store.prefixes.1, 1, "one wrong prefix");
        assert!(
            store.updates[0].counters.resent >= 8000,
            "{}",
            world.describe()
        );
    }
}

#[test]
fn a_journal_that_claims_more_than_the_slot_holds_restarts_from_zero() {
    let mut world = one_update(Setup::default(), &library(SIZE), Nature::Good);
    assert!(world.run_until(DAY, |world| committed(world) >= 4096));
    let older = world.medium.borrow().durable(128 * 1024).to_vec();
    assert!(world.run_until(DAY, |world| committed(world) >= 12_000));
    world.cut_power();
    world.tampered = true;
    world.medium.borrow_mut().overwrite(0, &older);
    confirmed(&mut world, "older slot");
    assert_eq!(world.store.borrow().prefixes.1, 1);
}

#[test]
fn a_staged_image_that_was_changed_is_never_started() {
    let mut world = one_update(Setup::default(), &library(SIZE), Nature::Good);
    assert!(world.run_until(DAY, |world| stage(world) == "Staged"));
    world.cut_power();
    world.tampered = true;
    world.medium.borrow_mut().flip(17);
    confirmed(&mut world, "changed while staged");
    assert!(world.store.borrow().updates[0].counters.resent >= 20_000);
}

#[test]
fn an_image_replaced_between_two_sessions_is_never_mixed() {
    let mut world = half_way(Loader::Patient);
    {
        let mut store = world.store.borrow_mut();
        store.updates[0].state = State::Abandoned;
        let other = place_of(Nature::CrashesLater);
        store.push(world.library[other].plan(update_id(2)));
    }
    // What replaces it crashes until it is confirmed; either end is one whole image.
    assert!(
        world.run_until(2 * DAY, World::is_at_rest),
        "{}",
        world.describe()
    );
    check_end(&world, "replaced");
    assert!(world.store.borrow().updates[1].state.is_terminal());
}

#[test]
fn a_bad_read_back_is_sent_again_and_bad_flash_fails_by_name() {
    let mut world = one_update(Setup::default(), &library(SIZE), Nature::Good);
    world.medium.borrow_mut().bad_reads = 1;
    confirmed(&mut world, "one bad read");
    assert!(world.store.borrow().updates[0].counters.resent > 0);

    let mut world = one_update(Setup::default(), &library(SIZE), Nature::Good);
    world.medium.borrow_mut().bad_reads = u32::MAX;
    assert!(
        world.run_until(DAY, World::is_at_rest),
        "{}",
        world.describe()
    );
    assert_eq!(outcome(&world), (State::Failed, Reason::BAD_FLASH));
    check_end(&world, "bad flash");
}

/// The trial begins while the gateway or the link is away for `away_ms`.
fn trial_without_contact(budget: TrialBudget, link: bool, away_ms: u64, seed: u64) -> World {
    let setup = Setup {
        seed,
        backoff_ms: (1000, 900_000),
        ..Setup::default()
    };
    let mut world = one_update(setup, &library_with(SIZE, budget), Nature::Good);
    assert!(world.run_until(DAY, |world| world.images.borrow().changes == 1));
    if link {
        world.outage_ms = (away_ms, away_ms);
        world.kill_gateway();
        world.outage_ms = (500, 500);
    } else {
        world.net.borrow_mut().link_up = false;
        world.net.borrow_mut().silence_all();
        let until = world.now + away_ms;
        while world.step(until) {}
        world.net.borrow_mut().link_up = true;
    }
    assert!(
        world.run_until(4 * DAY, World::is_at_rest),
        "{}",
        world.describe()
    );
    check_end(&world, "trial without contact");
    world
}

#[test]
fn an_outage_reverts_no_board_whose_budget_is_not_spent() {
    for seed in 0..40 {
        for link in [true, false] {
            let world = trial_without_contact(TrialBudget::default(), link, 20 * 60_000, seed);
            assert_eq!(outcome(&world).0, State::Confirmed, "{}", world.describe());
        }
    }
}

#[test]
fn a_spent_budget_reverts_by_name_and_a_second_push_sends_no_chunk() {
    let dials = TrialBudget {
        dials: 4,
        ..TrialBudget::default()
    };
    let awake = TrialBudget {
        awake_s: 900,
        ..TrialBudget::default()
    };
    for (budget, link, reason) in [
        (dials, true, Reason::GATEWAY_SILENT),
        (awake, false, Reason::NO_CONTACT),
    ] {
        let mut world = trial_without_contact(budget, link, 3 * 3_600_000, 7);
        assert_eq!(
            outcome(&world),
            (State::Reverted, reason),
            "{}",
            world.describe()
        );
        let chunks = world.store.borrow().chunks;
        let plan = world.library[place_of(Nature::Good)].plan(update_id(2));
        world.store.borrow_mut().push(plan);
        assert!(
            world.run_until(8 * DAY, World::is_at_rest),
            "{}",
            world.describe()
        );
        check_end(&world, "second push");
        let store = world.store.borrow();
        assert_eq!(
            store.updates[1].state,
            State::Confirmed,
            "{}",
            world.describe()
        );
        assert_eq!(store.chunks, chunks, "not one chunk more");
    }
}

#[test]
fn a_trial_that_crashes_ends_after_its_boots() {
    let boots = TrialBudget {
        boots: 2,
        ..TrialBudget::default()
    };
    let mut world = one_update(Setup::default(), &library_with(SIZE, boots), Nature::Good);
    assert!(world.run_until(DAY, |world| world.images.borrow().changes == 1));
    world.net.borrow_mut().link_up = false;
    world.net.borrow_mut().silence_all();
    for _ in 0..3 {
        assert!(
            world.run_until(DAY, |world| stage(world) == "Trial"),
            "{}",
            world.describe()
        );
        let until = world.now + 5000;
        while world.step(until) {}
        world.cut_power();
        let until = world.now + 1000;
        while world.step(until) {}
        if world.images.borrow().changes == 2 {
            break;
        }
    }
    world.net.borrow_mut().link_up = true;
    assert!(
        world.run_until(DAY, World::is_at_rest),
        "{}",
        world.describe()
    );
    assert_eq!(outcome(&world), (State::Reverted, Reason::CRASHED));
    check_end(&world, "boots");
}

#[test]
fn a_cancel_at_every_moment_has_the_boards_answer() {
    let library = library(3000);
    let mut clean = one_update(Setup::default(), &library, Nature::Good);
    assert!(clean.run_until(DAY, World::is_at_rest));
    let (mut canceled, mut confirmed) = (0, 0);
    for at in 0..clean.now {
        if at % 7 != 0 {
            continue;
        }
        let mut world = one_update(Setup::default(), &library, Nature::Good);
        while world.step(at) {}
        world.store.borrow_mut().updates[0].cancel = true;
        assert!(
            world.run_until(DAY, World::is_at_rest),
            "{at}: {}",
            world.describe()
        );
        check_end(&world, "cancel");
        match outcome(&world).0 {
            State::Canceled => canceled += 1,
            State::Confirmed => confirmed += 1,
            _ => panic!("{at}: {}", world.describe()),
        }
    }
    assert!(canceled > 10 && confirmed > 3, "{canceled} {confirmed}");
}

const NEW_KEY: [u8; 32] = [0x77; 32];

fn rotating(seed: u64) -> World {
    let world = World::new(
        Setup {
            seed,
            ..Setup::default()
        },
        library(1000),
    );
    let list = gateways(1, &["nowhere:1", "gateway:7041"]);
    let mut store = world.store.borrow_mut();
    store.pending_key = Some(NEW_KEY);
    store.gateways = Some((1, list));
    drop(store);
    world
}

/// Runs until the new key and list are in force on both sides, and the board can be reached.
fn rotated(mut world: World, what: &str) {
    assert!(
        world.run_until(DAY, World::is_at_rest),
        "{what}: {}",
        world.describe()
    );
    world.cut_power();
    let until = world.now + 3_600_000;
    while world.step(until) {}
    assert!(world.is_at_rest(), "{what}: {}", world.describe());
    assert_eq!(world.store.borrow().key, NEW_KEY, "{what}");
    let cells = world.client().unwrap().machine().cells();
    assert_eq!(cells.keys.current.unwrap_or(KEY), NEW_KEY, "{what}");
    assert_eq!(cells.keys.pending, None, "{what}");
    assert_eq!(cells.gateways_epoch, 1, "{what}");
    let net = world.net.borrow();
    assert_eq!(
        net.dialed.last().map(String::as_str),
        Some("gateway:7041"),
        "{what}"
    );
}

#[test]
fn a_new_key_and_a_new_list_survive_a_kill_a_cut_or_a_power_cut_at_every_step() {
    let mut clean = rotating(0);
    assert!(
        clean.run_until(DAY, World::is_at_rest),
        "{}",
        clean.describe()
    );
    let (steps, power) = (clean.store.borrow().steps, clean.power.steps());
    let (up, down) = clean.net.borrow().bytes;
    rotated(clean, "clean");
    for step in 0..steps {
        let world = rotating(step);
        world.store.borrow_mut().kill_at = Some(step);
        rotated(world, &format!("kill {step}"));
    }
    for step in 0..power {
        let world = rotating(step);
        world.power.cut_at(step);
        rotated(world, &format!("power {step}"));
    }
    for (way, total) in [(Way::Up, up), (Way::Down, down)] {
        for after in 0..total {
            let how = [Break::Reset, Break::Silent, Break::HalfSilent];
            let how = how[usize::try_from(after % 3).unwrap()];
            let world = rotating(after);
            world
                .net
                .borrow_mut()
                .cuts
                .push_back(Cut { way, after, how });
            rotated(world, &format!("{way:?} {how:?} after {after}"));
        }
    }
}

#[test]
fn a_direct_change_without_a_restart_is_proven_the_same_way() {
    let mut world = half_way(Loader::Direct);
    confirmed(&mut world, "direct");
}

#[test]
fn an_image_whose_trial_is_lost_from_the_journal_goes_back_and_is_never_confirmed_untested() {
    let trial_cell = Cell::Trial.number();
    for loader in [Loader::Patient, Loader::Strict, Loader::Direct] {
        for lost in [None, Some(vec![0xff; 9])] {
            let library = library(3000);
            let setup = Setup {
                loader,
                ..Setup::default()
            };
            let mut world = one_update(setup, &library, Nature::Good);
            let on_trial = world.run_until(DAY, |world| {
                let cells = world.cells.borrow();
                !world.images.borrow().is_final() && cells.contains_key(&trial_cell)
            });
            assert!(on_trial, "{}", world.describe());
            world.cut_power();
            match &lost {
                Some(bytes) => world.cells.borrow_mut().insert(trial_cell, bytes.clone()),
                None => world.cells.borrow_mut().remove(&trial_cell),
            };
            assert!(
                world.run_until(8 * DAY, World::is_at_rest),
                "{}",
                world.describe()
            );
            // It was brought back, and then tried from the start.
            let changes = world.images.borrow().changes;
            assert_eq!(changes, 3, "{loader:?}: {}", world.describe());
            check_end(&world, "lost trial");
            assert_eq!(outcome(&world), (State::Confirmed, Reason::NONE));
        }
    }
}
