//! Peripheral registers and plain memory, by address.

use core::ptr;

use crate::map::Part;

/// One 32-bit register of a peripheral.
#[derive(Clone, Copy)]
pub(crate) struct Register(u32);

impl Register {
    /// `base` is a peripheral's, `offset` one of its registers', from the manual.
    pub(crate) const fn new(base: u32, offset: u32) -> Self {
        Self(base + offset)
    }

    pub(crate) fn get(self) -> u32 {
        // SAFETY: the address is that of a register of this chip, aligned, and reading
        // it touches no memory of the program's.
        unsafe { ptr::read_volatile(self.0 as *const u32) }
    }

    pub(crate) fn set(self, value: u32) {
        // SAFETY: the address is that of a register of this chip, aligned. None of those
        // named in this crate starts a transfer into RAM.
        unsafe { ptr::write_volatile(self.0 as *mut u32, value) }
    }
}

/// Stores a word of flash; it has an effect only while the controller allows it.
pub(crate) fn store(address: u32, value: u32) {
    // SAFETY: callers pass aligned addresses inside a part of the flash that programs
    // change; the linker scripts keep every variable and every instruction that runs
    // meanwhile out of those parts, but the running image, which nobody writes.
    unsafe { ptr::write_volatile(address as *mut u32, value) }
}

/// Copies memory-mapped flash.
pub(crate) fn copy(address: u32, bytes: &mut [u8]) {
    // SAFETY: the caller has checked that the range lies inside a part of the flash,
    // which is readable, never at address 0, and does not change during the call: only
    // this core writes it, in calls of its own.
    let flash = unsafe { core::slice::from_raw_parts(address as *const u8, bytes.len()) };
    bytes.copy_from_slice(flash);
}

/// Flash that no program writes, as it lies there.
pub(crate) fn constant(part: Part) -> &'static [u8] {
    // SAFETY: callers pass the parts behind those that `Flash` can change, so these bytes
    // stay as they are while any program runs.
    unsafe { core::slice::from_raw_parts(part.start as *const u8, part.len as usize) }
}
