//! `Noise_NNpsk0_25519_ChaChaPoly_SHA256`, the initiator's half, as a sequence of calls
//! of the primitives that the rest of the client uses (Noise revision 34; spec/protocol.md
//! section 2.1). The crate `noise-protocol` would cost a board 6 KB of flash more.
//! spec/vectors/handshake.json holds this half to the specification, and the gateway's
//! own implementation holds it at every dial.
//!
//! With `--cfg dialhome_stub_crypto`, which only the size programs set, it is a stub.

use dialhome_proto::link::{MESSAGE_1_LEN, MESSAGE_2_LEN, PREAMBLE_LEN, TransportKeys};

pub(super) use half::Handshake;

#[cfg(not(dialhome_stub_crypto))]
mod half {
    use super::super::aead::{open_detached, seal_detached};
    use super::super::agreement::{public_key, shared_secret};
    use super::{MESSAGE_1_LEN, MESSAGE_2_LEN, PREAMBLE_LEN, TransportKeys};
    use dialhome_proto::hash::{Hkdf, sha256};
    use zeroize::{Zeroize, Zeroizing};

    /// Longer than a hash: what the transcript begins with is its hash.
    const NAME: &[u8] = b"Noise_NNpsk0_25519_ChaChaPoly_SHA256";

    /// The initiator between its two messages.
    pub(in super::super) struct Handshake {
        state: Symmetric,
        ephemeral: Zeroizing<[u8; 32]>,
    }

    impl Handshake {
        /// Writes message 1: psk, e, and an empty payload.
        pub(in super::super) fn start(
            prologue: [u8; PREAMBLE_LEN],
            psk: &[u8; 32],
            ephemeral: [u8; 32],
            message: &mut [u8; MESSAGE_1_LEN],
        ) -> Self {
            let name = sha256(&[NAME]);
            let mut state = Symmetric {
                chain: name,
                transcript: name,
            };
            state.mix_hash(&prologue);
            state.mix_psk(psk);
            let public = public_key(&ephemeral);
            let key = state.mix_public(&public);
            let tag = seal_detached(&key, 0, &state.transcript, &mut []);
            state.mix_hash(&tag);
            // As long as the two together.
            for (to, from) in message.iter_mut().zip(public.iter().chain(&tag)) {
                *to = *from;
            }
            Self {
                state,
                ephemeral: Zeroizing::new(ephemeral),
            }
        }

        /// Reads message 2, e and ee, and splits; `None` where its tag does not fit, and
        /// where its key has a small order.
        pub(in super::super) fn finish(
            mut self,
            message: &[u8; MESSAGE_2_LEN],
        ) -> Option<TransportKeys> {
            let (public, tag) = message.split_first_chunk::<32>()?;
            let state = &mut self.state;
            state.mix_public(public);
            let shared = Zeroizing::new(shared_secret(&self.ephemeral, public)?);
            let key = state.mix_key(&*shared);
            let tag = tag.first_chunk::<16>()?;
            if !open_detached(&key, 0, &state.transcript, &mut [], tag) {
                return None;
            }
            // The split is a MixKey without material: what would be the chaining key is the
            // key towards the responder.
            let receive = *state.mix_key(&[]);
            let send = state.chain;
            Some(TransportKeys { send, receive })
        }
    }

    /// Noise's SymmetricState, in which no key seals more than one message.
    struct Symmetric {
        chain: [u8; 32],
        transcript: [u8; 32],
    }

    impl Symmetric {
        fn mix_hash(&mut self, data: &[u8]) {
            self.transcript = sha256(&[&self.transcript, data]);
        }

        /// A new chaining key; returns what else Noise's HKDF gives, which is that of RFC
        /// 5869 without info.
        #[inline(never)]
        fn mix(&mut self, material: &[u8]) -> Zeroizing<[[u8; 32]; 2]> {
            let out = Zeroizing::new(Hkdf::extract(&self.chain, &[material]).expand::<96>(&[]));
            let mut rest = Zeroizing::new([[0; 32]; 2]);
            if let ([chain, keys @ ..], _) = out.as_chunks() {
                self.chain = *chain;
                for (to, from) in rest.iter_mut().zip(keys) {
                    *to = *from;
                }
            }
            rest
        }

        fn mix_key(&mut self, material: &[u8]) -> Zeroizing<[u8; 32]> {
            let [key, _] = *self.mix(material);
            Zeroizing::new(key)
        }

        /// MixKeyAndHash; the key that it gives seals nothing.
        fn mix_psk(&mut self, psk: &[u8; 32]) {
            let [hash, _] = *self.mix(psk);
            self.mix_hash(&hash);
        }

        /// A public key in a handshake with a pre-shared key.
        fn mix_public(&mut self, public: &[u8; 32]) -> Zeroizing<[u8; 32]> {
            self.mix_hash(public);
            self.mix_key(public)
        }
    }

    impl Drop for Symmetric {
        fn drop(&mut self) {
            self.chain.zeroize();
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
