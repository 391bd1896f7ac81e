//! The journal: a file in which each cell has two copies, each with a checksum and in
//! sectors of its own. A store overwrites the older copy, so that a torn sector costs
//! that copy only.

use super::{Card, Fault, JOURNAL, Medium, SECTOR};
use crate::journal::{Journal, JournalError};
use dialhome_proto::crc::Crc32;

/// Cells of the file. The client's have numbers up to 11; the last is [`SduBoot`](super::SduBoot)'s.
const CELLS: u8 = 16;
/// The cell of the boot side.
pub(super) const BOOT_CELL: u8 = CELLS - 1;
/// A copy is two sectors, of which a short value uses one.
const COPY: usize = 2 * SECTOR;
const COPY_U32: u32 = 1024;
const COPIES: [u8; 2] = [0, 1];
/// The whole file, in bytes.
const FILE: u32 = 2 * COPY_U32 * CELLS as u32;
/// magic 4, cell 1, kind 1, length 2, sequence 4, CRC-32 of these and the value 4.
const HEADER: usize = 16;
const CHECKED: usize = 12;
const MAGIC: [u8; 4] = *b"DHJ1";
const ERASED: u8 = 0;
const VALUE: u8 = 1;

/// `DIALHOME.JNL` as a journal.
#[derive(Debug)]
pub struct SdJournal<'c, 'd, D: Medium> {
    card: &'c Card<'d, D>,
    /// The file has its full size.
    ready: bool,
}

/// What a copy holds.
enum Found {
    /// It was never written.
    Nothing,
    /// It is torn.
    Damaged,
    /// A value, or the word that there is none.
    Valid(Header),
}

#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    len: usize,
    sequence: u32,
}

impl<'c, 'd, D: Medium> SdJournal<'c, 'd, D> {
    /// Nothing is read yet.
    pub const fn new(card: &'c Card<'d, D>) -> Self {
        Self { card, ready: false }
    }

    fn look(&self, cell: u8, copy: u8) -> Result<Found, Fault> {
        let at = offset(cell, copy);
        let mut header = [0; HEADER];
        match self.card.read(JOURNAL, at, &mut header) {
            Ok(()) => {}
            // A file that was never finished holds nothing.
            Err(Fault::Missing | Fault::Range) => return Ok(Found::Nothing),
            Err(fault) => return Err(fault),
        }
        if header == [0; HEADER] {
            return Ok(Found::Nothing);
        }
        let [
            m0,
            m1,
            m2,
            m3,
            number,
            kind,
            l0,
            l1,
            s0,
            s1,
            s2,
            s3,
            c0,
            c1,
            c2,
            c3,
        ] = header;
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        let known = [m0, m1, m2, m3] == MAGIC && number == cell && len <= COPY - HEADER;
        if !known {
            return Ok(Found::Damaged);
        }
        let mut crc = Crc32::new();
        crc.update(
            header
                .first_chunk::<CHECKED>()
                .map_or(&[], |checked| checked),
        );
        let mut piece = [0; 64];
        let mut done = 0;
        while done < len {
            let most = (len - done).min(piece.len());
            let Some(room) = piece.get_mut(..most) else {
                break;
            };
            let place = at.saturating_add(u32::try_from(HEADER + done).unwrap_or(u32::MAX));
            self.card.read(JOURNAL, place, room)?;
            crc.update(room);
            done += most;
        }
        if crc.finish() != [c0, c1, c2, c3] {
            return Ok(Found::Damaged);
        }
        Ok(Found::Valid(Header {
            kind,
            len,
            sequence: u32::from_le_bytes([s0, s1, s2, s3]),
        }))
    }

    /// The newest copy that checks; whether there is one that does not. A card of which
    /// neither can be read is an error.
    fn newest(&self, cell: u8) -> Result<(Option<(u8, Header)>, bool), JournalError> {
        if cell >= CELLS {
            return Err(JournalError::TooLong);
        }
        let mut newest: Option<(u8, Header)> = None;
        let mut damaged = 0_u8;
        let mut unread = 0_u8;
        let mut nothing = false;
        for copy in COPIES {
            // A second time, with the card mounted afresh, before the copy is given up.
            let found = self.look(cell, copy).or_else(|_| self.look(cell, copy));
            match found {
                Ok(Found::Nothing) => nothing = true,
                Ok(Found::Damaged) => damaged += 1,
                // A cut may leave a sector that cannot be read before it is written again:
                // damaged, where the other copy shows that the card is there.
                Err(_) => unread += 1,
                Ok(Found::Valid(header)) => {
                    let newer = newest.is_none_or(|(_, other)| header.sequence > other.sequence);
                    if newer {
                        newest = Some((copy, header));
                    }
                }
            }
        }
        if usize::from(unread) == COPIES.len() {
            return Err(JournalError::Io);
        }
        // One torn copy beside an empty one: the very first store was cut.
        Ok((newest, damaged + unread != 0 && !nothing))
    }

    fn put(&mut self, cell: u8, kind: u8, value: &[u8]) -> Result<(), JournalError> {
        let (newest, _) = self.newest(cell)?;
        let total = HEADER + value.len();
        if total > COPY {
            return Err(JournalError::TooLong);
        }
        if !self.ready {
            self.card.allocate(JOURNAL, FILE)?;
            self.ready = true;
        }
        let copy = newest.map_or(0, |(copy, _)| 1 - copy);
        let sequence = newest
            .map_or(0, |(_, header)| header.sequence)
            .wrapping_add(1);
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes();
        let checked = MAGIC
            .into_iter()
            .chain([cell, kind])
            .chain(len)
            .chain(sequence.to_le_bytes());
        let mut crc = Crc32::new();
        for byte in checked.clone() {
            crc.update(&[byte]);
        }
        crc.update(value);
        let check = crc.finish();
        let mut all = checked.chain(check).chain(value.iter().copied());
        let mut at = offset(cell, copy);
        let mut sector = [0; SECTOR];
        for _ in 0..total.div_ceil(SECTOR) {
            sector.fill(0);
            for (to, from) in sector.iter_mut().zip(&mut all) {
                *to = from;
            }
            self.card.write(JOURNAL, at, &sector)?;
            at = at.saturating_add(u32::try_from(SECTOR).unwrap_or(0));
        }
        // A card that is write-protected may take a write and keep nothing.
        self.card.drop_cache()?;
        match self.newest(cell)? {
            (Some((place, header)), _) if place == copy && header.sequence == sequence => Ok(()),
            _ => Err(JournalError::Io),
        }
    }
}

/// Where a copy begins in the file.
fn offset(cell: u8, copy: u8) -> u32 {
    (u32::from(cell) * 2 + u32::from(copy)) * COPY_U32
}

impl From<Fault> for JournalError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => Self::Full,
            Fault::Protected => Self::WriteProtected,
            Fault::Missing | Fault::Range | Fault::Io => Self::Io,
        }
    }
}

impl<D: Medium> Journal for SdJournal<'_, '_, D> {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let (copy, header) = match self.newest(cell)? {
            (Some(newest), _) => newest,
            (None, false) => return Ok(None),
            (None, true) => return Err(JournalError::Damaged),
        };
        if header.kind != VALUE {
            return Ok(None);
        }
        let room = buffer.get_mut(..header.len).ok_or(JournalError::TooLong)?;
        let at = offset(cell, copy).saturating_add(u32::try_from(HEADER).unwrap_or(0));
        self.card.read(JOURNAL, at, room)?;
        Ok(Some(header.len))
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        self.put(cell, VALUE, value)
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        match self.newest(cell)? {
            (None, false) => Ok(()),
            (Some((_, header)), _) if header.kind == ERASED => Ok(()),
            _ => self.put(cell, ERASED, &[]),
        }
    }
}
