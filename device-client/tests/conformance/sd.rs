//! A card in memory as slot, journal and way to the next image; the test is Arduino's SDU.

use dialhome_device::conformance::{
    self, Board, Check, Context, Finding, SCRATCH_LEN, SecondImage, Stage, Verdict,
};
use dialhome_device::sd::{Card, Medium, STAGE_LEN, SdJournal, SdSlot, SduBoot, Sketch, UPDATE};
use dialhome_proto::code::{BootReason, SelfTest};
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{Cursor, Read as _};

/// Bytes of the card, and before its partition.
const CARD: usize = 8 << 20;
const PARTITION: usize = 64 * 512;
/// The image that the board has first, and the other.
const OLD: u8 = 0x0D;
const NEW: u8 = 0xE1;
const IMAGE: u32 = STAGE_LEN + 5_003;

/// The sectors of a card.
struct Sectors(RefCell<Vec<u8>>);

impl BlockDevice for Sectors {
    type Error = Infallible;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Infallible> {
        let bytes = self.0.borrow();
        for (block, place) in blocks.iter_mut().zip(start.0 as usize..) {
            let sector = &bytes[place * Block::LEN..][..Block::LEN];
            block.contents.copy_from_slice(sector);
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Infallible> {
        let mut bytes = self.0.borrow_mut();
        for (block, place) in blocks.iter().zip(start.0 as usize..) {
            bytes[place * Block::LEN..][..Block::LEN].copy_from_slice(&block.contents);
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, Infallible> {
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
        Self(RefCell::new(bytes))
    }

    /// What SDU does at a start: flashes what follows the stage in UPDATE.BIN, and deletes
    /// the file.
    fn start(&self, flash: &RefCell<Vec<u8>>) {
        let mut bytes = self.0.borrow_mut();
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
