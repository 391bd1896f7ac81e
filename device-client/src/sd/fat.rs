//! The table of clusters lies on the card twice, and embedded-sdmmc writes both copies
//! and reads the first. A power cut can leave a sector of the first full of rubbish: that
//! is told by its numbers, and the second copy is read in its place.

use embedded_sdmmc::{Block, BlockDevice, BlockIdx};

/// Where the partition's first sector stands in the first sector of the card.
const PARTITION: usize = 446 + 8;
/// From this number of clusters on an entry has 32 bits.
const WIDE: u32 = 65_525;

/// The two copies of the table.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    /// First sector of the first copy.
    first: u32,
    /// Sectors of a copy.
    len: u32,
    /// The highest number of a cluster.
    last: u32,
    wide: bool,
}

/// The little-endian number of `len` bytes.
fn number(block: &Block, at: usize, len: usize) -> u32 {
    let bytes = block.contents.iter().skip(at).take(len).rev();
    bytes.fold(0, |number, byte| number << 8 | u32::from(*byte))
}

impl Tables {
    /// Reads where the tables are; `None` where there are not two, or the medium failed.
    pub(super) fn find(medium: &impl BlockDevice) -> Option<Self> {
        let mut blocks = [Block::new()];
        medium.read(&mut blocks, BlockIdx(0)).ok()?;
        let [block] = &blocks;
        let start = number(block, PARTITION, 4);
        medium.read(&mut blocks, BlockIdx(start)).ok()?;
        let [block] = &blocks;
        let either = |short: u32, long: u32| if short == 0 { long } else { short };
        let len = either(number(block, 22, 2), number(block, 36, 4));
        let total = either(number(block, 19, 2), number(block, 32, 4));
        let reserved = number(block, 14, 2);
        let root = number(block, 17, 2).div_ceil(16);
        if number(block, 16, 1) != 2 {
            return None;
        }
        let clusters = total
            .checked_sub(reserved)?
            .checked_sub(len.checked_mul(2)?)?
            .checked_sub(root)?
            .checked_div(number(block, 13, 1))?;
        Some(Self {
            first: start.checked_add(reserved)?,
            len,
            last: clusters.checked_add(1)?,
            wide: clusters >= WIDE,
        })
    }

    /// The second copy of this sector, where it is one of the first.
    pub(super) fn second(&self, sector: BlockIdx) -> Option<BlockIdx> {
        let place = sector.0.checked_sub(self.first)?;
        (place < self.len).then_some(BlockIdx(sector.0.saturating_add(self.len)))
    }

    /// Whether every entry of a sector of the first copy names a cluster that there is, or none.
    pub(super) fn is_sound(&self, sector: BlockIdx, block: &Block) -> bool {
        // The first two entries of all are no clusters'.
        let skipped = if sector.0 == self.first { 2 } else { 0 };
        let (width, end) = if self.wide {
            (4, 0x0FFF_FFF6)
        } else {
            (2, 0xFFF6)
        };
        (skipped..Block::LEN / width).all(|entry| {
            let next = number(block, entry * width, width) & 0x0FFF_FFFF;
            next == 0 || (2..=self.last).contains(&next) || next >= end
        })
    }
}
