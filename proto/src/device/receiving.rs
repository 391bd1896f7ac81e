//! The receiving side of a transfer: write, read back, flush, hash, acknowledge
//! (spec/protocol.md section 8.4). Mirrors `gateway/sending.rs`.

use super::config::ComponentConfig;
use crate::crc::Crc32;
use crate::frame::{ACK_NOW, Chunk};
use crate::limits::{ACK_EVERY_MS, BAD_READ_BACKS_MAX};
use crate::time::{Millis, divide, round_up};

/// Bytes that the next storage step concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// The storage step that is under way or comes next.
#[derive(Clone, Debug)]
enum Step {
    /// A chunk may come.
    Ready,
    /// The chunk goes to the slot.
    Writing {
        span: Span,
        crc: [u8; 4],
        ack_now: bool,
    },
    /// It is read back.
    ReadingBack {
        span: Span,
        crc: [u8; 4],
        ack_now: bool,
        check: Crc32,
    },
    /// Everything written becomes durable.
    Flushing,
    /// What became durable goes into the running digest.
    Hashing,
    /// The unit that read back wrong is erased.
    Erasing { span: Span },
}

/// What a finished step means to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Go on.
    Nothing,
    /// Send an Ack of the committed offset.
    Ack,
    /// Send a Nack to the committed offset.
    Nack,
    /// The flash does not hold what is written to it.
    BadFlash,
}

/// The step to carry out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Todo {
    Write(Span),
    ReadBack(Span),
    Flush,
    Hash(Span),
    Erase(Span),
}

/// The chunk breaks the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WrongChunk;

/// A transfer under way.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Receiving {
    rewinding: bool,
    bad_read_backs: u8,
    size: u32,
    write_unit: u32,
    erase_unit: u32,
    window: u32,
    written: u32,
    committed: u32,
    acked: u32,
    limit: u32,
    /// Never: everything that came is acknowledged.
    ack_due: Millis,
    step: Step,
}

impl Receiving {
    pub(super) fn new(size: u32, committed: u32, component: &ComponentConfig) -> Self {
        Self {
            size,
            write_unit: component.write_unit.max(1),
            erase_unit: component.erase_unit.max(1),
            window: component.window,
            written: committed,
            committed,
            acked: committed,
            limit: committed.saturating_add(component.window),
            rewinding: false,
            bad_read_backs: 0,
            ack_due: Millis::NEVER,
            step: Step::Ready,
        }
    }

    pub(super) const fn committed(&self) -> u32 {
        self.committed
    }

    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) const fn is_done(&self) -> bool {
        self.committed == self.size
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.step, Step::Ready)
    }

    pub(super) const fn ack_due(&self) -> Millis {
        self.ack_due
    }

    /// Takes a chunk while ready; the shell still holds its bytes.
    pub(super) fn handle_chunk(
        &mut self,
        chunk: &Chunk<'_>,
        now: Millis,
    ) -> Result<(), WrongChunk> {
        let Ok(len) = u32::try_from(chunk.bytes.len()) else {
            return Err(WrongChunk);
        };
        if self.rewinding && chunk.offset != self.written {
            return Ok(());
        }
        let end = chunk.offset.checked_add(len).ok_or(WrongChunk)?;
        let whole_units = divide(len, self.write_unit).1 == 0 || end == self.size;
        if chunk.offset != self.written
            || len == 0
            || end > self.limit.min(self.size)
            || !whole_units
        {
            return Err(WrongChunk);
        }
        self.rewinding = false;
        self.ack_due = self.ack_due.min(now.after(ACK_EVERY_MS));
        let span = Span {
            offset: chunk.offset,
            len,
        };
        self.step = Step::Writing {
            span,
            crc: chunk.crc,
            ack_now: chunk.flags & ACK_NOW != 0,
        };
        Ok(())
    }

    /// The storage step to carry out now, where there is one.
    pub(super) const fn todo(&self, hashed: u32) -> Option<Todo> {
        match &self.step {
            Step::Ready => None,
            Step::Writing { span, .. } => Some(Todo::Write(*span)),
            Step::ReadingBack { span, .. } => Some(Todo::ReadBack(*span)),
            Step::Flushing => Some(Todo::Flush),
            Step::Hashing => Some(Todo::Hash(Span {
                offset: hashed,
                len: self.durable_end() - hashed,
            })),
            Step::Erasing { span } => Some(Todo::Erase(*span)),
        }
    }

    /// Takes bytes that were read back from the slot.
    pub(super) fn read_back(&mut self, bytes: &[u8]) {
        if let Step::ReadingBack { check, .. } = &mut self.step {
            check.update(bytes);
        }
    }

    /// Whether what is read goes into the running digest.
    pub(super) const fn is_hashing(&self) -> bool {
        matches!(self.step, Step::Hashing)
    }

    /// The step succeeded.
    pub(super) fn worked(&mut self) -> Outcome {
        match core::mem::replace(&mut self.step, Step::Ready) {
            Step::Ready => Outcome::Nothing,
            Step::Writing { span, crc, ack_now } => {
                self.step = Step::ReadingBack {
                    span,
                    crc,
                    ack_now,
                    check: Crc32::new(),
                };
                Outcome::Nothing
            }
            Step::ReadingBack {
                span,
                crc,
                ack_now,
                check,
            } => {
                let end = span.offset + span.len;
                if check.finish() == crc {
                    self.written = end;
                    // An Ack that moves nothing on would only cost air.
                    let half =
                        end - self.acked >= self.window / 2 && self.durable_end() > self.committed;
                    if ack_now || half || end == self.size {
                        self.step = Step::Flushing;
                    }
                    return Outcome::Nothing;
                }
                self.bad_read_backs += 1;
                if self.bad_read_backs >= BAD_READ_BACKS_MAX {
                    return Outcome::BadFlash;
                }
                let from = self.committed;
                let end = round_up(end, self.erase_unit);
                self.written = from;
                self.rewinding = true;
                self.step = Step::Erasing {
                    span: Span {
                        offset: from,
                        len: end - from,
                    },
                };
                Outcome::Nothing
            }
            Step::Flushing => {
                if self.durable_end() > self.committed {
                    self.step = Step::Hashing;
                    return Outcome::Nothing;
                }
                self.acknowledge()
            }
            Step::Hashing => {
                self.committed = self.durable_end();
                self.bad_read_backs = 0;
                self.acknowledge()
            }
            Step::Erasing { .. } => Outcome::Nack,
        }
    }

    /// The time for an Ack has come although no half window is full.
    pub(super) fn handle_timeout(&mut self, now: Millis) {
        if self.is_ready() && self.ack_due <= now {
            self.step = Step::Flushing;
        }
    }

    /// What is committed once everything written is durable: whole erase units, or the end.
    const fn durable_end(&self) -> u32 {
        if self.written == self.size {
            self.size
        } else {
            self.written - divide(self.written, self.erase_unit).1
        }
    }

    fn acknowledge(&mut self) -> Outcome {
        self.acked = self.committed;
        self.limit = self.limit.max(self.committed.saturating_add(self.window));
        self.ack_due = Millis::NEVER;
        Outcome::Ack
    }
}
