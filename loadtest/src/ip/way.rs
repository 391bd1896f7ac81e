//! One direction of a link, on a clock that the caller advances (microseconds).

use super::tcp::Streams;
use crate::fleet::words::Link;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::VecDeque;

/// Least queue in bytes: some full packets, whatever the rate.
const QUEUE_MIN: usize = 16 * 1024;

/// What a link does with packets, alike in both directions but for the rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Bits per second towards the board; 0: as many as come.
    pub down_bits_per_s: u64,
    /// Bits per second from the board; 0: as many as come.
    pub up_bits_per_s: u64,
    /// Round trip without anything in the queues, in milliseconds.
    pub round_trip_ms: u32,
    /// Each direction's delay varies by as much, in milliseconds, without reordering.
    pub jitter_ms: u32,
    /// Share of packets that are lost on the air, 0 to 1.
    pub loss: f64,
    /// Bytes that wait before the bottleneck, most; what comes then is dropped.
    pub queue: [usize; 2],
}

impl Shape {
    /// The rates, round trip and jitter of a link's model, with a queue of one round trip and a
    /// second more. Its stalls, blackouts and time-outs are not taken over.
    #[must_use]
    pub fn of(link: &Link, loss: f64) -> Self {
        let queue = |bits_per_s: u64| {
            let bytes = bits_per_s * u64::from(link.round_trip_ms + 1_000) / 8_000;
            usize::try_from(bytes).unwrap_or(usize::MAX).max(QUEUE_MIN)
        };
        Self {
            down_bits_per_s: link.down_bits_per_s,
            up_bits_per_s: link.up_bits_per_s,
            round_trip_ms: link.round_trip_ms,
            jitter_ms: link.jitter_ms,
            loss,
            queue: [queue(link.down_bits_per_s), queue(link.up_bits_per_s)],
        }
    }
}

/// What has become of one direction's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that went on the air, those lost there included.
    pub packets: u64,
    /// Their bytes, headers of IP included.
    pub bytes: u64,
    /// Of these packets: lost on the air, by chance or by a blackout that came.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets that came in a blackout.
    pub dark: u64,
    /// Bytes of TCP payload that went on the air, or into the dark, and had been sent before.
    pub tcp_repeated: u64,
}

impl std::ops::Sub for Count {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            lost: self.lost - before.lost,
            overflowed: self.overflowed - before.overflowed,
            dark: self.dark - before.dark,
            tcp_repeated: self.tcp_repeated - before.tcp_repeated,
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    bits_per_s: u64,
    delay_us: u64,
    jitter_us: u64,
    loss: f64,
    queue: usize,
    rng: SmallRng,
    /// The bottleneck is busy until then.
    free_us: u64,
    /// Nothing arrives before what was sent before it.
    last_us: u64,
    dark_until_us: u64,
    under_way: VecDeque<(u64, Vec<u8>)>,
    streams: Streams,
    pub(super) count: Count,
}

impl Way {
    pub(super) fn new(shape: &Shape, bits_per_s: u64, queue: usize, seed: u64) -> Self {
        Self {
            bits_per_s,
            delay_us: u64::from(shape.round_trip_ms) * 500,
            jitter_us: u64::from(shape.jitter_ms) * 1_000,
            loss: shape.loss,
            queue,
            rng: SmallRng::seed_from_u64(seed),
            free_us: 0,
            last_us: 0,
            dark_until_us: 0,
            under_way: VecDeque::new(),
            streams: Streams::default(),
            count: Count::default(),
        }
    }

    /// Nothing passes until then, and what is on its way is lost.
    pub(super) fn darken(&mut self, until_us: u64) {
        self.dark_until_us = self.dark_until_us.max(until_us);
        self.count.lost += self.under_way.len() as u64;
        self.under_way.clear();
        (self.free_us, self.last_us) = (0, 0);
    }

    /// Bytes that wait before the bottleneck.
    fn waiting(&self, now_us: u64) -> usize {
        let waits_us = self.free_us.saturating_sub(now_us);
        usize::try_from(waits_us * self.bits_per_s / 8_000_000).unwrap_or(usize::MAX)
    }

    /// A packet comes in.
    pub(super) fn push(&mut self, packet: &[u8], now_us: u64) {
        if self.waiting(now_us) + packet.len() > self.queue && self.bits_per_s > 0 {
            self.count.overflowed += 1;
            return;
        }
        self.count.tcp_repeated += self.streams.repeated(packet);
        if now_us < self.dark_until_us {
            self.count.dark += 1;
            return;
        }
        self.count.packets += 1;
        self.count.bytes += packet.len() as u64;
        let air_us = (packet.len() as u64 * 8_000_000).checked_div(self.bits_per_s);
        self.free_us = self.free_us.max(now_us) + air_us.unwrap_or(0);
        // Both are drawn for every packet, so that one's fate does not shift another's.
        let jitter_us = self.rng.random_range(0..=self.jitter_us);
        let chance: f64 = self.rng.random();
        if chance < self.loss {
            self.count.lost += 1;
            return;
        }
        self.last_us = self.last_us.max(self.free_us + self.delay_us + jitter_us);
        self.under_way.push_back((self.last_us, packet.to_vec()));
    }

    /// When the next packet arrives.
    pub(super) fn due_us(&self) -> Option<u64> {
        self.under_way.front().map(|(due_us, _)| *due_us)
    }

    /// The next packet that has arrived.
    pub(super) fn pop(&mut self, now_us: u64) -> Option<Vec<u8>> {
        self.due_us().filter(|due_us| *due_us <= now_us)?;
        self.under_way.pop_front().map(|(_, packet)| packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 80 kbit/s: 10 bytes in a millisecond; 100 ms in each direction.
    fn shape() -> Shape {
        Shape {
            down_bits_per_s: 80_000,
            up_bits_per_s: 80_000,
            round_trip_ms: 200,
            jitter_ms: 0,
            loss: 0.0,
            queue: [1_000; 2],
        }
    }

    fn way(shape: &Shape) -> Way {
        Way::new(shape, shape.down_bits_per_s, 1_000, 1)
    }

    #[test]
    fn packets_take_their_time_and_a_full_queue_drops_the_last() {
        let mut way = way(&shape());
        for _ in 0..4 {
            way.push(&[0; 300], 0);
        }
        assert_eq!(way.count.overflowed, 1);
        assert_eq!((way.count.packets, way.count.bytes), (3, 900));
        for at_us in [130_000, 160_000, 190_000] {
            assert_eq!(way.pop(at_us - 1), None);
            assert_eq!(way.due_us(), Some(at_us));
            assert_eq!(way.pop(at_us).map(|packet| packet.len()), Some(300));
        }
        // The queue has emptied meanwhile.
        way.push(&[0; 1_000], 90_000);
        assert_eq!((way.count.packets, way.due_us()), (4, Some(290_000)));
    }

    #[test]
    fn a_blackout_takes_what_is_on_its_way_and_what_comes_and_ends() {
        let mut way = way(&shape());
        way.push(&[0; 100], 0);
        way.darken(1_000_000);
        way.push(&[0; 100], 999_999);
        assert_eq!(way.pop(u64::MAX), None);
        assert_eq!(
            (way.count.lost, way.count.dark, way.count.packets),
            (1, 1, 1)
        );
        way.push(&[0; 100], 1_000_000);
        assert_eq!(way.due_us(), Some(1_110_000));
    }

    #[test]
    fn losses_are_as_many_as_asked_and_come_again_with_the_seed() {
        let lossy = Shape {
            loss: 0.1,
            jitter_ms: 20,
            ..shape()
        };
        let run = |seed| {
            let mut way = Way::new(&lossy, 0, 0, seed);
            let mut dues = Vec::new();
            for packet in 0..10_000 {
                way.push(&[1; 10], packet * 1_000);
                dues.extend(way.due_us());
                while way.pop(packet * 1_000).is_some() {}
            }
            (way.count, dues)
        };
        let (count, dues) = run(7);
        assert!((800..1_200).contains(&count.lost), "{count:?}");
        assert!(dues.is_sorted(), "packets overtake each other");
        assert_eq!(run(7), (count, dues));
        assert_ne!(run(8).0, count);
    }

    #[test]
    fn a_preset_gives_rates_and_a_queue_of_its_own() {
        let link = Link::preset("2g").unwrap();
        let shape = Shape::of(&link, 0.01);
        assert_eq!((shape.down_bits_per_s, shape.round_trip_ms), (100_000, 700));
        // 1.7 s of 100 kbit/s; 40 kbit/s would be less than the least.
        assert_eq!(shape.queue, [21_250, QUEUE_MIN]);
    }
}
