//! The microcontroller, without clock and line: bytes and times in, bytes and pages out.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::command::{self, Command, IN_SYNC, OK, Taken};
use crate::fault::Faults;
use crate::part::Part;

/// What the bootloader says of itself: Optiboot's numbers.
const VERSION: [u8; 2] = [8, 0];
/// What it answers to a request for any other value.
const PARAMETER: u8 = 3;
/// A signature that is no part's.
const WRONG_SIGNATURE: [u8; 3] = [0x1E, 0x00, 0x01];

/// What the microcontroller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The bootloader listens.
    Bootloader,
    /// The program in flash runs: it says nothing, and hears nothing.
    Program,
    /// It hangs, by a fault, until it is reset.
    Silent,
    /// It has no power, and nobody can open its line.
    Unplugged,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Bootloader => "bootloader",
            Self::Program => "program",
            Self::Silent => "silent",
            Self::Unplugged => "unplugged",
        }
    }
}

/// What was done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// What the microcontroller does now.
    pub state: State,
    /// Sessions: from one opening of the line to the next.
    pub sessions: u32,
    /// Pages of flash that were programmed.
    pub pages: u32,
    /// Starts of the program in flash.
    pub starts: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            sessions,
            pages,
            starts,
        } = self;
        let state = state.name();
        write!(
            f,
            "state={state} sessions={sessions} pages={pages} starts={starts}"
        )
    }
}

/// A microcontroller with its bootloader.
#[derive(Debug)]
pub struct Board {
    part: Part,
    flash: Vec<u8>,
    /// The bootloader starts the program after so much time without a command.
    window: Duration,
    faults: Faults,
    /// Those of the session.
    now_wrong: Faults,
    counts: Counts,
    /// Pages of this session.
    pages: u32,
    /// Requests for synchronisation that were ignored in this session.
    ignored: u32,
    /// In words.
    address: u16,
    input: Vec<u8>,
    output: VecDeque<(Duration, Vec<u8>)>,
    listens_until: Duration,
    written: VecDeque<usize>,
}

impl Board {
    /// A board that was just plugged in. `flash` is cut or filled up with 0xFF to the part's
    /// size. The bootloader listens for `window` after a reset and after each command.
    #[must_use]
    pub fn new(part: Part, mut flash: Vec<u8>, window: Duration) -> Self {
        flash.resize(part.flash, 0xFF);
        Self {
            part,
            flash,
            window,
            faults: Faults::default(),
            now_wrong: Faults::default(),
            counts: Counts {
                state: State::Bootloader,
                sessions: 0,
                pages: 0,
                starts: 0,
            },
            pages: 0,
            ignored: 0,
            address: 0,
            input: Vec::new(),
            output: VecDeque::new(),
            listens_until: window,
            written: VecDeque::new(),
        }
    }

    /// What goes wrong from the next session on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Somebody opened the line, which resets the board: a session begins.
    pub fn open(&mut self, now: Duration) {
        if self.counts.state == State::Unplugged {
            return;
        }
        self.counts.sessions += 1;
        self.now_wrong = match &mut self.faults.sessions {
            Some(0) => Faults::default(),
            Some(left) => {
                *left -= 1;
                self.faults.clone()
            }
            None => self.faults.clone(),
        };
        self.pages = 0;
        self.ignored = 0;
        self.reset(now);
    }

    /// The reset button.
    pub fn reset(&mut self, now: Duration) {
        if self.counts.state != State::Unplugged {
            self.counts.state = State::Bootloader;
            self.input.clear();
            self.output.clear();
            self.listens_until = now + self.window;
        }
    }

    /// Takes its power away.
    pub fn unplug(&mut self) {
        self.counts.state = State::Unplugged;
        self.input.clear();
        self.output.clear();
    }

    /// Gives its power back.
    pub fn plug(&mut self, now: Duration) {
        if self.counts.state == State::Unplugged {
            self.counts.state = State::Program;
            self.reset(now);
        }
    }

    /// Bytes from the line.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        self.pass(now);
        if self.counts.state != State::Bootloader {
            return;
        }
        self.input.extend_from_slice(bytes);
        while self.counts.state == State::Bootloader {
            match command::take(&self.input, self.part.page) {
                Taken::More => return,
                Taken::Rubbish => {
                    // Optiboot lets its watchdog bite, and starts the program then.
                    self.start_program();
                }
                Taken::Command(command, len) => {
                    self.input.drain(..len);
                    self.listens_until = now + self.window;
                    self.carry_out(command, now);
                }
            }
        }
    }

    /// Bytes for the line that are due.
    pub fn output(&mut self, now: Duration) -> Vec<u8> {
        self.pass(now);
        let mut bytes = Vec::new();
        while self.output.front().is_some_and(|(at, _)| *at <= now) {
            bytes.extend(self.output.pop_front().into_iter().flat_map(|(_, b)| b));
        }
        bytes
    }

    /// When something happens without bytes from the line.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let listens = (self.counts.state == State::Bootloader).then_some(self.listens_until);
        let output = self.output.front().map(|(at, _)| *at);
        listens.into_iter().chain(output).min()
    }

    /// The address of a page that was programmed since, to be stored before anything is sent.
    pub fn take_written(&mut self) -> Option<usize> {
        self.written.pop_front()
    }

    /// All of its flash.
    #[must_use]
    pub fn flash(&self) -> &[u8] {
        &self.flash
    }

    /// The part.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The program starts where the bootloader has listened for long enough.
    fn pass(&mut self, now: Duration) {
        if self.counts.state == State::Bootloader && self.listens_until <= now {
            self.start_program();
        }
    }

    fn start_program(&mut self) {
        self.input.clear();
        self.counts.state = State::Program;
        self.counts.starts += 1;
    }

    fn carry_out(&mut self, command: Command, now: Duration) {
        match command {
            Command::Sync if self.ignored < self.now_wrong.deaf => self.ignored += 1,
            Command::Sync | Command::Other => self.answer(&[], now),
            Command::Parameter(0x81) => self.answer(&VERSION[..1], now),
            Command::Parameter(0x82) => self.answer(&VERSION[1..], now),
            Command::Parameter(_) => self.answer(&[PARAMETER], now),
            Command::Universal => self.answer(&[0], now),
            Command::Address(address) => {
                self.address = address;
                self.answer(&[], now);
            }
            Command::Signature => {
                let signature = if self.now_wrong.wrong_signature {
                    WRONG_SIGNATURE
                } else {
                    self.part.signature
                };
                self.answer(&signature, now);
            }
            Command::Program { is_flash, bytes } => {
                if is_flash {
                    self.program(&bytes);
                }
                if self.now_wrong.unplug_after == Some(self.pages) {
                    self.unplug();
                } else if self.now_wrong.silent_after == Some(self.pages) {
                    self.counts.state = State::Silent;
                } else {
                    self.answer(&[], now);
                }
            }
            Command::Read { is_flash, len } => {
                let from = 2 * usize::from(self.address);
                let bytes = (from..from + len).map(|at| match self.flash.get(at) {
                    Some(byte) if is_flash => *byte,
                    _ => 0xFF,
                });
                let bytes: Vec<u8> = bytes.collect();
                self.answer(&bytes, now);
            }
            Command::Leave => {
                self.answer(&[], now);
                self.start_program();
            }
        }
    }

    /// Erases the page that the address lies in, and writes the bytes from its beginning; what
    /// they leave over stays erased, as in a page's buffer.
    fn program(&mut self, bytes: &[u8]) {
        let page = self.part.page;
        let at = 2 * usize::from(self.address) / page * page;
        self.pages += 1;
        self.counts.pages += 1;
        // It does not overwrite itself.
        if at >= self.part.for_programs() {
            return;
        }
        let flash = &mut self.flash[at..at + page];
        flash.fill(0xFF);
        flash[..bytes.len()].copy_from_slice(bytes);
        for (address, value) in &self.now_wrong.stuck {
            if let Some(byte) = address.checked_sub(at).and_then(|at| flash.get_mut(at)) {
                *byte = *value;
            }
        }
        self.written.push_back(at);
    }

    fn answer(&mut self, bytes: &[u8], now: Duration) {
        let mut answer = vec![IN_SYNC];
        answer.extend_from_slice(bytes);
        answer.push(OK);
        self.output.push_back((now + self.now_wrong.slow, answer));
    }
}
