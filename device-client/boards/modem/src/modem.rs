//! The modem without its surroundings: bytes and network events in, bytes and network
//! requests out, and the time is whatever the caller says it is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::fault::{Counts, Faults, Kind};
use crate::pace::Pace;
use crate::socket::{Key, Socket};

/// Sockets of a SARA.
pub const SOCKETS: usize = 7;
/// Most bytes of one write or read; half of it as hexadecimal digits.
pub const PIECE_MAX: usize = 1024;
/// Longest command line; what is longer is refused.
const LINE_MAX: usize = 1200;
/// Lines of the log that are kept until they are taken.
pub(crate) const LOG_MAX: usize = 100_000;

/// How the modem is built, and what network it sees.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bits a second in both directions; 0: bytes take no time.
    pub baud: u32,
    /// Between the end of a command and the start of its answer.
    pub latency: Duration,
    /// From power or a restart until it answers.
    pub start: Duration,
    /// From then until it has a network.
    pub register: Duration,
    /// Until a packet data context is active.
    pub context: Duration,
    /// Until nobody's silence to a connection counts as an answer.
    pub connect_max: Duration,
    /// Bytes of a connection that wait for the network, at most.
    pub send_buffer: usize,
    /// Bytes of a connection that wait for the board, at most.
    pub receive_buffer: usize,
    /// The operator's name.
    pub operator: String,
    /// The access technology, a number of TS 27.007 section 7.3.
    pub technology: u32,
    /// The signal as `+CSQ` says it: 0 to 31, 99 unknown.
    pub signal: u32,
    /// Names that the network knows, and their addresses.
    pub names: Vec<(String, String)>,
    /// Access point names that the network takes; empty: any.
    pub apn: String,
    /// Whether the dialogue goes into the log.
    pub trace: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            baud: 0,
            latency: Duration::from_millis(20),
            start: Duration::from_secs(3),
            register: Duration::from_secs(1),
            context: Duration::from_millis(500),
            connect_max: Duration::from_secs(20),
            send_buffer: 4096,
            receive_buffer: 8192,
            operator: "Emulated Mobile".to_owned(),
            technology: 2,
            signal: 17,
            names: vec![("localhost".to_owned(), "127.0.0.1".to_owned())],
            apn: String::new(),
            trace: false,
        }
    }
}

/// What the modem wants of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Connect; answered with `Connected` or `Failed`.
    Connect {
        /// The connection.
        key: Key,
        /// An IP address as text.
        address: String,
        /// The port.
        port: u16,
    },
    /// Send bytes; answered with `Sent`.
    Send {
        /// The connection.
        key: Key,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// There is room for the next `Data`.
    More(Key),
    /// Close the connection.
    Close(Key),
    /// Say nothing more on the connection, and do not close it: the modem lost its power.
    Abandon(Key),
}

/// What the network says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is there.
    Connected(Key),
    /// The connection was refused, or nobody answered; the error as `+USOCTL=s,1` says it.
    Failed(Key, u32),
    /// At most 1024 bytes came; no more come before `Request::More`.
    Data(Key, Vec<u8>),
    /// So many bytes left the modem's buffer.
    Sent(Key, usize),
    /// The other end closed the connection, or it broke.
    Ended(Key),
}

/// Connection refused, as `+USOCTL` says it.
pub const ERROR_REFUSED: u32 = 111;
/// No answer to a connection.
pub const ERROR_TIMED_OUT: u32 = 110;
/// The buffer is full.
pub(crate) const ERROR_FULL: u32 = 11;

/// What the line from the board means now.
#[derive(Debug)]
pub(crate) enum Mode {
    /// No power, or starting.
    Off { until: Duration },
    /// Commands.
    Command,
    /// Data of a write.
    Data { socket: usize, missing: usize },
}

/// A command that waits for the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) socket: usize,
    pub(crate) until: Duration,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// An error as TS 27.007 section 9.2 numbers it.
    Error(u32),
}

/// What a command leads to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Lines, then the result, after this time.
    Lines(Vec<Vec<u8>>, Outcome, Duration),
    /// The prompt, and then so many bytes for a socket.
    Prompt { socket: usize, len: usize },
    /// The network is asked; at most so long.
    Wait { socket: usize, time: Duration },
    /// OK, and then a restart.
    Restart,
}

/// A modem.
#[derive(Debug)]
pub struct Modem {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    pub(crate) now: Duration,
    pub(crate) input: Pace,
    pub(crate) output: Pace,
    pub(crate) mode: Mode,
    pub(crate) line: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// Nothing is taken from the line before this time.
    pub(crate) busy_until: Duration,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) urcs: VecDeque<String>,
    pub(crate) requests: VecDeque<Request>,
    /// Events that a stall holds back.
    pub(crate) held: VecDeque<Event>,
    pub(crate) stalled_until: Duration,
    /// When there is a network again, while there is none.
    pub(crate) registered_at: Option<Duration>,
    pub(crate) sockets: [Option<Socket>; SOCKETS],
    pub(crate) next_key: Key,
    pub(crate) settings: Settings,
    pub(crate) is_mute: bool,
    pub(crate) is_hung: bool,
    pub(crate) errors: usize,
    pub(crate) silences: usize,
    pub(crate) rubbishes: usize,
    pub(crate) losses: usize,
    pub(crate) lost_urcs: usize,
    pub(crate) no_network: bool,
    pub(crate) log: VecDeque<String>,
    /// The dialogue so far towards the board, for the trace.
    pub(crate) said: Vec<u8>,
}

/// Settings that a restart takes back.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) echo: bool,
    pub(crate) errors: u32,
    pub(crate) hex: bool,
    /// Unasked lines of registration: `CREG`, `CGREG`, `CEREG`.
    pub(crate) registration: [u32; 3],
    pub(crate) context: bool,
    pub(crate) apn: String,
}

impl Settings {
    pub(crate) const fn new() -> Self {
        Self {
            echo: true,
            errors: 0,
            hex: false,
            registration: [0; 3],
            context: false,
            apn: String::new(),
        }
    }
}

impl Modem {
    /// A modem that is switched on at time 0.
    #[must_use]
    pub fn new(config: Config, faults: Faults) -> Self {
        let mut modem = Self {
            now: Duration::ZERO,
            input: Pace::new(config.baud),
            output: Pace::new(config.baud),
            mode: Mode::Command,
            line: Vec::new(),
            data: Vec::new(),
            busy_until: Duration::ZERO,
            waiting: None,
            urcs: VecDeque::new(),
            requests: VecDeque::new(),
            held: VecDeque::new(),
            stalled_until: Duration::ZERO,
            registered_at: None,
            sockets: [const { None }; SOCKETS],
            next_key: 0,
            settings: Settings::new(),
            is_mute: false,
            is_hung: false,
            errors: 0,
            silences: 0,
            rubbishes: 0,
            losses: 0,
            lost_urcs: 0,
            no_network: false,
            log: VecDeque::new(),
            said: Vec::new(),
            counts: Counts::default(),
            config,
            faults,
        };
        modem.start();
        modem
    }

    /// Bytes from the board.
    pub fn uart_in(&mut self, bytes: &[u8], now: Duration) {
        self.advance(now);
        let lost = self.losses.min(bytes.len());
        self.losses -= lost;
        let mut bytes = bytes.get(lost..).unwrap_or(&[]).to_vec();
        if !bytes.is_empty() && self.faults.happens(Kind::Lose) {
            let place = self.faults.below(bytes.len());
            bytes.remove(place);
            self.tell_fault(Kind::Lose.name());
        }
        self.input.push(&bytes, now);
        self.advance(now);
    }

    /// Bytes to the board that have passed by now.
    pub fn uart_out(&mut self, now: Duration) -> Vec<u8> {
        self.advance(now);
        std::iter::from_fn(|| self.output.pop(now)).collect()
    }

    /// What the modem wants of the network next.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// What the network says.
    pub fn network(&mut self, event: Event, now: Duration) {
        self.advance(now);
        self.held.push_back(event);
        self.advance(now);
    }

    /// When to call [`Self::uart_out`] next, where nothing happens before.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let input = self
            .input
            .next_at()
            .filter(|_| self.waiting.is_none())
            .map(|at| at.max(self.busy_until));
        let off = match self.mode {
            Mode::Off { until } => Some(until),
            _ => None,
        };
        let urc = (!self.urcs.is_empty() && self.waiting.is_none()).then_some(self.busy_until);
        let stall =
            (!self.held.is_empty() || self.stalled_until > self.now).then_some(self.stalled_until);
        let waiting = self.waiting.map(|waiting| waiting.until);
        [
            self.output.next_at(),
            input,
            off,
            urc.filter(|at| *at > self.now),
            stall.filter(|at| *at > self.now),
            waiting,
            self.registered_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the modem has a network.
    #[must_use]
    pub const fn is_registered(&self) -> bool {
        self.registered_at.is_none()
    }

    /// The next line of the log.
    pub fn take_log(&mut self) -> Option<String> {
        self.log.pop_front()
    }

    pub(crate) fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        loop {
            if let Mode::Off { until } = self.mode {
                self.input.clear();
                if until > self.now {
                    return;
                }
                self.start();
            }
            if self.registered_at.is_some_and(|at| at <= self.now) {
                self.registered_at = None;
                self.tell("registered");
                self.urc_registration(1);
            }
            if self.stalled_until <= self.now && self.registered_at.is_none() {
                self.send_waiting();
                while let Some(event) = self.held.pop_front() {
                    self.happened(event);
                }
            }
            if let Some(waiting) = self.waiting.filter(|waiting| waiting.until <= self.now) {
                self.waiting = None;
                self.close(waiting.socket, false);
                self.answer(&[], Outcome::Error(3), Duration::ZERO);
            }
            if self.is_hung {
                self.input.clear();
                return;
            }
            if self.waiting.is_some() || self.busy_until > self.now {
                return;
            }
            if matches!(self.mode, Mode::Command) && self.line.is_empty() {
                while let Some(urc) = self.urcs.pop_front() {
                    self.say_line(urc.as_bytes(), self.now);
                }
            }
            let Some(byte) = self.input.pop(self.now) else {
                return;
            };
            self.take(byte);
        }
    }

    fn take(&mut self, byte: u8) {
        if let Mode::Data { socket, missing } = &mut self.mode {
            self.data.push(byte);
            *missing -= 1;
            if *missing == 0 {
                let socket = *socket;
                self.mode = Mode::Command;
                let data = std::mem::take(&mut self.data);
                let answer = self.write(socket, &data);
                self.carry_on(answer);
            }
            return;
        }
        if self.settings.echo {
            self.say(&[byte], self.now);
        }
        match byte {
            b'\r' => {
                let line = std::mem::take(&mut self.line);
                self.command(&line);
            }
            b'\n' => {}
            _ if self.line.len() < LINE_MAX * 2 => self.line.push(byte),
            _ => {}
        }
    }

    /// A command line: what comes before `AT` is not looked at.
    fn command(&mut self, line: &[u8]) {
        let Some(start) = line
            .windows(2)
            .position(|pair| pair.eq_ignore_ascii_case(b"AT"))
        else {
            return;
        };
        let line = &line[start..];
        self.trace('>', line);
        self.counts.commands += 1;
        self.chance();
        if !matches!(self.mode, Mode::Command) || self.is_hung {
            return;
        }
        if self.rubbishes > 0 || self.faults.happens(Kind::Rubbish) {
            self.rubbishes = self.rubbishes.saturating_sub(1);
            self.tell_fault(Kind::Rubbish.name());
            let rubbish = self.faults.rubbish(40);
            self.say_line(&rubbish, self.now + self.config.latency);
            return;
        }
        if self.errors > 0 || self.faults.happens(Kind::Error) {
            self.errors = self.errors.saturating_sub(1);
            self.tell_fault(Kind::Error.name());
            self.answer(&[], Outcome::Error(3), Duration::ZERO);
            return;
        }
        let answer = if line.len() > LINE_MAX + "AT+USOWR=0,512,\"\"".len() {
            Answer::Lines(Vec::new(), Outcome::Error(4), Duration::ZERO)
        } else {
            self.perform(&line[2..])
        };
        self.carry_on(answer);
    }
}
