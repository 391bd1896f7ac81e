//! The slot: a file at its full size, whose sectors are overwritten.

use super::{Card, Fault, Medium, NEW};
use crate::slot::{Geometry, Slot, SlotError};

/// `DIALHOME.NEW` as a slot.
#[derive(Debug)]
pub struct SdSlot<'c, 'd, D: Medium> {
    card: &'c Card<'d, D>,
    size: u32,
}

impl<'c, 'd, D: Medium> SdSlot<'c, 'd, D> {
    /// `size`: the largest image that the board's flash takes, in bytes.
    pub const fn new(card: &'c Card<'d, D>, size: u32) -> Self {
        Self { card, size }
    }
}

impl From<Fault> for SlotError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => Self::Full,
            Fault::Protected => Self::WriteProtected,
            Fault::Missing | Fault::Range => Self::OutOfRange,
            Fault::Io => Self::Io,
        }
    }
}

impl<D: Medium> Slot for SdSlot<'_, '_, D> {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            write_unit: 512,
            erase_unit: 512,
        }
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        if image_size > self.size {
            return Err(SlotError::OutOfRange);
        }
        self.card.allocate(NEW, image_size)?;
        // Every later write overwrites a sector that the file has already.
        let mut last = [0];
        self.card
            .read(NEW, image_size.saturating_sub(1), &mut last)
            .map_err(|_| SlotError::Io)
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        // A sector takes new bytes without it.
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(SlotError::OutOfRange),
        }
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        Ok(self.card.write(NEW, offset, bytes)?)
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        Ok(self.card.read(NEW, offset, bytes)?)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        // Each write was on the card when it returned. What is read after this is read there.
        Ok(self.card.drop_cache()?)
    }
}
