//! The primitives of `Noise_NNpsk0_25519_ChaChaPoly_SHA256` for the crate
//! `noise-protocol`, by the same crates that the rest of the client uses.

use noise_protocol::{Cipher, DH, Hash, U8Array};
use sha2::{Digest as _, Sha256 as Sha2};
use zeroize::Zeroize;

use super::aead::{open_detached, seal_detached};

/// 32 secret bytes that are wiped when dropped. `noise-protocol` keeps its keys
/// in whatever arrays these traits name, so that naming this one wipes them.
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub(super) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl U8Array for Secret {
    fn new() -> Self {
        Self([0; 32])
    }

    fn new_with(byte: u8) -> Self {
        Self([byte; 32])
    }

    fn from_slice(bytes: &[u8]) -> Self {
        Self(U8Array::from_slice(bytes))
    }

    fn len() -> usize {
        32
    }

    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

pub(super) enum X25519 {}

impl DH for X25519 {
    type Key = Secret;
    type Pubkey = [u8; 32];
    type Output = Secret;

    fn name() -> &'static str {
        "25519"
    }

    fn genkey() -> Secret {
        // The handshake is always given its ephemeral key; a board's random
        // source is a parameter of the client and cannot be reached from here.
        unreachable!("the ephemeral key is set before the first message")
    }

    fn pubkey(key: &Secret) -> [u8; 32] {
        x25519_dalek::x25519(key.0, x25519_dalek::X25519_BASEPOINT_BYTES)
    }

    fn dh(key: &Secret, public: &[u8; 32]) -> Result<Secret, ()> {
        let shared = Secret(x25519_dalek::x25519(key.0, *public));
        // RFC 7748 section 6.1: a peer's key of small order gives zero.
        if shared.0 == [0; 32] {
            Err(())
        } else {
            Ok(shared)
        }
    }
}

#[derive(Default)]
pub(super) struct Sha256(Sha2);

impl Hash for Sha256 {
    type Block = [u8; 64];
    type Output = Secret;

    fn name() -> &'static str {
        "SHA256"
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self) -> Secret {
        Secret(self.0.finalize_reset().into())
    }
}

pub(super) enum ChaChaPoly {}

impl Cipher for ChaChaPoly {
    type Key = Secret;

    fn name() -> &'static str {
        "ChaChaPoly"
    }

    fn encrypt(key: &Secret, nonce: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) {
        if let Some((ciphertext, tag)) = out.split_last_chunk_mut() {
            ciphertext.copy_from_slice(plaintext);
            *tag = seal_detached(&key.0, nonce, associated, ciphertext);
        }
    }

    fn encrypt_in_place(
        key: &Secret,
        nonce: u64,
        associated: &[u8],
        in_out: &mut [u8],
        plaintext_len: usize,
    ) -> usize {
        let (plaintext, tag) = in_out[..plaintext_len + 16].split_at_mut(plaintext_len);
        tag.copy_from_slice(&seal_detached(&key.0, nonce, associated, plaintext));
        plaintext_len + 16
    }

    fn decrypt(
        key: &Secret,
        nonce: u64,
        associated: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<(), ()> {
        let (body, tag) = ciphertext.split_last_chunk().ok_or(())?;
        out.copy_from_slice(body);
        open_detached(&key.0, nonce, associated, out, tag)
            .then_some(())
            .ok_or(())
    }

    fn decrypt_in_place(
        key: &Secret,
        nonce: u64,
        associated: &[u8],
        in_out: &mut [u8],
        ciphertext_len: usize,
    ) -> Result<usize, ()> {
        let (body, tag) = in_out[..ciphertext_len].split_last_chunk_mut().ok_or(())?;
        if open_detached(&key.0, nonce, associated, body, tag) {
            Ok(ciphertext_len - 16)
        } else {
            Err(())
        }
    }
}
