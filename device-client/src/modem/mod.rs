//! The transport over an AT modem: [`Modem`] is a [`Transport`] over a serial line.
//!
//! | what | commands |
//! |---|---|
//! | is it there | `AT`, every 0.5 s |
//! | settings, at each dial | `ATE0`, `AT+CMEE=1`, `AT+COPS=3,0`, `AT+CGREG=1` (or `CREG`, `CEREG`), [`Config::setup`], `AT+UDCONF=1,0` or `1,1` |
//! | registration | `AT+CGREG?`, every second for 60 s at most; unasked `+CGREG:` |
//! | facts for Hello | `AT+COPS?` (name, technology), `AT+CSQ` |
//! | packet data | `AT+UPSND=0,8`, `AT+UPSD=0,1..3,7` (6: PAP, CHAP), `AT+UPSDA=0,3`, off: `AT+UPSDA=0,4`; unasked `+UUPSDD:` |
//! | a connection | `AT+USOCR=6`, `AT+USOCO=s,"name or address",port[,1]`; unasked `+UUSOCO:`, or asked `AT+USOCTL=s,10` |
//! | bytes out | `AT+USOWR=s,n`, `@`, 50 ms, n bytes (1024 at most); hex: `AT+USOWR=s,n,"..."` (512 at most). ERROR: `AT+USOCTL=s,1`, where 11 means "full, later" |
//! | bytes in | `AT+USORD=s,n` after `+UUSORD:`; `AT+USORD=s,0` every [`Config::poll_ms`], because unasked lines get lost |
//! | the end | `AT+USOCL=s`; unasked `+UUSOCL:` |
//!
//! Deadlines, in seconds: questions and settings 3, prompt of a write 10, its result 10,
//! read 10, close 10, connection with its name 60, context on 150 and off 40. Where they
//! come from: the 150 and 40 are u-blox's for contexts in the SARA-R4 manual (UBX-17003787),
//! the 10 are those of Arduino's library for the SARA-U201 (MKRGSM), while that manual
//! allows a write and a close 120; the rest is our choice. From the manual are also the 50
//! ms behind the prompt, the limits of 1024 and 512 bytes, error 11 for a full buffer, and
//! that a socket is closed only when all was read; from MKRGSM the sequence of a context,
//! names in `AT+USOCO`, and `+UUSORD: s,4294967295` for a broken connection. The tag 6 of
//! `AT+UPSD` (sent only with [`Authentication::Pap`] or `Chap`) and the value 4 of
//! `AT+USOCTL=s,10` (asked only with [`Config::connect_async`]) were compared with no
//! document, and nothing here has run on a real modem. u-blox knows of a SARA-U201 with
//! UART power saving that sleeps behind the prompt (ubxlib issue 156): leave `AT+UPSV` at 0,
//! or use hex mode.
//!
//! **Unasked lines** may come at any moment, also between a command's echo and its answer,
//! and nothing depends on one. **OK to a write means "in the modem"**: what the gateway has
//! is known from the protocol's own acknowledgements. An answer that cannot be understood
//! breaks the connection, because nobody knows how many bytes were taken; bytes are never
//! sent twice and never left out. A modem that was left in the middle of a write (the board
//! restarted, or bytes got lost) gets made-up data until it takes commands again; they may
//! reach the gateway on a connection that is given up, and fail its authentication.
//!
//! # When it does not work
//! Each dial after one that brought no byte from the gateway begins one rung higher:
//!
//! | rung | what is done first |
//! |---|---|
//! | 0 | the last socket is closed |
//! | 1 | all sockets are closed |
//! | 2 | the packet data context goes off and on |
//! | 3 | `AT+CFUN=16`: the modem restarts |
//! | 4 | [`Host::reset_modem`], or rung 3 again where the board cannot |
//!
//! then rung 1 again. A modem that does not answer at all goes to rung 3 at once. The
//! first dial after a start closes all sockets too: the modem may have kept those of the
//! board's last life.
//!
//! # Time
//! `connect` ends within [`Config::connect_ms`], and the time that `Host::reset_modem` takes
//! and that the last bytes need on the line (1 KB at most); `send`, `receive` and `close`
//! within [`CALL_MS`] each, and mostly within the time that the bytes need on the line. A
//! modem that holds CTS back adds 3 s at most to each. `receive` asks the modem only where there is reason to.
//! Call `Client::poll` when [`Modem::has_news`], and every [`Config::poll_ms`] while a
//! connection is open, beside the times that it asks for itself: otherwise a lost line is
//! found only then.
//!
//! # Cost
//! On a Cortex-M0, optimised for size: 6 KB of flash, texts included; 156 bytes of RAM
//! beside the serial line, the host and the buffer that is lent; less than 400 bytes of stack.

mod at;
mod model;
mod sara;
mod values;

use core::fmt;

use dialhome_proto::code::Link;
use heapless::String;

pub use at::{At, Fault, Heard, Host, Signs, Uart};
pub use model::Model;
pub use sara::Sara;
pub use values::{Values, text};

use crate::transport::{LinkFacts, Transport};
use at::{NO_SOCKET, ORDER_MS, is_past};
use sara::is_registered;

/// The longest that `send`, `receive` and `close` take, in milliseconds: two commands of 10
/// s each, and a look at the registration.
pub const CALL_MS: u32 = 23_000;
/// [`Config::connect_ms`] where nothing else is said.
pub const CONNECT_MS: u32 = 180_000;

/// A modem that works answers within this time.
const WAKE_MS: u32 = 5_000;
/// A modem that restarts answers within this time.
const RESTART_MS: u32 = 40_000;
/// After `AT+CFUN=16` it may answer for a while before it goes down.
const GOING_DOWN_MS: u32 = 2_000;
/// Time to find a network.
const REGISTER_MS: u32 = 60_000;
/// Between two looks at the registration of a modem that searches.
const REGISTER_LOOK_MS: u32 = 1_000;
/// Between two looks at the registration while a connection is open.
const REGISTRATION_MS: u32 = 20_000;
/// A modem that said "full" is asked again after this time.
const FULL_MS: u32 = 500;
/// Longest name of a network in Hello, in bytes.
const NETWORK_LEN: usize = 32;

/// The rung at which the modem is restarted.
const RUNG_RESTART: u8 = 3;
/// The last rung: the modem is reset by its pin.
const RUNG_RESET: u8 = 4;

/// Which registration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// `+CREG`: circuit switched, for modems without the other two.
    Circuit,
    /// `+CGREG`: packet data of 2G and 3G.
    Packet,
    /// `+CEREG`: LTE, LTE-M, NB-IoT.
    Eps,
}

/// How the packet data context proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all.
    None,
    /// PAP.
    Pap,
    /// CHAP.
    Chap,
}

/// What the board knows about its modem and its SIM.
#[derive(Clone, Copy)]
pub struct Config<'c> {
    /// Access point name; with a quotation mark or a control character in this or the next
    /// two `connect` ends with [`Fault::BadName`], and nothing is sent.
    pub apn: &'c str,
    /// User of the access point; empty: none.
    pub user: &'c str,
    /// Password of the access point; empty: none.
    pub password: &'c str,
    /// How the user is checked.
    pub authentication: Authentication,
    /// Which registration counts.
    pub registration: Registration,
    /// The kind of link that Hello says; `Link::UNKNOWN`: what the modem says of the
    /// network (a modem says "LTE" for LTE-M too).
    pub link: Link,
    /// Bytes go as hexadecimal digits: for serial lines that are not transparent, and
    /// often quicker for short records, because no 50 ms pass behind a prompt.
    pub hex: bool,
    /// The modem connects while the line is free; not every version can.
    pub connect_async: bool,
    /// How often the modem is asked for bytes while it says nothing, in milliseconds.
    pub poll_ms: u32,
    /// The longest that `connect` takes, in milliseconds.
    pub connect_ms: u32,
    /// Commands of the board's own at each dial, without `\r`: `AT+CPIN="1234"`,
    /// `AT&K0`, `AT+UPSV=0`. An ERROR to one of them is ignored. A control character in one
    /// is a [`Fault::BadName`] too.
    pub setup: &'c [&'c str],
}

impl Config<'static> {
    /// An access point without user, packet registration, binary data, a poll every 5 s.
    #[must_use]
    pub const fn new(apn: &'static str) -> Self {
        Self {
            apn,
            user: "",
            password: "",
            authentication: Authentication::None,
            registration: Registration::Packet,
            link: Link::UNKNOWN,
            hex: false,
            connect_async: false,
            poll_ms: 5_000,
            connect_ms: CONNECT_MS,
            setup: &[],
        }
    }
}

impl Config<'_> {
    /// Whether no text holds what would end it, or begin another command.
    fn is_plain(&self) -> bool {
        let quoted = [self.apn, self.user, self.password];
        let is_one = |text: &&str| !text.bytes().any(|byte| byte.is_ascii_control());
        quoted.iter().chain(self.setup).all(is_one)
            && !quoted.iter().any(|text| text.as_bytes().contains(&b'"'))
    }

    /// Most bytes of one read or write.
    const fn piece<M: Model>(&self) -> usize {
        if self.hex {
            M::WRITE_MAX / 2
        } else {
            M::WRITE_MAX
        }
    }
}

/// Without user, password and setup, which may hold the SIM's PIN.
impl fmt::Debug for Config<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("apn", &self.apn)
            .field("registration", &self.registration)
            .field("hex", &self.hex)
            .finish_non_exhaustive()
    }
}

/// A modem of model `M` on the serial line `U`.
#[derive(Debug)]
pub struct Modem<'c, U, H, M = Sara> {
    at: At<U, H, M>,
    config: &'c Config<'c>,
    /// Bytes read ahead.
    buffer: &'c mut [u8],
    from: usize,
    to: usize,
    /// The modem was asked for bytes.
    asked_at: u32,
    /// The modem was asked for its registration.
    registration_at: u32,
    /// The modem's buffer was full.
    full_at: Option<u32>,
    /// The modem did not answer, so that nothing more is asked of it until the next dial.
    mute: bool,
    rung: u8,
    /// No dial was made in this life of the board.
    fresh: bool,
    link: Link,
    network: String<NETWORK_LEN>,
    signal_dbm: i8,
}

impl<'c, U: Uart, H: Host, M: Model> Modem<'c, U, H, M> {
    /// A modem that nothing is known of yet; nothing is sent before the first dial.
    ///
    /// `buffer` takes bytes ahead of small reads: as many as the longest record spare one
    /// command a record; 0 is allowed.
    pub fn new(uart: U, host: H, config: &'c Config<'c>, buffer: &'c mut [u8]) -> Self {
        Self {
            at: At::new(uart, host),
            config,
            buffer,
            from: 0,
            to: 0,
            asked_at: 0,
            registration_at: 0,
            full_at: None,
            mute: false,
            rung: 0,
            fresh: true,
            link: config.link,
            network: String::new(),
            signal_dbm: -128,
        }
    }

    /// The serial line, to look at.
    pub const fn uart(&mut self) -> &mut U {
        &mut self.at.uart
    }

    /// The board's part, to look at.
    pub const fn host(&mut self) -> &mut H {
        &mut self.at.host
    }

    /// The rung at which the next dial begins.
    #[must_use]
    pub const fn rung(&self) -> u8 {
        self.rung
    }

    /// Whether bytes may be there or the line has something to say: where true,
    /// `Client::poll` is worth a call although no time has come.
    pub fn has_news(&mut self) -> bool {
        self.at.pump();
        self.from < self.to || self.at.signs.data || self.at.signs.closed
    }

    fn dial(&mut self, gateway: &str) -> Result<(), Fault> {
        let (host, port) = host_and_port(gateway.as_bytes()).ok_or(Fault::BadName)?;
        if !self.config.is_plain() {
            return Err(Fault::BadName);
        }
        let rung = self.rung;
        self.rung = if rung < RUNG_RESET { rung + 1 } else { 1 };
        self.hang_up();
        if rung == RUNG_RESET && self.at.host.reset_modem() {
            self.at.signs.registered = false;
            self.at.wake(RESTART_MS)?;
        } else {
            // At the first dial both may just have got their power.
            let woken = self.at.wake(if self.fresh { RESTART_MS } else { WAKE_MS });
            if rung >= RUNG_RESTART {
                // A modem that answers nothing may still take a command.
                self.at.signs.registered = false;
                let _ = self.at.order(b"AT+CFUN=16");
                self.at.pause(GOING_DOWN_MS);
                self.at.wake(RESTART_MS)?;
            } else if woken.is_err() {
                self.rung = RUNG_RESTART;
                return woken;
            }
        }
        self.mute = false;
        self.set_up()?;
        if self.fresh || rung == 1 {
            for socket in 0..M::SOCKETS {
                // ERROR: it was not open.
                if M::close(&mut self.at, socket) == Err(Fault::NoAnswer) {
                    return Err(Fault::NoAnswer);
                }
            }
            self.fresh = false;
        }
        if rung == 2 {
            M::context_off(&mut self.at);
        }
        self.register()?;
        self.look_around();
        M::context_on(&mut self.at, self.config)?;
        let socket = M::open(&mut self.at)?;
        self.at.signs.socket = socket;
        // What comes late about the connection that had this number before is not of this one.
        self.at.quiet();
        self.at.signs.data = false;
        self.at.signs.closed = false;
        self.at.signs.connected = None;
        M::connect(&mut self.at, self.config, host, port)?;
        self.full_at = None;
        let now = self.at.host.millis();
        self.asked_at = now;
        self.registration_at = now;
        Ok(())
    }

    fn set_up(&mut self) -> Result<(), Fault> {
        self.at.order(b"ATE0")?;
        self.at.order(b"AT+CMEE=1")?;
        for command in self.config.setup {
            if self.at.order(command.as_bytes()) == Err(Fault::NoAnswer) {
                return Err(Fault::NoAnswer);
            }
        }
        // Names as text; a modem without this setting has them so anyway.
        let _ = self.at.order(b"AT+COPS=3,0");
        self.at.put(b"AT");
        self.at.put(self.registration_name());
        self.at.ask(b"=1", b"")?;
        M::configure(&mut self.at, self.config)
    }

    const fn registration_name(&self) -> &'static [u8] {
        match self.config.registration {
            Registration::Circuit => b"+CREG",
            Registration::Packet => b"+CGREG",
            Registration::Eps => b"+CEREG",
        }
    }

    /// Asks for the registration; a modem that does not say counts as not registered.
    fn look_at_registration(&mut self) -> Result<(), Fault> {
        self.registration_at = self.at.host.millis();
        self.at.put(b"AT");
        self.at.put(self.registration_name());
        let asked = self.at.ask(b"?", self.registration_name());
        // 1 at home, 5 roaming; the place before has the mode of unasked lines.
        self.at.signs.registered = asked.is_ok() && is_registered(self.at.values().number(1));
        asked
    }

    fn register(&mut self) -> Result<(), Fault> {
        let due = self.at.due(REGISTER_MS);
        loop {
            let asked = self.look_at_registration();
            if self.at.signs.registered {
                return Ok(());
            }
            if self.at.is_due(due) {
                return Err(asked.err().unwrap_or(Fault::NoLink));
            }
            self.at.pause(REGISTER_LOOK_MS);
        }
    }

    /// Finds out what Hello says; what the modem does not tell stays unknown.
    fn look_around(&mut self) {
        self.network.clear();
        self.link = self.config.link;
        self.signal_dbm = -128;
        self.at.put(b"AT+COPS?");
        self.at.end();
        let due = self.at.due(ORDER_MS);
        while self.at.hear(b"", 0, due).is_ok() && self.at.outcome().is_none() {
            let Some(line) = self.at.line().strip_prefix(b"+COPS: ") else {
                continue;
            };
            for byte in text(line) {
                // Other character sets than ASCII cannot be told apart.
                if byte.is_ascii_graphic() || *byte == b' ' {
                    let _ = self.network.push(char::from(*byte));
                }
            }
            let values = Values::of(line);
            if self.link == Link::UNKNOWN && values.count() > 3 {
                self.link = technology(values.number(3));
            }
        }
        if self.at.ask(b"AT+CSQ", b"+CSQ: ").is_ok() && self.at.values().count() == 2 {
            // 0 is -113 dBm or less, 31 is -51 dBm or more, 99 unknown (TS 27.007).
            let level = u8::try_from(self.at.values().number(0)).unwrap_or(99);
            if level <= 31 {
                self.signal_dbm = (-113_i8).saturating_add_unsigned(2 * level);
            }
        }
    }

    /// Closes the socket, if there is one, and forgets it.
    fn hang_up(&mut self) {
        self.from = 0;
        self.to = 0;
        if self.at.signs.socket == NO_SOCKET {
            return;
        }
        let socket = self.at.signs.socket;
        self.at.signs.socket = NO_SOCKET;
        if !self.mute {
            self.mute = M::close(&mut self.at, socket) == Err(Fault::NoAnswer);
        }
    }

    /// After a fault the connection is gone; whether the network is too is asked at once,
    /// because the client wants to know.
    fn broken(&mut self, fault: Fault) -> Fault {
        match fault {
            Fault::NoAnswer => {
                self.mute = true;
                self.at.signs.registered = false;
            }
            _ => {
                let _ = self.look_at_registration();
            }
        }
        self.at.signs.closed = true;
        self.at.signs.data = false;
        fault
    }

    fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        // A closed socket may still hold bytes that came before.
        if !self.at.signs.data {
            let now = self.at.host.millis();
            let due = self.asked_at.wrapping_add(self.config.poll_ms);
            if !self.at.signs.closed && !is_past(now, due) {
                return Ok(0);
            }
            self.asked_at = now;
            let due = self.registration_at.wrapping_add(REGISTRATION_MS);
            if is_past(now, due) {
                // A network that comes and goes keeps its connections: only noted.
                let _ = self.look_at_registration();
            }
            if M::waiting(&mut self.at)? == 0 {
                return if self.at.signs.closed {
                    Err(Fault::Closed)
                } else {
                    Ok(0)
                };
            }
        }
        self.asked_at = self.at.host.millis();
        self.at.signs.data = false;
        let ahead = buffer.len() < self.buffer.len();
        let target = if ahead {
            &mut *self.buffer
        } else {
            &mut *buffer
        };
        let most = target.len().min(self.config.piece::<M>());
        let len = M::read(&mut self.at, self.config, target)?;
        // Where less came than was asked for, the next bytes announce themselves.
        self.at.signs.data |= len == most;
        if len == 0 && self.at.signs.closed {
            return Err(Fault::Closed);
        }
        if len > 0 {
            // The gateway is there, so the way to it works.
            self.rung = 0;
        }
        if ahead {
            self.to = len;
            self.from = 0;
            return Ok(self.take_ahead(buffer));
        }
        Ok(len)
    }

    fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        let ahead = self.buffer.get(self.from..self.to).unwrap_or(&[]);
        let len = ahead.len().min(buffer.len());
        for (room, byte) in buffer.iter_mut().zip(ahead) {
            *room = *byte;
        }
        self.from += len;
        len
    }

    const fn is_open(&self) -> bool {
        self.at.signs.socket != NO_SOCKET && !self.mute
    }
}

impl<U: Uart, H: Host, M: Model> Transport for Modem<'_, U, H, M> {
    type Error = Fault;

    fn connect(&mut self, gateway: &str) -> Result<(), Fault> {
        self.at.limit(self.config.connect_ms);
        let dialled = self.dial(gateway);
        if let Err(fault) = dialled {
            self.hang_up();
            self.mute |= fault == Fault::NoAnswer;
            if self.mute {
                self.at.signs.registered = false;
            }
        }
        dialled
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.at.pump();
        if !self.is_open() {
            return Err(Fault::Closed);
        }
        let now = self.at.host.millis();
        // Bytes that came before the close are to be received first: that ends with the error.
        if bytes.is_empty()
            || self.at.signs.closed
            || self
                .full_at
                .is_some_and(|full| !is_past(now, full.wrapping_add(FULL_MS)))
        {
            return Ok(0);
        }
        self.at.limit(CALL_MS);
        let written = M::write(&mut self.at, self.config, bytes);
        if written == Err(Fault::Closed) {
            self.at.signs.closed = true;
            return Ok(0);
        }
        self.full_at = (written == Ok(0)).then_some(now);
        written.map_err(|fault| self.broken(fault))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        if self.from < self.to {
            return Ok(self.take_ahead(buffer));
        }
        self.at.pump();
        if !self.is_open() {
            return Err(Fault::Closed);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        self.at.limit(CALL_MS);
        self.receive_some(buffer)
            .map_err(|fault| self.broken(fault))
    }

    fn close(&mut self) {
        self.at.limit(CALL_MS);
        self.hang_up();
    }

    fn link_up(&self) -> bool {
        self.at.signs.registered
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts {
            link: self.link,
            network: self.network.as_str(),
            signal_dbm: self.signal_dbm,
        }
    }
}

/// Takes `HOST:PORT` apart; a host in brackets loses them. `None`: not what can stand
/// between quotation marks in a command.
fn host_and_port(gateway: &[u8]) -> Option<(&[u8], u16)> {
    let colon = gateway.iter().rposition(|byte| *byte == b':')?;
    let (host, port) = gateway.split_at_checked(colon)?;
    let mut number = 0_u16;
    for digit in port.get(1..)? {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(u16::from(*digit & 0x0F))?;
    }
    let host = match host.strip_prefix(b"[") {
        Some(rest) => rest.strip_suffix(b"]")?,
        None => host,
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    (number > 0 && !host.is_empty() && host.iter().all(plain)).then_some((host, number))
}

/// The access technology of `+COPS` (TS 27.007 section 7.3).
fn technology(number: u16) -> Link {
    const KNOWN: [Link; 10] = [
        Link::GSM,
        Link::GSM,
        Link::UMTS,
        Link::GSM,
        Link::UMTS,
        Link::UMTS,
        Link::UMTS,
        Link::LTE,
        Link::GSM,
        Link::NB_IOT,
    ];
    let known = KNOWN.get(usize::from(number));
    known.copied().unwrap_or(Link::OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_is_taken_apart() {
        assert_eq!(
            host_and_port(b"gw.example:4433"),
            Some((&b"gw.example"[..], 4433))
        );
        assert_eq!(
            host_and_port(b"[2001:db8::1]:65535"),
            Some((&b"2001:db8::1"[..], 65535))
        );
        for bad in [
            &b""[..],
            b"gw",
            b"gw:",
            b":1",
            b"gw:0",
            b"gw:65536",
            b"gw:1a",
            b"g\"w:1",
            b"[::1:1",
            b"g w:1",
        ] {
            assert_eq!(host_and_port(bad), None, "{bad:?}");
        }
    }
}
