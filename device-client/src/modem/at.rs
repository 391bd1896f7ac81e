//! The command interface: lines out, lines in, and what the modem says unasked.

use core::marker::PhantomData;

use embedded_io::{Read, ReadReady, Write};

use super::{Model, Values};

/// Longest line kept, in bytes; the rest of a longer one is dropped. The longest that is
/// of use, `+COPS: 0,0,"` with a name of 32 bytes and `",2`, has 47.
const LINE_LEN: usize = 48;
/// Bytes that [`At::pump`] takes in one call: a modem that never stops sending must not
/// keep the board from its work.
const PUMP_MAX: usize = 512;
/// The line counts as quiet after so many milliseconds without a byte: a few times the
/// 20 to 50 ms between the commands of a busy modem.
const QUIET_MS: u32 = 150;
/// So often is a quiet line waited for.
const QUIET_TRIES: u8 = 10;
/// A write of a few bytes that takes so many milliseconds is waiting for the modem.
const SLOW_MS: u32 = 8;

/// A serial line to a modem.
///
/// `read` is called only where `read_ready` said yes, for one byte. The driver must hold
/// what arrives between calls, in a buffer of 256 bytes or with hardware flow control:
/// unasked lines may come while the board computes. An error of `read` (an overrun, a
/// framing error) counts as a byte that was lost. `write` may wait until the line has
/// taken the bytes, but not for ever: a modem that holds CTS back for more than a second
/// is an error. After an error nothing more is written of that command: it counts as one
/// without an answer.
pub trait Uart: Read + Write + ReadReady {}

impl<U: Read + Write + ReadReady> Uart for U {}

/// What the modem needs of the board besides the serial line.
pub trait Host {
    /// Milliseconds since any moment; may wrap around.
    fn millis(&mut self) -> u32;

    /// Called again and again while the modem is waited for: rest until an interrupt,
    /// feed the watchdog. Must return within a few milliseconds. While a modem takes bytes
    /// slowly or not at all, up to 3 s may pass between two calls.
    fn idle(&mut self) {}

    /// Resets the modem by its reset or power pin, within a second or two; false: this
    /// board cannot.
    fn reset_modem(&mut self) -> bool {
        false
    }
}

/// Why something did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no connection, or the other end closed it.
    Closed,
    /// The modem did not answer in time.
    NoAnswer,
    /// The modem answered `ERROR`.
    Refused,
    /// The modem's answer made no sense; whether the command worked is unknown.
    Garbled,
    /// Not registered in a network.
    NoLink,
    /// The gateway's name, or a text of the configuration, is not one that can be given to
    /// a modem.
    BadName,
}

/// What lines said that came unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// The socket of the connection: what is said about others does not count.
    pub socket: u16,
    /// Bytes have arrived on it.
    pub data: bool,
    /// It was closed, or its packet data context is gone.
    pub closed: bool,
    /// The connection that was asked for is there, or is not.
    pub connected: Option<bool>,
    /// The modem is registered in a network.
    pub registered: bool,
}

/// What ended a wait for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, see [`At::line`].
    Line,
    /// The byte that was asked for.
    Stop,
}

/// No socket.
pub(super) const NO_SOCKET: u16 = u16::MAX;

/// The command interface of a modem of model `M`.
#[derive(Debug)]
pub struct At<U, H, M> {
    pub(super) uart: U,
    pub(super) host: H,
    line: [u8; LINE_LEN],
    len: usize,
    /// The line is whole; the next byte starts another.
    ended: bool,
    /// A byte has come since this was last put to false.
    heard: bool,
    /// The line takes no bytes: the rest of the command is not written, and no answer
    /// waited for.
    stuck: bool,
    /// No wait lasts longer than this, whatever it was given.
    limit: u32,
    pub(super) signs: Signs,
    /// Of the last answer that was asked for.
    pub(super) values: Values,
    model: PhantomData<M>,
}

impl<U: Uart, H: Host, M: Model> At<U, H, M> {
    pub(super) const fn new(uart: U, host: H) -> Self {
        Self {
            uart,
            host,
            line: [0; LINE_LEN],
            len: 0,
            ended: false,
            heard: false,
            stuck: false,
            limit: 0,
            signs: Signs {
                socket: NO_SOCKET,
                data: false,
                closed: false,
                connected: None,
                registered: false,
            },
            values: Values::NONE,
            model: PhantomData,
        }
    }

    /// From now on nothing waits longer than so many milliseconds in all.
    pub(super) fn limit(&mut self, ms: u32) {
        self.limit = self.host.millis().wrapping_add(ms);
    }

    /// The time in so many milliseconds, or the limit where that comes first.
    pub fn due(&mut self, ms: u32) -> u32 {
        let due = self.host.millis().wrapping_add(ms);
        if is_past(due, self.limit) {
            self.limit
        } else {
            due
        }
    }

    /// Whether a time of [`Self::due`] has come.
    pub fn is_due(&mut self, due: u32) -> bool {
        is_past(self.host.millis(), due)
    }

    /// Writes bytes of a command or of its data.
    pub fn put(&mut self, bytes: &[u8]) {
        // In small pieces, and reading meanwhile: a small receive FIFO does not run over.
        // Not behind the last piece, where an answer may follow.
        for piece in bytes.chunks(4) {
            if self.stuck {
                return;
            }
            self.pump();
            let start = self.host.millis();
            self.stuck = self.uart.write_all(piece).is_err();
            let end = self.host.millis();
            if end.wrapping_sub(start) >= SLOW_MS {
                self.host.idle();
                self.stuck |= is_past(end, self.limit);
            }
        }
    }

    /// Writes a decimal number.
    pub fn put_number(&mut self, number: u16) {
        let mut rest = number;
        let mut leading = true;
        // Without a division, which the processor does not have.
        for unit in [10_000, 1_000, 100, 10, 1] {
            let mut digit = b'0';
            while rest >= unit {
                rest -= unit;
                digit += 1;
            }
            leading &= digit == b'0' && unit > 1;
            if !leading {
                self.put(&[digit]);
            }
        }
    }

    /// Writes bytes as hexadecimal digits.
    pub fn put_hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put(&[hex_digit(byte >> 4), hex_digit(byte & 0x0F)]);
        }
    }

    /// Ends the command; what came before it is of no more interest.
    pub fn end(&mut self) {
        self.put(b"\r");
        if !self.stuck {
            self.stuck = self.uart.flush().is_err();
        }
    }

    /// Sends a command, or the rest of one, and waits for its result.
    ///
    /// # Errors
    /// `Refused`, or `NoAnswer` after 3 s.
    pub fn order(&mut self, command: &[u8]) -> Result<(), Fault> {
        self.ask(command, b"")
    }

    /// Sends a command, or the rest of one, and waits for its result, and for the
    /// [`Self::values`] of the information line that starts with `prefix`.
    ///
    /// # Errors
    /// `Refused`, or `NoAnswer` after 3 s.
    pub fn ask(&mut self, command: &[u8], prefix: &[u8]) -> Result<(), Fault> {
        self.put(command);
        self.end();
        self.result(prefix, ORDER_MS)
    }

    /// Waits for the result of a command, and for the [`Self::values`] of the information
    /// line that starts with `prefix`.
    ///
    /// # Errors
    /// `Refused`, or `NoAnswer` after `ms` milliseconds.
    pub fn result(&mut self, prefix: &[u8], ms: u32) -> Result<(), Fault> {
        let due = self.due(ms);
        self.values = Values::NONE;
        loop {
            self.hear(b"", 0, due)?;
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            if !prefix.is_empty()
                && let Some(values) = self.line().strip_prefix(prefix)
            {
                self.values = Values::of(values);
            }
        }
    }

    /// The values of the last answer that was asked for, none where no line came.
    #[must_use]
    pub const fn values(&self) -> &Values {
        &self.values
    }

    /// The socket of the connection.
    #[must_use]
    pub const fn socket(&self) -> u16 {
        self.signs.socket
    }

    /// What an unasked line has said about the connection that was asked for.
    #[must_use]
    pub const fn connected(&self) -> Option<bool> {
        self.signs.connected
    }

    /// Waits for a line that is not unasked for, or for the byte `stop`: in a line that
    /// starts with `prefix`, or at the start of a line where `prefix` is empty; 0: no
    /// such byte. After a stop the bytes behind it are read with [`Self::byte`].
    ///
    /// # Errors
    /// `NoAnswer` when the time has come.
    pub fn hear(&mut self, prefix: &[u8], stop: u8, due: u32) -> Result<Heard, Fault> {
        loop {
            let byte = self.byte(due)?;
            if byte == stop && stop != 0 {
                let line = if self.ended { &[] } else { self.line() };
                if line.starts_with(prefix) && (line.is_empty() == prefix.is_empty()) {
                    // The line stays for the caller; what comes next starts another.
                    self.ended = true;
                    return Ok(Heard::Stop);
                }
            }
            if self.push(byte) && !self.note() {
                return Ok(Heard::Line);
            }
        }
    }

    /// The line that ended last, or the part of it before a stop.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        self.line.get(..self.len).unwrap_or(&[])
    }

    /// Whether the line is a final result, and which.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), Fault>> {
        let line = self.line();
        if line == b"OK" {
            Some(Ok(()))
        } else if line == b"ERROR" || line.starts_with(b"+CME ERROR") {
            Some(Err(Fault::Refused))
        } else {
            None
        }
    }

    /// The next byte as it comes.
    ///
    /// # Errors
    /// `NoAnswer` when the time has come, or when the command before did not leave.
    pub fn byte(&mut self, due: u32) -> Result<u8, Fault> {
        // The next command tries the line again.
        if core::mem::take(&mut self.stuck) {
            return Err(Fault::NoAnswer);
        }
        loop {
            // Looked at for every byte: a modem that never stops sending ends as well.
            if self.is_due(due) {
                return Err(Fault::NoAnswer);
            }
            if let Some(byte) = self.take() {
                return Ok(byte);
            }
            self.host.idle();
        }
    }

    /// The next byte, given as two hexadecimal digits.
    ///
    /// # Errors
    /// `NoAnswer` when the time has come, `Garbled` for another byte.
    pub fn hex_byte(&mut self, due: u32) -> Result<u8, Fault> {
        let high = hex_value(self.byte(due)?)?;
        let low = hex_value(self.byte(due)?)?;
        Ok(high << 4 | low)
    }

    /// Takes what has arrived, without waiting: outside of a command only unasked lines
    /// matter.
    pub fn pump(&mut self) {
        for _ in 0..PUMP_MAX {
            let Some(byte) = self.take() else {
                return;
            };
            if self.push(byte) {
                self.note();
            }
        }
    }

    /// Lets time pass, and takes what arrives meanwhile.
    pub fn pause(&mut self, ms: u32) {
        let due = self.due(ms);
        while !self.is_due(due) {
            self.pump();
            self.host.idle();
        }
    }

    /// Waits until the modem answers, and until it has nothing more to say about what
    /// was asked before.
    ///
    /// # Errors
    /// `NoAnswer` after `ms` milliseconds.
    pub(super) fn wake(&mut self, ms: u32) -> Result<(), Fault> {
        let due = self.due(ms);
        let mut tries = 0_u8;
        while self.try_at().is_err() {
            if self.is_due(due) {
                return Err(Fault::NoAnswer);
            }
            // One that answers nonsense is not to be asked a thousand times.
            self.pause(QUIET_MS);
            tries = tries.wrapping_add(1);
            if tries == FILL_AFTER {
                // It may still wait for data of a write whose bytes were lost.
                for _ in 0..M::WRITE_MAX.div_ceil(4) {
                    if self.stuck || self.is_due(due) {
                        break;
                    }
                    self.put(b"\r\r\r\r");
                }
                self.stuck = false;
            }
        }
        self.quiet();
        Ok(())
    }

    /// Waits until the line has been quiet for a moment, but not for ever.
    pub(super) fn quiet(&mut self) {
        for _ in 0..QUIET_TRIES {
            self.heard = false;
            self.pause(QUIET_MS);
            if !self.heard {
                break;
            }
        }
    }

    fn try_at(&mut self) -> Result<(), Fault> {
        self.put(b"AT");
        self.end();
        self.result(b"", WAKE_TRY_MS)
    }

    fn take(&mut self) -> Option<u8> {
        if !self.uart.read_ready().unwrap_or(false) {
            return None;
        }
        let mut byte = [0];
        match self.uart.read(&mut byte) {
            Ok(1) => {
                self.heard = true;
                Some(byte[0])
            }
            _ => None,
        }
    }

    /// Adds a byte to the line; whether a line that is not empty ends with it.
    fn push(&mut self, byte: u8) -> bool {
        if self.ended {
            self.ended = false;
            self.len = 0;
        }
        if byte == b'\r' || byte == b'\n' {
            self.ended = true;
            return self.len > 0;
        }
        if let Some(room) = self.line.get_mut(self.len) {
            *room = byte;
            self.len += 1;
        }
        false
    }

    /// Whether the line came unasked; what it says is kept.
    fn note(&mut self) -> bool {
        let line = self.line.get(..self.len).unwrap_or(&[]);
        M::unsolicited(line, &mut self.signs)
    }
}

/// Settings and questions that the modem answers by itself, in milliseconds.
pub(super) const ORDER_MS: u32 = 3_000;
/// Time for one `AT` while the modem is looked for, in milliseconds.
const WAKE_TRY_MS: u32 = 500;
/// After so many in vain, the data of a write are made up.
const FILL_AFTER: u8 = 3;

/// Whether a time is at or after another, over the wrap.
pub(super) const fn is_past(time: u32, due: u32) -> bool {
    time.wrapping_sub(due) < 1 << 31
}

const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' - 10 + nibble,
    }
}

const fn hex_value(digit: u8) -> Result<u8, Fault> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(Fault::Garbled),
    }
}
