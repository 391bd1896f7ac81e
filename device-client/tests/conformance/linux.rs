//! The Linux agent's slot, journal and boot side; a reset is that they are opened again.

use dialhome_device::agent::{
    boot_linux::LinuxBoot, component::Commands, journal_file::FileJournal, slot_file::FileSlot,
    state::State,
};
use dialhome_device::conformance::{
    self, Board, Check, Context, Finding, SCRATCH_LEN, SecondImage, Stage, Verdict,
};
use std::fs;

#[test]
fn the_agents_own_files_conform() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    drop(State::open(&path).unwrap());
    fs::write(path.join("slots/a"), vec![1; 5_000]).unwrap();
    std::os::unix::fs::symlink("slots/a", path.join("current")).unwrap();
    let mut stage = Stage::FIRST;
    let mut skipped = Vec::new();
    for turn in 0.. {
        assert!(turn < 20, "the run does not end");
        let state = State::open(&path).unwrap();
        let mut journal = FileJournal::open(&state).unwrap();
        let mut slot = FileSlot::new(&state, 64 * 1024);
        let mut boot = LinuxBoot::open(&state, Commands::default(), None).unwrap();
        let mut scratch = [0; SCRATCH_LEN];
        let mut watch = |check, finding| {
            if matches!(finding, Finding::Skipped(_)) {
                skipped.push(check);
            }
        };
        let mut context = Context::new(&mut scratch, &mut watch);
        context.stores = 40;
        // What the program is does not matter to Linux: any file is an image.
        context.image = Some(SecondImage {
            size: 9_001,
            read: &|_, piece| piece.fill(2),
        });
        let mut board = Board {
            slot: &mut slot,
            journal: &mut journal,
            boot: &mut boot,
        };
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
