//! The card's SPI: SSI0 with the card's select line on PD0, and two shims without which
//! `embedded-sdmmc` and QEMU's card do not come together.

use crate::registers::Register;
use core::convert::Infallible;
use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};

const SSI0: usize = 0x4000_8000;
const CONTROL_0: Register = Register::at(SSI0, 0x00);
const CONTROL_1: Register = Register::at(SSI0, 0x04);
const DATA: Register = Register::at(SSI0, 0x08);
const STATUS: Register = Register::at(SSI0, 0x0c);
const PRESCALE: Register = Register::at(SSI0, 0x10);
const RECEIVED: u32 = 1 << 2;

const PORT_D: usize = 0x4000_7000;
/// The data register, with an address that masks all pins but PD0.
const SELECT: Register = Register::at(PORT_D, 0x04);
const DIRECTION: Register = Register::at(PORT_D, 0x400);
const DIGITAL: Register = Register::at(PORT_D, 0x51c);

/// The first byte of CMD58 on the line.
const CMD58: u8 = 0x40 | 58;
const SINGLE_BLOCK: u8 = 0xfe;
const MULTIPLE_BLOCK: u8 = 0xfc;

pub(crate) struct Spi {
    /// CMD58 was sent, and its reply has not come yet.
    ocr_due: bool,
}

impl Spi {
    pub(crate) fn new() -> Self {
        DIRECTION.write(1);
        DIGITAL.write(1);
        SELECT.write(1);
        CONTROL_1.write(0);
        // Frames of 8 bits.
        CONTROL_0.write(7);
        PRESCALE.write(2);
        CONTROL_1.write(2);
        Self { ocr_due: false }
    }

    fn exchange(&mut self, out: u8) -> u8 {
        DATA.write(u32::from(out));
        while STATUS.read() & RECEIVED == 0 {}
        let [byte, ..] = DATA.read().to_le_bytes();
        // QEMU 7.2 answers CMD58 with "idle" also where the card is ready, and the library
        // takes a card that is idle there for one that failed: the bit is cleared.
        if self.ocr_due && byte & 0x80 == 0 {
            self.ocr_due = false;
            return byte & !1;
        }
        byte
    }
}

impl ErrorType for Spi {
    type Error = Infallible;
}

impl SpiDevice for Spi {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        SELECT.write(0);
        for operation in operations {
            match operation {
                Operation::Read(bytes) => {
                    for byte in bytes.iter_mut() {
                        *byte = self.exchange(0xff);
                    }
                }
                Operation::Write(bytes) => {
                    for byte in bytes.iter() {
                        self.exchange(*byte);
                    }
                    self.ocr_due = matches!(**bytes, [CMD58, _, _, _, _, _]);
                }
                Operation::Transfer(into, from) => {
                    // The card needs one byte of time before a data token (N_WR), which the
                    // library does not give.
                    if matches!(**from, [SINGLE_BLOCK | MULTIPLE_BLOCK]) {
                        self.exchange(0xff);
                    }
                    let len = into.len().max(from.len());
                    let mut into = into.iter_mut();
                    let out = from.iter().copied().chain(core::iter::repeat(0xff));
                    for byte in out.take(len) {
                        let got = self.exchange(byte);
                        if let Some(place) = into.next() {
                            *place = got;
                        }
                    }
                }
                Operation::TransferInPlace(bytes) => {
                    for byte in bytes.iter_mut() {
                        *byte = self.exchange(*byte);
                    }
                }
                Operation::DelayNs(_) => {}
            }
        }
        SELECT.write(1);
        Ok(())
    }
}

/// Waiting between two questions to the card: the machine's time is not ours, so a
/// microsecond is counted in instructions of the processor's 12.5 MHz.
pub(crate) struct Cycles;

impl DelayNs for Cycles {
    fn delay_ns(&mut self, ns: u32) {
        cortex_m::asm::delay((ns / 80).max(1));
    }
}
