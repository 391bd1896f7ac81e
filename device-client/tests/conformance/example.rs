//! The board of the examples, which shows porters how it is done.

#[expect(dead_code, reason = "the examples use the rest")]
#[path = "../../examples/board/mod.rs"]
mod board;

use board::{FileBoot, FileJournal, FileSlot};
use dialhome_device::conformance::{
    self, Board, Check, Context, Finding, SCRATCH_LEN, SecondImage, Stage, Verdict,
};

#[test]
fn the_board_of_the_examples_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::FIRST;
    let mut skipped = Vec::new();
    for turn in 0.. {
        assert!(turn < 20, "the run does not end");
        let mut boot = FileBoot::start(dir.path()).unwrap();
        let mut board = Board {
            slot: &mut FileSlot(dir.path().to_owned()),
            journal: &mut FileJournal(dir.path().to_owned()),
            boot: &mut boot,
        };
        let mut scratch = [0; SCRATCH_LEN];
        let mut watch = |check, finding| {
            if matches!(finding, Finding::Skipped(_)) {
                skipped.push(check);
            }
        };
        let mut context = Context::new(&mut scratch, &mut watch);
        context.stores = 40;
        context.extent = 32 * 1024;
        context.image = Some(SecondImage {
            size: 9_001,
            read: &|_, piece| piece.fill(2),
        });
        match conformance::run(&mut board, &mut context, stage) {
            Verdict::Reset { next } => stage = next,
            Verdict::Done => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        skipped,
        [Check::Components, Check::CutStore, Check::CutSlot],
        "nothing else is left out"
    );
}
