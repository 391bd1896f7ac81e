//! Large buffers of transfers, used in turn: a transfer has one only while sealed bytes wait in it, and
//! the next one to seal finds it still in the processor's cache.

use super::BATCH_MAX;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that wait for their next use, most: one for each of many workers.
pub(super) const KEPT: usize = 16;

/// Largest buffer that is kept, in bytes: two batches and the largest record. One that answers to a board
/// that did not read have made larger goes.
const KEPT_MAX: usize = 2 * BATCH_MAX + 17 * 1024;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer with room for a batch and a record of this size, for `small`, whose bytes it takes over.
    pub(super) fn exchange(&self, small: &mut Vec<u8>, record: usize) {
        let mut large = self
            .kept()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BATCH_MAX + record));
        large.extend_from_slice(small);
        *small = large;
    }

    /// Takes back a buffer that is empty now, where it is a large one.
    pub(super) fn give_back(&self, used: &mut Vec<u8>) {
        if used.capacity() < BATCH_MAX {
            return;
        }
        let mut used = std::mem::take(used);
        if used.capacity() > KEPT_MAX {
            return;
        }
        used.clear();
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_from_one_transfer_to_the_next_and_few_are_kept() {
        let buffers = Buffers::default();
        let mut first = vec![7; 100];
        buffers.exchange(&mut first, 4_190);
        assert_eq!(first, vec![7; 100]);
        assert!(first.capacity() >= BATCH_MAX + 4_190);
        let place = first.as_ptr();
        buffers.give_back(&mut first);
        assert_eq!(first.capacity(), 0, "the transfer holds none");
        let mut second = vec![8; 3];
        buffers.exchange(&mut second, 4_190);
        assert_eq!((second.as_ptr(), &second[..]), (place, &[8; 3][..]));

        let mut small = Vec::with_capacity(1000);
        buffers.give_back(&mut small);
        assert_eq!(small.capacity(), 1000, "a small one stays where it is");
        let mut huge = Vec::with_capacity(KEPT_MAX + 1);
        buffers.give_back(&mut huge);
        assert!(huge.capacity() == 0 && buffers.kept().is_empty());
        let many: Vec<_> = (0..2 * KEPT)
            .map(|_| {
                let mut buffer = Vec::new();
                buffers.exchange(&mut buffer, 0);
                buffer
            })
            .collect();
        for mut buffer in many {
            buffers.give_back(&mut buffer);
        }
        assert_eq!(buffers.kept().len(), KEPT);
    }
}
