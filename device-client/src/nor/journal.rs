//! The journal on NOR flash: two rings of banks (spec/storage.md section 3).

use super::log::{HEADERS, Log, record_len};
use super::{PIECE, erase_size};
use crate::journal::{Journal, JournalError};
use embedded_storage::nor_flash::NorFlash;

/// How the journal lies on its flash: from offset 0 the banks of the cells that hold
/// identity (1 to 8), then those of the cells that change in a transfer (9 and above). The
/// two never share an erase unit. It must stay the same for the life of the flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLayout {
    /// Bytes of a bank of the identity cells, a multiple of the erase unit.
    pub identity_bank: u32,
    /// Bytes of a bank of the transfer's cells, a multiple of the erase unit.
    pub progress_bank: u32,
    /// Banks of each, at least 2. Each more makes the flash last longer in proportion.
    pub banks: u8,
    /// Records are padded to it, and it is written once: a power of two, 16..=256, a
    /// multiple of the flash's write unit. [`JournalLayout::granule`] gives the least.
    pub granule: u32,
}

/// Longest values of the cells 1, 2, 3, 4 (spec/states.md section 4), without the images.
const IDENTITY: [u32; 4] = [66, 32, 180, 700];
/// Of an image cell.
const IMAGE: u32 = 90;
/// Of the cells 9, 10, 11.
const PROGRESS: [u32; 3] = [145, 159, 176];
/// Of an entry of an update with several.
const ENTRY: u32 = 148;

impl JournalLayout {
    /// The least granule for a flash with these write and erase units, in bytes, of which an
    /// erase unit takes at most `writes_max` writes between two erases (0: as many as it has
    /// write units). 32 on a SAMD21: 256 bytes and 8 writes.
    #[must_use]
    pub const fn granule(write_size: u32, erase_size: u32, writes_max: u32) -> u32 {
        let by_writes = if writes_max == 0 {
            0
        } else {
            erase_size.div_ceil(writes_max)
        };
        let mut granule = 16;
        while granule < by_writes || granule < write_size {
            granule *= 2;
        }
        granule
    }

    /// The least layout for a board with so many components: two banks each, that hold
    /// every cell at its longest, and in the second ring two records more, so that not
    /// every store begins a bank.
    #[must_use]
    pub const fn least(erase_size: u32, granule: u32, components: u8) -> Self {
        let identity = Self::identity_needs(granule, components);
        let progress =
            Self::progress_needs(granule, components) + 2 * record_len(PROGRESS[2], shift(granule));
        Self {
            identity_bank: identity.next_multiple_of(erase_size),
            progress_bank: progress.next_multiple_of(erase_size),
            banks: 2,
            granule,
        }
    }

    /// Bytes that a bank of the identity cells must have to hold all of them at their
    /// longest.
    #[must_use]
    pub const fn identity_needs(granule: u32, components: u8) -> u32 {
        let shift = shift(granule);
        let mut sum = HEADERS * granule + record_len(IMAGE, shift) * components as u32;
        let mut place = 0;
        while place < IDENTITY.len() {
            sum += record_len(IDENTITY[place], shift);
            place += 1;
        }
        sum
    }

    /// As [`Self::identity_needs`], for the cells that change in a transfer.
    #[must_use]
    pub const fn progress_needs(granule: u32, components: u8) -> u32 {
        let mut sum = HEADERS * granule;
        if components > 1 {
            sum += record_len(ENTRY, shift(granule)) * components as u32;
        }
        let mut place = 0;
        while place < PROGRESS.len() {
            sum += record_len(PROGRESS[place], shift(granule));
            place += 1;
        }
        sum
    }

    /// Bytes of flash that it takes.
    #[must_use]
    pub const fn len(&self) -> u32 {
        (self.identity_bank.saturating_add(self.progress_bank)).saturating_mul(self.banks as u32)
    }

    /// Whether it takes none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fits<F: NorFlash>(&self, capacity: usize) -> bool {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        let unit = erase_size::<F>();
        let write = u32::try_from(F::WRITE_SIZE).unwrap_or(u32::MAX).max(1);
        let most = u32::try_from(PIECE).unwrap_or(u32::MAX);
        self.granule.is_power_of_two()
            && (16..=most).contains(&self.granule)
            && self.granule.is_multiple_of(write)
            && self.banks >= 2
            && [self.identity_bank, self.progress_bank]
                .iter()
                .all(|bank| bank.is_multiple_of(unit))
            && self.identity_bank >= Self::identity_needs(self.granule, 1)
            && self.progress_bank >= Self::progress_needs(self.granule, 1)
            && self.len() <= capacity
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 31")]
const fn shift(granule: u32) -> u8 {
    let shift = granule.trailing_zeros() as u8;
    if shift > 8 { 8 } else { shift }
}

/// The journal on a flash, or on a part of one.
///
/// The first load or store of each group finds the bank in use, and ends what a cut left
/// half-way, which may write. The first store of each group since a start begins a new
/// bank (one erase): what a cut may have touched is not written to.
#[derive(Clone, Debug)]
pub struct NorJournal<F> {
    flash: F,
    identity: Log,
    progress: Log,
}

impl<F: NorFlash> NorJournal<F> {
    /// The journal at the flash's start; `None` where the layout does not fit the flash:
    /// its length, its units, a granule that it does not allow, banks that do not hold
    /// every cell of a board with one component.
    #[must_use]
    pub fn new(flash: F, layout: &JournalLayout) -> Option<Self> {
        const {
            assert!(
                F::WRITE_SIZE <= PIECE,
                "a write unit of more than 256 bytes"
            )
        };
        if !layout.fits::<F>(flash.capacity()) {
            return None;
        }
        let second = layout.identity_bank.saturating_mul(u32::from(layout.banks));
        Some(Self {
            flash,
            identity: Log::new(0, layout.identity_bank, layout.banks, layout.granule),
            progress: Log::new(second, layout.progress_bank, layout.banks, layout.granule),
        })
    }

    /// The flash, back.
    pub fn into_inner(self) -> F {
        self.flash
    }

    fn group(&mut self, cell: u8) -> (&mut Log, &mut F) {
        let log = if (1..=8).contains(&cell) {
            &mut self.identity
        } else {
            &mut self.progress
        };
        (log, &mut self.flash)
    }
}

impl<F: NorFlash> Journal for NorJournal<F> {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let (log, flash) = self.group(cell);
        log.load(flash, cell, buffer)
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        let (log, flash) = self.group(cell);
        log.store(flash, cell, value)
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        let (log, flash) = self.group(cell);
        log.erase(flash, cell)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::ram::Ram;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const LAYOUT: JournalLayout = JournalLayout::least(1024, 16, 1);

    fn fresh() -> Ram {
        Ram(vec![0xA5; 16 * 1024])
    }

    fn open(flash: Ram) -> NorJournal<Ram> {
        NorJournal::new(flash, &LAYOUT).expect("it fits")
    }

    fn load(journal: &mut NorJournal<Ram>, cell: u8) -> Result<Option<Vec<u8>>, JournalError> {
        let mut buffer = [0; 700];
        let len = journal.load(cell, &mut buffer)?;
        Ok(len.map(|len| buffer[..len].to_vec()))
    }

    #[test]
    fn the_granule_of_a_samd21_is_32_bytes() {
        assert_eq!(JournalLayout::granule(4, 256, 8), 32);
        assert_eq!(JournalLayout::granule(4, 1024, 0), 16);
        assert_eq!(JournalLayout::granule(256, 4096, 0), 256);
    }

    #[test]
    fn values_are_there_after_a_start_and_in_any_number_of_stores() {
        let mut journal = open(fresh());
        assert_eq!(load(&mut journal, 9), Ok(None));
        for round in 0..200_u8 {
            let long: Vec<u8> = (0..usize::from(round)).map(|_| round).collect();
            journal.store(9, &long[..long.len().min(145)]).unwrap();
            journal.store(10, &[round; 158]).unwrap();
            journal.store(2, &[round; 32]).unwrap();
            if round % 3 == 0 {
                journal.store(4, &[round; 700]).unwrap();
                journal.erase(10).unwrap();
            }
            if round % 7 == 0 {
                journal = open(journal.into_inner());
            }
            let kept = usize::from(round).min(145);
            assert_eq!(load(&mut journal, 9), Ok(Some(vec![round; kept])));
            assert_eq!(load(&mut journal, 2), Ok(Some(vec![round; 32])));
            let trial = (round % 3 != 0).then(|| vec![round; 158]);
            assert_eq!(load(&mut journal, 10), Ok(trial));
            assert_eq!(
                load(&mut journal, 4),
                Ok(Some(vec![round - round % 3; 700]))
            );
            assert_eq!(load(&mut journal, 1), Ok(None));
        }
    }

    #[test]
    fn a_value_that_rotted_is_damaged_until_it_is_stored_again() {
        let mut journal = open(fresh());
        journal.store(3, &[3; 100]).unwrap();
        journal.store(1, &[1; 66]).unwrap();
        let mut flash = journal.into_inner();
        let at = flash.0.windows(100).position(|run| run == [3; 100]);
        flash.0[at.unwrap() + 50] ^= 0x10;
        let mut journal = open(flash);
        assert_eq!(load(&mut journal, 3), Err(JournalError::Damaged));
        assert_eq!(load(&mut journal, 1), Ok(Some(vec![1; 66])));
        // The next bank remembers it.
        journal.store(2, &[2; 32]).unwrap();
        journal = open(journal.into_inner());
        assert_eq!(load(&mut journal, 3), Err(JournalError::Damaged));
        journal.store(3, &[4; 10]).unwrap();
        assert_eq!(load(&mut journal, 3), Ok(Some(vec![4; 10])));
    }

    #[test]
    fn a_head_that_rotted_is_known_from_its_seal() {
        let mut journal = open(fresh());
        journal.store(3, &[3; 100]).unwrap();
        journal.store(1, &[1; 66]).unwrap();
        let mut flash = journal.into_inner();
        let at = flash.0.windows(100).position(|run| run == [3; 100]);
        flash.0[at.unwrap() - 9] ^= 0x10;
        let mut journal = open(flash);
        assert_eq!(load(&mut journal, 3), Ok(Some(vec![3; 100])));
        assert_eq!(load(&mut journal, 1), Ok(Some(vec![1; 66])));
    }

    #[test]
    fn what_has_no_room_is_refused_and_the_old_value_stays() {
        let mut journal = open(fresh());
        journal.store(10, &[1; 158]).unwrap();
        assert_eq!(journal.store(10, &[2; 2000]), Err(JournalError::TooLong));
        journal.store(11, &[1; 1500]).unwrap();
        assert_eq!(journal.store(9, &[1; 400]), Err(JournalError::Full));
        assert_eq!(load(&mut journal, 10), Ok(Some(vec![1; 158])));
        let mut small = [0; 4];
        assert_eq!(journal.load(10, &mut small), Err(JournalError::TooLong));
    }

    #[test]
    fn a_layout_that_does_not_fit_is_refused() {
        let layouts = [
            JournalLayout { banks: 1, ..LAYOUT },
            JournalLayout { banks: 9, ..LAYOUT },
            JournalLayout {
                granule: 24,
                ..LAYOUT
            },
            JournalLayout {
                granule: 512,
                ..LAYOUT
            },
            JournalLayout {
                identity_bank: 1000,
                ..LAYOUT
            },
            JournalLayout {
                progress_bank: 0,
                ..LAYOUT
            },
            JournalLayout {
                identity_bank: 1024,
                ..LAYOUT
            },
            JournalLayout {
                granule: 128,
                ..LAYOUT
            },
        ];
        for layout in layouts {
            assert!(NorJournal::new(fresh(), &layout).is_none(), "{layout:?}");
        }
    }

    #[test]
    fn a_kind_of_a_later_firmware_hides_the_older_value() {
        let mut journal = open(fresh());
        journal.store(3, &[3; 100]).unwrap();
        journal.store(3, &[4; 100]).unwrap();
        let mut flash = journal.into_inner();
        let at = flash.0.windows(100).position(|run| run == [4; 100]);
        let head = at.unwrap() - 12;
        for (place, tag) in [(head, b'H'), (head + 112, b'S')] {
            flash.0[place] = 4;
            let mut crc = dialhome_proto::crc::Crc32::new();
            crc.update(&[tag, 1, 0, 0, 0]);
            crc.update(&flash.0[place..place + 8]);
            flash.0[place + 8..place + 12].copy_from_slice(&crc.finish());
        }
        for _ in 0..2 {
            journal = open(flash);
            assert_eq!(load(&mut journal, 3), Err(JournalError::Damaged));
            journal.store(1, &[1; 66]).unwrap();
            flash = journal.into_inner();
        }
    }

    #[test]
    fn its_state_is_small() {
        assert_eq!(size_of::<NorJournal<()>>(), 56);
    }
}
