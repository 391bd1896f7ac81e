//! Randomness that a board without a generator can answer for (spec/security.md,
//! randomness): the journal's seed, the device key, the provisioned seed and the board's
//! noise, mixed at boot; the next seed is durable before the first byte is used.

use crate::journal::{Journal, JournalError};
use crate::rng::Rng;
use dialhome_proto::device::Cell;
use dialhome_proto::link::DeviceKey;
use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A stream of secret bytes for one boot.
pub(crate) struct Random {
    key: Zeroizing<[u8; 32]>,
    count: u64,
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
        let mut piece = Zeroizing::new([0_u8; 32]);
        let mut mixer = HkdfExtract::<Sha256>::new(Some(b"dialhome seed 1"));
        let loaded = journal.load(Cell::Seed.number(), &mut *piece);
        mixer.input_ikm(&*piece);
        mixer.input_ikm(key.bytes());
        rng.fill(&mut *piece);
        mixer.input_ikm(&*piece);
        // Last, because it may be missing: the pieces before it have a fixed length.
        if let Some(seed) = provisioned {
            mixer.input_ikm(seed);
        }
        let (_, mixed) = mixer.finalize();
        let mut next = Zeroizing::new([0; 32]);
        let mut stream = Zeroizing::new([0; 32]);
        expand(&mixed, b"next seed", &mut next);
        expand(&mixed, b"this boot", &mut stream);
        let stored = loaded.and_then(|_| journal.store(Cell::Seed.number(), &*next));
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
        let mut noise = [0; 32];
        rng.fill(&mut noise);
        self.count += 1;
        let mut out = [0; 32];
        let mixed = Hkdf::<Sha256>::new(Some(&noise), &*self.key);
        expand(&mixed, &self.count.to_be_bytes(), &mut out);
        out
    }
}

fn expand(mixed: &Hkdf<Sha256>, info: &[u8], out: &mut [u8; 32]) {
    // One hash's length is always allowed.
    let _ = mixed.expand(info, out);
}
