//! What the boot stage and the image tell each other (spec/storage.md section 4).

use super::log::{HEADERS, Log, record_len};
use super::{PIECE, Region, erase_size};
use crate::journal::JournalError;
use dialhome_proto::crc::Crc32;
use embedded_storage::nor_flash::NorFlash;

/// Where the two images and the state of their swap lie on a flash. Boot stage and image
/// must be built with the same one, and it stays for the life of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootLayout {
    /// The image that runs; a number of swap units.
    pub active: Region,
    /// Where an image is received: [`Self::active`] and one swap unit more. The slot is
    /// as long as [`Self::active`].
    pub download: Region,
    /// Two banks or more, for what was asked for and how far it has come.
    pub state: Region,
    /// Banks in `state`: each begins on an erase unit.
    pub banks: u8,
    /// Bytes that are copied between two notes of progress, a multiple of the erase unit:
    /// the erase unit itself where the slots have up to some hundred of them, more where
    /// they are many and small (4096 on a SAMD21).
    pub swap_unit: u32,
    /// As [`JournalLayout::granule`](super::JournalLayout::granule).
    pub granule: u32,
}

impl BootLayout {
    /// Bytes of one bank of `state`.
    const fn bank_len(&self) -> u32 {
        match self.state.len.checked_div(self.banks as u32) {
            Some(len) => len,
            None => 0,
        }
    }

    /// Whether it can be used on this flash: units and lengths as documented, and nothing
    /// overlaps.
    #[must_use]
    pub fn fits<F: NorFlash>(&self, flash: &F) -> bool {
        let capacity = flash.capacity();
        let regions = [self.active, self.download, self.state];
        let apart = |a: &Region, b: &Region| {
            a.offset.saturating_add(a.len) <= b.offset || b.offset.saturating_add(b.len) <= a.offset
        };
        let [active, download, state] = &regions;
        let erase = erase_size::<F>();
        let write = u32::try_from(F::WRITE_SIZE).unwrap_or(u32::MAX).max(1);
        let most = u32::try_from(PIECE).unwrap_or(u32::MAX);
        let needs = HEADERS
            .saturating_mul(self.granule)
            .saturating_add(record_len(LENS.0, self.shift()))
            .saturating_add(record_len(LENS.1, self.shift()).saturating_mul(2));
        regions.iter().all(|region| region.fits::<F>(capacity))
            && apart(active, download)
            && apart(active, state)
            && apart(download, state)
            && self.swap_unit != 0
            && self.swap_unit.is_multiple_of(erase)
            && active.len.is_multiple_of(self.swap_unit)
            && active.len / self.swap_unit.max(1) < u32::from(u16::MAX) / 2
            && download.len >= active.len.saturating_add(self.swap_unit)
            && self.granule.is_power_of_two()
            && (16..=most).contains(&self.granule)
            && self.granule.is_multiple_of(write)
            && self.banks >= 2
            && self.bank_len().is_multiple_of(erase)
            && self.bank_len() >= needs
    }

    fn shift(&self) -> u8 {
        u8::try_from(self.granule.trailing_zeros())
            .unwrap_or(8)
            .min(8)
    }

    /// What a record says of the layout: the stage does nothing with a record that was
    /// written with another one. Offsets count from the active region's, because image
    /// and stage may see the flash from different starts.
    pub(crate) fn check(&self) -> [u8; 4] {
        let from = self.active.offset;
        let mut crc = Crc32::new();
        for number in [
            self.active.len,
            self.download.offset.wrapping_sub(from),
            self.download.len,
            self.state.offset.wrapping_sub(from),
            self.state.len,
            u32::from(self.banks),
            self.swap_unit,
            self.granule,
        ] {
            crc.update(&number.to_le_bytes());
        }
        crc.finish()
    }

    /// Swap units of a slot.
    pub(crate) fn units(&self) -> u32 {
        self.active.len / self.swap_unit.max(1)
    }
}

/// Bytes of a record.
const RECORD_LEN: usize = 30;
/// Lengths of both, as the flash counts.
const LENS: (u32, u32) = (30, 3);
/// Bytes of a note of progress.
const STEP_LEN: usize = 3;
/// Its cell.
const RECORD: u8 = 1;
/// The cell of the progress.
const STEP: u8 = 2;

/// How far the change to another image has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Nothing is under way: the image was confirmed, or flashed by other means.
    Rest,
    /// The image in the download slot is to run.
    Asked,
    /// It runs, unconfirmed.
    Trial,
    /// The old image is to run again.
    Back,
    /// It does, and the image does not know it yet.
    Returned,
}

impl Phase {
    const ALL: [(u8, Self); 5] = [
        (1, Self::Rest),
        (2, Self::Asked),
        (3, Self::Trial),
        (4, Self::Back),
        (5, Self::Returned),
    ];
}

/// What is written at each change of phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BootRecord {
    pub(crate) phase: Phase,
    /// Rises with every phase that has steps; the progress names it.
    pub(crate) serial: u8,
    /// Boots that the image has on trial.
    pub(crate) budget: u8,
    /// Boots on trial so far.
    pub(crate) boots: u8,
    /// The first step, where it is not 0: a return from a swap that was given up.
    pub(crate) first: u16,
    /// Swap units that take part.
    pub(crate) units: u16,
    /// Bytes of the new image.
    pub(crate) size: u32,
    /// Its CRC.
    pub(crate) crc: [u8; 4],
    /// The first bytes of its digest.
    pub(crate) tag: [u8; 10],
    /// [`BootLayout::check`] of who asked.
    pub(crate) layout: [u8; 4],
}

impl BootRecord {
    pub(crate) const REST: Self = Self {
        phase: Phase::Rest,
        serial: 0,
        budget: 0,
        boots: 0,
        first: 0,
        units: 0,
        size: 0,
        crc: [0; 4],
        tag: [0; 10],
        layout: [0; 4],
    };

    fn encode(&self) -> [u8; RECORD_LEN] {
        let mut numbers = Phase::ALL.iter();
        let phase = numbers
            .find(|(_, phase)| *phase == self.phase)
            .map_or(0, |(number, _)| *number);
        let [a, b] = self.first.to_le_bytes();
        let [c, d] = self.units.to_le_bytes();
        let [e, f, g, h] = self.size.to_le_bytes();
        let [i, j, k, l] = self.crc;
        let [m, n, o, p, q, r, s, t, u, v] = self.tag;
        let [w, x, y, z] = self.layout;
        let (serial, budget, boots) = (self.serial, self.budget, self.boots);
        [
            phase, serial, budget, boots, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s,
            t, u, v, w, x, y, z,
        ]
    }

    fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let [
            phase,
            serial,
            budget,
            boots,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            o,
            p,
            q,
            r,
            s,
            t,
            u,
            v,
            w,
            x,
            y,
            z,
        ] = *bytes;
        let mut numbers = Phase::ALL.iter();
        let (_, phase) = *numbers.find(|(number, _)| *number == phase)?;
        Some(Self {
            phase,
            serial,
            budget,
            boots,
            first: u16::from_le_bytes([a, b]),
            units: u16::from_le_bytes([c, d]),
            size: u32::from_le_bytes([e, f, g, h]),
            crc: [i, j, k, l],
            tag: [m, n, o, p, q, r, s, t, u, v],
            layout: [w, x, y, z],
        })
    }
}

/// The record and the progress on flash; the same at the boot stage and in the image.
#[derive(Clone, Debug)]
pub(crate) struct BootLog(Log);

impl BootLog {
    pub(crate) fn new(layout: &BootLayout) -> Self {
        Self(Log::new(
            layout.state.offset,
            layout.bank_len(),
            layout.banks,
            layout.granule,
        ))
    }

    /// The record, or that of a board on which nothing ever happened.
    pub(crate) fn record<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<BootRecord, JournalError> {
        let mut bytes = [0; RECORD_LEN];
        match self.0.load(flash, RECORD, &mut bytes)? {
            None => Ok(BootRecord::REST),
            Some(RECORD_LEN) => BootRecord::decode(&bytes).ok_or(JournalError::Damaged),
            Some(_) => Err(JournalError::Damaged),
        }
    }

    pub(crate) fn set_record<F: NorFlash>(
        &mut self,
        flash: &mut F,
        record: &BootRecord,
    ) -> Result<(), JournalError> {
        self.0.store(flash, RECORD, &record.encode())
    }

    /// Steps that were taken in the record's phase.
    pub(crate) fn step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        record: &BootRecord,
    ) -> Result<u16, JournalError> {
        let mut bytes = [0; STEP_LEN];
        let len = self.0.load(flash, STEP, &mut bytes)?;
        let [serial, low, high] = bytes;
        if len == Some(STEP_LEN) && serial == record.serial {
            Ok(u16::from_le_bytes([low, high]).max(record.first))
        } else {
            Ok(record.first)
        }
    }

    pub(crate) fn set_step<F: NorFlash>(
        &mut self,
        flash: &mut F,
        record: &BootRecord,
        step: u16,
    ) -> Result<(), JournalError> {
        let [low, high] = step.to_le_bytes();
        self.0.store(flash, STEP, &[record.serial, low, high])
    }
}
