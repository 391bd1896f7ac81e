//! ChaCha20-Poly1305 in portable Rust.

use dialhome_proto::link::Aead;
#[cfg(not(dialhome_stub_crypto))]
use {
    chacha20poly1305::aead::inout::InOutBuf,
    chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Tag},
    dialhome_proto::link::nonce,
};

/// The AEAD of the records, by the `chacha20poly1305` crate.
#[derive(Clone, Copy, Default, Debug)]
pub struct SoftAead;

/// Encrypts all of `in_out` in place and returns the tag.
#[cfg(not(dialhome_stub_crypto))]
pub(super) fn seal_detached(
    key: &[u8; 32],
    number: u64,
    associated: &[u8],
    in_out: &mut [u8],
) -> [u8; 16] {
    let tag = ChaCha20Poly1305::new(key.into()).encrypt_inout_detached(
        &nonce(number).into(),
        associated,
        InOutBuf::from(&mut *in_out),
    );
    match tag {
        Ok(tag) => tag.into(),
        // More than the cipher's 256 GiB, which no buffer here holds; never the plaintext.
        Err(_) => {
            in_out.fill(0);
            [0; 16]
        }
    }
}

/// Decrypts all of `in_out` in place; false, with nothing decrypted, where the tag does not fit.
#[cfg(not(dialhome_stub_crypto))]
pub(super) fn open_detached(
    key: &[u8; 32],
    number: u64,
    associated: &[u8],
    in_out: &mut [u8],
    tag: &[u8; 16],
) -> bool {
    let cipher = ChaCha20Poly1305::new(key.into());
    let opened = cipher.decrypt_inout_detached(
        &nonce(number).into(),
        associated,
        InOutBuf::from(in_out),
        &Tag::from(*tag),
    );
    opened.is_ok()
}

#[cfg(dialhome_stub_crypto)]
pub(super) fn seal_detached(key: &[u8; 32], _: u64, _: &[u8], in_out: &mut [u8]) -> [u8; 16] {
    for (to, from) in in_out.iter_mut().zip(key) {
        *to ^= *from;
    }
    key.first_chunk().copied().unwrap_or_default()
}

#[cfg(dialhome_stub_crypto)]
pub(super) fn open_detached(
    key: &[u8; 32],
    number: u64,
    associated: &[u8],
    in_out: &mut [u8],
    tag: &[u8; 16],
) -> bool {
    seal_detached(key, number, associated, in_out) == *tag
}

impl Aead for SoftAead {
    fn seal(&mut self, key: &[u8; 32], number: u64, in_out: &mut [u8]) {
        if let Some((plaintext, room)) = in_out.split_last_chunk_mut() {
            *room = seal_detached(key, number, &[], plaintext);
        }
    }

    fn open(&mut self, key: &[u8; 32], number: u64, in_out: &mut [u8]) -> bool {
        match in_out.split_last_chunk_mut() {
            Some((ciphertext, tag)) => open_detached(key, number, &[], ciphertext, tag),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439 section 2.8.2 has associated data and a nonce of another form; this
    /// is the open question it leaves: what a too short buffer does.
    #[test]
    fn a_buffer_without_room_for_a_tag_is_never_opened() {
        for len in 0..16 {
            assert!(!SoftAead.open(&[1; 32], 0, &mut [0; 16][..len]));
        }
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_key_and_number_only() {
        let mut sealed = *b"chunk of an image                ";
        let plain = sealed;
        SoftAead.seal(&[1; 32], 7, &mut sealed);
        assert_ne!(sealed[..17], plain[..17]);
        for (key, number, opens) in [([2; 32], 7, false), ([1; 32], 8, false), ([1; 32], 7, true)] {
            let mut copy = sealed;
            assert_eq!(SoftAead.open(&key, number, &mut copy), opens);
            assert_eq!(copy[..17] == plain[..17], opens);
        }
    }
}
