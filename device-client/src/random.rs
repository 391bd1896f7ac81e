//! Randomness that a board without a generator can answer for (spec/security.md,
//! randomness): the journal's seed, the device key, the provisioned seed and the board's
//! noise, mixed at boot; the next seed is durable before the first byte is used.

use crate::journal::{Journal, JournalError};
use crate::rng::Rng;
use dialhome_proto::device::Cell;
use dialhome_proto::hash::Hkdf;
use dialhome_proto::link::DeviceKey;
use zeroize::Zeroizing;

/// A stream of secret bytes for one boot.
pub(crate) struct Random {
    key: Zeroizing<[u8; 32]>,
    count: u32,
}

impl Random {
    /// Mixes a new stream, and stores the seed of the next boot first. Where the
    /// journal fails, the stream still holds the board's noise and the old seed.
    /// `provisioned` is what a board has before its journal holds a seed, and mixes
    /// in at every boot.
    pub(crate) fn start(
        journal: &mut impl Journal,
        key: &DeviceKey,
        provisioned: Option<&[u8; 32]>,
        rng: &mut impl Rng,
    ) -> (Self, Result<(), JournalError>) {
        let mut old = Zeroizing::new([0_u8; 32]);
        let mut noise = Zeroizing::new([0_u8; 32]);
        // A seed that cannot be read counts as zeros: the other pieces are still there.
        let _ = journal.load(Cell::Seed.number(), &mut *old);
        rng.fill(&mut *noise);
        // The provisioned seed is last, because it may be missing: the pieces before it
        // have a fixed length.
        let provisioned = provisioned.map_or(&[][..], |seed| seed.as_slice());
        let pieces = [&*old, key.bytes(), &*noise, provisioned];
        let mixed = Hkdf::extract(b"dialhome seed 1", &pieces);
        let next: Zeroizing<[u8; 32]> = Zeroizing::new(mixed.expand(b"next seed"));
        let stream = Zeroizing::new(mixed.expand(b"this boot"));
        // Also where the old seed was damaged: the next boot must not begin where this one did.
        let stored = journal.store(Cell::Seed.number(), &*next);
        (
            Self {
                key: stream,
                count: 0,
            },
            stored,
        )
    }

    /// The next 32 bytes, with the board's noise of this moment mixed in.
    pub(crate) fn draw(&mut self, rng: &mut impl Rng) -> [u8; 32] {
        let mut noise = Zeroizing::new([0; 32]);
        rng.fill(&mut *noise);
        self.count = self.count.wrapping_add(1);
        Hkdf::extract(&*noise, &[&*self.key]).expand(&self.count.to_be_bytes())
    }
}
