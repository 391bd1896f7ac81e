//! SHA-256 of any prefix of an image, for the resume proof (spec/protocol.md): a board names an offset and
//! the digest of what it has before it, and the gateway must know that digest without hashing the image
//! again for every board.

use std::fmt;
use std::io;

use dialhome_proto::id::Digest;
use sha2::{Digest as _, Sha256};

/// Distance between two kept states, in bytes.
pub const STRIDE: u64 = 64 * 1024;

/// Bytes that are read at a time.
const READ_LEN: usize = 16 * 1024;

/// The hasher's states at every multiple of [`STRIDE`], as far as the image was hashed.
///
/// A state is a clone of the hasher, 112 bytes: 0.17 % of the image, 28 KB for one of 16 MiB.
#[derive(Clone)]
pub struct PrefixHasher {
    /// State `i` has seen the first `i * STRIDE` bytes; there is always state 0.
    states: Vec<Sha256>,
}

impl Default for PrefixHasher {
    fn default() -> Self {
        Self {
            states: vec![Sha256::new()],
        }
    }
}

impl fmt::Debug for PrefixHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrefixHasher({} states)", self.states.len())
    }
}

impl PrefixHasher {
    /// SHA-256 of the first `offset` bytes, which `read_at` gives from an offset on. What was hashed before
    /// is not read again, except for the bytes after the last kept state before `offset`.
    ///
    /// # Errors
    /// Whatever `read_at` fails with; a later call goes on from the last kept state.
    pub fn digest(
        &mut self,
        offset: u64,
        mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Digest> {
        let wanted = usize::try_from(offset / STRIDE).map_err(io::Error::other)?;
        let kept = wanted.min(self.states.len() - 1);
        let mut at = kept as u64 * STRIDE;
        let mut hasher = self.states[kept].clone();
        let mut buffer = [0; READ_LEN];
        while at < offset {
            let left = usize::try_from(offset - at).unwrap_or(READ_LEN);
            let bytes = &mut buffer[..left.min(READ_LEN)];
            read_at(at, bytes)?;
            hasher.update(&*bytes);
            at += bytes.len() as u64;
            if at == self.states.len() as u64 * STRIDE {
                self.states.push(hasher.clone());
            }
        }
        Ok(Digest(hasher.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::source::digest;
    use proptest::prelude::*;

    fn image(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 / 7).to_le_bytes()[0]).collect()
    }

    /// The digest, and how many bytes were read for it.
    fn prefix(hasher: &mut PrefixHasher, image: &[u8], offset: usize) -> (Digest, usize) {
        let mut read = 0;
        let digest = hasher
            .digest(offset as u64, |at, bytes| {
                let at = usize::try_from(at).unwrap();
                bytes.copy_from_slice(&image[at..at + bytes.len()]);
                read += bytes.len();
                Ok(())
            })
            .unwrap();
        (digest, read)
    }

    #[test]
    fn a_state_costs_at_most_128_bytes() {
        assert!(size_of::<Sha256>() <= 128, "{}", size_of::<Sha256>());
    }

    #[test]
    fn offsets_around_every_state_have_the_right_digest_and_cost_less_than_a_stride() {
        let image = image(5 * 65_536 + 1000);
        let mut hasher = PrefixHasher::default();
        assert_eq!(
            prefix(&mut hasher, &image, image.len()),
            (digest(&image), image.len())
        );
        for multiple in 0..=5 {
            for offset in [
                multiple * 65_536,
                multiple * 65_536 + 1,
                (multiple + 1) * 65_536 - 1,
            ] {
                let offset = offset.min(image.len());
                let (found, read) = prefix(&mut hasher, &image, offset);
                assert_eq!(found, digest(&image[..offset]), "offset {offset}");
                assert!(read < 65_536, "offset {offset} read {read} bytes");
            }
        }
    }

    #[test]
    fn a_failed_read_is_told_and_the_next_call_goes_on() {
        let image = image(200_000);
        let mut hasher = PrefixHasher::default();
        let failed = hasher.digest(200_000, |at, bytes| {
            if at >= 100_000 {
                return Err(io::Error::other("unplugged"));
            }
            let at = usize::try_from(at).unwrap();
            bytes.copy_from_slice(&image[at..at + bytes.len()]);
            Ok(())
        });
        assert_eq!(failed.unwrap_err().to_string(), "unplugged");
        let (found, read) = prefix(&mut hasher, &image, 200_000);
        assert_eq!((found, read), (digest(&image), 200_000 - 65_536));
    }

    proptest! {
        #[test]
        fn any_offsets_in_any_order(offsets in proptest::collection::vec(0..200_000_usize, 1..12)) {
            let image = image(200_000);
            let mut hasher = PrefixHasher::default();
            for offset in offsets {
                prop_assert_eq!(prefix(&mut hasher, &image, offset).0, digest(&image[..offset]));
            }
        }
    }
}
