//! A board whose images go over a card and Arduino's SDU stage: every sector of an update.

use dialhome_loadtest::sim::card::{Area, Moment, Op, Storage};
use dialhome_loadtest::sim::card_board::{CLAIM_EVERY, Ended, run};
use dialhome_loadtest::sim::fixture::Image;
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::nor_board::Behaviour;
use dialhome_loadtest::sim::store::Store;
use dialhome_loadtest::sim::world::KEY;
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The workers, as in the other sweeps.
const WORKERS: usize = 2;
/// Bytes of the boot stage, and of the sketches behind it.
const STAGE: usize = 16 * 1024;
const SKETCHES: [usize; 3] = [8 * 1024 + 3, 9 * 1024 - 5, 8 * 1024];
/// A run without a torn directory ends long before, and one with it may not: milliseconds.
const DAY: u64 = 24 * 3600 * 1000;

/// The old image, the one of the update, and one that is pushed afterwards.
fn library() -> Vec<Image> {
    let budget = TrialBudget {
        boots: 0,
        dials: 3,
        awake_s: 0,
    };
    let mut stage = vec![0; STAGE];
    SmallRng::seed_from_u64(99).fill(&mut stage[..]);
    (1..)
        .zip(SKETCHES)
        .map(|(counter, len)| {
            let mut bytes = stage.clone();
            bytes.resize(STAGE + len, 0);
            SmallRng::seed_from_u64(counter).fill(&mut bytes[STAGE..]);
            Image::of(bytes, counter, budget)
        })
        .collect()
}

fn store(library: &[Image]) -> Store {
    let mut store = Store {
        key: KEY,
        ..Store::default()
    };
    store.push(library[1].plan(update_id(1)));
    store
}

/// What must be true at the end of every run in which no FAT and no directory was torn.
fn check(behaviour: Behaviour, ended: &Ended, committed: u32) {
    let update = &ended.store.updates[0];
    let expected = if behaviour == Behaviour::Good {
        (State::Confirmed, 1)
    } else {
        (State::Reverted, 0)
    };
    assert!(ended.rested, "{} {}", update.state, update.reason);
    assert_eq!((update.state, ended.runs), expected, "{}", update.reason);
    assert_eq!(ended.store.prefixes.1, 0, "a prefix was not as claimed");
    if let Some(proven) = ended.store.proven_len {
        assert!(
            proven + CLAIM_EVERY > committed || committed == 0,
            "of {committed} committed bytes only {proven} were left"
        );
    }
}

/// What must be true where a sector of the directory was torn: the board dials home, a
/// whole image runs, and the next push is confirmed. Returns how the update ended.
fn check_torn(
    library: &Rc<Vec<Image>>,
    behaviour: Behaviour,
    ended: Ended,
    is_rubbish: bool,
) -> String {
    let update = &ended.store.updates[0];
    let kind = if is_rubbish { "rubbish" } else { "torn" };
    let end = format!(
        "directory {kind}: {} {}, image {}",
        update.state, update.reason, ended.runs
    );
    if ended.runs == 1 && behaviour == Behaviour::NeverDials {
        // The card has forgotten the trial, or the old image's name was torn: nobody is told,
        // and nothing is left to go back to (spec/storage.md section 7).
        return end;
    }
    assert!(ended.rested, "{end}");
    let mut store = ended.store;
    store.push(library[2].plan(update_id(2)));
    let again = run(library, behaviour, ended.storage, false, store, 5, DAY);
    let last = &again.store.updates[1];
    assert_eq!((last.state, again.runs), (State::Confirmed, 2), "{end}");
    end
}

/// The ways in which the power fails in this operation.
fn moments(op: &Op, place: usize) -> Vec<Moment> {
    let mut moments = vec![Moment::Before, Moment::Rubbish, Moment::After];
    if op.area == Area::Directory {
        moments.extend((1..512).step_by(7).map(Moment::Torn));
    } else {
        // Elsewhere for each operation.
        moments.push(Moment::Torn(1 + place * 37 % 510));
    }
    moments
}

/// Cuts an update everywhere.
fn sweep(behaviour: Behaviour) {
    let begun = Instant::now();
    let images = library();
    let clean = run(
        &Rc::new(images.clone()),
        behaviour,
        Storage::new(&images[0].bytes),
        true,
        store(&images),
        1,
        DAY,
    );
    check(behaviour, &clean, 0);
    let [next, tried, skipped] = [const { AtomicUsize::new(0) }; 3];
    let ends: Mutex<BTreeMap<String, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let library = Rc::new(images.clone());
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(snapshot) = clean.history.get(place) else {
                        break;
                    };
                    let op = &snapshot.op;
                    // The stage frees the clusters of UPDATE.BIN before its entry: a cut
                    // between is beyond the client (spec/storage.md section 7).
                    if op.by_stage && op.area == Area::Fat {
                        skipped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let seed = u64::try_from(place).expect("fits");
                    for moment in moments(op, place) {
                        let is_first = op.by_stage && moment == Moment::Before;
                        if is_first || (op.by_stage && matches!(moment, Moment::Torn(_))) {
                            skipped.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        let (store, committed) = &clean.stores[snapshot.tag];
                        let mut store = Store::clone(store);
                        store.proven_len = None;
                        let is_rubbish = moment == Moment::Rubbish;
                        let is_torn = is_rubbish || matches!(moment, Moment::Torn(_));
                        let result = catch_unwind(AssertUnwindSafe(|| {
                            let storage = snapshot.cut(moment, seed);
                            let ended = run(&library, behaviour, storage, false, store, seed, DAY);
                            if is_torn && op.area == Area::Directory {
                                let end = check_torn(&library, behaviour, ended, is_rubbish);
                                *ends.lock().expect("whole").entry(end).or_default() += 1;
                            } else {
                                check(behaviour, &ended, *committed);
                            }
                        }));
                        assert!(
                            result.is_ok(),
                            "{behaviour:?}: cut {moment:?} at operation {place} of {}, {:?} {}",
                            clean.history.len(),
                            op.area,
                            op.place
                        );
                        tried.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    eprintln!(
        "card {behaviour:?}: {} operations, {} cuts, {} of the stage's own left out, {:.1} s",
        clean.history.len(),
        tried.into_inner(),
        skipped.into_inner(),
        begun.elapsed().as_secs_f64()
    );
    for (end, count) in ends.into_inner().expect("whole") {
        eprintln!("  {count} x {end}");
    }
}

#[test]
fn a_card_is_cut_at_every_sector() {
    for behaviour in [
        Behaviour::Good,
        Behaviour::FailsSelfTest,
        Behaviour::NeverDials,
    ] {
        sweep(behaviour);
    }
}
