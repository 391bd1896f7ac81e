//! The Stellaris Ethernet controller, polled: one frame in and one frame out at a time,
//! by its FIFOs (LM3S6965 data sheet, chapter 16).

use crate::registers::Register;
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

const MAC: usize = 0x4004_8000;
const RECEIVE_CONTROL: Register = Register::at(MAC, 0x08);
const TRANSMIT_CONTROL: Register = Register::at(MAC, 0x0c);
const DATA: Register = Register::at(MAC, 0x10);
const ADDRESS_LOW: Register = Register::at(MAC, 0x14);
const ADDRESS_HIGH: Register = Register::at(MAC, 0x18);
const FRAMES_WAITING: Register = Register::at(MAC, 0x34);
const TRANSMIT_REQUEST: Register = Register::at(MAC, 0x38);

const RECEIVE_ENABLE: u32 = 1;
const MULTICAST: u32 = 1 << 1;
const TRANSMIT_ENABLE: u32 = 1;
const PAD: u32 = 1 << 1;
const ADD_CRC: u32 = 1 << 2;
const DUPLEX: u32 = 1 << 4;

/// Longest frame, in bytes, without its checksum.
const FRAME_MAX: usize = 1514;
/// A frame in the FIFO begins with two bytes of length and ends with four of checksum.
const LENGTH: usize = 2;
const CHECKSUM: usize = 4;
/// The length in the transmit FIFO is that of what follows the Ethernet header.
const ETHERNET_HEADER: usize = 14;
const BUFFER: usize = LENGTH + FRAME_MAX + CHECKSUM;

/// Room for one frame.
pub(crate) type Buffer = [u8; BUFFER];
pub(crate) const EMPTY: Buffer = [0; BUFFER];

/// The controller, and the one frame that was taken from it.
pub(crate) struct Ethernet {
    buffer: &'static mut Buffer,
    heard: bool,
}

impl Ethernet {
    pub(crate) fn new(buffer: &'static mut Buffer) -> Self {
        RECEIVE_CONTROL.write(RECEIVE_ENABLE | MULTICAST);
        TRANSMIT_CONTROL.write(TRANSMIT_ENABLE | PAD | ADD_CRC | DUPLEX);
        Self {
            buffer,
            heard: false,
        }
    }

    /// The address that the controller was given.
    pub(crate) fn address() -> [u8; 6] {
        let [a, b, c, d] = ADDRESS_LOW.read().to_le_bytes();
        let [e, f, ..] = ADDRESS_HIGH.read().to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether a frame has come since this was asked last.
    pub(crate) fn take_heard(&mut self) -> bool {
        core::mem::take(&mut self.heard)
    }

    /// Takes one frame out of the FIFO; its place in the buffer.
    fn take(&mut self) -> Option<usize> {
        if FRAMES_WAITING.read() & 0x3f == 0 {
            return None;
        }
        let first = DATA.read().to_le_bytes();
        let [low, high, ..] = first;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let mut words = self.buffer.chunks_mut(size_of::<u32>());
        fill(words.next(), first);
        // The frame is read to its end even where it is longer than any may be.
        for _ in 1..len.div_ceil(size_of::<u32>()) {
            fill(words.next(), DATA.read().to_le_bytes());
        }
        self.heard = true;
        len.checked_sub(CHECKSUM)
            .filter(|end| (LENGTH..=LENGTH + FRAME_MAX).contains(end))
    }
}

fn fill(word: Option<&mut [u8]>, bytes: [u8; 4]) {
    for (to, from) in word.into_iter().flatten().zip(bytes) {
        *to = from;
    }
}

/// A frame that has come.
pub(crate) struct Received<'a>(&'a [u8]);

/// Leave to send one frame.
pub(crate) struct Sending;

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

impl phy::TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, make: F) -> R {
        let mut buffer = [0; BUFFER];
        let (length, rest) = buffer.split_at_mut(LENGTH);
        let len = len.min(FRAME_MAX);
        let result = make(rest.get_mut(..len).unwrap_or(&mut []));
        let payload = u16::try_from(len.saturating_sub(ETHERNET_HEADER)).unwrap_or(0);
        for (to, from) in length.iter_mut().zip(payload.to_le_bytes()) {
            *to = from;
        }
        for word in buffer
            .chunks(size_of::<u32>())
            .take((LENGTH + len).div_ceil(4))
        {
            let mut bytes = [0; 4];
            for (to, from) in bytes.iter_mut().zip(word) {
                *to = *from;
            }
            DATA.write(u32::from_le_bytes(bytes));
        }
        TRANSMIT_REQUEST.write(1);
        result
    }
}

impl Device for Ethernet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending)> {
        let end = self.take()?;
        let frame = self.buffer.get(LENGTH..end)?;
        Some((Received(frame), Sending))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending> {
        Some(Sending)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities.medium = Medium::Ethernet;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}
