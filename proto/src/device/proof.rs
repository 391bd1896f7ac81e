//! The resume proof, and the check of the whole image (spec/protocol.md section 8.3).

use crate::hash::Sha256;
use crate::id::Digest;
use crate::manifest::Remembered;

/// A digest that grows with the committed prefix of the slot.
#[derive(Clone)]
pub(super) struct Proof {
    pub(super) hasher: Sha256,
    pub(super) len: u32,
}

impl Proof {
    pub(super) fn new() -> Self {
        Self {
            hasher: Sha256::new(),
            len: 0,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finish())
    }

    /// Compares what was read back with what was signed: the only way to the token.
    pub(super) fn verify(&self, image: &Remembered) -> Option<DigestVerified> {
        let whole = self.len == image.size && self.digest() == image.sha256;
        whole.then_some(DigestVerified(()))
    }
}

/// The whole image was read back and is the signed one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DigestVerified(());
