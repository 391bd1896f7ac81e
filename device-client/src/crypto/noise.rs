//! `Noise_NNpsk0_25519_ChaChaPoly_SHA256`, the initiator's half: the crate
//! `noise-protocol` over the primitives that the rest of the client uses.
//!
//! With `--cfg dialhome_stub_crypto`, which only the size programs set, it is a stub.

use dialhome_proto::link::{MESSAGE_1_LEN, MESSAGE_2_LEN, PREAMBLE_LEN, TransportKeys};

pub(super) use half::Handshake;

#[cfg(not(dialhome_stub_crypto))]
mod half {
    use super::super::aead::{open_detached, seal_detached};
    use super::super::agreement::{public_key, shared_secret};
    use super::{MESSAGE_1_LEN, MESSAGE_2_LEN, PREAMBLE_LEN, TransportKeys};
    use dialhome_proto::hash::Sha256 as Sha2;
    use noise_protocol::patterns::noise_nn_psk0;
    use noise_protocol::{Cipher, DH, HandshakeState, Hash, U8Array};
    use zeroize::Zeroize;

    /// A handshake between its two messages: what message 1 was made of. The library's own
    /// state is four times as large, for any pattern that there is, so it is dropped and
    /// made once more from this: some hashes, and no second X25519.
    pub(in super::super) struct Handshake {
        prologue: [u8; PREAMBLE_LEN],
        psk: Secret,
        ephemeral: Pair,
    }

    impl Handshake {
        /// Makes message 1, which carries no payload.
        pub(in super::super) fn start(
            prologue: [u8; PREAMBLE_LEN],
            psk: &[u8; 32],
            ephemeral: [u8; 32],
            message: &mut [u8; MESSAGE_1_LEN],
        ) -> Self {
            let start = Self {
                prologue,
                psk: Secret::new(*psk),
                ephemeral: Pair {
                    public: public_key(&ephemeral),
                    secret: Secret::new(ephemeral),
                },
            };
            start.write(message);
            start
        }

        /// The library's state after message 1.
        fn write(
            &self,
            message: &mut [u8; MESSAGE_1_LEN],
        ) -> HandshakeState<X25519, ChaChaPoly, Sha256> {
            let mut noise = HandshakeState::new(
                noise_nn_psk0(),
                true,
                self.prologue,
                None,
                Some(self.ephemeral.clone()),
                None,
                None,
            );
            noise.push_psk(&self.psk.0);
            // The key is set, and the first message of NNpsk0 needs no other: it cannot
            // fail. Half a message would be refused like any other.
            let _ = noise.write_message(&[], message);
            noise
        }

        /// Takes message 2. `None`: it was not made with this pre-shared key.
        pub(in super::super) fn finish(
            self,
            message: &[u8; MESSAGE_2_LEN],
        ) -> Option<TransportKeys> {
            let mut noise = self.write(&mut [0; MESSAGE_1_LEN]);
            noise.read_message(message, &mut []).ok()?;
            let (to_gateway, to_board) = noise.get_ciphers();
            Some(TransportKeys {
                send: *to_gateway.extract().0.bytes(),
                receive: *to_board.extract().0.bytes(),
            })
        }
    }

    /// A key of one handshake with its public half, which is so computed once.
    struct Pair {
        secret: Secret,
        public: [u8; 32],
    }

    impl U8Array for Pair {
        fn new() -> Self {
            Self::new_with(0)
        }

        fn new_with(byte: u8) -> Self {
            Self {
                secret: Secret::new_with(byte),
                public: [byte; 32],
            }
        }

        fn from_slice(bytes: &[u8]) -> Self {
            let secret = Secret::from_slice(bytes);
            Self {
                public: public_key(&secret.0),
                secret,
            }
        }

        fn len() -> usize {
            Secret::len()
        }

        fn as_slice(&self) -> &[u8] {
            self.secret.as_slice()
        }

        fn as_mut(&mut self) -> &mut [u8] {
            self.secret.as_mut()
        }

        fn clone(&self) -> Self {
            Self {
                secret: U8Array::clone(&self.secret),
                public: self.public,
            }
        }
    }

    /// 32 secret bytes that are wiped when dropped. `noise-protocol` keeps its keys
    /// in whatever arrays these traits name, so that naming this one wipes them.
    struct Secret([u8; 32]);

    impl Secret {
        const fn new(bytes: [u8; 32]) -> Self {
            Self(bytes)
        }

        const fn bytes(&self) -> &[u8; 32] {
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

    enum X25519 {}

    impl DH for X25519 {
        type Key = Pair;
        type Pubkey = [u8; 32];
        type Output = Secret;

        fn name() -> &'static str {
            "25519"
        }

        fn genkey() -> Pair {
            // The handshake is always given its ephemeral key; a board's random
            // source is a parameter of the client and cannot be reached from here.
            unreachable!("the ephemeral key is set before the first message")
        }

        fn pubkey(key: &Pair) -> [u8; 32] {
            key.public
        }

        fn dh(key: &Pair, public: &[u8; 32]) -> Result<Secret, ()> {
            shared_secret(&key.secret.0, public).map(Secret).ok_or(())
        }
    }

    #[derive(Default)]
    struct Sha256(Sha2);

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
            Secret(core::mem::take(&mut self.0).finish())
        }
    }

    enum ChaChaPoly {}

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
}

#[cfg(dialhome_stub_crypto)]
mod half {
    use super::{MESSAGE_1_LEN, MESSAGE_2_LEN, PREAMBLE_LEN, TransportKeys};

    /// No handshake at all.
    pub(in super::super) struct Handshake([u8; 32]);

    impl Handshake {
        /// Makes no message at all.
        pub(in super::super) fn start(
            prologue: [u8; PREAMBLE_LEN],
            psk: &[u8; 32],
            ephemeral: [u8; 32],
            message: &mut [u8; MESSAGE_1_LEN],
        ) -> Self {
            let pieces = prologue.iter().chain(psk).chain(&ephemeral);
            for (to, from) in message.iter_mut().zip(pieces) {
                *to = *from;
            }
            Self(ephemeral)
        }

        /// Looks at one byte.
        pub(in super::super) fn finish(
            self,
            message: &[u8; MESSAGE_2_LEN],
        ) -> Option<TransportKeys> {
            (message.first() == self.0.first()).then_some(TransportKeys {
                send: self.0,
                receive: self.0,
            })
        }
    }
}
