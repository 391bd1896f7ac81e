//! Intel HEX to a flat image.
//!
//! Boards write an image from one address upwards, so a file with parts far from each other is two images
//! in one: which of them is meant is the operator's decision, and never guessed here.

use std::fmt;
use std::ops::RangeInclusive;

use ihex::{ReaderError, Record};
use thiserror::Error;

/// Largest gap that is filled, in bytes; a wider one separates two segments.
pub const GAP_MAX: u64 = 4096;

/// What a gap is filled with: erased flash.
pub const FILL: u8 = 0xFF;

/// Which part of a file becomes the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// All of it, which must be one segment.
    #[default]
    Whole,
    /// The segment that this address is in.
    Segment(u32),
    /// Whatever is outside these ranges (first and last address), which must be one segment.
    Without(Vec<RangeInclusive<u32>>),
}

/// A flat image and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Address of the first byte in the Intel HEX file.
    pub base: u32,
    /// The image.
    pub bytes: Vec<u8>,
    /// Bytes of it that the file does not mention: they are [`FILL`].
    pub filled: usize,
}

/// Bytes of a file that lie together: no gap in them is wider than [`GAP_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address of the first byte.
    pub first: u32,
    /// Address of the last byte.
    pub last: u32,
}

impl Segment {
    /// Bytes from the first to the last, at least 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.last) - u64::from(self.first) + 1
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.size() == 1 { "byte" } else { "bytes" };
        write!(
            f,
            "{:#010X}-{:#010X} ({} {unit})",
            self.first,
            self.last,
            self.size()
        )
    }
}

/// What is wrong with an Intel HEX file. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HexError {
    /// The file is not text.
    #[error("this is not an Intel HEX file: it is not text")]
    NotText,
    /// A checksum is wrong.
    #[error(
        "line {line}: the checksum is {found:02X} and should be {computed:02X}, so the line is damaged"
    )]
    Checksum {
        /// Where.
        line: usize,
        /// What stands there.
        found: u8,
        /// What the line's bytes add up to.
        computed: u8,
    },
    /// A line is not a record.
    #[error("line {line}: {problem}")]
    Line {
        /// Where.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Two records write one address.
    #[error("line {line} writes address {address:#010X}, which line {earlier} has written already")]
    Overlap {
        /// The later of the two lines.
        line: usize,
        /// The earlier one.
        earlier: usize,
        /// The first address that both write.
        address: u32,
    },
    /// The last record is missing.
    #[error("there is no end-of-file record (:00000001FF), so the file is cut short")]
    NoEnd,
    /// Something follows the last record.
    #[error("line {line} follows the end-of-file record: are these two files in one?")]
    AfterEnd {
        /// Where.
        line: usize,
    },
    /// There is no data, or none is left.
    #[error("the file holds no data{}", if *.skipped { " outside the skipped ranges" } else { "" })]
    Empty {
        /// Ranges were left out.
        skipped: bool,
    },
    /// There is more than one segment.
    #[error("the file has {} segments more than 4 KiB apart: {}", .0.len(), join(.0))]
    Segments(Vec<Segment>),
    /// The chosen address is in no segment.
    #[error("no segment holds address {address:#010X}; there is {}", join(.segments))]
    NoSuchSegment {
        /// The chosen address.
        address: u32,
        /// The segments of the file.
        segments: Vec<Segment>,
    },
    /// A range to leave out has nothing in it.
    #[error("the file has nothing in {first:#010X}-{last:#010X}, which is to be skipped")]
    NothingSkipped {
        /// First address of the range.
        first: u32,
        /// Last address of the range.
        last: u32,
    },
}

impl HexError {
    /// What to do about it, where that is not plain from the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Segments(segments) => {
                let largest = segments.iter().max_by_key(|segment| segment.size())?;
                let skips: Vec<_> = segments
                    .iter()
                    .filter(|segment| *segment != largest)
                    .map(|segment| format!("--skip {:#010X}-{:#010X}", segment.first, segment.last))
                    .collect();
                Some(format!(
                    "Take one with --segment {:#010X}, or leave parts out with {}.",
                    largest.first,
                    skips.join(" ")
                ))
            }
            Self::NoSuchSegment { segments, .. } => {
                let first = segments.first()?;
                Some(format!("For example --segment {:#010X}.", first.first))
            }
            Self::Checksum { .. } | Self::NoEnd => Some("Build or copy the file again.".into()),
            Self::NotText => {
                Some("With --raw the file goes unchanged, whatever it is called.".into())
            }
            _ => None,
        }
    }
}

fn join(segments: &[Segment]) -> String {
    let texts: Vec<_> = segments.iter().map(Segment::to_string).collect();
    texts.join(", ")
}

/// Makes a flat image of an Intel HEX file: gaps of at most [`GAP_MAX`] bytes are filled with [`FILL`].
///
/// # Errors
/// The first [`HexError`] found.
pub fn flatten(file: &[u8], select: &Select) -> Result<Flat, HexError> {
    let text = std::str::from_utf8(file).map_err(|_| HexError::NotText)?;
    let mut pieces = read(text)?;
    pieces.sort_by_key(|piece| (piece.address, piece.line));
    refuse_overlap(&pieces)?;
    let skipped = if let Select::Without(ranges) = select {
        for range in ranges {
            pieces = without(pieces, range)?;
        }
        true
    } else {
        false
    };
    let segments = segments(&pieces);
    let chosen = match (select, segments.as_slice()) {
        (_, []) => return Err(HexError::Empty { skipped }),
        (Select::Segment(address), all) => all
            .iter()
            .find(|segment| (segment.first..=segment.last).contains(address))
            .copied()
            .ok_or_else(|| HexError::NoSuchSegment {
                address: *address,
                segments: all.to_vec(),
            })?,
        (_, [only]) => *only,
        _ => return Err(HexError::Segments(segments)),
    };
    Ok(fill(&pieces, chosen))
}

/// The data of one record, or what is left of it.
struct Piece {
    line: usize,
    address: u32,
    bytes: Vec<u8>,
}

impl Piece {
    /// Address of the last byte; a piece is never empty and never goes past the last address.
    fn last(&self) -> u32 {
        self.address + u32::try_from(self.bytes.len() - 1).expect("a record has at most 255 bytes")
    }
}

fn read(text: &str) -> Result<Vec<Piece>, HexError> {
    let mut pieces = Vec::new();
    let mut base = Base::Linear(0);
    let mut ended = false;
    for (at, record) in text.lines().enumerate() {
        let (line, record) = (at + 1, record.trim_end());
        if record.is_empty() {
            continue;
        }
        if ended {
            return Err(HexError::AfterEnd { line });
        }
        match Record::from_record_string(record).map_err(|error| line_error(line, &error))? {
            Record::Data { value, .. } if value.is_empty() => {}
            Record::Data { offset, value } => {
                let address = base.address(offset, value.len()).ok_or(HexError::Line {
                    line,
                    problem: "the record goes past the last address that it can name".into(),
                })?;
                pieces.push(Piece {
                    line,
                    address,
                    bytes: value,
                });
            }
            Record::EndOfFile => ended = true,
            Record::ExtendedSegmentAddress(segment) => base = Base::Segment(segment),
            Record::ExtendedLinearAddress(upper) => base = Base::Linear(upper),
            // Where a program would start says nothing about which bytes it has.
            Record::StartSegmentAddress { .. } | Record::StartLinearAddress(_) => {}
        }
    }
    // An empty file is one that has no data rather than one that is cut short.
    if ended || text.trim().is_empty() {
        Ok(pieces)
    } else {
        Err(HexError::NoEnd)
    }
}

/// What a record's 16-bit offset is added to.
#[derive(Clone, Copy)]
enum Base {
    Segment(u16),
    Linear(u16),
}

impl Base {
    fn address(self, offset: u16, len: usize) -> Option<u32> {
        let len = u32::try_from(len).ok()?;
        match self {
            // In a segment the offset would wrap round to its beginning; no tool means that.
            Self::Segment(segment) => (u32::from(offset) + len <= 1 << 16)
                .then_some(u32::from(segment) * 16 + u32::from(offset)),
            Self::Linear(upper) => {
                let address = u32::from(upper) << 16 | u32::from(offset);
                address.checked_add(len - 1).map(|_| address)
            }
        }
    }
}

fn line_error(line: usize, error: &ReaderError) -> HexError {
    match *error {
        // The library's own sentence has the two the other way round.
        ReaderError::ChecksumMismatch(computed, found) => HexError::Checksum {
            line,
            found,
            computed,
        },
        ReaderError::MissingStartCode => HexError::Line {
            line,
            problem: "an Intel HEX record begins with a colon".into(),
        },
        ref other => HexError::Line {
            line,
            problem: format!("not an Intel HEX record: {other}"),
        },
    }
}

/// `pieces` are in the order of their addresses.
fn refuse_overlap(pieces: &[Piece]) -> Result<(), HexError> {
    for pair in pieces.windows(2) {
        if pair[1].address <= pair[0].last() {
            return Err(HexError::Overlap {
                line: pair[0].line.max(pair[1].line),
                earlier: pair[0].line.min(pair[1].line),
                address: pair[1].address,
            });
        }
    }
    Ok(())
}

fn without(pieces: Vec<Piece>, range: &RangeInclusive<u32>) -> Result<Vec<Piece>, HexError> {
    let mut kept = Vec::with_capacity(pieces.len());
    let mut removed = false;
    for piece in pieces {
        if piece.last() < *range.start() || *range.end() < piece.address {
            kept.push(piece);
            continue;
        }
        removed = true;
        // Of a record across an edge of the range, what is outside stays.
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (address, byte) in (piece.address..=piece.last()).zip(&piece.bytes) {
            if address < *range.start() {
                before.push(*byte);
            } else if address > *range.end() {
                after.push(*byte);
            }
        }
        if !before.is_empty() {
            kept.push(Piece {
                bytes: before,
                ..piece
            });
        }
        if !after.is_empty() {
            kept.push(Piece {
                line: piece.line,
                address: range.end() + 1,
                bytes: after,
            });
        }
    }
    if removed {
        Ok(kept)
    } else {
        Err(HexError::NothingSkipped {
            first: *range.start(),
            last: *range.end(),
        })
    }
}

/// `pieces` are in the order of their addresses and do not overlap.
fn segments(pieces: &[Piece]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for piece in pieces {
        match segments.last_mut() {
            Some(open) if u64::from(piece.address - open.last) <= GAP_MAX + 1 => {
                open.last = piece.last()
            }
            _ => segments.push(Segment {
                first: piece.address,
                last: piece.last(),
            }),
        }
    }
    segments
}

fn fill(pieces: &[Piece], segment: Segment) -> Flat {
    let mut bytes = Vec::new();
    let mut filled = 0;
    for piece in pieces {
        if piece.address < segment.first || segment.last < piece.address {
            continue;
        }
        let at = usize::try_from(piece.address - segment.first).expect("32 bits fit");
        filled += at - bytes.len();
        bytes.resize(at, FILL);
        bytes.extend_from_slice(&piece.bytes);
    }
    Flat {
        base: segment.first,
        bytes,
        filled,
    }
}

#[cfg(test)]
#[path = "hex_tests.rs"]
mod tests;
