//! ChaCha20-Poly1305 in portable Rust.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Tag};
use dialhome_proto::link::{Aead, nonce};

/// The AEAD of the records, by the `chacha20poly1305` crate.
#[derive(Clone, Copy, Default, Debug)]
pub struct SoftAead;

/// Encrypts all of `in_out` in place and returns the tag.
pub(super) fn seal_detached(
    key: &[u8; 32],
    number: u64,
    associated: &[u8],
    in_out: &mut [u8],
) -> [u8; 16] {
    ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&nonce(number).into(), associated, InOutBuf::from(in_out))
        .expect("a handshake message or a record is far below the cipher's 256 GiB")
        .into()
}

/// Decrypts all of `in_out` in place; false, with nothing decrypted, where the tag does not fit.
pub(super) fn open_detached(
    key: &[u8; 32],
    number: u64,
    associated: &[u8],
    in_out: &mut [u8],
    tag: &[u8; 16],
) -> bool {
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(
            &nonce(number).into(),
            associated,
            InOutBuf::from(in_out),
            &Tag::from(*tag),
        )
        .is_ok()
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
