//! The flash controller (NVMC): pages of 1 KiB, words of 4 bytes. The core stands still
//! while it works: about 22 ms for a page, 46 us for a word.

use core::sync::atomic::{AtomicU32, Ordering};

use dialhome_device::nor::Region;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

use crate::map::{CHANGING, PAGE, PROVISION, Part, SETTINGS};
use crate::register::{self, Register};

const NVMC: u32 = 0x4001_E000;
const READY: Register = Register::new(NVMC, 0x400);
const CONFIG: Register = Register::new(NVMC, 0x504);
const ERASE_PAGE: Register = Register::new(NVMC, 0x508);
const READ_ONLY: u32 = 0;
const WRITE: u32 = 1;
const ERASE: u32 = 2;

/// Address of a page each of whose words has two bits that no erase sets again; 0: none.
static WORN_PAGE: AtomicU32 = AtomicU32::new(0);
/// Those bits.
const WORN_BITS: u32 = 0x0100_0001;

/// Makes a page behave as if it were worn out, until the next reset. For tests: an
/// emulated flash does not wear.
pub fn wear_out(page: u32) {
    WORN_PAGE.store(page, Ordering::Relaxed);
}

/// The part of the flash that programs change, [`CHANGING`]. Offsets count from its
/// start, and nothing outside it can be reached.
#[derive(Debug, Default)]
pub struct Flash;

impl Flash {
    /// One part of the memory map, with its offset in this flash.
    ///
    /// # Panics
    /// A part outside of it; in a constant that is an error of the build.
    #[must_use]
    pub const fn region(part: Part) -> Region {
        assert!(part.start >= CHANGING.start && part.end() <= CHANGING.end());
        Region {
            offset: part.start - CHANGING.start,
            len: part.len,
        }
    }
}

/// The provisioning record and what follows it in its pages.
#[must_use]
pub fn provision() -> &'static [u8] {
    register::constant(PROVISION)
}

/// The page of settings.
#[must_use]
pub fn settings() -> &'static [u8] {
    register::constant(SETTINGS)
}

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        register::copy(CHANGING.start + offset, bytes);
        Ok(())
    }

    fn capacity(&self) -> usize {
        CHANGING.len as usize
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        enable(ERASE);
        let mut page = CHANGING.start + from;
        while page < CHANGING.start + to {
            ERASE_PAGE.set(page);
            wait();
            page += PAGE;
        }
        enable(READ_ONLY);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        let worn = WORN_PAGE.load(Ordering::Relaxed);
        enable(WRITE);
        let mut address = CHANGING.start + offset;
        for word in bytes.as_chunks().0 {
            let mut value = u32::from_le_bytes(*word);
            if worn != 0 && address.wrapping_sub(worn) < PAGE {
                value &= !WORN_BITS;
            }
            // All ones is what an erased word holds: a write less for the cell.
            if value != u32::MAX {
                register::store(address, value);
                wait();
            }
            address += 4;
        }
        enable(READ_ONLY);
        Ok(())
    }
}

fn enable(what: u32) {
    CONFIG.set(what);
    wait();
}

fn wait() {
    while READY.get() & 1 == 0 {}
}
