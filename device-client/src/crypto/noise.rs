//! The initiator's half of `Noise_NNpsk0_25519_ChaChaPoly_SHA256`, written out
//! (the Noise Protocol Framework, revision 34, sections 5 and 9).
//!
//! A handshake library that takes any pattern costs a board 500 bytes of RAM between the
//! two messages, where 96 are needed, and formats its protocol name with `core::fmt`.
//! spec/vectors, made by another program, and `snow` at the gateway check this one.

use dialhome_proto::hash::{Hkdf, sha256};
use dialhome_proto::link::{MESSAGE_1_LEN, MESSAGE_2_LEN, NOISE_NAME, TransportKeys};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::aead::{open_detached, seal_detached};
use super::agreement::{public_key, shared_secret};

/// What is kept between the two messages. The key of message 1 is not: mixing the
/// gateway's ephemeral key in replaces it.
pub(super) struct Handshake {
    ephemeral: [u8; 32],
    chaining: [u8; 32],
    hash: [u8; 32],
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.ephemeral.zeroize();
        self.chaining.zeroize();
    }
}

impl ZeroizeOnDrop for Handshake {}

impl Handshake {
    /// Tokens `psk, e`: makes message 1, which carries no payload.
    pub(super) fn start(
        prologue: &[u8],
        psk: &[u8; 32],
        ephemeral: [u8; 32],
        message: &mut [u8; MESSAGE_1_LEN],
    ) -> Self {
        // A name above 32 bytes is hashed (section 5.2).
        const { assert!(NOISE_NAME.len() > 32) };
        let name = sha256(&[NOISE_NAME.as_bytes()]);
        let mut state = Self {
            ephemeral,
            chaining: name,
            hash: name,
        };
        state.mix_hash(prologue);
        let [chaining, hash, _] = state.derive(psk);
        state.chaining = *chaining;
        state.mix_hash(&*hash);
        let public = public_key(&state.ephemeral);
        state.mix_hash(&public);
        let key = state.mix_key(&public);
        let tag = seal_detached(&key, 0, &state.hash, &mut []);
        state.mix_hash(&tag);
        // Lossless: 48 bytes are a key and a tag.
        for (to, from) in message.iter_mut().zip(public.iter().chain(&tag)) {
            *to = *from;
        }
        state
    }

    /// Tokens `e, ee`: takes message 2. `None`: it was not made with this pre-shared key.
    pub(super) fn finish(mut self, message: &[u8; MESSAGE_2_LEN]) -> Option<TransportKeys> {
        let (public, tag) = message.split_first_chunk::<32>()?;
        let tag = tag.try_into().ok()?;
        self.mix_hash(public);
        self.mix_key(public);
        let shared = Zeroizing::new(shared_secret(&self.ephemeral, public)?);
        let key = self.mix_key(&*shared);
        if !open_detached(&key, 0, &self.hash, &mut [], tag) {
            return None;
        }
        let [send, receive, _] = self.derive(&[]);
        Some(TransportKeys {
            send: *send,
            receive: *receive,
        })
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    /// The new cipher key; the chaining key goes on.
    fn mix_key(&mut self, input: &[u8]) -> Zeroizing<[u8; 32]> {
        let [chaining, key, _] = self.derive(input);
        self.chaining = *chaining;
        key
    }

    /// Noise's HKDF of three outputs, of which the first two are that of two: RFC 5869
    /// with an empty label.
    fn derive(&self, input: &[u8]) -> [Zeroizing<[u8; 32]>; 3] {
        let out = Zeroizing::new(Hkdf::extract(&self.chaining, &[input]).expand::<96>(&[]));
        let mut parts = [
            Zeroizing::new([0; 32]),
            Zeroizing::new([0; 32]),
            Zeroizing::new([0; 32]),
        ];
        for (part, piece) in parts.iter_mut().flat_map(|part| part.iter_mut()).zip(&*out) {
            *part = *piece;
        }
        parts
    }
}
