//! The journal as files: two copies of each cell in `STATE/journal/`.
//!
//! A copy is 20 bytes of header and the value. A store overwrites the older copy and
//! syncs it, so a cut at any byte leaves the newer one. Integers are big-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | `DHJ1` |
//! | 4 | 1 | cell number |
//! | 5 | 1 | 0 a value, 1 erased |
//! | 6 | 2 | length of the value |
//! | 8 | 8 | sequence, rising with every store |
//! | 16 | 4 | CRC-32 of bytes 0..16 and the value |

use std::{
    format,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    vec::Vec,
};

use dialhome_proto::crc::Crc32;

use super::{durable, state::State};
use crate::journal::{Journal, JournalError};

const MAGIC: &[u8; 4] = b"DHJ1";
const HEADER: usize = 20;
/// Longest value of a cell, in bytes.
pub const VALUE_MAX: usize = 4096;

/// A journal in the files of a state directory.
#[derive(Debug)]
pub struct FileJournal {
    dir: PathBuf,
    /// Copies whose last write failed. What is read from them may not be on the disk,
    /// so the next store overwrites them and leaves the other copy, which is.
    suspect: Vec<(u8, char)>,
}

/// A copy that checks.
struct Copy {
    sequence: u64,
    /// `None`: erased.
    value: Option<Vec<u8>>,
}

/// What is in a copy's file.
enum Found {
    Nothing,
    Damaged,
    Valid(Copy),
}

impl FileJournal {
    /// The journal of this state directory. Syncs what is there: a process that was
    /// killed may have left a copy that is not on the disk yet.
    ///
    /// # Errors
    /// The directory cannot be read, or not synced.
    pub fn open(state: &State) -> io::Result<Self> {
        Self::at(state.dir().join("journal"))
    }

    fn at(dir: PathBuf) -> io::Result<Self> {
        for entry in fs::read_dir(&dir)? {
            fs::File::open(entry?.path())?.sync_all()?;
        }
        durable::sync_dir(&dir)?;
        Ok(Self {
            dir,
            suspect: Vec::new(),
        })
    }

    fn path(&self, cell: u8, copy: char) -> PathBuf {
        self.dir.join(format!("{cell:03}.{copy}"))
    }

    /// The newest copy that checks, and the name of the one to overwrite next.
    fn newest(&self, cell: u8) -> Result<(Found, char), JournalError> {
        let a = read(&self.path(cell, 'a'), cell).map_err(failed)?;
        let b = read(&self.path(cell, 'b'), cell).map_err(failed)?;
        Ok(match (a, b) {
            (Found::Valid(a), Found::Valid(b)) if a.sequence < b.sequence => (Found::Valid(b), 'a'),
            (Found::Valid(a), _) => (Found::Valid(a), 'b'),
            (_, Found::Valid(b)) => (Found::Valid(b), 'a'),
            (Found::Damaged, Found::Damaged) => (Found::Damaged, 'a'),
            // One file, and it does not check: the very first store was cut.
            _ => (Found::Nothing, 'a'),
        })
    }

    fn put(&mut self, cell: u8, value: Option<&[u8]>) -> Result<(), JournalError> {
        let (newest, older) = self.newest(cell)?;
        let sequence = match &newest {
            Found::Valid(newest) => newest.sequence + 1,
            Found::Nothing | Found::Damaged => 1,
        };
        let suspect = self.suspect.iter().position(|(number, _)| *number == cell);
        let copy = suspect.map_or(older, |index| self.suspect[index].1);
        let bytes = encode(cell, sequence, value)?;
        match (write(&self.path(cell, copy), &bytes), suspect) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(index)) => {
                self.suspect.swap_remove(index);
                Ok(())
            }
            (Err(error), suspect) => {
                if suspect.is_none() {
                    self.suspect.push((cell, copy));
                }
                Err(failed(error))
            }
        }
    }
}

impl Journal for FileJournal {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        match self.newest(cell)?.0 {
            Found::Valid(Copy {
                value: Some(value), ..
            }) => {
                let room = buffer.get_mut(..value.len()).ok_or(JournalError::TooLong)?;
                room.copy_from_slice(&value);
                Ok(Some(value.len()))
            }
            Found::Valid(Copy { value: None, .. }) | Found::Nothing => Ok(None),
            Found::Damaged => Err(JournalError::Damaged),
        }
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        self.put(cell, Some(value))
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        match self.newest(cell)?.0 {
            Found::Nothing => Ok(()),
            _ => self.put(cell, None),
        }
    }
}

/// Overwrites a copy in place: its blocks are there already, so a full disk fails no
/// later store.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let created = !path.exists();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_data()?;
    match path.parent() {
        Some(dir) if created => durable::sync_dir(dir),
        _ => Ok(()),
    }
}

fn encode(cell: u8, sequence: u64, value: Option<&[u8]>) -> Result<Vec<u8>, JournalError> {
    let content = value.unwrap_or_default();
    let len = u16::try_from(content.len()).map_err(|_| JournalError::TooLong)?;
    if content.len() > VALUE_MAX {
        return Err(JournalError::TooLong);
    }
    let mut bytes = Vec::with_capacity(HEADER + content.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(cell);
    bytes.push(u8::from(value.is_none()));
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&checksum(&bytes, content).to_be_bytes());
    bytes.extend_from_slice(content);
    Ok(bytes)
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    let mut digest = Crc32::new();
    digest.update(header);
    digest.update(content);
    u32::from_le_bytes(digest.finish())
}

fn read(path: &Path, cell: u8) -> io::Result<Found> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let most = (HEADER + VALUE_MAX) as u64;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(decode(&bytes, cell).map_or(Found::Damaged, Found::Valid))
}

/// A copy that checks; bytes behind its value are the end of a longer, older one.
fn decode(bytes: &[u8], cell: u8) -> Option<Copy> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let len = usize::from(u16::from_be_bytes([header[6], header[7]]));
    let value = rest.get(..len)?;
    let stored = u32::from_be_bytes(*header[16..].first_chunk()?);
    let sound = header.starts_with(MAGIC)
        && header[4] == cell
        && header[5] <= 1
        && stored == checksum(&header[..16], value);
    sound.then(|| Copy {
        sequence: header[8..16]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        value: (header[5] == 0).then(|| value.to_vec()),
    })
}

fn failed(error: io::Error) -> JournalError {
    tracing::warn!(%error, "journal");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            JournalError::WriteProtected
        }
        _ => JournalError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{borrow::ToOwned as _, os::unix::fs::PermissionsExt as _, vec};

    fn journal() -> (tempfile::TempDir, FileJournal) {
        let dir = tempfile::tempdir().unwrap();
        let journal = FileJournal::at(dir.path().to_owned()).unwrap();
        (dir, journal)
    }

    fn value(journal: &mut FileJournal, cell: u8) -> Option<Vec<u8>> {
        let mut buffer = [0; VALUE_MAX];
        journal
            .load(cell, &mut buffer)
            .unwrap()
            .map(|len| buffer[..len].to_vec())
    }

    #[test]
    fn a_value_comes_back_after_it_was_opened_again() {
        let (dir, mut journal) = journal();
        assert_eq!(value(&mut journal, 3), None);
        for round in 0..5u8 {
            journal.store(3, &[round; 40]).unwrap();
            journal.store(4, &[round]).unwrap();
            let mut again = FileJournal::at(dir.path().to_owned()).unwrap();
            assert_eq!(value(&mut again, 3), Some(vec![round; 40]));
        }
        journal.erase(3).unwrap();
        assert_eq!(value(&mut journal, 3), None);
        assert_eq!(value(&mut journal, 4), Some(vec![4]));
        journal.store(3, b"").unwrap();
        assert_eq!(value(&mut journal, 3), Some(vec![]));
    }

    /// Every byte at which a store can be cut, over an older copy that was shorter, as
    /// long, or longer, or not there; and the cut followed by another store.
    #[test]
    fn a_store_cut_at_any_byte_leaves_the_older_value() {
        for (oldest, old, new) in [
            (None, None, Some(vec![7; 33])),
            (None, Some(vec![1; 10]), Some(vec![2; 33])),
            (Some(vec![9; 33]), Some(vec![1; 10]), Some(vec![2; 33])),
            (Some(vec![9; 64]), Some(vec![1; 64]), Some(vec![2; 9])),
            (Some(vec![9; 9]), Some(vec![]), Some(vec![2; 64])),
            (Some(vec![9; 9]), Some(vec![1; 9]), None),
        ] {
            let length = {
                let (_dir, mut journal) = journal();
                fill(&mut journal, &[&oldest, &old, &new]);
                let (_, older) = journal.newest(5).unwrap();
                let newest = if older == 'a' { 'b' } else { 'a' };
                fs::read(journal.path(5, newest)).unwrap()
            };
            for cut in 0..length.len() {
                let (_dir, mut journal) = journal();
                fill(&mut journal, &[&oldest, &old]);
                let (_, target) = journal.newest(5).unwrap();
                let path = journal.path(5, target);
                let mut torn = fs::read(&path).unwrap_or_default();
                let rest = torn.split_off(cut.min(torn.len()));
                let mut torn = length[..cut].to_vec();
                torn.extend_from_slice(&rest);
                fs::write(&path, &torn).unwrap();
                assert_eq!(value(&mut journal, 5), old, "cut at {cut}");
                // The same bytes in another order of arrival: the end without the start.
                let mut torn = vec![0; cut];
                torn.extend_from_slice(&length[cut..]);
                if cut > 0 {
                    fs::write(&path, &torn).unwrap();
                    assert_eq!(value(&mut journal, 5), old, "only the end from {cut}");
                }
                put(&mut journal, &Some(vec![4; 4]));
                assert_eq!(value(&mut journal, 5), Some(vec![4; 4]));
            }
        }
    }

    fn fill(journal: &mut FileJournal, values: &[&Option<Vec<u8>>]) {
        let first = values.iter().position(|value| value.is_some());
        for value in &values[first.unwrap_or(values.len())..] {
            put(journal, value);
        }
    }

    fn put(journal: &mut FileJournal, value: &Option<Vec<u8>>) {
        match value {
            Some(value) => journal.store(5, value).unwrap(),
            None => journal.erase(5).unwrap(),
        }
    }

    #[test]
    fn any_changed_bit_of_the_newest_copy_leaves_the_older_value() {
        let (_dir, mut journal) = journal();
        journal.store(5, b"older").unwrap();
        journal.store(5, b"newer").unwrap();
        let path = journal.path(5, 'b');
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert_eq!(value(&mut journal, 5).unwrap(), b"older", "bit {bit}");
        }
        // A copy of another cell is not this cell's.
        journal.store(6, b"other").unwrap();
        fs::copy(journal.path(6, 'a'), &path).unwrap();
        assert_eq!(value(&mut journal, 5).unwrap(), b"older");
    }

    #[test]
    fn damage_in_both_copies_is_said_and_a_store_mends_it() {
        let (_dir, mut journal) = journal();
        journal.store(5, b"one").unwrap();
        journal.store(5, b"two").unwrap();
        for copy in ['a', 'b'] {
            fs::write(journal.path(5, copy), b"DHJ1").unwrap();
        }
        assert_eq!(journal.load(5, &mut [0; 8]), Err(JournalError::Damaged));
        journal.store(5, b"three").unwrap();
        assert_eq!(value(&mut journal, 5).unwrap(), b"three");
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_and_change_nothing() {
        let (_dir, mut journal) = journal();
        journal.store(5, b"value").unwrap();
        assert_eq!(journal.load(5, &mut [0; 4]), Err(JournalError::TooLong));
        assert_eq!(
            journal.store(5, &[0; VALUE_MAX + 1]),
            Err(JournalError::TooLong)
        );
        assert_eq!(journal.store(5, &[0; 70_000]), Err(JournalError::TooLong));
        assert_eq!(value(&mut journal, 5).unwrap(), b"value");
        journal.store(5, &[1; VALUE_MAX]).unwrap();
        assert_eq!(value(&mut journal, 5).unwrap(), [1; VALUE_MAX]);
    }

    #[test]
    fn the_files_are_the_owners_only() {
        let (_dir, mut journal) = journal();
        journal.store(5, b"key").unwrap();
        let mode = fs::metadata(journal.path(5, 'a'))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_store_that_failed_is_repeated_on_the_same_copy() {
        let (_dir, mut journal) = journal();
        journal.store(5, b"on the disk").unwrap();
        // A directory in the copy's place: the store fails before it writes.
        let path = journal.path(5, 'b');
        journal.suspect.push((5, 'b'));
        fs::create_dir(&path).unwrap();
        assert!(journal.store(5, b"lost").is_err());
        fs::remove_dir(&path).unwrap();
        // The write went to the page cache, its sync failed: it reads as the newest.
        fs::write(&path, encode(5, 9, Some(b"in the cache only")).unwrap()).unwrap();
        journal.store(5, b"next").unwrap();
        assert_eq!(value(&mut journal, 5).unwrap(), b"next");
        fs::remove_file(&path).unwrap();
        assert_eq!(value(&mut journal, 5).unwrap(), b"on the disk");
        assert!(journal.suspect.is_empty());
    }

    #[test]
    fn a_store_into_a_directory_that_is_gone_is_an_error() {
        let (dir, mut journal) = journal();
        drop(dir);
        assert_eq!(journal.store(5, b"x"), Err(JournalError::Io));
    }
}
