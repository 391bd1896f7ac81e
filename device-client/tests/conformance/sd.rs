//! A card in memory as slot, journal and way to the next image; the test is Arduino's SDU.

use dialhome_device::boot::{Activation, Boot as _, BootError, Restart};
use dialhome_device::conformance::{
    self, Board, Check, Context, Finding, SCRATCH_LEN, SecondImage, Stage, Verdict,
};
use dialhome_device::journal::{Journal as _, JournalError};
use dialhome_device::sd::{
    self, Card, Medium, STAGE_LEN, SdJournal, SdSlot, SduBoot, Sketch, UPDATE,
};
use dialhome_proto::code::{BootReason, SelfTest};
use dialhome_proto::hash::Sha256;
use dialhome_proto::id::{Digest, UpdateId};
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Cursor, Read as _};

/// Bytes of the card, and before its partition.
const CARD: usize = 8 << 20;
const PARTITION: usize = 64 * 512;
/// The image that the board has first, and the other.
const OLD: u8 = 0x0D;
const NEW: u8 = 0xE1;
const IMAGE: u32 = STAGE_LEN + 5_003;

/// The sectors of a card.
struct Sectors {
    bytes: RefCell<Vec<u8>>,
    /// Numbers of those that cannot be read before they are written again.
    unreadable: RefCell<BTreeSet<usize>>,
}

impl BlockDevice for Sectors {
    type Error = std::io::Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Self::Error> {
        let bytes = self.bytes.borrow();
        for (block, place) in blocks.iter_mut().zip(start.0 as usize..) {
            if self.unreadable.borrow().contains(&place) {
                return Err(std::io::Error::other("an unreadable sector"));
            }
            let sector = &bytes[place * Block::LEN..][..Block::LEN];
            block.contents.copy_from_slice(sector);
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Self::Error> {
        let mut bytes = self.bytes.borrow_mut();
        for (block, place) in blocks.iter().zip(start.0 as usize..) {
            self.unreadable.borrow_mut().remove(&place);
            bytes[place * Block::LEN..][..Block::LEN].copy_from_slice(&block.contents);
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, Self::Error> {
        Ok(BlockCount(u32::try_from(CARD / Block::LEN).unwrap()))
    }
}

impl Medium for Sectors {}

impl Sectors {
    /// One FAT16 partition behind a table that names it.
    fn formatted() -> Self {
        let mut bytes = vec![0; CARD];
        let words = [PARTITION / 512, (CARD - PARTITION) / 512];
        bytes[446 + 4] = 0x0E;
        for (word, at) in words.into_iter().zip([446 + 8, 446 + 12]) {
            let word = u32::try_from(word).unwrap().to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&word);
        }
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat16)
            .bytes_per_cluster(1024);
        fatfs::format_volume(Cursor::new(&mut bytes[PARTITION..]), options).unwrap();
        Self {
            bytes: RefCell::new(bytes),
            unreadable: RefCell::default(),
        }
    }

    /// From now on the sector that holds these bytes cannot be read.
    fn spoil(&self, text: &[u8]) {
        let bytes = self.bytes.borrow();
        let at = bytes.windows(text.len()).position(|found| found == text);
        let sector = at.expect("the text is on the card") / Block::LEN;
        self.unreadable.borrow_mut().insert(sector);
    }

    /// What SDU does at a start: flashes what follows the stage in UPDATE.BIN, and deletes
    /// the file.
    fn start(&self, flash: &RefCell<Vec<u8>>) {
        let mut bytes = self.bytes.borrow_mut();
        let partition = Cursor::new(&mut bytes[PARTITION..]);
        let system = FileSystem::new(partition, FsOptions::new()).unwrap();
        let root = system.root_dir();
        if let Ok(mut file) = root.open_file(UPDATE) {
            let mut image = Vec::new();
            file.read_to_end(&mut image).unwrap();
            let mut flash = flash.borrow_mut();
            flash.truncate(STAGE_LEN as usize);
            flash.extend_from_slice(&image[STAGE_LEN as usize..]);
            root.remove(UPDATE).unwrap();
        }
    }
}

/// The stage, and a sketch of one byte's value.
fn image(sketch: u8) -> Vec<u8> {
    let stage = STAGE_LEN as usize;
    let mut image = vec![0x57; stage];
    image.resize(IMAGE as usize, sketch);
    image
}

struct Flash<'f>(&'f RefCell<Vec<u8>>);

impl Sketch for Flash<'_> {
    fn size(&self) -> u32 {
        u32::try_from(self.0.borrow().len()).unwrap()
    }

    fn read(&self, offset: u32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.borrow()[offset as usize..][..bytes.len()]);
    }

    fn version(&self) -> &'static str {
        ""
    }

    fn counter(&self) -> u64 {
        0
    }

    fn boot_reason(&self) -> BootReason {
        BootReason::RESTART
    }

    fn self_test(&mut self) -> SelfTest {
        SelfTest::PASSED
    }

    fn restart(&mut self, _why: BootReason) {}
}

#[test]
fn slot_journal_and_boot_side_on_a_card_conform() {
    let medium = Sectors::formatted();
    let flash = RefCell::new(image(OLD));
    let mut stage = Stage::FIRST;
    let mut skipped = Vec::new();
    for turn in 0.. {
        assert!(turn < 20, "the run does not end");
        medium.start(&flash);
        let other = if flash.borrow().ends_with(&[OLD]) {
            image(NEW)
        } else {
            image(OLD)
        };
        let card = Card::new(&medium);
        let mut board = Board {
            slot: &mut SdSlot::new(&card, 64 * 1024),
            journal: &mut SdJournal::new(&card),
            boot: &mut SduBoot::new(&card, Flash(&flash)),
        };
        let mut scratch = [0; SCRATCH_LEN];
        let mut watch = |check, finding| {
            if matches!(finding, Finding::Skipped(_)) {
                skipped.push(check);
            }
        };
        let read = |offset: u32, piece: &mut [u8]| {
            piece.copy_from_slice(&other[offset as usize..][..piece.len()]);
        };
        let mut context = Context::new(&mut scratch, &mut watch);
        context.image = Some(SecondImage {
            size: IMAGE,
            read: &read,
        });
        match conformance::run(&mut board, &mut context, stage) {
            Verdict::Reset { next } => stage = next,
            Verdict::Done => break,
            Verdict::Failed(fault) => panic!("{fault}"),
            other => panic!("{other:?}"),
        }
    }
    // A write is one sector here, and so is an erase.
    assert_eq!(
        skipped,
        [
            Check::Crossing,
            Check::Components,
            Check::CutStore,
            Check::CutSlot
        ]
    );
    assert!(flash.borrow().ends_with(&[NEW]));
}

/// What the cell holds for somebody who has just mounted the card.
fn load(medium: &Sectors, cell: u8) -> Result<Option<Vec<u8>>, JournalError> {
    let card = Card::new(medium);
    let mut buffer = [0; 64];
    let len = SdJournal::new(&card).load(cell, &mut buffer)?;
    Ok(len.map(|len| buffer[..len].to_vec()))
}

#[test]
fn cell_with_one_unreadable_copy_is_loaded_and_stored() {
    let (older, newer) = (b"the older copy", b"the newer copy");
    for (lost, kept) in [(older, newer), (newer, older)] {
        let medium = Sectors::formatted();
        let card = Card::new(&medium);
        let mut journal = SdJournal::new(&card);
        journal.store(1, older).unwrap();
        journal.store(1, newer).unwrap();
        medium.spoil(lost);
        assert_eq!(load(&medium, 1), Ok(Some(kept.to_vec())));
        journal.store(1, b"the third").unwrap();
        assert_eq!(load(&medium, 1), Ok(Some(b"the third".to_vec())));
        let unreadable = medium.unreadable.borrow().len();
        assert_eq!(unreadable, 0, "the bad copy was overwritten");
        journal.store(1, b"the fourth").unwrap();
        assert_eq!(load(&medium, 1), Ok(Some(b"the fourth".to_vec())));
        medium.spoil(b"the third");
        medium.spoil(b"the fourth");
        assert_eq!(load(&medium, 1), Err(JournalError::Io));
    }
}

/// A board that runs the new image on trial, after a start by the stage.
fn on_trial(medium: &Sectors, flash: &RefCell<Vec<u8>>) {
    let card = Card::new(medium);
    let new = image(NEW);
    card.allocate(sd::NEW, IMAGE).unwrap();
    card.write(sd::NEW, 0, &new).unwrap();
    let mut hash = Sha256::new();
    hash.update(&new);
    let activation = Activation {
        update: UpdateId([7; 8]),
        component: 0,
        size: IMAGE,
        digest: Digest(hash.finish()),
        version: "2",
        trial_boots: 3,
    };
    let mut boot = SduBoot::new(&card, Flash(flash));
    assert_eq!(boot.activate(&activation), Ok(Restart::Needed));
    medium.start(flash);
    assert!(flash.borrow().ends_with(&[NEW]));
    let mut boot = SduBoot::new(&card, Flash(flash));
    assert!(boot.running(0, None).unwrap().on_trial);
}

#[test]
fn image_that_came_over_usb_in_a_trial_stays() {
    let medium = Sectors::formatted();
    let flash = RefCell::new(image(OLD));
    on_trial(&medium, &flash);
    let third = image(0x33);
    flash.replace(third.clone());
    let card = Card::new(&medium);
    let mut boot = SduBoot::new(&card, Flash(&flash));
    assert!(!boot.running(0, None).unwrap().on_trial);
    assert_eq!(boot.revert(0), Ok(Restart::NotNeeded));
    medium.start(&flash);
    assert_eq!(*flash.borrow(), third);
    // And the trial is over.
    assert_eq!(load(&medium, 15), Ok(None));
}

#[test]
fn trial_that_cannot_be_understood_is_an_error() {
    let medium = Sectors::formatted();
    let flash = RefCell::new(image(OLD));
    on_trial(&medium, &flash);
    let card = Card::new(&medium);
    SdJournal::new(&card).store(15, b"?").unwrap();
    let mut boot = SduBoot::new(&card, Flash(&flash));
    assert_eq!(boot.revert(0), Err(BootError::Storage));
    // A new image on its way begins another.
    flash.replace(image(OLD));
    on_trial(&medium, &flash);
    let mut boot = SduBoot::new(&card, Flash(&flash));
    assert_eq!(boot.revert(0), Ok(Restart::Needed));
}
