//! Questions that an operator asks a board through its open session, and the answers.
//!
//! The session keeps nothing of them: a question stands here until the session's task, woken by its handle,
//! takes it, and what comes back is handed to whoever asked. So a parked session stays as small as it was, and
//! is parked again between question and answer.

use super::registry::{Handle, Registry};
use super::run::{End, Running};
use super::texts::Parts;
use crate::store::DeviceId;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use dialhome_proto::frame::{GatewayFrame, LogPart, Ping, ReadLog};
use dialhome_proto::limits::{LOG_MS, RECORD_HEADER, TAG, TEXT_PART_MAX, TEXT_PARTS_MAX};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout_at;

/// Answers that wait to be taken; a board that sends more of its own accord is not heard.
const ANSWERS_MAX: usize = 32;
/// A Ping or a Pong as a record: length, frame number, nonce; over TCP a tag.
const PING_RECORD: u64 = (RECORD_HEADER + 2) as u64;

/// What is asked about; of each one question at a time and device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Topic {
    /// The way to the board.
    Check,
    /// Its log.
    Log,
}

impl Topic {
    const ALL: [Self; 2] = [Self::Check, Self::Log];
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
enum Question {
    /// Ping with this nonce.
    Ping(u8),
    /// The end of its log.
    Log(ReadLog),
}

/// What comes back.
#[derive(Clone, Debug)]
enum Answer {
    /// The question was sealed, behind the bytes of a transfer or not.
    Sent { at: Instant, in_transfer: bool },
    /// A Pong with this nonce.
    Pong { nonce: u8, at: Instant },
    /// A part of the log.
    Part {
        request: u8,
        part: u8,
        parts: u8,
        text: Box<str>,
    },
    /// The board does not answer this.
    Unsupported,
    /// The session ended, for this reason.
    Ended(String),
}

/// Why a board cannot be asked now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAsked {
    /// It has no session.
    NotOnline,
    /// The same is being asked already.
    Asked,
}

#[derive(Debug)]
struct Open {
    generation: u64,
    question: Option<Question>,
    answers: Sender<Answer>,
}

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Inquiries(DashMap<(DeviceId, Topic), Open>);

impl Inquiries {
    /// Takes what the session of this generation is to ask.
    fn take(&self, device: &DeviceId, generation: u64, topic: Topic) -> Option<Question> {
        let mut open = self.0.get_mut(&(device.clone(), topic))?;
        if open.generation != generation {
            return None;
        }
        open.question.take()
    }

    /// Hands an answer to whoever asked; nobody may have.
    fn answer(&self, device: &DeviceId, generation: u64, topic: Topic, answer: Answer) {
        if let Some(open) = self.0.get(&(device.clone(), topic))
            && open.generation == generation
        {
            let _ = open.answers.try_send(answer);
        }
    }

    /// The session has ended, and answers nothing more.
    pub(super) fn ended(&self, device: &DeviceId, generation: u64, reason: &str) {
        if self.0.is_empty() {
            return;
        }
        for topic in Topic::ALL {
            self.answer(device, generation, topic, Answer::Ended(reason.to_owned()));
        }
    }
}

impl Running {
    /// A part of the log that was asked for, or of none.
    pub(super) fn heard_log(&self, log: &LogPart<'_>) {
        let answer = Answer::Part {
            request: log.request,
            part: log.part,
            parts: log.parts,
            text: log.text.into(),
        };
        self.heard(Topic::Log, answer);
    }

    /// The board does not know a frame that it was sent.
    pub(super) fn heard_unsupported(&self, number: u8) {
        let read = ReadLog {
            request: 0,
            lines: 0,
            bytes: 0,
        };
        if number == GatewayFrame::from(read).number() {
            self.heard(Topic::Log, Answer::Unsupported);
        }
    }

    fn heard(&self, topic: Topic, answer: Answer) {
        let (device, generation) = (&self.key.device, self.handle.generation);
        let inquiries = &self.gateway.registry.inquiries;
        inquiries.answer(device, generation, topic, answer);
    }

    /// Asks the board what operators want to know.
    pub(super) fn ask_board(&mut self) -> Result<(), End> {
        for topic in Topic::ALL {
            let (device, generation) = (&self.key.device, self.handle.generation);
            let inquiries = &self.gateway.registry.inquiries;
            let Some(question) = inquiries.take(device, generation, topic) else {
                continue;
            };
            match question {
                Question::Ping(nonce) => self.send(&Ping { nonce }.into())?,
                Question::Log(read) => self.send(&read.into())?,
            }
            let answer = Answer::Sent {
                at: Instant::now(),
                in_transfer: self.delivering.is_some(),
            };
            self.heard(topic, answer);
        }
        Ok(())
    }

    /// A Pong to one of the gateway's Pings, or to none.
    pub(super) fn heard_pong(&self, nonce: u8) {
        let answer = Answer::Pong {
            nonce,
            at: Instant::now(),
        };
        self.heard(Topic::Check, answer);
    }
}

/// How a board answered the request for its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// The lines, as far as they came.
    pub text: String,
    /// Every part came.
    pub whole: bool,
    /// The board answered that it does not do this.
    pub unsupported: bool,
    /// Why the session ended before the last part.
    pub ended: Option<String>,
}

/// One operator's questions to one session.
#[derive(Debug)]
pub struct Inquiry {
    inquiries: Arc<Inquiries>,
    handle: Arc<Handle>,
    name: (DeviceId, Topic),
    answers: Receiver<Answer>,
}

/// How the board answered the pings of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Pings that were sent.
    pub sent: u32,
    /// Round trips of those that were answered in time, in the order of sending.
    pub round_trips: Vec<Duration>,
    /// Pings that were answered when their time was up.
    pub late: u32,
    /// A transfer was under way: pings wait behind its bytes.
    pub in_transfer: bool,
    /// Bytes of records that went to the board, and that came from it.
    pub bytes: (u64, u64),
    /// Why the session ended within the check.
    pub ended: Option<String>,
}

impl Registry {
    /// Begins to ask the device's session.
    pub(super) fn inquire(&self, device: &str, topic: Topic) -> Result<Inquiry, NotAsked> {
        let (device, handle) = {
            let open = self.sessions.get(device).ok_or(NotAsked::NotOnline)?;
            (open.key().clone(), Arc::clone(open.value()))
        };
        let (sender, answers) = channel(ANSWERS_MAX);
        let name = (device, topic);
        match self.inquiries.0.entry(name.clone()) {
            Entry::Occupied(_) => return Err(NotAsked::Asked),
            Entry::Vacant(free) => free.insert(Open {
                generation: handle.generation,
                question: None,
                answers: sender,
            }),
        };
        let inquiry = Inquiry {
            inquiries: Arc::clone(&self.inquiries),
            handle,
            name,
            answers,
        };
        // Looked at again when it is in the table: otherwise the end of the session has found it there.
        let still = self
            .sessions
            .get(&inquiry.name.0)
            .is_some_and(|now| now.generation == inquiry.handle.generation);
        still.then_some(inquiry).ok_or(NotAsked::NotOnline)
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.inquiries.0.remove(&self.name);
    }
}

impl Inquiry {
    /// Since when the session is open.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.handle.since
    }

    /// Leaves a question, in place of one that was not taken.
    fn ask(&self, question: Question) {
        if let Some(mut open) = self.inquiries.0.get_mut(&self.name) {
            open.question = Some(question);
        }
        self.handle.ask();
    }

    /// Pings the board `count` times, one after another: each has `each` to be answered, all together have `all`.
    pub async fn check(mut self, count: u32, each: Duration, all: Duration) -> Checked {
        let mut checked = Checked::default();
        let end = Instant::now() + all;
        // Begun anywhere: a Pong that a check before this one waited for is then not taken for another's.
        let first: u8 = rand::random();
        for number in 0..count {
            if Instant::now() >= end || checked.ended.is_some() {
                break;
            }
            let nonce = first.wrapping_add(u8::try_from(number % 256).unwrap_or(0));
            self.ask(Question::Ping(nonce));
            let due = (Instant::now() + each).min(end);
            self.await_pong(nonce, due, &mut checked).await;
        }
        checked
    }

    /// Bytes of a Ping or a Pong over the transport of the session.
    fn ping_record(&self) -> u64 {
        match self.handle.transport() {
            "quic" => PING_RECORD,
            _ => PING_RECORD + TAG as u64,
        }
    }

    async fn await_pong(&mut self, nonce: u8, due: Instant, checked: &mut Checked) {
        let mut sent_at = None;
        while let Ok(Some(answer)) = timeout_at(due.into(), self.answers.recv()).await {
            match answer {
                Answer::Sent { at, in_transfer } => {
                    sent_at = Some(at);
                    checked.sent += 1;
                    checked.bytes.0 += self.ping_record();
                    checked.in_transfer |= in_transfer;
                }
                Answer::Pong { nonce: of, at } => {
                    checked.bytes.1 += self.ping_record();
                    match sent_at {
                        Some(sent_at) if of == nonce => {
                            checked.round_trips.push(at.duration_since(sent_at));
                            return;
                        }
                        _ => checked.late += 1,
                    }
                }
                Answer::Ended(reason) => {
                    checked.ended = Some(reason);
                    return;
                }
                Answer::Part { .. } | Answer::Unsupported => {}
            }
        }
    }

    /// Asks for the newest `lines` of the board's log, as many as fit the parts of one text.
    pub async fn read_log(mut self, lines: u16) -> Logged {
        let mut logged = Logged::default();
        // Drawn: parts that a request before this one waited for are then not taken for this one's.
        let request: u8 = rand::random();
        let bytes = u16::from(TEXT_PARTS_MAX) * u16::try_from(TEXT_PART_MAX).unwrap_or(u16::MAX);
        self.ask(Question::Log(ReadLog {
            request,
            lines,
            bytes,
        }));
        let due = Instant::now() + Duration::from_millis(LOG_MS);
        let mut kept = Parts::default();
        while let Ok(Some(answer)) = timeout_at(due.into(), self.answers.recv()).await {
            match answer {
                Answer::Part {
                    request: of,
                    part,
                    parts,
                    text,
                } if of == request => {
                    logged.whole = (part, parts) == (0, 0);
                    if kept.put(part, parts, &text) {
                        logged.whole = kept.is_whole();
                    }
                    if logged.whole {
                        break;
                    }
                }
                Answer::Unsupported => {
                    logged.unsupported = true;
                    break;
                }
                Answer::Ended(reason) => {
                    logged.ended = Some(reason);
                    break;
                }
                Answer::Part { .. } | Answer::Sent { .. } | Answer::Pong { .. } => {}
            }
        }
        logged.text = kept.text();
        logged
    }
}
