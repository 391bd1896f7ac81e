//! The clear bytes that a board sends first (spec/protocol.md section 1.1.2).

use core::fmt;

use crate::id::Handle;

/// The preamble's first four bytes. The first is none of those that a proxy
/// header, TLS or HTTP begins with.
pub const MAGIC: [u8; 4] = [0xD1, b'H', b'O', b'M'];
/// The protocol version of this crate, and the highest that it speaks.
pub const VERSION: u8 = 1;
/// Suite 1: `Noise_NNpsk0_25519_ChaChaPoly_SHA256`.
pub const SUITE_NOISE_NN_PSK0: u8 = 1;
/// The Noise protocol name of suite 1.
pub const NOISE_NAME: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Bytes of the preamble, and of the Noise prologue.
pub const PREAMBLE_LEN: usize = 14;
/// Bytes of the first handshake message: ephemeral key and tag.
pub const MESSAGE_1_LEN: usize = 48;
/// Bytes of the second handshake message: ephemeral key and tag.
pub const MESSAGE_2_LEN: usize = 48;
/// Bytes of what the board writes first: preamble and message 1.
pub const FIRST_FLIGHT_LEN: usize = PREAMBLE_LEN + MESSAGE_1_LEN;

/// What a board says of itself before any key is used. Nothing in it is secret,
/// and nothing is believed until the handshake, whose prologue it is, succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preamble {
    /// Protocol version of the board, and so of the session.
    pub version: u8,
    /// Which handshake follows.
    pub suite: u8,
    /// Which key the board has.
    pub handle: Handle,
}

impl Preamble {
    /// The preamble of this version and of suite 1.
    #[must_use]
    pub const fn new(handle: Handle) -> Self {
        Self::with_suite(handle, SUITE_NOISE_NN_PSK0)
    }

    /// The preamble of this version and of another suite.
    #[must_use]
    pub const fn with_suite(handle: Handle, suite: u8) -> Self {
        Self {
            version: VERSION,
            suite,
            handle,
        }
    }

    /// The bytes on the wire.
    #[must_use]
    pub const fn encode(&self) -> [u8; PREAMBLE_LEN] {
        let [m0, m1, m2, m3] = MAGIC;
        let [h0, h1, h2, h3, h4, h5, h6, h7] = self.handle.0;
        [
            m0,
            m1,
            m2,
            m3,
            self.version,
            self.suite,
            h0,
            h1,
            h2,
            h3,
            h4,
            h5,
            h6,
            h7,
        ]
    }

    /// Reads the bytes on the wire of a TCP connection.
    ///
    /// # Errors
    /// The first of: not the magic (close without an answer), a version that
    /// this crate does not speak, a suite other than 1 (both are refused by code).
    pub const fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, PreambleFault> {
        Self::decode_suite(bytes, SUITE_NOISE_NN_PSK0)
    }

    /// Reads the bytes on the wire of a transport on which this suite alone is spoken.
    ///
    /// # Errors
    /// As [`Self::decode`], with that suite.
    pub const fn decode_suite(
        bytes: &[u8; PREAMBLE_LEN],
        spoken: u8,
    ) -> Result<Self, PreambleFault> {
        let [m0, m1, m2, m3, version, suite, handle @ ..] = *bytes;
        let [w0, w1, w2, w3] = MAGIC;
        if m0 != w0 || m1 != w1 || m2 != w2 || m3 != w3 {
            return Err(PreambleFault::NotMagic);
        }
        if version != VERSION {
            return Err(PreambleFault::Version(version));
        }
        if suite != spoken {
            return Err(PreambleFault::Suite(suite));
        }
        Ok(Self {
            version,
            suite,
            handle: Handle(handle),
        })
    }
}

/// Why a preamble is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreambleFault {
    /// The first four bytes are not Dialhome's: somebody else's client, or a scanner.
    NotMagic,
    /// This protocol version is not spoken.
    Version(u8),
    /// This suite is not known.
    Suite(u8),
}

impl fmt::Display for PreambleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMagic => f.write_str("the first bytes are not those of a Dialhome board"),
            Self::Version(version) => write!(
                f,
                "the board speaks protocol version {version}, this gateway versions 1 to {VERSION}"
            ),
            Self::Suite(suite) => write!(
                f,
                "the board asks for handshake suite {suite}, which is not spoken on this transport"
            ),
        }
    }
}

impl core::error::Error for PreambleFault {}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLE: Handle = Handle([1, 2, 3, 4, 5, 6, 7, 8]);

    #[test]
    fn the_layout_is_the_one_of_the_specification() {
        assert_eq!(
            Preamble::new(HANDLE).encode(),
            [0xD1, 0x48, 0x4F, 0x4D, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8]
        );
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let good = Preamble::new(HANDLE).encode();
        assert_eq!(Preamble::decode(&good), Ok(Preamble::new(HANDLE)));
        for index in 0..4 {
            let mut bad = good;
            bad[index] ^= 0x80;
            assert_eq!(Preamble::decode(&bad), Err(PreambleFault::NotMagic));
        }
        for version in (0..=255).filter(|version| *version != VERSION) {
            let mut bad = good;
            bad[4] = version;
            assert_eq!(Preamble::decode(&bad), Err(PreambleFault::Version(version)));
        }
        for suite in (0..=255).filter(|suite| *suite != SUITE_NOISE_NN_PSK0) {
            let mut bad = good;
            bad[5] = suite;
            assert_eq!(Preamble::decode(&bad), Err(PreambleFault::Suite(suite)));
        }
    }
}
