//! CRC-32/ISO-HDLC: the board's check of what it reads back from flash.

use crc::{CRC_32_ISO_HDLC, Crc, Digest};

/// A microcontroller's flash is dearer than its time: without a table it takes 2 ms for a
/// KiB at 48 MHz, which is less than the SHA-256 of the same bytes.
#[cfg(target_os = "none")]
type Steps = crc::NoTable;
/// One table of 1 KiB.
#[cfg(not(target_os = "none"))]
type Steps = crc::Table<1>;

static CRC: Crc<u32, Steps> = Crc::<u32, Steps>::new(&CRC_32_ISO_HDLC);

/// A checksum under way.
#[derive(Clone)]
pub struct Crc32(Digest<'static, u32, Steps>);

impl Crc32 {
    /// Starts with no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(CRC.digest())
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far, little-endian as in a Chunk.
    #[must_use]
    pub fn finish(self) -> [u8; 4] {
        self.0.finalize().to_le_bytes()
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
    CRC.checksum(bytes).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926_u32.to_le_bytes());
    }
}
