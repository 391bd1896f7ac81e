//! One direction of a serial line: bytes in order, each at its time.

use std::collections::VecDeque;
use std::time::Duration;

/// Bits on the line for one byte: start, eight, stop.
const BITS: u64 = 10;

/// How long a byte takes at a rate in bits a second; 0: no time.
#[must_use]
pub fn byte_time(baud: u32) -> Duration {
    match u64::from(baud) {
        0 => Duration::ZERO,
        baud => Duration::from_nanos(BITS * 1_000_000_000 / baud),
    }
}

/// A queue of bytes that leave one after the other, not before they may.
#[derive(Debug)]
pub(crate) struct Pace {
    byte: Duration,
    /// When the last byte that was given out had passed.
    free_at: Duration,
    bytes: VecDeque<(Duration, u8)>,
}

impl Pace {
    /// An empty line of so many bits a second; 0: bytes take no time.
    #[must_use]
    pub(crate) fn new(baud: u32) -> Self {
        Self {
            byte: byte_time(baud),
            free_at: Duration::ZERO,
            bytes: VecDeque::new(),
        }
    }

    /// Adds bytes that start at `from` at the earliest.
    pub(crate) fn push(&mut self, bytes: &[u8], from: Duration) {
        self.bytes.extend(bytes.iter().map(|byte| (from, *byte)));
    }

    /// When the next byte has passed.
    #[must_use]
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let (from, _) = self.bytes.front()?;
        Some((*from).max(self.free_at) + self.byte)
    }

    /// The next byte, if it has passed by now.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<u8> {
        let at = self.next_at().filter(|at| *at <= now)?;
        self.free_at = at;
        self.bytes.pop_front().map(|(_, byte)| byte)
    }

    /// Nothing passes before this time.
    pub(crate) fn hold(&mut self, until: Duration) {
        self.free_at = self.free_at.max(until);
    }

    /// Forgets what has not passed.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Forgets up to so many bytes that have not passed; how many there were.
    pub(crate) fn lose(&mut self, count: usize) -> usize {
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn bytes_take_ten_bits_each() {
        assert_eq!(byte_time(9600), Duration::from_nanos(1_041_666));
        assert_eq!(byte_time(115_200), Duration::from_nanos(86_805));
        assert_eq!(byte_time(0), Duration::ZERO);
        let mut pace = Pace::new(10_000);
        pace.push(b"abc", 5 * MS);
        assert_eq!(pace.next_at(), Some(6 * MS));
        assert_eq!(pace.pop(5 * MS), None);
        assert_eq!(pace.pop(6 * MS), Some(b'a'));
        assert_eq!(pace.pop(6 * MS), None);
        assert_eq!(
            (pace.pop(8 * MS), pace.pop(8 * MS)),
            (Some(b'b'), Some(b'c'))
        );
        assert_eq!(pace.next_at(), None);
        // A line that was idle starts when the byte does, not where the last one ended.
        pace.push(b"d", 100 * MS);
        assert_eq!(pace.next_at(), Some(101 * MS));
    }

    #[test]
    fn held_line_lets_nothing_through() {
        let mut pace = Pace::new(0);
        pace.push(b"ab", MS);
        pace.hold(9 * MS);
        assert_eq!(pace.pop(8 * MS), None);
        assert_eq!(pace.lose(1), 1);
        assert_eq!(pace.pop(9 * MS), Some(b'b'));
    }
}
