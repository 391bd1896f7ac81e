//! What is between a client and its socket: rate, delay, stalls, blackouts and a NAT, on a
//! clock that the caller advances (microseconds).

use super::words::{Link, NatThen};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::VecDeque;

/// Payload of a full segment, in bytes.
const SEGMENT: usize = 1_400;
/// What IP and TCP add to each segment on the air, in bytes.
const HEADER: usize = 40;
/// What waits before the bottleneck, at the most: so much time of its rate...
const BUFFER_US: u64 = 100_000;
/// ...but two full segments at least, and where there is no rate so many bytes in all.
const BUFFER_MIN: usize = 2 * SEGMENT;
const IN_FLIGHT_MAX: usize = 256 * 1024;

impl Link {
    /// Whether bytes pass as they are.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = Self {
            name: self.name.clone(),
            ..Self::default()
        };
        *self == plain
    }

    /// Bytes that are on their way to the board at once, where the link has a rate.
    pub(super) fn bytes_under_way(&self) -> Option<u64> {
        let bytes = self.down_bits_per_s * u64::from(self.round_trip_ms) / 8_000;
        (self.down_bits_per_s > 0).then_some(bytes)
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It holds.
    Holds,
    /// Nobody on the way knows it any more, and nobody says so.
    Lost,
    /// The NAT answers with a reset.
    Reset,
}

/// One board's link.
pub(super) struct Model {
    link: Link,
    pub(super) down: Way,
    pub(super) up: Way,
    stall_us: u64,
    blackout_us: u64,
    dark_until_us: u64,
    /// When the NAT saw the connection last.
    seen_us: u64,
    rng: SmallRng,
}

impl Model {
    pub(super) fn new(link: &Link, seed: u64, now_us: u64) -> Self {
        let mut model = Self {
            down: Way::new(link.down_bits_per_s, link),
            up: Way::new(link.up_bits_per_s, link),
            link: link.clone(),
            stall_us: 0,
            blackout_us: 0,
            dark_until_us: 0,
            seen_us: now_us,
            rng: SmallRng::seed_from_u64(seed),
        };
        model.stall_us = model.next(now_us, link.stall_every_s);
        model.blackout_us = model.next(now_us, link.blackout_every_s);
        model
    }

    /// When the next of what comes every so often comes.
    fn next(&mut self, from_us: u64, every_s: u32) -> u64 {
        if every_s == 0 {
            return u64::MAX;
        }
        let chance: f64 = self.rng.random();
        let wait = -(1.0 - chance).ln() * f64::from(every_s) * 1e6;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a wait of some mean times"
        )]
        let wait = wait as u64;
        from_us.saturating_add(wait.max(1))
    }

    fn long(&mut self, [least, most]: [u32; 2]) -> u64 {
        u64::from(self.rng.random_range(least..=most.max(least))) * 1000
    }

    /// Lets the time pass: whether the connection of before holds.
    pub(super) fn advance(&mut self, now_us: u64) -> Fate {
        let mut fate = Fate::Holds;
        while self.stall_us.min(self.blackout_us) <= now_us {
            if self.stall_us <= self.blackout_us {
                let (from, long) = (self.stall_us, self.long(self.link.stall_ms));
                self.down.stall(from, long);
                self.up.stall(from, long);
                self.stall_us = self.next(from.saturating_add(long), self.link.stall_every_s);
            } else {
                let (from, long) = (self.blackout_us, self.long(self.link.blackout_ms));
                self.darken(from.saturating_add(long));
                self.blackout_us = self.next(self.dark_until_us, self.link.blackout_every_s);
                fate = Fate::Lost;
            }
        }
        fate
    }

    /// The link is gone until then.
    pub(super) fn darken(&mut self, until_us: u64) {
        self.dark_until_us = self.dark_until_us.max(until_us);
        self.clear();
    }

    /// Whether the board is attached to its network.
    pub(super) const fn is_up(&self, now_us: u64) -> bool {
        self.dark_until_us <= now_us
    }

    /// A new connection, with a mapping of its own: nothing of the last one is on its way.
    pub(super) fn begin(&mut self, now_us: u64) {
        self.clear();
        self.seen_us = now_us;
    }

    /// What is on its way to the gateway, for the connection to end after it.
    pub(super) fn take_up(&mut self) -> Way {
        let up = Way::new(self.link.up_bits_per_s, &self.link);
        std::mem::replace(&mut self.up, up)
    }

    fn clear(&mut self) {
        self.down.clear();
        self.up.clear();
    }

    /// Something passes the NAT.
    fn pass(&mut self, now_us: u64) -> Fate {
        let silent_us = now_us.saturating_sub(std::mem::replace(&mut self.seen_us, now_us));
        let idle_us = u64::from(self.link.nat_idle_s) * 1_000_000;
        match self.link.nat_then {
            _ if idle_us == 0 || silent_us <= idle_us => Fate::Holds,
            NatThen::Drop => Fate::Lost,
            NatThen::Reset => Fate::Reset,
        }
    }

    /// Bytes came off the socket, at `stamp`.
    pub(super) fn carry_down(&mut self, bytes: &[u8], now_us: u64, stamp: u64) -> Fate {
        let fate = self.pass(now_us);
        if fate == Fate::Holds {
            self.down.push(bytes, now_us, stamp, &mut self.rng);
        }
        fate
    }

    /// The gateway ended the connection: the board hears of it behind the last byte.
    pub(super) fn end_down(&mut self, now_us: u64) -> Fate {
        let fate = self.pass(now_us);
        if fate == Fate::Holds {
            self.down.end(now_us, &mut self.rng);
        }
        fate
    }

    /// The client says something.
    pub(super) fn carry_up(&mut self, bytes: &[u8], now_us: u64, stamp: u64) -> Fate {
        let fate = self.pass(now_us);
        if fate == Fate::Holds {
            self.up.push(bytes, now_us, stamp, &mut self.rng);
        }
        fate
    }
}

/// A piece that arrives at once.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at_us: u64,
    /// Bytes that are left of it; 0: the end of the connection.
    len: usize,
    stamp: u64,
}

/// One direction of a link.
pub(super) struct Way {
    bits_per_s: u64,
    delay_us: u64,
    jitter_us: u64,
    /// The bottleneck is busy until then.
    free_us: u64,
    /// Nothing arrives before what was sent before it.
    last_us: u64,
    pieces: VecDeque<Piece>,
    bytes: VecDeque<u8>,
}

impl Way {
    fn new(bits_per_s: u64, link: &Link) -> Self {
        Self {
            bits_per_s,
            delay_us: u64::from(link.round_trip_ms) * 500,
            jitter_us: u64::from(link.jitter_ms) * 1000,
            free_us: 0,
            last_us: 0,
            pieces: VecDeque::new(),
            bytes: VecDeque::new(),
        }
    }

    fn clear(&mut self) {
        self.pieces = VecDeque::new();
        self.bytes = VecDeque::new();
        // The bottleneck is free of what was before it.
        (self.free_us, self.last_us) = (0, 0);
    }

    fn air_us(&self, bytes: usize) -> u64 {
        (bytes as u64 * 8_000_000)
            .checked_div(self.bits_per_s)
            .unwrap_or(0)
    }

    fn buffer_us(&self) -> u64 {
        BUFFER_US.max(self.air_us(BUFFER_MIN + 2 * HEADER))
    }

    /// Bytes that it takes now.
    pub(super) fn room(&self, now_us: u64) -> usize {
        if self.bits_per_s == 0 {
            return IN_FLIGHT_MAX.saturating_sub(self.bytes.len());
        }
        let waits_us = self.free_us.saturating_sub(now_us);
        let left_us = self.buffer_us().saturating_sub(waits_us);
        // Headers take their part. Less than a segment is worth no look.
        let bytes = left_us.saturating_mul(self.bits_per_s) / 8_000_000;
        let bytes = bytes * SEGMENT as u64 / (SEGMENT + HEADER) as u64;
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(IN_FLIGHT_MAX)
    }

    /// When there is room again for a segment, if there is none now.
    pub(super) fn room_us(&self, now_us: u64) -> u64 {
        if self.bits_per_s == 0 {
            return u64::MAX; // When something has arrived.
        }
        let spare_us = self
            .buffer_us()
            .saturating_sub(self.air_us(SEGMENT + HEADER));
        self.free_us.saturating_sub(spare_us).max(now_us + 1)
    }

    /// Whether a segment finds room.
    pub(super) fn has_room(&self, now_us: u64) -> bool {
        self.room(now_us) >= SEGMENT
    }

    fn push(&mut self, bytes: &[u8], now_us: u64, stamp: u64, rng: &mut SmallRng) {
        for segment in bytes.chunks(SEGMENT) {
            self.free_us = self.free_us.max(now_us) + self.air_us(segment.len() + HEADER);
            let at_us = self.arrival(rng);
            self.pieces.push_back(Piece {
                at_us,
                len: segment.len(),
                stamp,
            });
        }
        self.bytes.extend(bytes);
    }

    fn end(&mut self, now_us: u64, rng: &mut SmallRng) {
        self.free_us = self.free_us.max(now_us) + self.air_us(HEADER);
        let at_us = self.arrival(rng);
        self.pieces.push_back(Piece {
            at_us,
            len: 0,
            stamp: 0,
        });
    }

    /// When what leaves the bottleneck last arrives.
    fn arrival(&mut self, rng: &mut SmallRng) -> u64 {
        let jitter_us = rng.random_range(0..=self.jitter_us);
        let at_us = self.free_us + self.delay_us + jitter_us;
        self.last_us = self.last_us.max(at_us);
        self.last_us
    }

    /// Nothing moves from then on for so long.
    fn stall(&mut self, from_us: u64, long_us: u64) {
        self.free_us = self.free_us.max(from_us) + long_us;
        self.last_us = self.last_us.max(from_us) + long_us;
        for piece in &mut self.pieces {
            if piece.at_us > from_us {
                piece.at_us += long_us;
            }
        }
    }

    /// When the next piece arrives.
    pub(super) fn due_us(&self) -> u64 {
        self.pieces.front().map_or(u64::MAX, |piece| piece.at_us)
    }

    /// Whether the end of the connection is what has arrived.
    pub(super) fn has_ended(&self, now_us: u64) -> bool {
        self.pieces
            .front()
            .is_some_and(|piece| piece.len == 0 && piece.at_us <= now_us)
    }

    /// The bytes that have arrived, as far as they lie together.
    pub(super) fn arrived(&self, now_us: u64) -> &[u8] {
        let len = self
            .pieces
            .iter()
            .take_while(|piece| piece.at_us <= now_us && piece.len > 0)
            .map(|piece| piece.len)
            .sum();
        let (bytes, _) = self.bytes.as_slices();
        bytes.get(..len).unwrap_or(bytes)
    }

    /// Takes so many of them away: gives the stamp of each piece that they are of, and whether
    /// that was its last byte.
    pub(super) fn take(&mut self, mut len: usize, mut of: impl FnMut(u64, bool)) {
        self.bytes.drain(..len.min(self.bytes.len()));
        while len > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let taken = piece.len.min(len);
            piece.len -= taken;
            len -= taken;
            of(piece.stamp, piece.len == 0);
            if piece.len == 0 {
                self.pieces.pop_front();
            }
        }
        if self.pieces.is_empty() {
            self.bytes = VecDeque::new();
        }
    }

    /// Bytes on their way or arrived.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}
