//! SHA-256 and HKDF-SHA256 as the protocol uses them: the one place that knows whose they are.
//!
//! With `--cfg dialhome_stub_crypto`, which only the size programs set, both are stubs.

#[cfg(all(dialhome_stub_crypto, not(target_os = "none")))]
compile_error!("dialhome_stub_crypto switches cryptography off; it is for the size programs only");

#[cfg(not(dialhome_stub_crypto))]
mod real {
    use sha2::Digest as _;

    /// A SHA-256 under way.
    #[derive(Clone)]
    pub struct Sha256(sha2::Sha256);

    impl Sha256 {
        /// Starts with no bytes.
        #[must_use]
        pub fn new() -> Self {
            Self(sha2::Sha256::new())
        }

        /// Takes more bytes.
        pub fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// The digest of all bytes so far.
        #[must_use]
        pub fn finish(self) -> [u8; 32] {
            self.0.finalize().into()
        }
    }

    /// What HKDF extracted.
    pub struct Hkdf(hkdf::Hkdf<sha2::Sha256>);

    impl Hkdf {
        /// Extracts from all pieces, one after another.
        #[must_use]
        pub fn extract(salt: &[u8], pieces: &[&[u8]]) -> Self {
            let mut extract = hkdf::HkdfExtract::<sha2::Sha256>::new(Some(salt));
            for piece in pieces {
                extract.input_ikm(piece);
            }
            Self(extract.finalize().1)
        }

        pub(super) fn expand_into(&self, info: &[u8], out: &mut [u8]) {
            // `expand` has checked the length, which is the only thing that can be wrong.
            let _ = self.0.expand(info, out);
        }
    }
}

#[cfg(dialhome_stub_crypto)]
mod real {
    /// No hash at all.
    #[derive(Clone)]
    pub struct Sha256([u8; 32]);

    impl Sha256 {
        /// Starts with no bytes.
        #[must_use]
        pub fn new() -> Self {
            Self([0; 32])
        }

        /// Takes more bytes.
        pub fn update(&mut self, bytes: &[u8]) {
            for (sum, byte) in self.0.iter_mut().zip(bytes) {
                *sum ^= *byte;
            }
        }

        /// No digest at all.
        #[must_use]
        pub fn finish(self) -> [u8; 32] {
            self.0
        }
    }

    /// What nothing extracted.
    pub struct Hkdf(Sha256);

    impl Hkdf {
        /// Extracts nothing.
        #[must_use]
        pub fn extract(salt: &[u8], pieces: &[&[u8]]) -> Self {
            let mut sum = Sha256::new();
            sum.update(salt);
            for piece in pieces {
                sum.update(piece);
            }
            Self(sum)
        }

        pub(super) fn expand_into(&self, info: &[u8], out: &mut [u8]) {
            for (to, from) in out.iter_mut().zip(info.iter().chain(&self.0.0)) {
                *to = *from;
            }
        }
    }
}

pub use real::{Hkdf, Sha256};

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sha256(..)")
    }
}

impl core::fmt::Debug for Hkdf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Hkdf(..)")
    }
}

impl Hkdf {
    /// Expands to `N` bytes under the label `info`.
    #[must_use]
    pub fn expand<const N: usize>(&self, info: &[u8]) -> [u8; N] {
        const { assert!(N <= 255 * 32, "HKDF-SHA256 gives at most 8,160 bytes") };
        let mut out = [0; N];
        self.expand_into(info, &mut out);
        out
    }
}

/// SHA-256 of the pieces, one after another.
#[must_use]
pub fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869 appendix A.1.
    #[test]
    fn hkdf_is_that_of_the_rfc_however_its_input_is_cut() {
        let salt = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let info = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9];
        let input = [0x0b; 22];
        let (one, two) = input.split_at(5);
        let start = [0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a];
        for pieces in [&[&input[..]][..], &[one, two]] {
            let out: [u8; 42] = Hkdf::extract(&salt, pieces).expand(&info);
            assert_eq!(out[..8], start);
        }
    }

    #[test]
    fn sha256_of_abc() {
        let start = [0xba, 0x78, 0x16, 0xbf];
        assert_eq!(sha256(&[b"a", b"bc"])[..4], start);
    }
}
