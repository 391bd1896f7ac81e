//! The card: mounted when it is needed, and again after it failed or was changed.

use super::SECTOR;
use super::fat::Tables;
use core::cell::RefCell;
use dialhome_proto::hash::Sha256;
use dialhome_proto::id::Digest;
use embedded_hal::{delay::DelayNs, spi::SpiDevice};
use embedded_sdmmc::{
    Block, BlockCount, BlockDevice, BlockIdx, Error, Mode, RawDirectory, RawFile, SdCard,
    TimeSource, Timestamp, VolumeIdx, VolumeManager,
};

/// Files that may be open at a time.
const FILES: usize = 3;
/// Sectors of zeros between two notes of a growing file's length.
const NOTED: u32 = 64;
/// Bytes of a directory entry, and of the name in it.
const ENTRY: usize = 32;
const NAME: usize = 11;
/// Where the size stands in a directory entry.
const ENTRY_SIZE: usize = 28;

/// The first byte of the name of a deleted file.
const DELETED: u8 = 0xE5;

/// What a card is on.
pub trait Medium: BlockDevice {
    /// The card may have been pulled out or changed: ask it anew who it is.
    fn forget(&self) {}
}

impl<SPI: SpiDevice<u8>, DELAY: DelayNs> Medium for SdCard<SPI, DELAY> {
    fn forget(&self) {
        self.mark_card_uninit();
    }
}

/// Why something on the card did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such file.
    Missing,
    /// The file is shorter.
    Range,
    /// The card is full.
    Full,
    /// The file may not be written.
    Protected,
    /// The card is not there, failed, or holds no FAT file system.
    Io,
}

impl Fault {
    /// The error of the library as it matters here.
    fn of<E: core::error::Error>(error: &Error<E>) -> Self {
        match error {
            Error::NotFound => Self::Missing,
            Error::EndOfFile | Error::InvalidOffset => Self::Range,
            Error::DiskFull | Error::NotEnoughSpace => Self::Full,
            Error::ReadOnly => Self::Protected,
            _ => Self::Io,
        }
    }
}

/// A medium that several owners use, one after the other.
struct Borrowed<'d, D> {
    medium: &'d D,
    tables: Option<Tables>,
}

impl<D: BlockDevice> BlockDevice for Borrowed<'_, D> {
    type Error = D::Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), D::Error> {
        self.medium.read(blocks, start)?;
        let Some((tables, second)) = self
            .tables
            .and_then(|tables| Some((tables, tables.second(start)?)))
        else {
            return Ok(());
        };
        let is_sound = |blocks: &[Block]| {
            let mut blocks = blocks.iter();
            blocks.all(|block| tables.is_sound(start, block))
        };
        // The library reads a sector at a time.
        if !is_sound(blocks) {
            self.medium.read(blocks, second)?;
            if !is_sound(blocks) {
                self.medium.read(blocks, start)?;
            }
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), D::Error> {
        self.medium.write(blocks, start)
    }

    fn num_blocks(&self) -> Result<BlockCount, D::Error> {
        self.medium.num_blocks()
    }
}

/// The board has no clock: its files are of the first day that FAT knows.
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

type Volumes<'d, D> = VolumeManager<Borrowed<'d, D>, NoClock, 1, FILES, 1>;
type Outcome<T, D> = Result<T, Error<<D as BlockDevice>::Error>>;

struct Mounted<'d, D: BlockDevice> {
    volumes: Volumes<'d, D>,
    root: RawDirectory,
    open: heapless::Vec<(&'static str, RawFile), FILES>,
}

impl<'d, D: BlockDevice> Mounted<'d, D> {
    fn mount(medium: &'d D) -> Outcome<Self, D> {
        let tables = Tables::find(medium);
        let volumes = Volumes::new_with_limits(Borrowed { medium, tables }, NoClock, 0);
        let volume = volumes.open_raw_volume(VolumeIdx(0))?;
        let root = volumes.open_root_dir(volume)?;
        Ok(Self {
            volumes,
            root,
            open: heapless::Vec::new(),
        })
    }

    /// The open file of this name. Files stay open, because closing one that was
    /// written to writes its directory entry.
    fn file(&mut self, name: &'static str, mode: Mode) -> Outcome<RawFile, D> {
        if let Some((_, file)) = self.open.iter().find(|(open, _)| *open == name) {
            return Ok(*file);
        }
        if self.open.is_full()
            && let Some((_, oldest)) = self.open.first().copied()
        {
            self.open.remove(0);
            self.volumes.close_file(oldest)?;
        }
        let file = self.volumes.open_file_in_dir(self.root, name, mode)?;
        // There is room: see above.
        let _ = self.open.push((name, file));
        Ok(file)
    }

    /// Adds zeros up to `size`, at most so many that the length must be noted.
    fn grow(&mut self, name: &'static str, size: u32) -> Outcome<u32, D> {
        let file = self.file(name, Mode::ReadWriteCreateOrAppend)?;
        let mut length = self.volumes.file_length(file)?;
        self.volumes.file_seek_from_start(file, length)?;
        let zeros = [0; SECTOR];
        // The very first cluster is noted at once: nothing else would point at it.
        let sectors = if length == 0 { 1 } else { NOTED };
        for _ in 0..sectors {
            // Whole sectors once the file's length is at the start of one.
            let room = SECTOR_U32 - length % SECTOR_U32;
            let len = room.min(size.saturating_sub(length));
            let piece = usize::try_from(len).ok().and_then(|len| zeros.get(..len));
            let Some(piece) = piece.filter(|piece| !piece.is_empty()) else {
                break;
            };
            self.volumes.write(file, piece)?;
            length = length.saturating_add(len);
        }
        self.volumes.flush_file(file)?;
        Ok(length)
    }
}

const SECTOR_U32: u32 = Block::LEN_U32;

/// A card with a FAT volume in its first partition; only its root directory is used.
pub struct Card<'d, D: Medium> {
    medium: &'d D,
    mounted: RefCell<Option<Mounted<'d, D>>>,
}

impl<'d, D: Medium> Card<'d, D> {
    /// Nothing is read yet: the card need not be there.
    pub const fn new(medium: &'d D) -> Self {
        Self {
            medium,
            mounted: RefCell::new(None),
        }
    }

    /// Mounts the card where it is not, and acts on it. After a failure of the medium it
    /// is mounted afresh the next time.
    fn with<T>(&self, act: impl FnOnce(&mut Mounted<'d, D>) -> Outcome<T, D>) -> Result<T, Fault> {
        let Ok(mut place) = self.mounted.try_borrow_mut() else {
            return Err(Fault::Io);
        };
        let result = match &mut *place {
            Some(mounted) => act(mounted),
            None => Mounted::mount(self.medium).and_then(|mounted| act(place.insert(mounted))),
        };
        result.map_err(|error| {
            let fault = Fault::of(&error);
            if fault == Fault::Io {
                *place = None;
                self.medium.forget();
            }
            fault
        })
    }

    /// Closes every file without another word to the card.
    fn unmount(&self) -> Result<(), Fault> {
        let mut place = self.mounted.try_borrow_mut().map_err(|_| Fault::Io)?;
        *place = None;
        Ok(())
    }

    /// A file's length in bytes; `None` where there is none.
    pub fn length(&self, name: &'static str) -> Result<Option<u32>, Fault> {
        let found = self.with(|mounted| {
            let open = mounted.open.iter().find(|(open, _)| *open == name);
            match open {
                Some((_, file)) => mounted.volumes.file_length(*file),
                None => mounted
                    .volumes
                    .find_directory_entry(mounted.root, name)
                    .map(|entry| entry.size),
            }
        });
        match found {
            Ok(length) => Ok(Some(length)),
            Err(Fault::Missing) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Fills `bytes` from the file.
    pub fn read(&self, name: &'static str, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        self.with(|mounted| {
            let file = mounted.file(name, Mode::ReadWriteAppend)?;
            mounted.volumes.file_seek_from_start(file, offset)?;
            let read = mounted.volumes.read(file, bytes)?;
            if read == bytes.len() {
                Ok(())
            } else {
                Err(Error::EndOfFile)
            }
        })
    }

    /// Overwrites bytes of the file, which is long enough already: no sector but those
    /// of these bytes is written. On the card when it returns.
    pub fn write(&self, name: &'static str, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.with(|mounted| {
            let file = mounted.file(name, Mode::ReadWriteAppend)?;
            let length = mounted.volumes.file_length(file)?;
            if offset.checked_add(len).is_none_or(|end| end > length) {
                return Err(Error::EndOfFile);
            }
            mounted.volumes.file_seek_from_start(file, offset)?;
            mounted.volumes.write(file, bytes)
        })
    }

    /// Drops what is kept of the sector that was written last, so that it is read from
    /// the card again.
    pub fn drop_cache(&self) -> Result<(), Fault> {
        // A look into the directory takes the one place that there is for a sector.
        self.length(".").map(|_| ())
    }

    /// Gives the file exactly this size. What it held up to there is kept, what is new is
    /// zero. A cut leaves a shorter file, with which the next call goes on; it costs the
    /// card one cluster at most.
    pub fn allocate(&self, name: &'static str, size: u32) -> Result<(), Fault> {
        let mut length = self.length(name)?.unwrap_or(0);
        if length > size {
            // The clusters beyond stay with the file: one sector changes, not a chain.
            self.edit(name, |entry| {
                for (to, from) in entry.iter_mut().skip(ENTRY_SIZE).zip(size.to_le_bytes()) {
                    *to = from;
                }
            })?;
            length = size;
        }
        while length < size {
            let grown = self.with(|mounted| mounted.grow(name, size))?;
            if grown == length {
                return Err(Fault::Full);
            }
            length = grown;
        }
        Ok(())
    }

    /// Gives a file another name, which none has: one sector is written.
    pub fn rename(&self, from: &'static str, to: &'static str) -> Result<(), Fault> {
        self.edit(from, |entry| {
            let (stem, extension) = to.split_once('.').unwrap_or((to, ""));
            entry.iter_mut().take(NAME).for_each(|byte| *byte = b' ');
            for (to, from) in entry.iter_mut().take(8).zip(stem.bytes()) {
                *to = from;
            }
            for (to, from) in entry.iter_mut().take(NAME).skip(8).zip(extension.bytes()) {
                *to = from;
            }
        })
    }

    /// Deletes a file, in one write of one sector; nothing happens where there is none. Its
    /// clusters stay taken: to free them first would leave, after a cut, a file of its full
    /// length without contents, which the boot stage would flash.
    pub fn remove(&self, name: &'static str) -> Result<(), Fault> {
        if self.length(name)?.is_none() {
            return Ok(());
        }
        self.edit(name, |entry| {
            entry.iter_mut().take(1).for_each(|byte| *byte = DELETED);
        })
    }

    /// SHA-256 of the file's first `size` bytes, read from the card.
    pub fn digest(&self, name: &'static str, size: u32) -> Result<Digest, Fault> {
        let mut hash = Sha256::new();
        let mut piece = [0; 256];
        let mut offset = 0_u32;
        while offset < size {
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let len = left.min(piece.len());
            let Some(room) = piece.get_mut(..len) else {
                return Err(Fault::Range);
            };
            self.read(name, offset, room)?;
            hash.update(room);
            offset = offset.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        }
        Ok(Digest(hash.finish()))
    }

    /// Whether the file holds these bytes at this place.
    pub fn holds_at(&self, name: &'static str, offset: u32, bytes: &[u8]) -> Result<bool, Fault> {
        let mut piece = [0; 128];
        let mut at = offset;
        for expected in bytes.chunks(piece.len()) {
            let Some(room) = piece.get_mut(..expected.len()) else {
                return Err(Fault::Range);
            };
            self.read(name, at, room)?;
            if room != expected {
                return Ok(false);
            }
            at = at.saturating_add(u32::try_from(expected.len()).unwrap_or(u32::MAX));
        }
        Ok(true)
    }

    /// Changes a file's directory entry, in one write of one sector.
    fn edit(&self, name: &'static str, change: impl FnOnce(&mut [u8])) -> Result<(), Fault> {
        let entry =
            self.with(|mounted| mounted.volumes.find_directory_entry(mounted.root, name))?;
        // The library would go on with what it knows of the file: it starts afresh after this.
        self.unmount()?;
        let offset = usize::try_from(entry.entry_offset).unwrap_or(SECTOR);
        let mut sector = [Block::new()];
        let edited = self
            .medium
            .read(&mut sector, entry.entry_block)
            .and_then(|()| {
                let [block] = &mut sector;
                if let Some(bytes) = block
                    .contents
                    .get_mut(offset..)
                    .and_then(|rest| rest.get_mut(..ENTRY))
                {
                    change(bytes);
                }
                self.medium.write(&sector, entry.entry_block)
            });
        edited.map_err(|_| {
            self.medium.forget();
            Fault::Io
        })
    }
}

impl<D: Medium> core::fmt::Debug for Card<'_, D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Card(..)")
    }
}
