//! Whole images of 96 KB: what they wear, and a sample of cuts.

use crate::shapes::{NRF51, SAMD21, SECTORS, STM32};
use crate::sweep::Case;
use dialhome_loadtest::sim::nor::{Moment, Nor};
use dialhome_loadtest::sim::nor_board::{Behaviour, Sizes, fresh, run};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Cuts of one flash and behaviour by default.
const CUTS: u64 = 160;

/// The same flash with slots of 96 KB, and more under way.
const fn full(sizes: Sizes, swap: u32) -> Sizes {
    Sizes {
        swap,
        slot: 96 * 1024 / (swap * sizes.erase),
        window: 8192,
        claim_every: 16 * 1024,
        ..sizes
    }
}

fn times() -> u64 {
    let times = std::env::var("CUTS").ok();
    times.map_or(1, |times| times.parse().expect("CUTS is a number"))
}

fn sample<const W: usize, const E: usize>(sizes: &Sizes, behaviour: Behaviour) {
    let begun = Instant::now();
    let case = Case::new(sizes, behaviour);
    let flash: Nor<W, E> = fresh(&case.shape, &case.library);
    let clean = run(
        &case.shape,
        &case.library(),
        behaviour,
        flash,
        case.store(),
        1,
    );
    case.check(&clean, 0);
    let ops = clean.flash.ops;
    let worn = |region: dialhome_device::nor::Region| {
        let units = region.offset / sizes.erase..(region.offset + region.len) / sizes.erase;
        let worn = units.map(|unit| clean.flash.erases[usize::try_from(unit).expect("fits")]);
        worn.max().unwrap_or(0)
    };
    let journal = case.shape.journal;
    let identity = 2 * case.shape.journal_layout.identity_bank;
    let (mut first, mut second) = (journal, journal);
    first.len = identity;
    second.offset += identity;
    second.len -= identity;
    let boot = case.shape.boot;
    eprintln!(
        "{} {behaviour:?}, 96 KB: {ops} operations; erases of the most worn unit: active {}, download {}, state {}, identity {}, progress {}",
        sizes.name,
        worn(boot.active),
        worn(boot.download),
        worn(boot.state),
        worn(first),
        worn(second),
    );
    let cuts = CUTS * times();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let case = &case;
            scope.spawn(move || {
                let library = case.library();
                for seed in (worker..cuts).step_by(2) {
                    let mut rng = SmallRng::seed_from_u64(seed);
                    let at = rng.random_range(0..ops);
                    let moment = match rng.random_range(0..4) {
                        0 => Moment::After,
                        _ => Moment::During(rng.random()),
                    };
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        let mut flash: Nor<W, E> = fresh(&case.shape, &case.library);
                        flash.cut = Some((at, moment));
                        let store = case.store();
                        let ended = run(&case.shape, &library, behaviour, flash, store, 1);
                        case.check(&ended, ended.at_cut.expect("the power failed"));
                    }));
                    assert!(
                        result.is_ok(),
                        "{} {behaviour:?}, 96 KB: seed {seed}, cut {moment:?} at operation {at}",
                        sizes.name
                    );
                }
            });
        }
    });
    eprintln!(
        "{} {behaviour:?}, 96 KB: {cuts} cuts, {:.1} s",
        sizes.name,
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn whole_images_are_cut_here_and_there() {
    for behaviour in [Behaviour::Good, Behaviour::Crashes] {
        sample::<4, 256>(&full(SAMD21, 16), behaviour);
        sample::<4, 1024>(&full(NRF51, 1), behaviour);
        sample::<8, 2048>(&full(STM32, 1), behaviour);
        sample::<1, 4096>(&full(SECTORS, 1), behaviour);
    }
}
