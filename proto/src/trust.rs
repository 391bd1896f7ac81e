//! Whom a board trusts, and the check of signatures against it
//! (spec/protocol.md sections 6.2 and 6.3).

use core::fmt;

use crate::code::Reason;
use crate::hash::sha256;
use crate::id::SignerId;
use crate::limits::{SIGNATURES_MAX, TRUST_KEYS_MAX, TRUST_MINIMUMS_MAX};
use crate::stored::{Stored, Way, load};
use crate::wire::Writer;
use heapless::Vec;

/// Bytes of one signature in a manifest or statement: signer id and Ed25519 signature.
pub const SIGNATURE_LEN: usize = 8 + 64;

/// Ed25519 verification, which boards and servers do with different libraries.
pub trait VerifySignature {
    /// Whether `signature` is `public_key`'s valid signature over `message` (RFC 8032, pure Ed25519).
    ///
    /// An implementation refuses a signature whose scalar is not reduced and a public key of small
    /// order, so that one body has one valid signature per key. A key that is not a point is `false`.
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

/// Proof that enough keys of a board's TrustSet signed the bytes at hand.
///
/// Only the checks of this crate make one; a state that installs an image asks for it, so that
/// leaving the check out does not compile.
#[derive(Debug, PartialEq, Eq)]
pub struct SignatureVerified(());

impl SignatureVerified {
    /// For what was stored only after it had been verified, and is read back from the journal.
    pub(crate) const fn remembered() -> Self {
        Self(())
    }
}

/// The id that stands for an Ed25519 public key in a signature: the first 8 bytes of its SHA-256.
#[must_use]
pub fn signer_id(public_key: &[u8; 32]) -> SignerId {
    let [a, b, c, d, e, f, g, h, ..] = sha256(&[public_key]);
    SignerId([a, b, c, d, e, f, g, h])
}

/// The keys that a board trusts, how many of them must sign, and the oldest counters it may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustSet {
    /// Which TrustSet this is; a later one has a higher epoch. Never 0.
    pub epoch: u32,
    /// So many different keys must have signed, 1..=3.
    pub threshold: u8,
    /// Ed25519 public keys, each once.
    pub keys: Vec<[u8; 32], TRUST_KEYS_MAX>,
    /// Component, and the lowest counter that is not withdrawn; each component once.
    pub minimums: Vec<(u8, u64), TRUST_MINIMUMS_MAX>,
}

impl Stored for TrustSet {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.number(&mut self.epoch);
        way.byte(&mut self.threshold);
        way.list(&mut self.keys);
        way.list(&mut self.minimums);
    }
}

impl Stored for (u8, u64) {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.byte(&mut self.0);
        way.counter(&mut self.1);
    }
}

/// What is wrong with a TrustSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustFault {
    /// The bytes end early, go on too long, or hold a value that does not fit.
    Malformed,
    /// The epoch is 0, which means "no TrustSet".
    EpochZero,
    /// There is no key.
    NoKeys,
    /// The threshold is 0, above the number of keys, or above the signatures that a manifest can hold.
    Threshold,
    /// One key stands there twice: it would count twice towards the threshold.
    DuplicateKey,
    /// One component has two minimums.
    DuplicateMinimum,
}

impl fmt::Display for TrustFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the TrustSet is malformed",
            Self::EpochZero => "the TrustSet's epoch is 0",
            Self::NoKeys => "the TrustSet has no key",
            Self::Threshold => {
                "the TrustSet's threshold is not between 1 and the number of its keys, at most 3"
            }
            Self::DuplicateKey => "the TrustSet holds one key twice",
            Self::DuplicateMinimum => "the TrustSet holds two minimums for one component",
        })
    }
}

impl core::error::Error for TrustFault {}

impl TrustSet {
    /// Checks that this set can be used.
    ///
    /// # Errors
    /// The first [`TrustFault`] found.
    pub fn validate(&self) -> Result<(), TrustFault> {
        if self.epoch == 0 {
            return Err(TrustFault::EpochZero);
        }
        if self.keys.is_empty() {
            return Err(TrustFault::NoKeys);
        }
        let threshold = usize::from(self.threshold);
        if threshold == 0 || threshold > self.keys.len().min(SIGNATURES_MAX) {
            return Err(TrustFault::Threshold);
        }
        if has_duplicate(&self.keys, |a, b| a == b) {
            return Err(TrustFault::DuplicateKey);
        }
        if has_duplicate(&self.minimums, |a, b| a.0 == b.0) {
            return Err(TrustFault::DuplicateMinimum);
        }
        Ok(())
    }

    /// Reads a journal cell or a provisioning value; all of `bytes` must be used.
    ///
    /// # Errors
    /// [`TrustFault`], of the layout or of the content.
    pub fn decode(bytes: &[u8]) -> Result<Self, TrustFault> {
        let mut set = Self::default();
        if !load(&mut set, bytes) {
            return Err(TrustFault::Malformed);
        }
        set.validate()?;
        Ok(set)
    }

    /// Writes the set to `out` and returns the bytes used, at most [`crate::limits::TRUST_SET_LEN`].
    ///
    /// # Errors
    /// [`TrustFault::Malformed`] where `out` is too short; otherwise what [`validate`](Self::validate) found.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, TrustFault> {
        self.validate()?;
        let mut way = Way::Store(Writer::new(out));
        self.clone().pass(&mut way);
        way.finish().ok_or(TrustFault::Malformed)
    }

    /// The lowest counter of this component that is not withdrawn; 0 where the set names none.
    #[must_use]
    pub fn minimum(&self, component: u8) -> u64 {
        self.minimums
            .iter()
            .find(|minimum| minimum.0 == component)
            .map_or(0, |minimum| minimum.1)
    }

    /// Checks that at least `threshold` different keys of this set have a valid signature over `body`.
    ///
    /// # Errors
    /// [`Reason::UNKNOWN_SIGNER`] where no signature names a key of the set, [`Reason::BAD_SIGNATURE`]
    /// where too few of the named ones are valid.
    pub fn verify(
        &self,
        body: &[u8],
        signatures: Signatures<'_>,
        verifier: &mut impl VerifySignature,
    ) -> Result<SignatureVerified, Reason> {
        // An empty or zero-threshold set would otherwise pass without one signature.
        if self.validate().is_err() {
            return Err(Reason::NO_TRUST);
        }
        let mut named = false;
        let mut valid = [false; TRUST_KEYS_MAX];
        for (signer, signature) in signatures {
            for (key, seen) in self.keys.iter().zip(&mut valid) {
                if signer_id(key) != signer {
                    continue;
                }
                named = true;
                *seen = *seen || verifier.verify(key, body, signature);
            }
            if valid.iter().filter(|seen| **seen).count() >= usize::from(self.threshold) {
                return Ok(SignatureVerified(()));
            }
        }
        Err(if named {
            Reason::BAD_SIGNATURE
        } else {
            Reason::UNKNOWN_SIGNER
        })
    }
}

/// The signatures behind a body: an iterator over signer id and signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signatures<'a>(&'a [u8]);

impl<'a> Signatures<'a> {
    /// Reads `count || signatures`; `None` unless the count is 1..=3 and exactly so many follow.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&count, rest) = bytes.split_first()?;
        let count = usize::from(count);
        ((1..=SIGNATURES_MAX).contains(&count) && rest.len() == count * SIGNATURE_LEN)
            .then_some(Self(rest))
    }
}

impl<'a> Iterator for Signatures<'a> {
    type Item = (SignerId, &'a [u8; 64]);

    fn next(&mut self) -> Option<Self::Item> {
        let (signer, rest) = self.0.split_first_chunk()?;
        let (signature, rest) = rest.split_first_chunk()?;
        self.0 = rest;
        Some((SignerId(*signer), signature))
    }
}

/// Writes `count || signatures` to `out` and returns the bytes used; `None` where there is none, there
/// are more than 3, or `out` is too short.
#[must_use]
pub fn encode_signatures(signatures: &[(SignerId, [u8; 64])], out: &mut [u8]) -> Option<usize> {
    if !(1..=SIGNATURES_MAX).contains(&signatures.len()) {
        return None;
    }
    let mut writer = Writer::new(out);
    writer.count(signatures.len())?;
    for (signer, signature) in signatures {
        writer.bytes(&signer.0)?;
        writer.bytes(signature)?;
    }
    Some(writer.len())
}

pub(crate) fn has_duplicate<T>(items: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    items
        .iter()
        .enumerate()
        .any(|(at, item)| items[..at].iter().any(|earlier| same(earlier, item)))
}
