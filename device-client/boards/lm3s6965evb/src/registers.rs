//! The few registers of the machine that are used, by their addresses.

use core::ptr::with_exposed_provenance;
use core::ptr::with_exposed_provenance_mut;

/// A register of a peripheral: a word at a fixed address.
#[derive(Clone, Copy)]
pub(crate) struct Register(usize);

impl Register {
    /// The register at an offset of a peripheral. Only the drivers of this crate make
    /// them, of addresses that the machine has.
    pub(crate) const fn at(peripheral: usize, offset: usize) -> Self {
        Self(peripheral + offset)
    }

    pub(crate) fn read(self) -> u32 {
        // SAFETY: the address is that of an aligned device register of this machine, which
        // may be read at any time; it is no memory of the program.
        unsafe { with_exposed_provenance::<u32>(self.0).read_volatile() }
    }

    pub(crate) fn write(self, value: u32) {
        // SAFETY: as for `read`; a write changes the device and no memory of the program.
        unsafe { with_exposed_provenance_mut::<u32>(self.0).write_volatile(value) };
    }
}
