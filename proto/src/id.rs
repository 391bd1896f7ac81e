//! Names and identities that cross the wire (spec/frames.md section 3).

use crate::wire::{Field, Reader, Writer};
use core::fmt;
use serde::Serialize;

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        // A board copies it by words, and not byte by byte.
        #[repr(align(4))]
        #[derive(Clone, Copy, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
        #[expect(
            clippy::derived_hash_with_manual_eq,
            clippy::derive_ord_xor_partial_ord,
            reason = "equality is that of the bytes"
        )]
        pub struct $name(pub [u8; $len]);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                // Through copies, of which the compiler knows that they can be read by words.
                let (one, other) = (*self, *other);
                one.0 == other.0
            }
        }

        impl $name {
            /// Reads exactly the hexadecimal digits of this id, either case; `None` for anything else.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut out = [0; $len];
                decode_hex(text, &mut out).then_some(Self(out))
            }
        }

        impl Field<'_> for $name {
            fn read(reader: &mut Reader<'_>) -> Self {
                Self(Field::read(reader))
            }

            fn write(&self, writer: &mut Writer<'_>) {
                self.0.write(writer);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

bytes_id! {
    /// An update: one operator's wish that one device run one image. Made by the gateway, never used twice.
    UpdateId, 8
}
bytes_id! {
    /// The public handle of a device key (spec/protocol.md section 2.1).
    Handle, 8
}
bytes_id! {
    /// A SHA-256 digest of an image, of a prefix of one, or of a manifest's body.
    Digest, 32
}
bytes_id! {
    /// The first 8 bytes of the SHA-256 of an Ed25519 public key (spec/protocol.md section 6.2).
    SignerId, 8
}

/// Decodes exactly `out.len()` bytes of hexadecimal digits, either case; false for anything else.
#[must_use]
pub fn decode_hex(text: &str, out: &mut [u8]) -> bool {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 {
        return false;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
            return false;
        };
        *byte = high << 4 | low;
    }
    true
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Whether `text` may name a device or a product: `[A-Za-z0-9_-]{1,64}`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && is_word(text.as_bytes(), b"_-")
}

/// Whether all of `text` are ASCII letters, digits, or bytes of `more`.
#[inline(never)]
pub(crate) fn is_word(text: &[u8], more: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || more.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_both_cases_and_refuses_the_rest() {
        assert_eq!(
            UpdateId::from_hex("00ffAb0102030405"),
            Some(UpdateId([0, 255, 0xab, 1, 2, 3, 4, 5]))
        );
        assert_eq!(UpdateId::from_hex("00ffAb01020304"), None);
        assert_eq!(UpdateId::from_hex("00ffAb010203040g"), None);
        assert_eq!(UpdateId::from_hex("00ffAb01020304éé"), None);
    }

    #[test]
    fn names_are_ascii_words_of_up_to_64() {
        assert!(is_name("mkr-gsm_1400"));
        assert!(!is_name(""));
        assert!(!is_name("a b"));
        assert!(!is_name("größe"));
        assert!(!is_name(core::str::from_utf8(&[b'a'; 65]).unwrap()));
    }
}
