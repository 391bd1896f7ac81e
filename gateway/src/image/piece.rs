//! A part of an image in memory, with the CRCs of its chunks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Least chunk whose CRCs are kept, in bytes: below it they would take more room than they save time.
const CHUNK_MIN: usize = 512;

/// A part of an image, shared by all that deliver it at the time.
#[derive(Debug)]
pub struct Piece {
    bytes: Vec<u8>,
    crcs: OnceLock<Crcs>,
}

/// CRCs of chunks of one size, that of whoever came first: boards of one product have the same.
#[derive(Debug)]
struct Crcs {
    chunk: usize,
    /// By number of the chunk: bit 32 where it is known, and the CRC.
    known: Box<[AtomicU64]>,
}

const KNOWN: u64 = 1 << 32;

impl Piece {
    /// These bytes of an image.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            crcs: OnceLock::new(),
        }
    }

    /// A chunk of `len` bytes from `from` on, within the piece, and its CRC-32 (spec/protocol.md section 8);
    /// none where the piece ends before.
    #[must_use]
    pub fn chunk(&self, from: usize, len: usize) -> Option<(&[u8], u32)> {
        let bytes = self.bytes.get(from..from.checked_add(len)?)?;
        let compute = || crc32fast::hash(bytes);
        if len < CHUNK_MIN || !from.is_multiple_of(len) {
            return Some((bytes, compute()));
        }
        let crcs = self.crcs.get_or_init(|| Crcs {
            chunk: len,
            known: (0..self.bytes.len() / len)
                .map(|_| AtomicU64::new(0))
                .collect(),
        });
        let Some(place) = crcs.known.get(from / len).filter(|_| crcs.chunk == len) else {
            return Some((bytes, compute()));
        };
        let known = place.load(Ordering::Relaxed);
        if known & KNOWN != 0 {
            return Some((bytes, u32::try_from(known & !KNOWN).ok()?));
        }
        let crc = compute();
        place.store(KNOWN | u64::from(crc), Ordering::Relaxed);
        Some((bytes, crc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_of_every_chunk_is_that_of_its_bytes_the_first_time_and_later() {
        let bytes: Vec<u8> = (0..10_000_u32)
            .map(|at| (at * 31 % 251).to_le_bytes()[0])
            .collect();
        let piece = Piece::new(bytes.clone());
        for _ in 0..2 {
            for len in [4096, 1024, 512, 100, 1808, 10_000] {
                for from in (0..=bytes.len() - len).step_by(len / 2) {
                    let (chunk, crc) = piece.chunk(from, len).unwrap();
                    assert_eq!(chunk, &bytes[from..from + len]);
                    assert_eq!(crc, crc32fast::hash(chunk), "{len} bytes from {from} on");
                }
            }
        }
        let crcs = piece.crcs.get().unwrap();
        assert_eq!((crcs.chunk, crcs.known.len()), (4096, 2));
        assert!(piece.chunk(9_999, 2).is_none());
        assert!(piece.chunk(usize::MAX, 2).is_none());
    }
}
