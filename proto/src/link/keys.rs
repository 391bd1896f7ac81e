//! The device key, what is derived from it, and a session's two keys
//! (spec/protocol.md section 2).

use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::hash::Hkdf;
use crate::id::{Handle, decode_hex};

/// Bytes of every symmetric key in the protocol.
pub const KEY_LEN: usize = 32;

const SALT: &[u8] = b"dialhome 1";

/// The secret that a board and its gateway share. It is never used as it is:
/// every use has a key of its own, derived with HKDF-SHA256.
#[derive(Clone)]
pub struct DeviceKey([u8; KEY_LEN]);

impl DeviceKey {
    /// The device key that consists of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads exactly 64 hexadecimal digits, either case; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut key = Self([0; KEY_LEN]);
        decode_hex(text, &mut key.0).then_some(key)
    }

    /// The bytes, for provisioning and for storing; not for use as a key.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The pre-shared key of the Noise suites.
    #[must_use]
    pub fn noise_psk(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.derive(b"noise psk"))
    }

    /// The key of the HMACs by which both sides of a QUIC connection prove the device key.
    #[must_use]
    pub fn quic_proof(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.derive(b"quic proof"))
    }

    /// The public name of this key: what the preamble carries in the clear.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.derive(b"key handle"))
    }

    fn derive<const N: usize>(&self, info: &[u8]) -> [u8; N] {
        Hkdf::extract(SALT, &[&self.0]).expand(info)
    }
}

impl Drop for DeviceKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for DeviceKey {}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The handle tells keys apart in a log and gives nothing away.
        write!(f, "DeviceKey(handle {}, secret not shown)", self.handle())
    }
}

/// The two keys that a handshake gives one of its ends.
#[derive(Clone)]
pub struct TransportKeys {
    /// Seals what this end sends.
    pub send: [u8; KEY_LEN],
    /// Opens what this end receives.
    pub receive: [u8; KEY_LEN],
}

impl Drop for TransportKeys {
    fn drop(&mut self) {
        self.send.zeroize();
        self.receive.zeroize();
    }
}

impl ZeroizeOnDrop for TransportKeys {}

impl fmt::Debug for TransportKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKeys(secret not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn debug_shows_the_handle_and_never_the_key() {
        let key = DeviceKey::new([0xAB; 32]);
        let mut text = heapless::String::<256>::new();
        write!(text, "{key:?}").unwrap();
        assert!(text.contains("handle"));
        assert!(!text.contains("abab") && !text.contains("171, 171"));
    }

    #[test]
    fn a_key_is_read_from_64_hexadecimal_digits_only() {
        let digits = "ab".repeat_32();
        assert_eq!(DeviceKey::from_hex(&digits).unwrap().bytes(), &[0xAB; 32]);
        assert!(DeviceKey::from_hex(&digits[..62]).is_none());
        assert!(DeviceKey::from_hex("zz").is_none());
    }

    trait Repeat {
        fn repeat_32(&self) -> heapless::String<64>;
    }
    impl Repeat for str {
        fn repeat_32(&self) -> heapless::String<64> {
            (0..32).map(|_| self).collect()
        }
    }
}
