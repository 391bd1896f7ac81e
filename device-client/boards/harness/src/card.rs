//! The image of an SD card: one FAT16 partition, read and written from the host while
//! the board that it belongs to is off or stopped.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

use crate::Error;

/// Bytes before the partition: the first sector has its table.
const PARTITION: u64 = 64 * 512;
/// FAT16, by logical sectors.
const FAT16_LBA: u8 = 0x0e;
const SECTOR: u64 = 512;

/// A card's image in a file.
#[derive(Clone, Debug)]
pub struct Card {
    path: PathBuf,
}

/// The partition as fatfs takes it.
struct Partition {
    file: File,
    len: u64,
}

impl Read for Partition {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Write for Partition {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Partition {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(PARTITION + at),
            SeekFrom::End(by) => SeekFrom::Start(
                (PARTITION + self.len)
                    .checked_add_signed(by)
                    .ok_or(io::ErrorKind::InvalidInput)?,
            ),
            by => by,
        };
        self.file.seek(to).map(|at| at.saturating_sub(PARTITION))
    }
}

impl Card {
    /// A new card with an empty file system. `size` is a power of two, at least 8 MiB.
    ///
    /// # Errors
    /// The file could not be written, or not be formatted.
    pub fn format(path: &Path, size: u64) -> Result<Self, Error> {
        let card = Self::blank(path, size)?;
        let mut table = [0_u8; 512];
        let (start, len) = (PARTITION / SECTOR, (size - PARTITION) / SECTOR);
        table[446 + 4] = FAT16_LBA;
        let words = [(8, start), (12, len)];
        for (at, value) in words {
            let value = u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
            table[446 + at..446 + at + 4].copy_from_slice(&value);
        }
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        let format = || {
            let mut partition = card.open()?;
            partition.file.write_all(&table)?;
            let options = FormatVolumeOptions::new()
                .fat_type(FatType::Fat16)
                .bytes_per_cluster(1024);
            partition.seek(SeekFrom::Start(0))?;
            fatfs::format_volume(&mut partition, options)
        };
        format().map_err(Error::file(path))?;
        Ok(card)
    }

    /// A new card without a file system.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn blank(path: &Path, size: u64) -> Result<Self, Error> {
        let write = || File::create(path)?.set_len(size);
        write().map_err(Error::file(path))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<Partition> {
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        let len = file.metadata()?.len().saturating_sub(PARTITION);
        file.seek(SeekFrom::Start(0))?;
        Ok(Partition { file, len })
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&FileSystem<Partition>) -> io::Result<T>,
    ) -> Result<T, Error> {
        let work = || {
            let mut partition = self.open()?;
            partition.seek(SeekFrom::Start(0))?;
            let system = FileSystem::new(partition, FsOptions::new())?;
            let result = act(&system)?;
            system.unmount()?;
            Ok(result)
        };
        work().map_err(Error::file(&self.path))
    }

    /// What a file in the root directory holds; `None` where there is none.
    ///
    /// # Errors
    /// The card holds no file system, or a damaged one.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.with(|system| {
            let mut file = match system.root_dir().open_file(name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        })
    }

    /// Writes a file of the root directory anew.
    ///
    /// # Errors
    /// The card is full, or damaged.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.with(|system| {
            let mut file = system.root_dir().create_file(name)?;
            file.truncate()?;
            file.write_all(bytes)?;
            file.flush()
        })
    }

    /// Fills the card with one file, but for `left` bytes.
    ///
    /// # Errors
    /// The card is damaged.
    pub fn fill(&self, name: &str, left: u64) -> Result<(), Error> {
        self.with(|system| {
            let stats = system.stats()?;
            let free = u64::from(stats.free_clusters()) * u64::from(stats.cluster_size());
            let mut file = system.root_dir().create_file(name)?;
            io::copy(
                &mut io::repeat(0).take(free.saturating_sub(left)),
                &mut file,
            )?;
            file.flush()
        })
    }

    /// Makes a file empty and frees its clusters; its name stays.
    ///
    /// # Errors
    /// There is no such file, or the card is damaged.
    pub fn empty(&self, name: &str) -> Result<(), Error> {
        self.with(|system| system.root_dir().open_file(name)?.truncate())
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// There is no such file, or the card is damaged.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        self.with(|system| system.root_dir().remove(name))
    }

    /// Every byte of the card.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        std::fs::read(&self.path).map_err(Error::file(&self.path))
    }
}
