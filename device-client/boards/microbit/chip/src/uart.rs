//! The UART to the modem: 115200 baud, eight bits, with hardware flow control, as u-blox
//! modems have it after power-on (AT&K3).
//!
//! The chip holds six received bytes. An interrupt moves them to a ring, so that none
//! is lost while a signature is checked; when the ring is full the interrupt stops and
//! the chip's RTS holds the modem back, as it does while a flash page is erased and the
//! core stands still.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use cortex_m::peripheral::NVIC;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};

use crate::clock::{Line, ticks};
use crate::register::Register;

const UART0: u32 = 0x4000_2000;
const START_RX: Register = Register::new(UART0, 0x000);
const START_TX: Register = Register::new(UART0, 0x008);
const RX_READY: Register = Register::new(UART0, 0x108);
const TX_READY: Register = Register::new(UART0, 0x11C);
const INTERRUPT_SET: Register = Register::new(UART0, 0x304);
const INTERRUPT_CLEAR: Register = Register::new(UART0, 0x308);
const ENABLE: Register = Register::new(UART0, 0x500);
const PIN_RTS: Register = Register::new(UART0, 0x508);
const PIN_TXD: Register = Register::new(UART0, 0x50C);
const PIN_CTS: Register = Register::new(UART0, 0x510);
const PIN_RXD: Register = Register::new(UART0, 0x514);
const RXD: Register = Register::new(UART0, 0x518);
const TXD: Register = Register::new(UART0, 0x51C);
const BAUD_RATE: Register = Register::new(UART0, 0x524);
const CONFIG: Register = Register::new(UART0, 0x56C);

/// UART0's interrupt.
pub const INTERRUPT: u8 = 2;
const RX_READY_BIT: u32 = 1 << 2;
const ENABLED: u32 = 4;
const BAUD_115200: u32 = 0x01D7_E000;
const FLOW_CONTROL: u32 = 1;
/// Pins of the microbit's edge connector.
const PINS: [(Register, u32); 4] = [(PIN_RTS, 8), (PIN_TXD, 24), (PIN_CTS, 9), (PIN_RXD, 25)];

/// A modem that takes no byte for so long, in microseconds, is off or hangs.
const STUCK_US: u32 = 1_000_000;

/// Bytes of the ring, a power of two: 22 ms at 115200 baud, a page's erase.
const RING: usize = 256;

/// Received bytes between the interrupt, which alone moves `head`, and the program,
/// which alone moves `tail`. Both only rise; equal: empty.
struct Ring {
    bytes: [AtomicU8; RING],
    head: AtomicUsize,
    tail: AtomicUsize,
}

static RECEIVED: Ring = Ring {
    bytes: [const { AtomicU8::new(0) }; RING],
    head: AtomicUsize::new(0),
    tail: AtomicUsize::new(0),
};
static TAKEN: AtomicBool = AtomicBool::new(false);

impl Ring {
    fn len(&self) -> usize {
        let head = self.head.load(Ordering::Acquire);
        head.wrapping_sub(self.tail.load(Ordering::Relaxed))
    }

    fn cell(&self, place: usize) -> &AtomicU8 {
        let [first, ..] = &self.bytes;
        self.bytes.get(place % RING).unwrap_or(first)
    }

    fn push(&self, byte: u8) {
        let head = self.head.load(Ordering::Relaxed);
        self.cell(head).store(byte, Ordering::Relaxed);
        self.head.store(head.wrapping_add(1), Ordering::Release);
    }

    fn pop(&self) -> Option<u8> {
        if self.len() == 0 {
            return None;
        }
        let tail = self.tail.load(Ordering::Relaxed);
        let byte = self.cell(tail).load(Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(byte)
    }
}

/// What the program's handler of [`INTERRUPT`] calls.
pub fn on_interrupt() {
    while RX_READY.get() != 0 {
        if RECEIVED.len() == RING {
            // Whoever takes bytes out lets it go on.
            INTERRUPT_CLEAR.set(RX_READY_BIT);
            return;
        }
        // First the event, then the byte: the next byte raises it again.
        RX_READY.set(0);
        RECEIVED.push(RXD.get().to_le_bytes()[0]);
    }
}

/// The UART. There is one.
#[derive(Debug)]
pub struct Uart(());

impl Uart {
    /// Starts it; `None` the second time. The clock must run: a write that waits for the
    /// modem ends by it.
    #[must_use]
    pub fn start() -> Option<Self> {
        // One core, and no interrupt asks for it: load and store are enough.
        if TAKEN.load(Ordering::Relaxed) {
            return None;
        }
        TAKEN.store(true, Ordering::Relaxed);
        for (register, pin) in PINS {
            register.set(pin);
        }
        BAUD_RATE.set(BAUD_115200);
        CONFIG.set(FLOW_CONTROL);
        // QEMU forgets what is set before this, and minds none of it.
        ENABLE.set(ENABLED);
        START_TX.set(1);
        START_RX.set(1);
        RX_READY.set(0);
        INTERRUPT_SET.set(RX_READY_BIT);
        // SAFETY: the ring is made for this interrupt, and no critical section depends
        // on the line being masked.
        unsafe { NVIC::unmask(Line(INTERRUPT)) };
        Some(Self(()))
    }
}

/// Whether received bytes wait.
#[must_use]
pub fn has_bytes() -> bool {
    RECEIVED.len() > 0
}

impl ErrorType for Uart {
    type Error = ErrorKind;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(has_bytes())
    }
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !has_bytes() {}
        let mut len = 0;
        for place in buffer {
            let Some(byte) = RECEIVED.pop() else {
                break;
            };
            *place = byte;
            len += 1;
        }
        // The interrupt may have stopped at a full ring.
        INTERRUPT_SET.set(RX_READY_BIT);
        Ok(len)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        for byte in bytes {
            TX_READY.set(0);
            TXD.set(u32::from(*byte));
            let began = ticks();
            while TX_READY.get() == 0 {
                if ticks().wrapping_sub(began) > STUCK_US {
                    return Err(ErrorKind::TimedOut);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
