//! Ed25519 verification in portable Rust.

use dialhome_proto::trust::VerifySignature;

/// Verifies strictly, by the curve of `curve25519-dalek`: a scalar that is not reduced and
/// a key or `R` of small order are refused, so that one body has one valid signature per
/// key. It gives the verdict of `ed25519-dalek`'s `verify_strict`, to which the tests hold
/// it, without that crate's arithmetic between scalars: 6 KB less of a board's flash.
/// It needs 6.7 KB of stack on a Cortex-M0+: call it from the top of the client's
/// poll, with no other buffers in use.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ed25519;

impl VerifySignature for Ed25519 {
    #[cfg(dialhome_stub_crypto)]
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        public_key.first() == message.first() && message.last() == signature.last()
    }

    #[cfg(not(dialhome_stub_crypto))]
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        strict::verify(public_key, message, signature).unwrap_or(false)
    }
}

#[cfg(not(dialhome_stub_crypto))]
mod strict {
    use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
    use curve25519_dalek::scalar::Scalar;
    use sha2::{Digest as _, Sha512};

    /// The order of the base point, least byte first: 2^252 + 27742317777372353535851937790883648493.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    /// RFC 8032 section 5.1.7, without the cofactor; `None` where something is no point.
    pub(super) fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Option<bool> {
        let (r, s) = signature.split_first_chunk()?;
        let s: &[u8; 32] = s.first_chunk()?;
        let a = point(key)?;
        point(r)?;
        if minus_order(s).is_some() {
            return None;
        }
        let mut hash = Sha512::new();
        for piece in [&r[..], key, message] {
            hash.update(piece);
        }
        let k = reduced(&hash.finalize().into());
        // Both are below the order, whatever `from_bits` is ready to take.
        let (k, s) = (Scalar::from_bits(k), Scalar::from_bits(*s));
        let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-a, &s);
        Some(expected.compress().0 == *r)
    }

    /// The point, unless it has a small order.
    #[inline(never)]
    fn point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
        let point = CompressedEdwardsY(*bytes).decompress()?;
        (!point.is_small_order()).then_some(point)
    }

    /// The value less the order; `None` where it is below.
    fn minus_order(value: &[u8; 32]) -> Option<[u8; 32]> {
        let mut out = [0; 32];
        let mut borrow = 0;
        for (to, (from, order)) in out.iter_mut().zip(value.iter().zip(ORDER)) {
            let wide = i16::from(*from) - i16::from(order) + borrow;
            [*to, _] = wide.to_le_bytes();
            borrow = wide >> 8;
        }
        (borrow == 0).then_some(out)
    }

    /// The rest of a division by the order, bit by bit: a hundredth of the time of a
    /// verification, and short. What it divides is public.
    fn reduced(value: &[u8; 64]) -> [u8; 32] {
        let mut rest = [0; 32];
        for byte in value.iter().rev() {
            for bit in (0..8).rev() {
                // Below twice the order: no bit is lost.
                let mut carry = byte >> bit & 1;
                for place in &mut rest {
                    let high = *place >> 7;
                    *place = *place << 1 | carry;
                    carry = high;
                }
                if let Some(less) = minus_order(&rest) {
                    rest = less;
                }
            }
        }
        rest
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn reduces_as_the_curve_s_crate_does(low: [u8; 32], high: [u8; 32], zeros in 0..64_usize) {
                let mut value = [0; 64];
                for (to, from) in value.iter_mut().zip(low.iter().chain(&high)) {
                    *to = *from;
                }
                for byte in value.iter_mut().rev().take(zeros) {
                    *byte = 0;
                }
                let theirs = Scalar::from_bytes_mod_order_wide(&value).to_bytes();
                prop_assert_eq!(reduced(&value), theirs);
                let is_below: bool = Scalar::from_canonical_bytes(low).is_some().into();
                prop_assert_eq!(minus_order(&low).is_none(), is_below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialhome_proto::id::decode_hex;
    use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
    use proptest::prelude::*;

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

    /// What the crate of signatures says.
    fn theirs(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(key).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }

    proptest! {
        #[test]
        fn its_verdict_is_that_of_the_crate_of_signatures(
            secret: [u8; 32],
            message in prop::collection::vec(any::<u8>(), 0..300),
            other: [u8; 64],
            place in 0..96_usize,
            flip in 0..=255_u8,
        ) {
            let signer = SigningKey::from_bytes(&secret);
            let mut key = signer.verifying_key().to_bytes();
            let mut signature = signer.sign(&message).to_bytes();
            prop_assert!(Ed25519.verify(&key, &message, &signature));
            let strange = Ed25519.verify(&key, &message, &other);
            prop_assert_eq!(strange, theirs(&key, &message, &other));
            match place.checked_sub(64) {
                None => signature[place] ^= flip,
                Some(place) => key[place] ^= flip,
            }
            let changed = Ed25519.verify(&key, &message, &signature);
            prop_assert_eq!(changed, theirs(&key, &message, &signature));
            prop_assert_eq!(changed, flip == 0);
        }
    }

    /// Points of small order and what is no point, canonical and not, as key and as R, with
    /// scalars at the edges: both crates refuse what they should, and agree on the rest.
    #[test]
    fn edges_are_judged_as_by_the_crate_of_signatures() {
        let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
        let points = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "0200000000000000000000000000000000000000000000000000000000000000",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "5866666666666666666666666666666666666666666666666666666666666666",
        ];
        let scalars = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010",
            order,
            "eed3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ];
        for key in points {
            for r in points {
                for s in scalars {
                    let mut signature = [0; 64];
                    signature[..32].copy_from_slice(&hex::<32>(r));
                    signature[32..].copy_from_slice(&hex::<32>(s));
                    let key = hex(key);
                    let ours = Ed25519.verify(&key, b"image", &signature);
                    assert_eq!(ours, theirs(&key, b"image", &signature), "{r} {s}");
                    assert!(!ours, "nobody signed it");
                }
            }
        }
    }
}
