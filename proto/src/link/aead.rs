//! The one AEAD of the protocol, ChaCha20-Poly1305, as each end provides it.

/// ChaCha20-Poly1305 (RFC 8439) with empty associated data, over records that
/// are numbered (spec/protocol.md section 3.1).
///
/// The keys come with every call, so that an idle session is 80 bytes of
/// [`Records`](super::Records) and nothing else. `&mut self` lets an
/// implementation keep an expanded key, or be a hardware unit.
pub trait Aead {
    /// Seals in place: the last 16 bytes of `in_out` are room for the tag,
    /// everything before them is the plaintext and becomes the ciphertext.
    ///
    /// The caller gives at least 16 bytes and never the same `number` twice
    /// under one key; [`Records`](super::Records) sees to both.
    fn seal(&mut self, key: &[u8; 32], number: u64, in_out: &mut [u8]);

    /// Opens in place: `in_out` is ciphertext and tag. True: everything before
    /// the last 16 bytes is now the plaintext. False: the tag does not fit, or
    /// `in_out` is shorter than a tag; nothing in `in_out` may be used.
    #[must_use]
    fn open(&mut self, key: &[u8; 32], number: u64, in_out: &mut [u8]) -> bool;
}

/// The nonce of a record: 4 zero bytes and its number, little-endian.
#[must_use]
pub const fn nonce(number: u64) -> [u8; 12] {
    let n = number.to_le_bytes();
    [0, 0, 0, 0, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]]
}
