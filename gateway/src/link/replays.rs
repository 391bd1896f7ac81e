//! The memory of first messages that passed (spec/protocol.md section 2.3).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use dialhome_proto::id::Handle;
use dialhome_proto::limits::REPLAY_EPHEMERALS;

/// So many handles are remembered at least, however many others dial.
///
/// Memory: an entry is the handle, 4 bytes of each of the last 8 ephemeral keys and
/// their number, 41 bytes, and 1 byte of the table's own. 114,688 is 7/8 of 2^17, so
/// that a full generation is a table of 2^17 x 42 bytes = 5.5 MB, and both 11.0 MB; a
/// fleet of 10,000 boards takes 0.7 MB.
pub const HANDLES_REMEMBERED_MIN: usize = 114_688;

/// The ephemeral public keys of the last [`REPLAY_EPHEMERALS`] first messages of
/// each handle whose tag was right. A message that somebody recorded and sends
/// again has a right tag too; it is refused here, for the price of a table look-up
/// instead of two X25519.
///
/// Only boards that hold a key get in, so a flood cannot push anything out. The
/// bound on handles is kept by generations: when the young one is full it becomes
/// the old one, and what was the old one is dropped. After a restart, or with more
/// recordings than are remembered, a replay costs its X25519 and still changes
/// nothing: it cannot produce the first record.
pub struct Replays {
    generations: Mutex<Generations>,
}

struct Generations {
    young: HashMap<Handle, Seen>,
    old: HashMap<Handle, Seen>,
    young_max: usize,
}

/// Newest first. 4 bytes of a key that is random are enough to know it again: two
/// honest ones agree in them once in 2^32 / 8 dials, and the board then dials again.
#[derive(Clone, Copy)]
struct Seen {
    keys: [[u8; 4]; REPLAY_EPHEMERALS],
    count: u8,
}

impl Replays {
    /// Remembers at least `handles_min` handles and at most twice as many.
    #[must_use]
    pub fn new(handles_min: usize) -> Self {
        Self {
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                young_max: handles_min.max(1),
            }),
        }
    }

    /// Whether this is the first time that `ephemeral` comes with `handle`; from
    /// now on it is not. To be asked only about a message whose tag was right.
    #[must_use]
    pub fn admit(&self, handle: Handle, ephemeral: &[u8; 32]) -> bool {
        let [a, b, c, d, ..] = *ephemeral;
        self.generations
            .lock()
            // No code that holds the lock leaves the tables half changed.
            .unwrap_or_else(PoisonError::into_inner)
            .admit(handle, [a, b, c, d])
    }
}

impl Generations {
    fn admit(&mut self, handle: Handle, key: [u8; 4]) -> bool {
        if let Some(seen) = self.young.get_mut(&handle) {
            return seen.admit(key);
        }
        let mut seen = self.old.remove(&handle).unwrap_or(Seen::NOTHING);
        let first_time = seen.admit(key);
        if self.young.len() >= self.young_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(handle, seen);
        first_time
    }
}

impl Seen {
    const NOTHING: Self = Self {
        keys: [[0; 4]; REPLAY_EPHEMERALS],
        count: 0,
    };

    fn admit(&mut self, key: [u8; 4]) -> bool {
        let known = usize::from(self.count);
        if self.keys[..known].contains(&key) {
            return false;
        }
        self.keys.rotate_right(1);
        self.keys[0] = key;
        if known < REPLAY_EPHEMERALS {
            self.count += 1;
        }
        true
    }
}

impl fmt::Debug for Replays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replays")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    fn handle(n: u64) -> Handle {
        Handle(n.to_le_bytes())
    }

    #[test]
    fn the_last_ones_of_each_handle_are_known_and_older_ones_are_not() {
        let replays = Replays::new(10);
        let last = REPLAY_EPHEMERALS as u64;
        for n in 0..=last {
            assert!(replays.admit(handle(1), &key(n)));
        }
        for n in 1..=last {
            assert!(!replays.admit(handle(1), &key(n)), "key {n}");
        }
        assert!(replays.admit(handle(1), &key(0)), "pushed out by the ninth");
        assert!(replays.admit(handle(2), &key(1)), "another handle's");
    }

    #[test]
    fn a_key_of_zeros_is_a_key_like_any_other() {
        let replays = Replays::new(10);
        assert!(replays.admit(handle(1), &key(0)));
        assert!(!replays.admit(handle(1), &key(0)));
    }

    #[test]
    fn as_many_handles_as_promised_are_remembered_and_no_more_than_twice_that() {
        let replays = Replays::new(100);
        for n in 0..1000 {
            assert!(replays.admit(handle(n), &key(n)));
            let generations = replays.generations.lock().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 200);
        }
        for n in 901..1000 {
            assert!(!replays.admit(handle(n), &key(n)), "handle {n}");
        }
    }
}
