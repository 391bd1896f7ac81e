//! The image that runs, as it lies in flash.

use core::arch::asm;
use core::{ptr, slice};
use dialhome_board::constants::{self, Behaviour};
use dialhome_board::reset;
use dialhome_device::sd;
use dialhome_proto::code::{BootReason, SelfTest};

unsafe extern "C" {
    static _image_end: u8;
    static _record_start: u8;
    static _record_len: u8;
}

/// The page of the provisioning record, to its end.
pub(crate) fn record() -> &'static [u8] {
    let start = (&raw const _record_start).expose_provenance();
    let len = (&raw const _record_len).expose_provenance();
    // SAFETY: the two symbols name the last page of this machine's flash, which is
    // read-only and there as long as the program is.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), len) }
}

/// One byte of flash. The image begins at address 0, where no reference may point.
fn flash_byte(address: u32) -> u8 {
    let byte: u32;
    // SAFETY: one byte is loaded from flash, which any address below the image's end is
    // in; nothing is written.
    unsafe {
        asm!(
            "ldrb {byte}, [{address}]",
            address = in(reg) address,
            byte = out(reg) byte,
            options(readonly, nostack, preserves_flags)
        );
    }
    let [low, ..] = byte.to_le_bytes();
    low
}

pub(crate) struct Sketch {
    reason: BootReason,
}

impl Sketch {
    pub(crate) const fn new(reason: BootReason) -> Self {
        Self { reason }
    }
}

impl sd::Sketch for Sketch {
    fn size(&self) -> u32 {
        let end = (&raw const _image_end).addr();
        u32::try_from(end).unwrap_or(0)
    }

    fn read(&self, offset: u32, bytes: &mut [u8]) {
        for (byte, address) in bytes.iter_mut().zip(offset..self.size()) {
            *byte = flash_byte(address);
        }
    }

    fn version(&self) -> &'static str {
        constants::version()
    }

    fn counter(&self) -> u64 {
        constants::counter()
    }

    fn boot_reason(&self) -> BootReason {
        self.reason
    }

    fn self_test(&mut self) -> SelfTest {
        if constants::behaviour() == Behaviour::FailsSelfTest {
            SelfTest::FAILED
        } else {
            SelfTest::PASSED
        }
    }

    fn restart(&mut self, _why: BootReason) {
        reset::restart()
    }
}
