//! What the size programs share: a board whose every part is one opaque register, so
//! that nothing of the client can be optimised away and hardly anything is added to it.
#![no_std]

pub mod whole;

use core::ptr;
use dialhome_board_runtime as _;
use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::rng::Rng;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code::{BootReason, SelfTest};
use dialhome_proto::device::{ComponentConfig, Config};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};

/// The one component, on flash like a SAMD21's.
pub const COMPONENT: ComponentConfig = ComponentConfig {
    component: 0,
    slot_size: 120 * 1024,
    write_unit: 64,
    erase_unit: 256,
    window: 4096,
    commit_ms: 2000,
    claim_every: 8192,
};

/// The configuration of the client in every program here.
#[must_use]
pub const fn config(components: &'static [ComponentConfig]) -> Config<'static> {
    Config {
        device: "board-1",
        product: "size",
        hardware: 1,
        client: "size",
        receive_buffer: 0,
        tasks: 0,
        ping_s: 240,
        ping_s_min: 60,
        wake_s: 0,
        backoff_ms: (1000, 900_000),
        gateways: 0,
        components,
    }
}

/// A word that the compiler knows nothing about.
#[must_use]
pub fn word() -> u32 {
    static WORD: u32 = 0;
    // SAFETY: a valid, aligned word; volatile, so that its value is not known.
    unsafe { ptr::read_volatile(&raw const WORD) }
}

fn index() -> usize {
    usize::try_from(word()).unwrap_or(0)
}

/// Hands the bytes to somebody that the compiler does not see.
pub fn sink(bytes: &[u8]) {
    for byte in bytes {
        // SAFETY: a reference is valid; volatile, so that it happens.
        let _ = unsafe { ptr::read_volatile(byte) };
    }
}

/// Fills the bytes with what the compiler does not know.
pub fn source(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = word().to_le_bytes()[0];
    }
}

/// Every part of the board.
#[derive(Clone, Copy, Debug)]
pub struct Opaque;

impl Transport for Opaque {
    type Error = ();

    fn connect(&mut self, gateway: &str) -> Result<(), ()> {
        sink(gateway.as_bytes());
        if word() == 0 { Ok(()) } else { Err(()) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        sink(bytes);
        if word() == 0 { Ok(index()) } else { Err(()) }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        source(buffer);
        if word() == 0 { Ok(index()) } else { Err(()) }
    }

    fn close(&mut self) {
        let _ = word();
    }

    fn link_up(&self) -> bool {
        word() == 0
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts::UNKNOWN
    }
}

impl ErrorType for Opaque {
    type Error = NorFlashErrorKind;
}

fn done() -> Result<(), NorFlashErrorKind> {
    if word() == 0 {
        Ok(())
    } else {
        Err(NorFlashErrorKind::Other)
    }
}

impl ReadNorFlash for Opaque {
    const READ_SIZE: usize = 1;

    fn read(&mut self, _: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        source(bytes);
        done()
    }

    fn capacity(&self) -> usize {
        256 * 1024
    }
}

impl NorFlash for Opaque {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 256;

    fn erase(&mut self, _: u32, _: u32) -> Result<(), NorFlashErrorKind> {
        done()
    }

    fn write(&mut self, _: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        sink(bytes);
        done()
    }
}

impl Boot for Opaque {
    fn running(&mut self, _: u8, _: Option<u32>) -> Result<Running, BootError> {
        let mut running = Running::UNKNOWN;
        source(&mut running.digest.0);
        running.digest_from.0 = word().to_le_bytes()[0];
        running.unfinished = word() == 1;
        running.on_trial = word() == 1;
        if word() == 0 {
            Ok(running)
        } else {
            Err(BootError::Storage)
        }
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        sink(&activation.digest.0);
        self.revert(0)
    }

    fn confirm(&mut self, _: u8) -> Result<(), BootError> {
        self.revert(0).map(|_| ())
    }

    fn revert(&mut self, _: u8) -> Result<Restart, BootError> {
        match word() {
            0 => Ok(Restart::Needed),
            1 => Ok(Restart::NotNeeded),
            2 => Err(BootError::NothingToRestore),
            _ => Err(BootError::Install),
        }
    }

    fn self_test(&mut self, _: u8) -> SelfTest {
        SelfTest(word().to_le_bytes()[0])
    }

    fn restart(&mut self, _: BootReason) -> Result<(), BootError> {
        self.confirm(0)
    }
}

impl Rng for Opaque {
    fn fill(&mut self, bytes: &mut [u8]) {
        source(bytes);
    }
}
