//! The modem's line and what the modem needs of the board.

use dialhome_device::modem::{Host, Modem};
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_microbit_chip::clock::Clock;
use dialhome_microbit_chip::uart::{self, Uart};
use dialhome_microbit_chip::watchdog;

/// The core rests at most so long while the modem is waited for, in microseconds: the
/// modem layer has deadlines of its own to look at.
const REST_US: u64 = 5_000;

/// Time and rest for the modem layer.
#[derive(Debug)]
pub struct Rest(pub &'static Clock);

impl Host for Rest {
    #[expect(clippy::cast_possible_truncation, reason = "it may wrap around")]
    fn millis(&mut self) -> u32 {
        self.0.now_ms() as u32
    }

    fn idle(&mut self) {
        watchdog::feed();
        self.0.sleep(self.0.now_us() + REST_US, uart::has_bytes);
    }
}

/// The transport: the modem, or in one of the tests' images nothing.
#[derive(Debug)]
pub struct Line {
    pub modem: Modem<'static, Uart, Rest>,
    /// False: an image that never dials home.
    pub dials: bool,
}

impl Line {
    /// Whether the modem has said something that the client wants to know.
    pub fn has_news(&mut self) -> bool {
        self.modem.has_news()
    }
}

impl Transport for Line {
    type Error = <Modem<'static, Uart, Rest> as Transport>::Error;

    fn connect(&mut self, gateway: &str) -> Result<(), Self::Error> {
        if !self.dials {
            return Err(Self::Error::NoLink);
        }
        self.modem.connect(gateway)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.modem.send(bytes)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        self.modem.receive(buffer)
    }

    fn close(&mut self) {
        self.modem.close();
    }

    fn link_up(&self) -> bool {
        self.modem.link_up()
    }

    fn facts(&self) -> LinkFacts<'_> {
        self.modem.facts()
    }
}
