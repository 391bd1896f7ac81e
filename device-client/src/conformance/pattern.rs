//! Bytes that tell from which write they come.

/// The byte at `index` of the write that `tag` names. Two tags agree in one byte of 256.
pub(super) const fn byte(tag: u32, index: u32) -> u8 {
    let mut mixed = index
        .wrapping_add(tag.wrapping_mul(0x9E37_79B1))
        .wrapping_mul(0x85EB_CA6B);
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(0xC2B2_AE35);
    let [first, ..] = mixed.to_be_bytes();
    first
}

/// Fills a piece that begins at `start`.
pub(super) fn fill(tag: u32, start: u32, piece: &mut [u8]) {
    for (byte, index) in piece.iter_mut().zip(start..) {
        *byte = self::byte(tag, index);
    }
}

/// Where the piece is not as `fill` made it, counted from its beginning.
pub(super) fn differs(tag: u32, start: u32, piece: &[u8]) -> Option<u32> {
    piece
        .iter()
        .zip(start..)
        .zip(0..)
        .find_map(|((found, index), place)| (*found != byte(tag, index)).then_some(place))
}
