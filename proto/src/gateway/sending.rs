//! The sending side of a transfer: what may be sent, what must be acknowledged
//! (spec/protocol.md section 8.4). Mirrors `device/receiving.rs`.

use super::Fault;
use crate::code::CloseCode;
use crate::frame::{Accept, Ack, Nack};
use crate::limits::{ACK_MS_MIN, WINDOW_BYTES_PER_S};
use crate::time::Millis;

/// A piece of the payload to send now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkRange {
    /// Place of the part in the plan.
    pub part: u8,
    /// Its first byte, in that part.
    pub offset: u32,
    /// Its length in bytes, not 0.
    pub len: u32,
    /// It fills the window or is the last one.
    pub ack_now: bool,
}

/// Bytes of an update over all its sessions; the gateway's record keeps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Payload bytes committed at the board, as far as it said: those of the parts before the
    /// one under way, whole, and of that one.
    pub committed: u64,
    /// Payload bytes sent.
    pub sent: u64,
    /// Payload bytes sent that had been sent before.
    pub resent: u64,
    /// The end of what was ever sent, counted over all parts.
    pub reached: u64,
}

/// A transfer under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sending {
    size: u32,
    chunk: u32,
    unit: u32,
    next: u32,
    acked: u32,
    limit: u32,
    /// Worst commit time and three round trips.
    base_ms: u64,
    due: Option<Millis>,
}

const _: () = assert!(
    size_of::<Sending>() <= 48,
    "part of the limit that spec/limits.md gives for a delivery"
);

impl Sending {
    /// Starts where the board's Accept stands; `chunk` and `unit` are the full
    /// chunk and the board's write unit, in bytes, `rtt_ms` a round trip.
    ///
    /// # Errors
    /// An Accept beyond the image, or one whose two offsets disagree (raw encoding).
    pub fn new(
        accept: &Accept,
        size: u32,
        chunk: u32,
        unit: u32,
        rtt_ms: u64,
    ) -> Result<Self, Fault> {
        if accept.image_offset > size || accept.payload_offset != accept.image_offset {
            return Err(Fault(CloseCode::ACK_BEYOND_SENT));
        }
        Ok(Self {
            size,
            chunk,
            unit,
            next: accept.payload_offset,
            acked: accept.payload_offset,
            limit: accept.limit,
            base_ms: u64::from(accept.commit_ms) + 3 * rtt_ms,
            due: None,
        })
    }

    /// Takes the next piece that the window lets out of the part at this place, before which
    /// the plan has `before` bytes.
    pub fn poll_chunk(
        &mut self,
        part: u8,
        before: u64,
        now: Millis,
        counters: &mut Counters,
    ) -> Option<ChunkRange> {
        let end = self.limit.min(self.size);
        let len = self.next_len();
        if len == 0 {
            return None;
        }
        let offset = self.next;
        self.next += len;
        let sent_before = counters.reached.saturating_sub(before + u64::from(offset));
        counters.sent += u64::from(len);
        counters.resent += sent_before.min(len.into());
        counters.reached = counters.reached.max(before + u64::from(self.next));
        if self.due.is_none() {
            self.due = Some(now.after(self.answer_ms()));
        }
        let full = self.next == self.size || end - self.next < self.unit;
        Some(ChunkRange {
            part,
            offset,
            len,
            ack_now: full,
        })
    }

    /// Bytes of the next piece; 0: the window has no room for one.
    pub(super) const fn next_len(&self) -> u32 {
        let end = if self.limit < self.size {
            self.limit
        } else {
            self.size
        };
        let room = end.saturating_sub(self.next);
        if room <= self.chunk && end == self.size {
            return room;
        }
        let len = if room < self.chunk { room } else { self.chunk };
        len - len % self.unit
    }

    /// Takes an Ack; `before` as above.
    ///
    /// # Errors
    /// An Ack beyond what was sent, below the last one, or a limit that shrinks.
    pub fn handle_ack(
        &mut self,
        ack: &Ack,
        before: u64,
        now: Millis,
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        if ack.committed > self.next {
            return Err(Fault(CloseCode::ACK_BEYOND_SENT));
        }
        if ack.committed < self.acked || ack.limit < self.limit {
            return Err(Fault(CloseCode::FRAME_NOT_ALLOWED));
        }
        self.acked = ack.committed;
        self.limit = ack.limit;
        counters.committed = before + u64::from(ack.committed);
        self.due = (self.next > self.acked).then(|| now.after(self.answer_ms()));
        Ok(())
    }

    /// Rewinds to where the board asks.
    ///
    /// # Errors
    /// A Nack beyond what was sent, or below an Ack.
    pub fn handle_nack(&mut self, nack: &Nack, now: Millis) -> Result<(), Fault> {
        if nack.offset > self.next || nack.offset < self.acked {
            return Err(Fault(CloseCode::ACK_BEYOND_SENT));
        }
        self.next = nack.offset;
        self.due = Some(now.after(self.answer_ms()));
        Ok(())
    }

    /// The board works and says so: the answer is due later.
    pub fn handle_progress(&mut self, now: Millis) {
        if self.due.is_some() {
            self.due = Some(now.after(self.answer_ms()));
        }
    }

    /// The board erases before it opens the window; it must say so, or open it.
    pub fn await_window(&mut self, now: Millis) {
        if self.is_shut() {
            self.due = Some(now.after(self.answer_ms()));
        }
    }

    /// The window that the board has opened counts, not the shut one of its Accept.
    fn answer_ms(&self) -> u64 {
        answer_ms(self.base_ms, self.limit.saturating_sub(self.acked))
    }

    /// Whether the window is shut although nothing is under way: the board erases.
    #[must_use]
    pub const fn is_shut(&self) -> bool {
        self.next_len() == 0 && self.next == self.acked && self.next < self.size
    }

    /// Whether the board has committed every byte.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.acked == self.size
    }

    /// When the board's answer is overdue, where one is due.
    #[must_use]
    pub const fn due(&self) -> Option<Millis> {
        self.due
    }
}

/// The worst commit time, three round trips, and the window at 2 KB/s; at least 60 s.
fn answer_ms(base_ms: u64, window: u32) -> u64 {
    let transit = u64::from(window) * 1000 / WINDOW_BYTES_PER_S;
    (base_ms + transit).max(ACK_MS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Reason;
    use crate::id::{Digest, UpdateId};

    fn sending(offset: u32, limit: u32, size: u32) -> Sending {
        let accept = Accept {
            update: UpdateId([1; 8]),
            image_offset: offset,
            prefix: Digest([0; 32]),
            payload_offset: offset,
            limit,
            commit_ms: 100,
        };
        Sending::new(&accept, size, 1024, 64, 500).unwrap()
    }

    #[test]
    fn sending_window_full_flags_the_chunk_that_fills_it() {
        let (mut sending, mut counters) = (sending(0, 2048, 10_000), Counters::default());
        assert_eq!(
            sending.poll_chunk(0, 0, Millis(0), &mut counters),
            Some(ChunkRange {
                part: 0,
                offset: 0,
                len: 1024,
                ack_now: false
            })
        );
        assert_eq!(
            sending.poll_chunk(0, 0, Millis(0), &mut counters),
            Some(ChunkRange {
                part: 0,
                offset: 1024,
                len: 1024,
                ack_now: true
            })
        );
        assert_eq!(sending.poll_chunk(0, 0, Millis(0), &mut counters), None);
        sending
            .handle_ack(
                &Ack {
                    committed: 1024,
                    limit: 3072,
                },
                0,
                Millis(1),
                &mut counters,
            )
            .unwrap();
        assert_eq!(
            sending
                .poll_chunk(0, 0, Millis(1), &mut counters)
                .unwrap()
                .offset,
            2048
        );
        assert_eq!(
            counters,
            Counters {
                committed: 1024,
                sent: 3072,
                resent: 0,
                reached: 3072
            }
        );
    }

    #[test]
    fn sending_the_end_is_one_short_chunk_with_ack_now() {
        let (mut sending, mut counters) = (sending(0, 9000, 1500), Counters::default());
        assert!(
            !sending
                .poll_chunk(0, 0, Millis(0), &mut counters)
                .unwrap()
                .ack_now
        );
        assert_eq!(
            sending.poll_chunk(0, 0, Millis(0), &mut counters),
            Some(ChunkRange {
                part: 0,
                offset: 1024,
                len: 476,
                ack_now: true
            })
        );
        sending
            .handle_ack(
                &Ack {
                    committed: 1500,
                    limit: 9000,
                },
                0,
                Millis(5),
                &mut counters,
            )
            .unwrap();
        assert!(sending.is_done());
        assert_eq!(sending.due(), None);
    }

    #[test]
    fn sending_ack_beyond_sent_is_a_fault() {
        let (mut sending, mut counters) = (sending(0, 2048, 10_000), Counters::default());
        sending.poll_chunk(0, 0, Millis(0), &mut counters);
        assert_eq!(
            sending.handle_ack(
                &Ack {
                    committed: 1025,
                    limit: 4096
                },
                0,
                Millis(0),
                &mut counters
            ),
            Err(Fault(CloseCode::ACK_BEYOND_SENT))
        );
        assert_eq!(
            sending.handle_ack(
                &Ack {
                    committed: 1024,
                    limit: 2047
                },
                0,
                Millis(0),
                &mut counters
            ),
            Err(Fault(CloseCode::FRAME_NOT_ALLOWED))
        );
    }

    #[test]
    fn sending_nack_rewinds_never_below_an_ack_and_counts_resent_bytes() {
        let (mut sending, mut counters) = (sending(0, 4096, 10_000), Counters::default());
        while sending.poll_chunk(0, 0, Millis(0), &mut counters).is_some() {}
        sending
            .handle_ack(
                &Ack {
                    committed: 1024,
                    limit: 4096,
                },
                0,
                Millis(0),
                &mut counters,
            )
            .unwrap();
        let below = Nack {
            offset: 512,
            reason: Reason::CRC,
        };
        assert_eq!(
            sending.handle_nack(&below, Millis(0)),
            Err(Fault(CloseCode::ACK_BEYOND_SENT))
        );
        sending
            .handle_nack(
                &Nack {
                    offset: 2048,
                    reason: Reason::CRC,
                },
                Millis(0),
            )
            .unwrap();
        while sending.poll_chunk(0, 0, Millis(0), &mut counters).is_some() {}
        assert_eq!((counters.sent, counters.resent), (6144, 2048));
    }

    #[test]
    fn the_ack_deadline_is_commit_time_and_three_round_trips_and_the_window_at_2_kb_per_s() {
        assert_eq!(answer_ms(100 + 3 * 500, 2048), 60_000);
        assert_eq!(
            answer_ms(5_000 + 3 * 10_000, 256 * 1024),
            5_000 + 30_000 + 131_072
        );
    }
}
