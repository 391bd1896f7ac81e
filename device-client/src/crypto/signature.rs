//! Ed25519 verification in portable Rust.

use dialhome_proto::trust::VerifySignature;
#[cfg(not(dialhome_stub_crypto))]
use ed25519_dalek::{Signature, VerifyingKey};

/// Verifies by the `ed25519-dalek` crate, strictly: a scalar that is not
/// reduced and a key or `R` of small order are refused, so that one body has
/// one valid signature per key. It needs about 8.4 KB of stack on a Cortex-M0+:
/// call it from the top of the client's poll, with no other buffers in use.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ed25519;

impl VerifySignature for Ed25519 {
    #[cfg(dialhome_stub_crypto)]
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        public_key.first() == message.first() && message.last() == signature.last()
    }

    #[cfg(not(dialhome_stub_crypto))]
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(public_key).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialhome_proto::id::decode_hex;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let mut out = [0; N];
        assert!(decode_hex(text, &mut out));
        out
    }

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn the_rfc_s_signature_holds_and_every_changed_byte_breaks_it() {
        let key = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature: [u8; 64] = hex(concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ));
        assert!(Ed25519.verify(&key, &[0x72], &signature));
        assert!(!Ed25519.verify(&key, &[0x73], &signature));
        assert!(!Ed25519.verify(&key, &[], &signature));
        for index in 0..64 {
            let mut bad = signature;
            bad[index] ^= 1;
            assert!(!Ed25519.verify(&key, &[0x72], &bad), "byte {index}");
        }
    }

    /// The identity is a public key of small order: with it, `R` = identity and
    /// s = 0 satisfy the equation for every message.
    #[test]
    fn a_key_of_small_order_signs_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!Ed25519.verify(&identity, b"any image", &signature));
    }

    /// s + L satisfies the equation too; RFC 8032 refuses it.
    #[test]
    fn a_scalar_that_is_not_reduced_is_refused() {
        let key = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let mut signature: [u8; 64] = hex(concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ));
        let order: [u8; 32] =
            hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            [*byte, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        assert!(!Ed25519.verify(&key, &[0x72], &signature));
    }
}
