//! What the boards of a crew count together.

use super::words::{GangCount, Tick, Word};
use crate::measure::clock;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

/// Waits for acknowledgement that one tick holds at the most: a fair sample of them.
const WAITS: usize = 512;

/// The counts of a crew, and its voice.
pub(super) struct Tally {
    counts: RefCell<Counts>,
    voice: Sender<Word>,
}

struct Counts {
    tick: Tick,
    rng: SmallRng,
}

impl Tally {
    pub(super) fn new(images: usize, gangs: usize, seed: u64, voice: Sender<Word>) -> Self {
        let tick = Tick {
            confirmed_images: vec![0; images],
            gangs: vec![GangCount::default(); gangs],
            ..Tick::default()
        };
        Self {
            counts: RefCell::new(Counts {
                tick,
                rng: SmallRng::seed_from_u64(seed),
            }),
            voice,
        }
    }

    /// Says a word at once.
    pub(super) fn say(&self, word: Word) {
        // The other end is a thread that lives as long as the crew.
        let _ = self.voice.send(word);
    }

    /// Changes the counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut Tick)) {
        change(&mut self.counts.borrow_mut().tick);
    }

    /// A chunk waited for its acknowledgement from `from_ns` until now.
    pub(super) fn acknowledged(&self, from_ns: u64) {
        let ms = clock::now_ns().saturating_sub(from_ns) as f64 / 1e6;
        #[expect(clippy::cast_possible_truncation, reason = "a figure for a plot")]
        let ms = ms as f32;
        let counts = &mut *self.counts.borrow_mut();
        counts.tick.acks += 1;
        if counts.tick.ack_ms.len() < WAITS {
            counts.tick.ack_ms.push(ms);
            return;
        }
        // Each of them stays with the same chance.
        let place = counts.rng.random_range(0..counts.tick.acks);
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(slot) = counts.tick.ack_ms.get_mut(place) {
            *slot = ms;
        }
    }

    /// Says how the boards stand.
    pub(super) fn tick(&self) {
        let counts = &mut *self.counts.borrow_mut();
        counts.tick.at_ns = clock::now_ns();
        counts.tick.confirmed = counts.tick.confirmed_images.last().copied().unwrap_or(0);
        let tick = Box::new(counts.tick.clone());
        counts.tick.ack_ms.clear();
        counts.tick.acks = 0;
        self.say(Word::Tick(tick));
    }
}

/// One more of these.
pub(super) fn one_more(of: &mut BTreeMap<String, u64>, name: &str) {
    match of.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            of.insert(name.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_tick_says_how_many_waits_its_sample_stands_for() {
        let (voice, words) = channel();
        let tally = Tally::new(0, 0, 1, voice);
        for _ in 0..2 * WAITS {
            tally.acknowledged(clock::now_ns());
        }
        tally.tick();
        tally.acknowledged(clock::now_ns());
        tally.tick();
        let ticks: Vec<_> = words
            .try_iter()
            .map(|word| match word {
                Word::Tick(tick) => (tick.ack_ms.len(), tick.acks),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ticks, [(WAITS, 2 * WAITS as u64), (1, 1)]);
    }
}
