//! CRC-32/ISO-HDLC: the board's check of what it reads back from flash.

/// A microcontroller's flash is dearer than its time: without a table, bit by bit, it takes
/// 2 ms for a KiB at 48 MHz, which is less than the SHA-256 of the same bytes. 60 bytes of
/// flash; the crate's takes 300.
#[cfg(any(target_os = "none", test))]
mod short {
    /// A checksum under way, inverted.
    #[derive(Clone)]
    pub(super) struct Sum(u32);

    impl Sum {
        pub(super) const fn new() -> Self {
            Self(u32::MAX)
        }

        #[inline(never)]
        pub(super) fn update(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 ^= u32::from(*byte);
                for _ in 0..8 {
                    let carry = self.0 & 1;
                    self.0 >>= 1;
                    self.0 ^= 0xEDB8_8320 & 0_u32.wrapping_sub(carry);
                }
            }
        }

        pub(super) const fn finish(self) -> u32 {
            !self.0
        }
    }
}

/// With a table of 1 KiB; with sixteen of them on hosts that have the cache for it, in an
/// eighth of the time for each byte.
#[cfg(not(target_os = "none"))]
mod quick {
    use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};

    const TABLES: usize = if cfg!(target_pointer_width = "64") {
        16
    } else {
        1
    };
    type Steps = Table<TABLES>;

    static CRC: Crc<u32, Steps> = Crc::<u32, Steps>::new(&CRC_32_ISO_HDLC);

    /// A checksum under way.
    #[derive(Clone)]
    pub(super) struct Sum(Digest<'static, u32, Steps>);

    impl Sum {
        pub(super) fn new() -> Self {
            Self(CRC.digest())
        }

        pub(super) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(super) fn finish(self) -> u32 {
            self.0.finalize()
        }
    }
}

#[cfg(not(target_os = "none"))]
use quick::Sum;
#[cfg(target_os = "none")]
use short::Sum;

/// A checksum under way.
#[derive(Clone)]
pub struct Crc32(Sum);

impl Crc32 {
    /// Starts with no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(Sum::new())
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far, little-endian as in a Chunk.
    #[must_use]
    pub fn finish(self) -> [u8; 4] {
        self.0.finish().to_le_bytes()
    }
}

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Crc32 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Crc32(..)")
    }
}

/// The checksum of `bytes`, little-endian as in a Chunk.
#[must_use]
pub fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc32::new();
    crc.update(bytes);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926_u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn both_ways_give_one_sum(
            one in prop::collection::vec(any::<u8>(), 0..100),
            two in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let (mut short, mut quick) = (short::Sum::new(), Sum::new());
            for piece in [&one, &two] {
                short.update(piece);
                quick.update(piece);
            }
            prop_assert_eq!(short.finish(), quick.finish());
        }
    }
}
