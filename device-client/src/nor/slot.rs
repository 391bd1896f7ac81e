//! The slot on NOR flash.

use super::{PIECE, erase_size, read};
use crate::slot::{Geometry, Slot, SlotError};
use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

/// The slot of component 0 on a flash, or on a part of one. What `write` returned from
/// is durable, so `flush` has nothing to do.
#[derive(Clone, Copy, Debug)]
pub struct NorSlot<F> {
    flash: F,
    size: u32,
    write_unit: u32,
}

impl<F: NorFlash> NorSlot<F> {
    /// A slot for images of up to `size` bytes at the flash's start: the whole of it, or
    /// less (the download slot of [`BootLayout`](super::BootLayout) has a swap unit
    /// more than an image may have). It is cut to whole erase units.
    ///
    /// `write_unit` is what Hello says and chunks are multiples of: the flash's own write
    /// unit, or a multiple of it where the flash counts the writes of an erase unit (64
    /// on a SAMD21, whose rows of 256 bytes take 8 writes). It is made a multiple of the
    /// flash's, and a divisor of the erase unit, where it is not.
    #[must_use]
    pub fn new(flash: F, size: u32, write_unit: u32) -> Self {
        let capacity = u32::try_from(flash.capacity()).unwrap_or(u32::MAX);
        let unit = erase_size::<F>();
        let size = size.min(capacity);
        let least = u32::try_from(F::WRITE_SIZE).unwrap_or(u32::MAX).max(1);
        let asked = write_unit.max(1);
        let fits = asked.is_multiple_of(least) && unit.is_multiple_of(asked);
        Self {
            flash,
            size: size - size % unit,
            write_unit: if fits { asked } else { least },
        }
    }

    /// The flash, back.
    pub fn into_inner(self) -> F {
        self.flash
    }

    fn within(&self, offset: u32, len: usize) -> Result<(), SlotError> {
        let len = u32::try_from(len).map_err(|_| SlotError::OutOfRange)?;
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(SlotError::OutOfRange),
        }
    }
}

fn told(error: impl NorFlashError) -> SlotError {
    match error.kind() {
        NorFlashErrorKind::OutOfBounds => SlotError::OutOfRange,
        _ => SlotError::Io,
    }
}

impl<F: NorFlash> Slot for NorSlot<F> {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            write_unit: self.write_unit,
            erase_unit: erase_size::<F>(),
        }
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        if image_size > self.size {
            return Err(SlotError::OutOfRange);
        }
        Ok(())
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        self.within(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        self.flash
            .erase(offset, offset.saturating_add(len))
            .map_err(told)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        const {
            assert!(
                F::WRITE_SIZE <= PIECE,
                "a write unit of more than 256 bytes"
            )
        };
        self.within(offset, bytes.len())?;
        let unit = F::WRITE_SIZE.max(1);
        let whole = bytes.len() - bytes.len() % unit;
        let (head, tail) = bytes.split_at_checked(whole).ok_or(SlotError::OutOfRange)?;
        if !head.is_empty() {
            self.flash.write(offset, head).map_err(told)?;
        }
        if !tail.is_empty() {
            // The image's last unit: the rest of it stays as an erase leaves it.
            let mut last = [0xFF; PIECE];
            for (to, from) in last.iter_mut().zip(tail) {
                *to = *from;
            }
            let at = u32::try_from(whole)
                .ok()
                .and_then(|whole| offset.checked_add(whole))
                .ok_or(SlotError::OutOfRange)?;
            let last = last.get(..unit).ok_or(SlotError::Io)?;
            self.flash.write(at, last).map_err(told)?;
        }
        Ok(())
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        self.within(offset, bytes.len())?;
        read(&mut self.flash, offset, bytes).map_err(told)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        Ok(())
    }
}
