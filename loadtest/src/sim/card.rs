//! A card with a FAT16 volume, and the flash that the boot stage writes from it. Power
//! fails before, in and after every sector written to the card and every piece of flash.

use dialhome_device::sd::{Card, Medium, STAGE_LEN, UPDATE};
use embedded_sdmmc::{
    Block, BlockCount, BlockDevice, BlockIdx, Mode, TimeSource, Timestamp, VolumeIdx, VolumeManager,
};
use fatfs::{FatType, FormatVolumeOptions};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

/// Bytes of the card, and before its partition.
const CARD: usize = 12 << 20;
const PARTITION: usize = 64 * SECTOR;
const SECTOR: usize = Block::LEN;
/// Bytes that the boot stage writes at once.
const PIECE: usize = 512;

/// What a sector is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Contents of a file.
    Data,
    /// The table of clusters, in either copy.
    Fat,
    /// The root directory.
    Directory,
    /// Not the card: the processor's flash.
    Flash,
}

/// Where the power fails, seen from an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of it happened.
    Before,
    /// So many bytes of it are new, the rest is old.
    Torn(usize),
    /// What it was to change holds rubbish.
    Rubbish,
    /// All of it happened, and nobody was told.
    After,
}

/// One sector of the card, or one piece of flash.
#[derive(Clone, Debug)]
pub struct Op {
    /// What for.
    pub area: Area,
    /// The sector's number, or the offset in flash.
    pub place: usize,
    /// The boot stage does it, in deleting UPDATE.BIN.
    pub by_stage: bool,
    bytes: Arc<[u8]>,
}

/// What survives a power cut.
#[derive(Clone)]
pub struct Storage {
    sectors: BTreeMap<usize, Arc<[u8]>>,
    /// The image that runs.
    pub flash: Arc<Vec<u8>>,
}

/// The storage before an operation, and the operation.
#[derive(Debug)]
pub struct Snapshot {
    /// As it was.
    pub storage: Storage,
    /// What was next.
    pub op: Op,
    /// `Disk::tag` of that time.
    pub tag: usize,
}

impl Snapshot {
    /// The storage that a cut at this moment leaves.
    #[must_use]
    pub fn cut(&self, moment: Moment, seed: u64) -> Storage {
        let mut storage = self.storage.clone();
        let new = self.op.bytes.len();
        let len = match moment {
            Moment::Before => 0,
            Moment::Torn(len) => len.min(new),
            Moment::Rubbish | Moment::After => new,
        };
        let mut bytes = self.op.bytes.to_vec();
        if moment == Moment::Rubbish {
            SmallRng::seed_from_u64(seed).fill(&mut bytes[..]);
        }
        storage.put(&self.op, &bytes[..len]);
        storage
    }
}

impl Storage {
    /// A formatted card in a board with this image.
    ///
    /// # Panics
    /// The card cannot be formatted.
    #[must_use]
    pub fn new(image: &[u8]) -> Self {
        let mut bytes = vec![0; CARD];
        let words = [PARTITION / SECTOR, (CARD - PARTITION) / SECTOR];
        bytes[446 + 4] = 0x0E;
        for (word, at) in words.into_iter().zip([446 + 8, 446 + 12]) {
            let word = u32::try_from(word).expect("fits").to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&word);
        }
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat16)
            .bytes_per_cluster(2048);
        fatfs::format_volume(Cursor::new(&mut bytes[PARTITION..]), options).expect("it fits");
        let sectors = bytes.chunks(SECTOR).enumerate();
        Self {
            sectors: sectors
                .filter(|(_, sector)| sector.iter().any(|byte| *byte != 0))
                .map(|(place, sector)| (place, sector.into()))
                .collect(),
            flash: Arc::new(image.to_vec()),
        }
    }

    fn sector(&self, place: usize) -> [u8; SECTOR] {
        let found = self.sectors.get(&place);
        found.map_or([0; SECTOR], |sector| {
            sector[..].try_into().expect("it is a sector")
        })
    }

    /// What this sector is for, by the volume's first sector.
    fn area(&self, place: usize) -> Area {
        let first = PARTITION / SECTOR;
        let boot = self.sector(first);
        let word = |at: usize| usize::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let fat = first + word(14);
        let directory = fat + usize::from(boot[16]) * word(22);
        let data = directory + word(17) * 32 / SECTOR;
        assert!(place >= fat, "the volume's first sectors are written");
        match place {
            _ if place < directory => Area::Fat,
            _ if place < data => Area::Directory,
            _ => Area::Data,
        }
    }

    fn put(&mut self, op: &Op, bytes: &[u8]) {
        if op.area == Area::Flash {
            let flash = Arc::make_mut(&mut self.flash);
            // The stage erases what it is to write first.
            flash.truncate(op.place);
            flash.extend_from_slice(bytes);
        } else {
            let mut sector = self.sector(op.place);
            sector[..bytes.len()].copy_from_slice(bytes);
            self.sectors.insert(op.place, Arc::new(sector));
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors", self.sectors.len())
    }
}

/// The sector is not one of the card's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the card failed")
    }
}

impl std::error::Error for Failed {}

struct Inner {
    storage: Storage,
    history: Option<Vec<Snapshot>>,
    tag: usize,
    by_stage: bool,
}

/// The storage in use.
pub struct Disk(RefCell<Inner>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().storage.fmt(f)
    }
}

impl Disk {
    /// Puts it to use; its history is kept where that is asked for.
    #[must_use]
    pub fn new(storage: Storage, is_kept: bool) -> Self {
        Self(RefCell::new(Inner {
            storage,
            history: is_kept.then(Vec::new),
            tag: 0,
            by_stage: false,
        }))
    }

    /// Marks what is done from here on; false where no history is kept.
    pub fn mark(&self, tag: usize) -> bool {
        let mut inner = self.0.borrow_mut();
        inner.tag = tag;
        inner.history.is_some()
    }

    /// The image that runs.
    #[must_use]
    pub fn flash(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.0.borrow().storage.flash)
    }

    /// What is left, and how it came to that.
    #[must_use]
    pub fn end(self) -> (Storage, Vec<Snapshot>) {
        let inner = self.0.into_inner();
        (inner.storage, inner.history.unwrap_or_default())
    }

    fn act(&self, area: Area, place: usize, bytes: &[u8]) {
        let mut inner = self.0.borrow_mut();
        let op = Op {
            area,
            place,
            by_stage: inner.by_stage,
            bytes: bytes.into(),
        };
        let before = inner.history.is_some().then(|| inner.storage.clone());
        inner.storage.put(&op, bytes);
        let tag = inner.tag;
        if let (Some(history), Some(storage)) = (&mut inner.history, before) {
            history.push(Snapshot { storage, op, tag });
        }
    }

    /// What Arduino's SDU stage does at a start: it writes what follows its own length in
    /// UPDATE.BIN behind itself, then deletes the file. It checks nothing.
    ///
    /// # Panics
    /// UPDATE.BIN cannot be read to its end: the stage would flash rubbish.
    pub fn stage(&self) {
        let card = Card::new(self);
        let Ok(Some(size)) = card.length(UPDATE) else {
            return;
        };
        let start = usize::try_from(STAGE_LEN).expect("fits");
        let end = usize::try_from(size).expect("fits");
        if end <= start {
            return;
        }
        for at in (start..end).step_by(PIECE) {
            let mut piece = vec![0; PIECE.min(end - at)];
            let offset = u32::try_from(at).expect("fits");
            card.read(UPDATE, offset, &mut piece)
                .unwrap_or_else(|fault| panic!("the stage flashes rubbish: {fault:?} at {at}"));
            self.act(Area::Flash, at, &piece);
        }
        self.0.borrow_mut().by_stage = true;
        let volumes = VolumeManager::<_, _, 1, 1, 1>::new_with_limits(Whole(self), NoClock, 0);
        let deleted = volumes.open_volume(VolumeIdx(0)).and_then(|volume| {
            let root = volume.open_root_dir()?;
            // First the clusters, then the entry: so does the library of the stage.
            root.open_file_in_dir(UPDATE, Mode::ReadWriteTruncate)?
                .close()?;
            root.delete_entry_in_dir(UPDATE)
        });
        deleted.expect("the card has power");
        self.0.borrow_mut().by_stage = false;
    }
}

impl BlockDevice for Disk {
    type Error = Failed;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Failed> {
        let inner = self.0.borrow();
        for (block, place) in blocks.iter_mut().zip(start.0..) {
            let place = usize::try_from(place).map_err(|_| Failed)?;
            if place >= CARD / SECTOR {
                return Err(Failed);
            }
            block.contents = inner.storage.sector(place);
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Failed> {
        for (block, place) in blocks.iter().zip(start.0..) {
            let place = usize::try_from(place).map_err(|_| Failed)?;
            if place >= CARD / SECTOR {
                return Err(Failed);
            }
            let area = self.0.borrow().storage.area(place);
            self.act(area, place, &block.contents);
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, Failed> {
        Ok(BlockCount(
            u32::try_from(CARD / SECTOR).map_err(|_| Failed)?,
        ))
    }
}

impl Medium for Disk {}

/// The disk as the stage has it.
struct Whole<'d>(&'d Disk);

impl BlockDevice for Whole<'_> {
    type Error = Failed;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Failed> {
        self.0.read(blocks, start)
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Failed> {
        self.0.write(blocks, start)
    }

    fn num_blocks(&self) -> Result<BlockCount, Failed> {
        self.0.num_blocks()
    }
}

struct NoClock;

impl TimeSource for NoClock {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp {
            year_since_1970: 10,
            zero_indexed_month: 0,
            zero_indexed_day: 0,
            hours: 0,
            minutes: 0,
            seconds: 0,
        }
    }
}
