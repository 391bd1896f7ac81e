//! Every operation, every moment.

use crate::shapes::{NRF51, SAMD21, SECTORS, STM32, STM32_ECC};
use dialhome_loadtest::sim::boot::Nature;
use dialhome_loadtest::sim::fixture::Image;
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::nor::{Moment, Nor};
use dialhome_loadtest::sim::nor_board::{Behaviour, Ended, Shape, Sizes, fresh, run};
use dialhome_loadtest::sim::store::Store;
use dialhome_loadtest::sim::world::KEY;
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What is left of a torn operation: one of each kind.
const MOMENTS: [Moment; 6] = [
    Moment::Before,
    Moment::During(0),
    Moment::During(1),
    Moment::During(2),
    Moment::During(3),
    Moment::After,
];

/// A board, its images and its update.
pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) behaviour: Behaviour,
    pub(crate) library: Vec<Image>,
}

impl Case {
    pub(crate) fn new(sizes: &Sizes, behaviour: Behaviour) -> Self {
        let shape = Shape::new(sizes);
        let budget = TrialBudget {
            boots: 0,
            dials: 3,
            awake_s: 0,
        };
        let (old, new) = shape.images;
        let library = vec![
            Image::new(Nature::Good, old, 1, budget, 1),
            Image::new(Nature::Good, new, 2, budget, 2),
        ];
        Self {
            shape,
            behaviour,
            library,
        }
    }

    pub(crate) fn library(&self) -> Rc<Vec<Image>> {
        Rc::new(self.library.clone())
    }

    pub(crate) fn store(&self) -> Store {
        let mut store = Store {
            key: KEY,
            ..Store::default()
        };
        store.push(self.library[1].plan(update_id(1)));
        store
    }

    /// What must be true at the end of every run.
    pub(crate) fn check<const W: usize, const E: usize>(
        &self,
        ended: &Ended<W, E>,
        committed: u32,
    ) {
        let (state, reason) = ended.outcome();
        let (expected, runs) = if self.behaviour == Behaviour::Good {
            (State::Confirmed, 1)
        } else {
            (State::Reverted, 0)
        };
        assert_eq!(state, expected, "{reason}");
        assert_eq!(ended.runs, runs, "the wrong image runs");
        assert_eq!(ended.stuck, 0, "the boot stage was stuck");
        assert_eq!(
            ended.store.prefixes.1, 0,
            "a prefix was not what was claimed"
        );
        let every = self.shape.component.claim_every;
        if let Some(proven) = ended.store.proven_len {
            assert!(
                proven + every > committed || committed == 0,
                "of {committed} committed bytes only {proven} were left"
            );
        }
    }
}

/// The workers: the tests of this program run one after another, each on both cores.
const WORKERS: usize = 2;

fn main_run<const W: usize, const E: usize>(case: &Case) -> Ended<W, E> {
    let mut flash: Nor<W, E> = fresh(&case.shape, &case.library);
    flash.history = Some(Vec::new());
    let ended = run(
        &case.shape,
        &case.library(),
        case.behaviour,
        flash,
        case.store(),
        1,
    );
    case.check(&ended, 0);
    ended
}

/// Cuts an update everywhere; the number of cuts.
fn sweep<const W: usize, const E: usize>(sizes: &Sizes, behaviour: Behaviour) -> usize {
    let begun = Instant::now();
    let case = Case::new(sizes, behaviour);
    let mut ended = main_run::<W, E>(&case);
    let history = ended.flash.history.take().expect("it was kept");
    let tried = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let library = case.library();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(snapshot) = history.get(place) else {
                        break;
                    };
                    for moment in MOMENTS {
                        let (store, committed) = &ended.stores[snapshot.tag];
                        let mut store = Store::clone(store);
                        store.proven_len = None;
                        let result = catch_unwind(AssertUnwindSafe(|| {
                            let flash = snapshot.cut(moment);
                            let seed = u64::try_from(place).expect("fits");
                            let ended = run(&case.shape, &library, behaviour, flash, store, seed);
                            case.check(&ended, *committed);
                        }));
                        assert!(
                            result.is_ok(),
                            "{} {behaviour:?}: cut {moment:?} at operation {place} of {}, {:?}",
                            sizes.name,
                            history.len(),
                            snapshot.op
                        );
                        tried.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let tried = tried.into_inner();
    eprintln!(
        "{} {behaviour:?}: {} operations, {tried} cuts, {:.1} s",
        sizes.name,
        history.len(),
        begun.elapsed().as_secs_f64()
    );
    tried
}

/// Cuts an update everywhere, and everything that the board does after it: torn in one way
/// that changes from operation to operation, and after it, which is before the next.
fn nested<const W: usize, const E: usize>(sizes: &Sizes, behaviour: Behaviour) -> usize {
    let begun = Instant::now();
    let case = Case::new(sizes, behaviour);
    let mut ended = main_run::<W, E>(&case);
    let history = ended.flash.history.take().expect("it was kept");
    let tried = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let library = case.library();
                loop {
                    let first = next.fetch_add(1, Ordering::Relaxed);
                    let (place, which) = (first / 5, first % 5);
                    let Some(snapshot) = history.get(place) else {
                        break;
                    };
                    let moment = MOMENTS[which + 1];
                    let (store, committed) = &ended.stores[snapshot.tag];
                    let mut flash = snapshot.cut(moment);
                    flash.history = Some(Vec::new());
                    let seed = u64::try_from(place).expect("fits");
                    let store = Store::clone(store);
                    let mut again = run(&case.shape, &library, behaviour, flash, store, seed);
                    let inner = again.flash.history.take().expect("it was kept");
                    for (at, second) in inner.iter().enumerate() {
                        let kind = u64::try_from(place + at).expect("fits");
                        for cut in [Moment::During(kind), Moment::After] {
                            let (store, known) = &again.stores[second.tag];
                            let mut store = Store::clone(store);
                            store.proven_len = None;
                            let result = catch_unwind(AssertUnwindSafe(|| {
                                let flash = second.cut(cut);
                                let ended =
                                    run(&case.shape, &library, behaviour, flash, store, kind);
                                case.check(&ended, *(known.max(committed)));
                            }));
                            assert!(
                                result.is_ok(),
                                "{} {behaviour:?}: cut {moment:?} at operation {place}, {:?}, \
                                 then {cut:?} at {at} of what followed, {:?}",
                                sizes.name,
                                snapshot.op,
                                second.op
                            );
                            tried.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let tried = tried.into_inner();
    eprintln!(
        "{} {behaviour:?}, cut twice: {} operations, {tried} cuts, {:.1} s",
        sizes.name,
        history.len(),
        begun.elapsed().as_secs_f64()
    );
    tried
}

#[test]
fn cut_again_while_it_recovers() {
    nested::<4, 256>(&SAMD21, Behaviour::Good);
}

#[test]
fn samd21() {
    for behaviour in Behaviour::ALL {
        sweep::<4, 256>(&SAMD21, behaviour);
    }
}

#[test]
fn nrf51() {
    for behaviour in Behaviour::ALL {
        sweep::<4, 1024>(&NRF51, behaviour);
    }
}

#[test]
fn stm32() {
    for behaviour in Behaviour::ALL {
        sweep::<8, 2048>(&STM32, behaviour);
    }
}

#[test]
fn stm32_where_what_is_torn_cannot_be_read() {
    for behaviour in Behaviour::ALL {
        sweep::<8, 2048>(&STM32_ECC, behaviour);
    }
}

#[test]
fn sectors() {
    for behaviour in Behaviour::ALL {
        sweep::<1, 4096>(&SECTORS, behaviour);
    }
}
