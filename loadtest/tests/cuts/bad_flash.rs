//! Flash that does not hold what is written to it: a named reason at the gateway, and a
//! board that still dials home.

use crate::shapes::NRF51;
use crate::sweep::Case;
use dialhome_loadtest::sim::boot::Nature;
use dialhome_loadtest::sim::fixture::Image;
use dialhome_loadtest::sim::nor::Nor;
use dialhome_loadtest::sim::nor_board::{Behaviour, Ended, fresh, run, run_for};
use dialhome_proto::code::Reason;
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;

type Flash = Nor<4, 1024>;

fn update(case: &Case, flash: Flash) -> Ended<4, 1024> {
    run(
        &case.shape,
        &case.library(),
        Behaviour::Good,
        flash,
        case.store(),
        1,
    )
}

fn case() -> Case {
    Case::new(&NRF51, Behaviour::Good)
}

fn at(offset: u32) -> usize {
    usize::try_from(offset).expect("fits")
}

/// A bit at or behind `from` that is `old` in the old image and 0 in the new one.
fn bit(case: &Case, from: usize, old: bool) -> (usize, u8) {
    let images = case.library[0].bytes.iter().zip(&case.library[1].bytes);
    let mut places = images.enumerate().skip(from);
    let (place, _) = places
        .find(|(_, (was, new))| (*was & 1 == 1) == old && *new & 1 == 0)
        .expect("there is one");
    (place, 1)
}

#[test]
fn a_slot_that_reads_back_wrong_ends_in_bad_flash() {
    let case = case();
    let mut flash = fresh(&case.shape, &case.library);
    let (place, mask) = bit(&case, 5000, true);
    flash.stick(at(case.shape.boot.download.offset) + place, mask);
    let ended = update(&case, flash);
    assert_eq!(ended.outcome(), (State::Failed, Reason::BAD_FLASH));
    assert_eq!((ended.runs, ended.stuck), (0, 0));
    // What was good of it had been committed before.
    assert!(ended.store.updates[0].counters.committed >= 4096);
}

#[test]
fn an_active_slot_that_does_not_take_the_new_image_gets_the_old_one_back() {
    let case = case();
    for from in [0, 1500, 4000, 6000] {
        let mut flash = fresh(&case.shape, &case.library);
        let (place, mask) = bit(&case, from, true);
        flash.stick(at(case.shape.boot.active.offset) + place, mask);
        let ended = update(&case, flash);
        assert_eq!(
            ended.outcome(),
            (State::Reverted, Reason::CRASHED),
            "{place}"
        );
        assert_eq!((ended.runs, ended.stuck), (0, 0), "{place}");
    }
}

#[test]
fn room_for_the_old_image_that_is_bad_stops_the_swap() {
    let case = case();
    let unit = case.shape.boot.swap_unit;
    for place in [unit * 10 + 9, unit * 3 + 9, unit + 700] {
        let mut flash = fresh(&case.shape, &case.library);
        // Every bit: nothing can be kept there, and the new image is not longer than its slot.
        for offset in place..place + 60 {
            flash.stick(at(case.shape.boot.download.offset + offset), 0xFF);
        }
        let ended = update(&case, flash);
        let spare = place >= unit * 10;
        // The spare unit of a short old image stays empty, bad or not.
        let expected = if spare {
            (State::Confirmed, Reason::NONE)
        } else {
            (State::Failed, Reason::BAD_FLASH)
        };
        assert_eq!(ended.outcome(), expected, "{place}");
    }
}

#[test]
fn room_for_a_long_old_image_that_is_bad_ends_the_swap_before_it_begins() {
    let mut case = case();
    let budget = TrialBudget::default();
    case.library = vec![
        Image::new(Nature::Good, 10_000, 1, budget, 1),
        Image::new(Nature::Good, 6000, 2, budget, 2),
    ];
    let mut flash = fresh(&case.shape, &case.library);
    let spare = case.shape.boot.download.offset + 10 * case.shape.boot.swap_unit;
    for offset in 9..60 {
        flash.stick(at(spare + offset), 0xFF);
    }
    let ended = update(&case, flash);
    assert_eq!(ended.outcome(), (State::Reverted, Reason::CRASHED));
    assert_eq!((ended.runs, ended.stuck), (0, 0));
}

#[test]
fn a_unit_that_takes_neither_image_starts_nothing_and_loses_nothing() {
    let case = case();
    let mut flash = fresh(&case.shape, &case.library);
    let (place, mask) = bit(&case, 2500, false);
    flash.stick(at(case.shape.boot.active.offset) + place, mask);
    let ended = update(&case, flash);
    // The flash was as good as new after three starts; then the old image is whole.
    assert_eq!(ended.stuck, 3);
    assert_eq!(ended.outcome(), (State::Reverted, Reason::CRASHED));
    assert_eq!(ended.runs, 0);
}

#[test]
fn a_journal_that_cannot_be_written_defers_the_update_and_the_board_dials() {
    let case = case();
    let mut flash: Flash = fresh(&case.shape, &case.library);
    let journal = case.shape.journal;
    flash.read_only = at(journal.offset)..at(journal.offset + journal.len);
    let hour = 3_600_000;
    let (library, store) = (case.library(), case.store());
    let mut ended = run_for(
        &case.shape,
        &library,
        Behaviour::Good,
        flash,
        store,
        1,
        hour,
    );
    assert_eq!(ended.outcome(), (State::Deferred, Reason::STORAGE));
    assert_eq!(ended.runs, 0);
    // It can be written again.
    ended.flash.read_only = 0..0;
    let ended = run(
        &case.shape,
        &library,
        Behaviour::Good,
        ended.flash,
        ended.store,
        2,
    );
    assert_eq!(ended.outcome(), (State::Confirmed, Reason::NONE));
    assert_eq!(ended.runs, 1);
}

#[test]
fn a_slot_that_cannot_be_written_fails_with_storage() {
    let case = case();
    let mut flash: Flash = fresh(&case.shape, &case.library);
    let slot = case.shape.boot.download;
    flash.read_only = at(slot.offset)..at(slot.offset + slot.len);
    let ended = update(&case, flash);
    assert_eq!(ended.outcome(), (State::Failed, Reason::STORAGE));
    assert_eq!(ended.runs, 0);
}

#[test]
fn a_slot_that_is_too_small_declines_with_too_big() {
    let mut case = case();
    case.shape.component.slot_size = 4096;
    let flash = fresh(&case.shape, &case.library);
    let ended = update(&case, flash);
    assert_eq!(ended.outcome(), (State::Declined, Reason::TOO_BIG));
    assert_eq!(ended.runs, 0);
}
