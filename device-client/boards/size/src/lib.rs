//! What the size programs share: a board whose every part is one opaque register, so
//! that nothing of the client can be optimised away and hardly anything is added to it.
#![no_std]

pub mod whole;

use core::ptr;
use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::journal::{Journal, JournalError};
use dialhome_device::rng::Rng;
use dialhome_device::slot::{Geometry, Slot, SlotError};
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code::{BootReason, SelfTest};

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

impl Slot for Opaque {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: word(),
            write_unit: 64,
            erase_unit: 256,
        }
    }

    fn prepare(&mut self, size: u32) -> Result<(), SlotError> {
        if word() == size {
            Ok(())
        } else {
            Err(SlotError::Io)
        }
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        self.prepare(offset ^ len)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        sink(bytes);
        self.prepare(offset)
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        source(bytes);
        self.prepare(offset)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.prepare(0)
    }
}

impl Journal for Opaque {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        source(buffer);
        match word() {
            0 => Ok(None),
            1 => Ok(Some(index() + usize::from(cell))),
            _ => Err(JournalError::Damaged),
        }
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        sink(value);
        if word() == u32::from(cell) {
            Ok(())
        } else {
            Err(JournalError::Io)
        }
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        self.store(cell, &[])
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
