//! A board's session as the gateway keeps it: keys, counters, timers; no buffers
//! (spec/states.md section 2). It is all that an idle board costs.

use super::Fault;
use crate::code::CloseCode;
use crate::frame::{DeviceFrame, Hello};
use crate::limits::{HELLO_MS, SESSION_MS_MAX};
use crate::link::Records;
use crate::time::Millis;

/// What a board's frame means to the session's shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The first frame: the board is who it says. Take over, record it, answer Welcome.
    Greet,
    /// Answer with a Pong of this nonce.
    Pong(u8),
    /// The answer to our own Ping with this nonce.
    Ponged(u8),
    /// For the delivery; or, where there is none, an answer that came too late.
    Deliver,
    /// Store what it states, then send Settled.
    Statement,
    /// Keep it until the statement comes that it belongs to.
    Keep,
    /// An answer to our own ReadLog.
    Log,
    /// The board goes.
    Leave,
    /// Nothing to do.
    Ignore,
}

/// What [`Session::deadline`] is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// The board's Hello.
    Hello,
    /// A sign of life.
    Life,
    /// The end of the session's greatest age.
    Age,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Keys and record counters.
    pub records: Records,
    heard: Millis,
    opened: Millis,
    ping_s: u32,
    receive_buffer: u16,
    greeted: bool,
}

const _: () = assert!(
    size_of::<Session>() <= 192,
    "PROTOCOL: a session is at most 192 bytes"
);

impl Session {
    /// Starts after the handshake.
    #[must_use]
    pub const fn new(records: Records, now: Millis) -> Self {
        Self {
            records,
            heard: now,
            opened: now,
            ping_s: 0,
            receive_buffer: 0,
            greeted: false,
        }
    }

    /// Whether Hello has come: only then may anything be sent.
    #[must_use]
    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Longest ciphertext that the board takes, in bytes.
    #[must_use]
    pub const fn receive_buffer(&self) -> u16 {
        self.receive_buffer
    }

    /// The board's ping interval, in seconds.
    #[must_use]
    pub const fn ping_s(&self) -> u32 {
        self.ping_s
    }

    /// Takes a frame that was opened with this session's keys.
    ///
    /// # Errors
    /// The frame is not allowed now: close with the fault's code.
    pub fn handle_frame(&mut self, frame: &DeviceFrame<'_>, now: Millis) -> Result<Verdict, Fault> {
        self.heard = now;
        match (self.greeted, frame) {
            (false, DeviceFrame::Hello(hello)) => self.handle_hello(hello),
            (false, _) | (true, DeviceFrame::Hello(_)) => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
            (true, DeviceFrame::Ping(ping)) => Ok(Verdict::Pong(ping.nonce)),
            (true, DeviceFrame::Pong(pong)) => Ok(Verdict::Ponged(pong.nonce)),
            (true, DeviceFrame::Bye(_)) => Ok(Verdict::Leave),
            (
                true,
                DeviceFrame::KeyStored(_) | DeviceFrame::GatewaysStored(_) | DeviceFrame::Report(_),
            ) => Ok(Verdict::Statement),
            (true, DeviceFrame::Output(_)) => Ok(Verdict::Keep),
            (true, DeviceFrame::LogPart(_)) => Ok(Verdict::Log),
            (true, DeviceFrame::Unsupported(_)) => Ok(Verdict::Ignore),
            (
                true,
                DeviceFrame::Accept(_)
                | DeviceFrame::Defer(_)
                | DeviceFrame::Decline(_)
                | DeviceFrame::Progress(_)
                | DeviceFrame::Ack(_)
                | DeviceFrame::Nack(_),
            ) => Ok(Verdict::Deliver),
        }
    }

    fn handle_hello(&mut self, hello: &Hello<'_>) -> Result<Verdict, Fault> {
        if !hello.is_consistent() {
            return Err(Fault(CloseCode::BAD_HELLO));
        }
        self.greeted = true;
        self.ping_s = hello.ping_s;
        self.receive_buffer = hello.receive_buffer;
        Ok(Verdict::Greet)
    }

    /// When the session must be looked at again, and for what.
    #[must_use]
    pub fn deadline(&self) -> (Millis, Due) {
        if !self.greeted {
            return (self.opened.after(HELLO_MS), Due::Hello);
        }
        let age = self.opened.after(SESSION_MS_MAX);
        let life = self.heard.after(u64::from(self.ping_s.max(1)) * 1500);
        if life < age {
            (life, Due::Life)
        } else {
            (age, Due::Age)
        }
    }

    /// Looks at the clock; `in_transfer` while a delivery has its own deadline.
    ///
    /// # Errors
    /// The session is over: close with the fault's code.
    pub fn handle_timeout(&mut self, now: Millis, in_transfer: bool) -> Result<(), Fault> {
        match self.deadline() {
            (due, _) if now < due => Ok(()),
            (_, Due::Hello) => Err(Fault(CloseCode::HELLO_OVERDUE)),
            (_, Due::Age) => Err(Fault(CloseCode::RECORD_LIMIT)),
            (_, Due::Life) if in_transfer => {
                self.heard = now;
                Ok(())
            }
            (_, Due::Life) => Err(Fault(CloseCode::IDLE)),
        }
    }
}
