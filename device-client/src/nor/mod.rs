//! Storage on NOR flash, over `embedded-storage`'s blocking traits (spec/storage.md):
//! a slot, a journal, and two image slots with a boot stage that swaps them.
//!
//! What is assumed of the flash, and what each state of it means, is tabled in
//! spec/storage.md. In short: a cut in an erase leaves the unit undefined, a cut in a
//! write leaves its words undefined, and either may leave cells that read as erased, or
//! as written, and read otherwise later. So nothing is written to flash that was not
//! erased as a whole since the last start, and nothing is believed that a cut may have
//! left half-way.

mod boot;
mod journal;
mod log;
mod partition;
#[cfg(test)]
mod ram;
mod record;
mod slot;
mod stage;

pub use boot::{NorBoot, Porter};
pub use journal::{JournalLayout, NorJournal};
pub use partition::{Partition, PartitionError};
pub use record::BootLayout;
pub use slot::NorSlot;
pub use stage::{BootStage, COPY_TRIES, Decision, Started};

use embedded_storage::nor_flash::NorFlash;

/// Bytes that are moved in one piece, on the stack. A write unit is not longer.
pub(crate) const PIECE: usize = 256;

/// A run of bytes of a flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first byte, a multiple of the erase unit.
    pub offset: u32,
    /// Its length in bytes, a multiple of the erase unit.
    pub len: u32,
}

impl Region {
    /// Whether it lies within a flash of `capacity` bytes, and its ends on the flash's
    /// erase units.
    pub(crate) fn fits<F: NorFlash>(&self, capacity: usize) -> bool {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        let unit = erase_size::<F>();
        self.offset.is_multiple_of(unit)
            && self.len.is_multiple_of(unit)
            && self.len != 0
            && self
                .offset
                .checked_add(self.len)
                .is_some_and(|end| end <= capacity)
    }
}

/// The flash's erase unit in bytes.
pub(crate) const fn erase_size<F: NorFlash>() -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an erase unit is below 4 GiB"
    )]
    let unit = F::ERASE_SIZE as u32;
    if unit == 0 { 1 } else { unit }
}

/// Reads at any alignment, whatever the flash's read unit.
pub(crate) fn read<F: NorFlash>(
    flash: &mut F,
    offset: u32,
    bytes: &mut [u8],
) -> Result<(), F::Error> {
    const { assert!(F::READ_SIZE <= BOUNCE, "a read unit of more than 64 bytes") };
    if F::READ_SIZE <= 1 {
        return flash.read(offset, bytes);
    }
    let unit = F::READ_SIZE;
    let mut bounce = [0; BOUNCE];
    let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut rest = bytes;
    while !rest.is_empty() {
        let skip = at % unit;
        let most = (BOUNCE / unit).saturating_mul(unit);
        let want = skip.saturating_add(rest.len());
        let len = want.saturating_add(unit - 1) / unit;
        let len = len.saturating_mul(unit).min(most);
        let Some(aligned) = bounce.get_mut(..len) else {
            break;
        };
        flash.read(u32::try_from(at - skip).unwrap_or(u32::MAX), aligned)?;
        let taken = len.saturating_sub(skip).min(rest.len());
        let (now, later) = core::mem::take(&mut rest)
            .split_at_mut_checked(taken)
            .unwrap_or((&mut [], &mut []));
        for (to, from) in now.iter_mut().zip(aligned.iter().skip(skip)) {
            *to = *from;
        }
        rest = later;
        at = at.saturating_add(taken);
    }
    Ok(())
}

/// Longest read unit that is bridged.
const BOUNCE: usize = 64;
