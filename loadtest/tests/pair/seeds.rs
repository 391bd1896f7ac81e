//! Both real machines against each other, thousands of seeds a run. `SEEDS=N` sets how
//! many, `SEED=N` runs one and prints what happened.

use crate::common::{DAY, check_end, library, place_of};
use dialhome_loadtest::sim::boot::{Loader, Nature};
use dialhome_loadtest::sim::fixture::{Image, gateways};
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::net::Manners;
use dialhome_loadtest::sim::world::{KEY, Setup, World};
use dialhome_proto::code::Reason;
use dialhome_proto::device::ComponentConfig;
use dialhome_proto::gateway::State;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Faults happen in so much virtual time; then the world is kind.
const FAULTS_MS: u64 = 2 * 3600 * 1000;
const SEEDS: u64 = 3000;

fn pick<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn setup(seed: u64, rng: &mut SmallRng) -> Setup {
    let (write_unit, erase_unit) =
        pick(rng, &[(1, 1), (4, 256), (64, 256), (256, 4096), (64, 1024)]);
    let window = u32::max(erase_unit, pick(rng, &[512, 1024, 4096, 16_384, 5000]));
    let is_hostile = rng.random_bool(0.8);
    let manners = if is_hostile {
        Manners {
            delay_ms: rng.random_range(1..800),
            jitter_ms: rng.random_range(0..2000),
            stall: (rng.random_range(0.0..0.05), rng.random_range(1..90_000)),
            piece: pick(rng, &[1, 7, 100, 1500, 60_000]),
            room: pick(rng, &[64, 1000, 20_000, 200_000]),
            cut: (
                rng.random_range(0.0..0.95),
                pick(rng, &[200, 2000, 20_000, 80_000]),
            ),
        }
    } else {
        Manners::GOOD
    };
    Setup {
        seed,
        component: ComponentConfig {
            component: 0,
            slot_size: 64 * 1024,
            write_unit,
            erase_unit,
            window,
            commit_ms: pick(rng, &[10, 1000, 20_000]),
            claim_every: pick(rng, &[1, 4096, 20_000]),
        },
        is_file: rng.random_bool(0.5),
        loader: pick(
            rng,
            &[
                Loader::Patient,
                Loader::Patient,
                Loader::Strict,
                Loader::Direct,
            ],
        ),
        manners,
        backoff_ms: pick(rng, &[(20, 1000), (1000, 900_000), (1000, 60_000)]),
        torn_lands: rng.random_bool(0.5),
        ping_s: pick(rng, &[30, 120, 1800]),
        is_quic: rng.random_bool(0.5),
        ..Setup::default()
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    PowerCut,
    Kill,
    NoLink,
    Link,
    Silence,
    Cancel,
    Hold,
    Release,
    NewKey,
    NewGateways,
    Push(Nature),
}

fn faults(rng: &mut SmallRng) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let mut some = |rng: &mut SmallRng, chance: f64, most: usize, fault: Fault| {
        if rng.random_bool(chance) {
            for _ in 0..rng.random_range(1..=most) {
                // Most transfers take seconds to minutes.
                let within = pick(rng, &[5_000, 60_000, 600_000, FAULTS_MS]);
                faults.push((rng.random_range(0..within), fault));
            }
        }
    };
    some(rng, 0.4, 6, Fault::PowerCut);
    some(rng, 0.4, 6, Fault::Kill);
    some(rng, 0.2, 2, Fault::NoLink);
    some(rng, 0.3, 3, Fault::Silence);
    some(rng, 0.15, 1, Fault::Cancel);
    some(rng, 0.1, 1, Fault::Hold);
    some(rng, 0.2, 1, Fault::NewKey);
    some(rng, 0.2, 1, Fault::NewGateways);
    some(rng, 0.2, 1, Fault::Push(Nature::Good));
    for (at, fault) in faults.clone() {
        match fault {
            Fault::NoLink => faults.push((at + rng.random_range(0..600_000), Fault::Link)),
            Fault::Hold => faults.push((at + rng.random_range(0..600_000), Fault::Release)),
            _ => {}
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn apply(world: &mut World, fault: Fault) {
    match fault {
        Fault::PowerCut => world.cut_power(),
        Fault::Kill => world.kill_gateway(),
        Fault::NoLink => {
            let mut net = world.net.borrow_mut();
            net.link_up = false;
            net.silence_all();
        }
        Fault::Link => world.net.borrow_mut().link_up = true,
        Fault::Silence => world.net.borrow_mut().silence_all(),
        Fault::Cancel => {
            let mut store = world.store.borrow_mut();
            if let Some(update) = store
                .updates
                .iter_mut()
                .find(|update| !update.state.is_terminal())
            {
                update.cancel = true;
            }
        }
        Fault::Hold => world.store.borrow_mut().held = true,
        Fault::Release => world.store.borrow_mut().held = false,
        Fault::NewKey => world.store.borrow_mut().pending_key = Some([0x77; 32]),
        Fault::NewGateways => {
            let list = gateways(1, &["nowhere:1", "gateway:7041"]);
            world.store.borrow_mut().gateways = Some((1, list));
        }
        Fault::Push(nature) => {
            let mut store = world.store.borrow_mut();
            if store
                .updates
                .iter()
                .all(|update| update.state.is_terminal())
            {
                let number = u8::try_from(store.updates.len() + 1).unwrap();
                store.push(world.library[place_of(nature)].plan(update_id(number)));
            }
        }
    }
}

fn run(seed: u64, library: &Rc<Vec<Image>>, is_told: bool) -> std::thread::Result<()> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let setup = setup(seed, &mut rng);
    let (window, loader) = (u64::from(setup.component.window), setup.loader);
    let nature = if rng.random_bool(0.7) {
        Nature::Good
    } else {
        pick(&mut rng, &Nature::ALL)
    };
    let faults = faults(&mut rng);
    if is_told {
        eprintln!("{nature:?} {setup:?} {faults:?}");
    }
    let mut world = World::new(setup, Rc::clone(library));
    world.outage_ms = (100, pick(&mut rng, &[500, 20_000, 300_000]));
    if is_told {
        world.store.borrow_mut().log = Some(Vec::new());
    }
    world
        .store
        .borrow_mut()
        .push(library[place_of(nature)].plan(update_id(1)));
    let result = catch_unwind(AssertUnwindSafe(|| {
        for (at, fault) in &faults {
            while world.step(*at) {}
            world.store.borrow_mut().log(*at, || format!("{fault:?}"));
            apply(&mut world, *fault);
        }
        while world.step(FAULTS_MS) {}
        {
            let mut net = world.net.borrow_mut();
            net.manners = Manners::GOOD;
            net.silence_all();
        }
        let done = world.run_until(30 * DAY, World::is_at_rest);
        assert!(done, "stuck: {}", world.describe());
        check_outcome(&world, nature, loader, &faults, window);
        // What was confirmed stays, over more starts, and nobody is lost.
        let ran = world.images.borrow().running().to_vec();
        for _ in 0..3 {
            let until = world.now + DAY / 48;
            while world.step(until) {}
            world.cut_power();
        }
        let until = world.now + DAY / 24;
        while world.step(until) {}
        assert!(world.is_at_rest(), "not at rest: {}", world.describe());
        assert_eq!(world.images.borrow().running(), ran, "{}", world.describe());
        check_end(&world, "at the end");
    }));
    if let Err(panic) = result {
        if let Some(log) = &world.store.borrow().log {
            for line in log {
                eprintln!("{line}");
            }
        }
        eprintln!("seed {seed} failed; run it alone with SEED={seed}");
        return Err(panic);
    }
    Ok(())
}

fn check_outcome(
    world: &World,
    nature: Nature,
    loader: Loader,
    faults: &[(u64, Fault)],
    window: u64,
) {
    let what = format!("{nature:?} {loader:?}");
    check_end(world, &what);
    let store = world.store.borrow();
    let first = &store.updates[0];
    let canceled = faults
        .iter()
        .any(|(_, fault)| matches!(fault, Fault::Cancel));
    let expected: &[Reason] = match (nature, loader) {
        (Nature::Good, _) => &[],
        (Nature::FailsSelfTest, _) | (Nature::Crashes, Loader::Direct) => &[Reason::SELF_TEST],
        (Nature::Crashes | Nature::CrashesLater, _) => &[Reason::CRASHED],
        (Nature::NotTaken, _) => &[Reason::OLD_IMAGE_RUNNING],
        (Nature::DoesNotInstall, _) => &[Reason::INSTALL_FAILED],
    };
    // What a trial's budget, or a bootloader, may make of any image under these faults.
    let budget = [Reason::CRASHED, Reason::GATEWAY_SILENT, Reason::NO_CONTACT];
    let restarts = world.power_cuts > 0;
    match first.state {
        State::Confirmed => {
            let may = matches!(nature, Nature::Good | Nature::CrashesLater);
            assert!(may, "{what} is confirmed: {}", world.describe());
        }
        State::Canceled => assert!(canceled, "{what}: {}", world.describe()),
        State::Reverted => {
            let right = expected.contains(&first.reason)
                || (first.reason == Reason::CRASHED && restarts)
                || (first.reason != Reason::CRASHED && budget.contains(&first.reason));
            assert!(right, "{what}: {}", world.describe());
        }
        _ => panic!("{what}: {}", world.describe()),
    }
    // A session that a stall made too slow was cut by one of its ends.
    let cuts = u64::try_from(world.net.borrow().connections()).unwrap();
    let calm = !faults
        .iter()
        .any(|(_, fault)| matches!(fault, Fault::PowerCut));
    if calm && world.power_cuts == 0 {
        assert!(
            first.counters.resent <= 2 * window * cuts,
            "{} bytes sent again for {cuts} cuts, window {window}: {}",
            first.counters.resent,
            world.describe()
        );
    }
    let rotated = faults
        .iter()
        .any(|(_, fault)| matches!(fault, Fault::NewKey));
    let ours = if rotated { [0x77; 32] } else { KEY };
    assert_eq!(store.key, ours);
    let keys = &world.client().unwrap().machine().cells().keys;
    assert_eq!(keys.current.unwrap_or(KEY), ours, "{}", world.describe());
    assert_eq!(keys.pending, None, "{}", world.describe());
}

#[test]
fn seeds_end_in_an_outcome_that_is_true() {
    let library = library(9_000);
    if let Some(seed) = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        run(seed, &library, true).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        return;
    }
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    let seeds = 0..seeds.unwrap_or(SEEDS);
    let failed: Vec<u64> = seeds
        .filter(|seed| run(*seed, &library, false).is_err())
        .collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
