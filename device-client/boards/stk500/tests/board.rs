//! The board without avrdude: bytes in, bytes out, in virtual time.

use std::time::Duration;

use dialhome_stk500::{Board, Options, Part, Program, State};
use proptest::prelude::*;

const WINDOW: Duration = Duration::from_secs(1);
const START: Duration = Duration::ZERO;

fn board() -> Board {
    let mut board = Board::new(Part::default(), Vec::new(), WINDOW);
    board.open(START);
    board
}

fn ask(board: &mut Board, bytes: &[u8]) -> Vec<u8> {
    board.receive(bytes, START);
    board.output(START)
}

fn program(address: u16, data: &[u8]) -> Vec<u8> {
    let [low, high] = (address / 2).to_le_bytes();
    let mut bytes = vec![0x55, low, high, 0x20, 0x64];
    bytes.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
    bytes.push(b'F');
    bytes.extend(data);
    bytes.push(0x20);
    bytes
}

#[test]
fn a_session_in_bytes() {
    let mut board = board();
    assert_eq!(ask(&mut board, &[0x30, 0x20]), [0x14, 0x10]);
    assert_eq!(ask(&mut board, &[0x41, 0x81, 0x20]), [0x14, 8, 0x10]);
    assert_eq!(
        ask(&mut board, &[0x75, 0x20]),
        [0x14, 0x1E, 0x95, 0x0F, 0x10]
    );
    assert_eq!(
        ask(&mut board, &program(256, &[1, 2, 3])),
        [0x14, 0x10, 0x14, 0x10]
    );
    assert_eq!(board.take_written(), Some(256));
    assert_eq!(board.take_written(), None);
    assert_eq!(
        ask(&mut board, &[0x74, 0, 4, b'F', 0x20]),
        [0x14, 1, 2, 3, 0xFF, 0x10]
    );
    // A second write to the page erases it first.
    ask(&mut board, &program(256, &[4]));
    assert_eq!(board.flash()[255..260], [0xFF, 4, 0xFF, 0xFF, 0xFF]);
    assert_eq!(board.counts().state, State::Bootloader);
    assert_eq!(ask(&mut board, &[0x51, 0x20]), [0x14, 0x10]);
    assert_eq!(board.counts().state, State::Program);
    assert_eq!(ask(&mut board, &[0x30, 0x20]), []);
    board.open(START);
    assert_eq!(ask(&mut board, &[0x30, 0x20]), [0x14, 0x10]);
}

#[test]
fn the_bootloader_is_not_overwritten() {
    let mut board = board();
    let end = u16::try_from(board.part().for_programs()).expect("small flash");
    assert_eq!(
        ask(&mut board, &program(end, &[0; 128])),
        [0x14, 0x10, 0x14, 0x10]
    );
    assert_eq!(board.take_written(), None);
    assert!(board.flash().iter().all(|byte| *byte == 0xFF));
}

#[test]
fn the_program_starts_when_nobody_asks_or_somebody_errs() {
    let mut board = board();
    assert_eq!(board.next_at(), Some(WINDOW));
    board.receive(&[0x30, 0x20], WINDOW / 2);
    assert_eq!(board.next_at(), Some(WINDOW / 2));
    assert_eq!(board.output(WINDOW / 2), [0x14, 0x10]);
    assert_eq!(board.next_at(), Some(WINDOW * 3 / 2));
    board.output(WINDOW * 3 / 2);
    assert_eq!(board.counts().state, State::Program);
    assert_eq!(board.next_at(), None);
    board.reset(WINDOW * 2);
    assert_eq!(board.counts().state, State::Bootloader);
    board.receive(&[0x30, 0x30], WINDOW * 2);
    assert_eq!(board.counts().state, State::Program);
    assert_eq!(board.counts().starts, 2);
}

#[test]
fn an_answer_that_is_slow_comes_in_its_time() {
    let mut board = board();
    board.set_faults("slow=30".parse().expect("a fault"));
    board.open(START);
    board.receive(&[0x30, 0x20], START);
    let at = Duration::from_millis(30);
    assert_eq!(board.next_at(), Some(at));
    assert_eq!(board.output(at - Duration::from_nanos(1)), []);
    assert_eq!(board.output(at), [0x14, 0x10]);
}

#[test]
fn a_flash_of_another_size_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let flash = folder.path().join("flash");
    std::fs::write(&flash, [0; 7]).expect("a file");
    let error = Program::start(Options::new(&flash)).expect_err("7 bytes");
    assert!(error.to_string().contains("has 7 bytes"), "{error}");
}

proptest! {
    #[test]
    fn rubbish_does_no_harm(pieces in proptest::collection::vec(
        proptest::collection::vec(prop_oneof![
            Just(0x20), Just(0x30), Just(0x55), Just(0x64), Just(0x74), Just(b'F'), any::<u8>()
        ], 0..40), 0..20)
    ) {
        let mut board = board();
        for piece in pieces {
            board.receive(&piece, START);
            board.output(START);
            while let Some(page) = board.take_written() {
                prop_assert!(page + 128 <= board.part().for_programs());
            }
            if board.counts().state == State::Program {
                board.open(START);
            }
        }
    }

    #[test]
    fn how_bytes_are_cut_makes_no_difference(cuts in proptest::collection::vec(1_usize..50, 1..40)) {
        let mut all = vec![0x30, 0x20];
        for page in 0..4_u16 {
            all.extend(program(page * 128, &[page.to_le_bytes()[0]; 128]));
        }
        all.extend([0x74, 0, 128, b'F', 0x20]);
        let mut whole = board();
        let wanted = ask(&mut whole, &all);
        let mut board = board();
        let (mut rest, mut got) = (&all[..], Vec::new());
        for cut in cuts.into_iter().chain([all.len()]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            got.extend(ask(&mut board, piece));
            rest = after;
        }
        prop_assert_eq!(got, wanted);
        prop_assert_eq!(board.flash(), whole.flash());
    }
}
