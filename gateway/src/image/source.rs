//! A file on the operator's disk, and the image that it becomes.

use std::path::Path;

use dialhome_proto::id::Digest;
use sha2::{Digest as _, Sha256};

use super::hex::{HexError, Select, flatten};

/// What an image was made from: kept beside it so that an operator can find the file again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name, without the folders before it; at most 255 bytes.
    pub name: String,
    /// How it became the image.
    pub format: Format,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// How a file becomes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Unchanged.
    Raw,
    /// From Intel HEX to flat.
    Hex,
}

impl Format {
    /// The format's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hex => "hex",
        }
    }

    /// By the file's name: `.hex` and `.ihex`, in either case, are Intel HEX; every other file is taken as
    /// it is. The content is not looked at, because a raw image may begin with any bytes.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let is_hex = path.extension().is_some_and(|extension| {
            extension.eq_ignore_ascii_case("hex") || extension.eq_ignore_ascii_case("ihex")
        });
        if is_hex { Self::Hex } else { Self::Raw }
    }
}

/// An image, where it came from, and what a person should know about the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The image.
    pub payload: Vec<u8>,
    /// The file.
    pub source: Source,
    /// Of Intel HEX: address of the image's first byte.
    pub base: Option<u32>,
    /// Of Intel HEX: bytes that the file did not mention, filled with 0xFF.
    pub filled: usize,
}

/// Makes the image of a file's content.
///
/// # Errors
/// [`HexError`], where the format is [`Format::Hex`].
pub fn make(
    path: &Path,
    content: Vec<u8>,
    format: Format,
    select: &Select,
) -> Result<Made, HexError> {
    let source = Source {
        name: file_name(path),
        format,
        size: content.len() as u64,
        sha256: digest(&content),
    };
    match format {
        Format::Raw => Ok(Made {
            payload: content,
            source,
            base: None,
            filled: 0,
        }),
        Format::Hex => {
            let flat = flatten(&content, select)?;
            Ok(Made {
                payload: flat.bytes,
                source,
                base: Some(flat.base),
                filled: flat.filled,
            })
        }
    }
}

/// SHA-256 of bytes in memory.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut end = name.len().min(255);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_decides_the_format() {
        for name in ["a.hex", "a.HEX", "a.ihex", "dir.bin/a.b.Hex"] {
            assert_eq!(Format::of(Path::new(name)), Format::Hex, "{name}");
        }
        for name in ["a.bin", "hex", ".hex", "a.hex.bin", "a.elf", "a"] {
            assert_eq!(Format::of(Path::new(name)), Format::Raw, "{name}");
        }
    }

    #[test]
    fn a_raw_file_goes_unchanged() {
        let content = b":00000001FF\n\0\xff".to_vec();
        let made = make(
            Path::new("/x/fw.bin"),
            content.clone(),
            Format::Raw,
            &Select::Whole,
        )
        .unwrap();
        assert_eq!(made.payload, content);
        assert_eq!(made.source.name, "fw.bin");
        assert_eq!(
            (made.source.size, made.source.sha256),
            (14, digest(&content))
        );
    }

    #[test]
    fn a_long_name_is_cut_between_two_characters() {
        let made = make(
            Path::new(&"é".repeat(200)),
            vec![1],
            Format::Raw,
            &Select::Whole,
        )
        .unwrap();
        assert_eq!(made.source.name, "é".repeat(127));
    }
}
