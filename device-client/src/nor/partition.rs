//! One flash, used by several: each sees its own part of it.

use super::Region;
use core::cell::RefCell;
use core::fmt;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// A part of a flash that is shared through a `RefCell`, as a flash of its own whose
/// offsets count from the part's start. Slot, journal and boot side of one board each
/// take one. No borrow outlives a call, so they do not meet.
pub struct Partition<'f, F> {
    flash: &'f RefCell<F>,
    region: Region,
}

impl<'f, F: NorFlash> Partition<'f, F> {
    /// The part of the flash that `region` names; `None` where it does not lie in the
    /// flash, or its ends not on erase units.
    #[must_use]
    pub fn new(flash: &'f RefCell<F>, region: Region) -> Option<Self> {
        let capacity = flash.try_borrow().ok()?.capacity();
        region.fits::<F>(capacity).then_some(Self { flash, region })
    }

    /// The flash's offset of what is `offset` here; `None` where `len` bytes from there
    /// reach past the part's end.
    fn place(&self, offset: u32, len: usize) -> Option<u32> {
        let len = u32::try_from(len).ok()?;
        let end = offset.checked_add(len)?;
        (end <= self.region.len)
            .then(|| self.region.offset.checked_add(offset))
            .flatten()
    }
}

impl<F> Clone for Partition<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Partition<'_, F> {}

impl<F> fmt::Debug for Partition<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// What went wrong in a part of a flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionError {
    /// Past the part's end.
    OutOfBounds,
    /// Somebody else holds the flash just now.
    Busy,
    /// The flash said so.
    Flash(NorFlashErrorKind),
}

impl NorFlashError for PartitionError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            Self::Busy => NorFlashErrorKind::Other,
            Self::Flash(kind) => *kind,
        }
    }
}

fn told(error: impl NorFlashError) -> PartitionError {
    PartitionError::Flash(error.kind())
}

impl<F: NorFlash> ErrorType for Partition<'_, F> {
    type Error = PartitionError;
}

impl<F: NorFlash> ReadNorFlash for Partition<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PartitionError> {
        let at = self
            .place(offset, bytes.len())
            .ok_or(PartitionError::OutOfBounds)?;
        let mut flash = self
            .flash
            .try_borrow_mut()
            .map_err(|_| PartitionError::Busy)?;
        flash.read(at, bytes).map_err(told)
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.region.len).unwrap_or(usize::MAX)
    }
}

impl<F: NorFlash> NorFlash for Partition<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PartitionError> {
        let len = to.checked_sub(from).ok_or(PartitionError::OutOfBounds)?;
        let len = usize::try_from(len).map_err(|_| PartitionError::OutOfBounds)?;
        let at = self.place(from, len).ok_or(PartitionError::OutOfBounds)?;
        let end = self.place(to, 0).ok_or(PartitionError::OutOfBounds)?;
        let mut flash = self
            .flash
            .try_borrow_mut()
            .map_err(|_| PartitionError::Busy)?;
        flash.erase(at, end).map_err(told)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PartitionError> {
        let at = self
            .place(offset, bytes.len())
            .ok_or(PartitionError::OutOfBounds)?;
        let mut flash = self
            .flash
            .try_borrow_mut()
            .map_err(|_| PartitionError::Busy)?;
        flash.write(at, bytes).map_err(told)
    }
}
