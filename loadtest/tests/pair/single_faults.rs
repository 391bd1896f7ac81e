//! One fault at a time, everywhere: the link cut at every byte of an update in each
//! direction, the board's power at every step of its storage, the gateway at every command.

use crate::common::{DAY, library, one_update};
use dialhome_loadtest::sim::boot::{Loader, Nature};
use dialhome_loadtest::sim::net::{Break, Cut, Way};
use dialhome_loadtest::sim::world::{Setup, World};
use dialhome_proto::gateway::State;

/// A setup whose whole update is a few thousand bytes on the wire.
fn small() -> Setup {
    let mut setup = Setup::default();
    setup.component.erase_unit = 256;
    setup.component.window = 512;
    setup.component.claim_every = 512;
    setup
}

#[test]
fn the_link_is_cut_at_every_byte_in_each_direction_on_each_transport() {
    for is_quic in [false, true] {
        let small = Setup { is_quic, ..small() };
        let runs = cut_at_every_byte(&small);
        assert!(runs > 6500, "{runs} cuts, QUIC {is_quic}");
    }
}

fn cut_at_every_byte(small: &Setup) -> u32 {
    let library = library(1500);
    let mut clean = one_update(small.clone(), &library, Nature::Good);
    assert!(
        clean.run_until(DAY, World::is_at_rest),
        "{}",
        clean.describe()
    );
    let (up, down) = clean.net.borrow().bytes;
    let mut runs = 0;
    for (way, total) in [(Way::Up, up), (Way::Down, down)] {
        let hows = [Break::Reset, Break::Silent, Break::HalfSilent];
        let cuts = (0..total).flat_map(|after| hows.map(|how| (after, how)));
        for (after, how) in cuts {
            let seed = after;
            let mut world = one_update(
                Setup {
                    seed,
                    ..small.clone()
                },
                &library,
                Nature::Good,
            );
            world
                .net
                .borrow_mut()
                .cuts
                .push_back(Cut { way, after, how });
            let done = world.run_until(DAY, World::is_at_rest);
            let what = format!("{way:?} {how:?} after {after}");
            assert!(done, "{what}: {}", world.describe());
            let store = world.store.borrow();
            assert_eq!(
                store.updates[0].state,
                State::Confirmed,
                "{what}: {}",
                world.describe()
            );
            assert_eq!(world.images.borrow().running(), library[1].bytes, "{what}");
            let window = u64::from(small.component.window);
            assert!(
                store.updates[0].counters.resent < 2 * window,
                "{what}: {}",
                world.describe()
            );
            runs += 1;
        }
    }
    runs
}

#[test]
fn the_boards_power_is_cut_in_every_step() {
    for nature in Nature::ALL {
        for loader in [Loader::Patient, Loader::Strict, Loader::Direct] {
            for (is_file, torn_lands) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                power_cuts(nature, loader, is_file, torn_lands);
            }
        }
    }
}

fn power_cuts(nature: Nature, loader: Loader, is_file: bool, torn_lands: bool) {
    let library = library(1500);
    let setup = Setup {
        loader,
        is_file,
        torn_lands,
        ..small()
    };
    let mut clean = one_update(setup.clone(), &library, nature);
    assert!(
        clean.run_until(DAY, World::is_at_rest),
        "{}",
        clean.describe()
    );
    let expected = crate::common::outcome(&clean);
    for step in 0..clean.power.steps() {
        let mut world = one_update(
            Setup {
                seed: step,
                ..setup.clone()
            },
            &library,
            nature,
        );
        world.power.cut_at(step);
        let done = world.run_until(DAY, World::is_at_rest);
        let what = format!("{nature:?} {loader:?} file {is_file} lands {torn_lands} step {step}");
        assert!(done, "{what}: {}", world.describe());
        assert!(world.power_cuts >= 1, "{what}");
        // An outcome that a cut could lose would have the image tried a second time.
        let changes = world.images.borrow().changes;
        assert!(changes <= 2, "{what}: {changes} changes of the image");
        crate::common::check_end(&world, &what);
        let (state, reason) = crate::common::outcome(&world);
        // A strict bootloader goes back from an image that was not confirmed, and one that
        // crashes later may be confirmed before that.
        let either = loader == Loader::Strict || nature == Nature::CrashesLater;
        if !(either && matches!(state, State::Reverted | State::Confirmed)) {
            assert_eq!(state, expected.0, "{what} {reason}: {}", world.describe());
        }
    }
}

#[test]
fn the_gateway_is_killed_at_every_command() {
    for nature in Nature::ALL {
        let library = library(1500);
        let mut clean = one_update(small(), &library, nature);
        assert!(
            clean.run_until(DAY, World::is_at_rest),
            "{}",
            clean.describe()
        );
        let expected = crate::common::outcome(&clean);
        let steps = clean.store.borrow().steps;
        for step in 0..steps {
            let mut world = one_update(
                Setup {
                    seed: step,
                    ..small()
                },
                &library,
                nature,
            );
            world.store.borrow_mut().kill_at = Some(step);
            let done = world.run_until(DAY, World::is_at_rest);
            let what = format!("{nature:?} step {step}");
            assert!(done, "{what}: {}", world.describe());
            assert_eq!(world.kills, 1, "{what}");
            crate::common::check_end(&world, &what);
            let outcome = crate::common::outcome(&world);
            if nature == Nature::CrashesLater {
                assert!(
                    matches!(outcome.0, State::Reverted | State::Confirmed),
                    "{what}"
                );
            } else {
                assert_eq!(outcome, expected, "{what}: {}", world.describe());
            }
        }
    }
}
