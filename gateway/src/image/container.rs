//! The `.dhi` file: a signed manifest, what the image was made from, and the image.
//!
//! ```text
//! "DHI1" | length, u16 BE | manifest | length, u16 BE | source block | payload to the end of the file
//! ```
//!
//! The source block is `name: text`, `format: u8` (0 raw, 1 hex), `size: u64`, `sha256: [u8; 32]` in the
//! encoding of spec/frames.md section 1, and then, where the payload was checked for its board
//! (`image sign --check`), the check as `text` of 1 to 32 bytes. It is not signed: it helps a person to find a
//! file again, and decides nothing. What decides is the manifest, and the payload is checked against it here;
//! the check is made again from the payload, and the gateway remembers which one a product needs.

use std::io;

use dialhome_proto::id::Digest;
use dialhome_proto::limits::MANIFEST_MAX;
use dialhome_proto::manifest::{Entry, Manifest, ManifestFault};
use thiserror::Error;

use super::check::{self, Check, CheckFault};
use super::name::ImageName;
use super::source::{Format, Source, digest};
use crate::store::ImageRecord;

/// The bytes that every `.dhi` file begins with.
pub const MAGIC: &[u8; 4] = b"DHI1";

/// Longest source block, in bytes: name 2 + 255, format 1, size 10, digest 32, check 1 + 32.
pub const SOURCE_LEN_MAX: usize = 2 + 255 + 1 + 10 + 32 + (1 + check::TEXT_MAX);

/// Longest part before the payload, in bytes.
pub const HEAD_LEN_MAX: usize = MAGIC.len() + 2 + MANIFEST_MAX + 2 + SOURCE_LEN_MAX;

/// What stands before the payload. The manifest's layout has been checked, its signatures have not: whom a
/// board trusts is the board's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The manifest, signatures included.
    pub manifest: Vec<u8>,
    /// What the payload was made from.
    pub source: Source,
    /// What the payload was checked for, and is checked for again.
    pub check: Option<Check>,
}

/// A whole `.dhi` file in memory; the payload is the one that the manifest describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What stands before the payload.
    pub head: Head,
    /// The image.
    pub payload: Vec<u8>,
}

/// What is wrong with a `.dhi` file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContainerError {
    /// It begins otherwise.
    #[error("this is not a signed image: it does not begin with \"DHI1\"")]
    NotContainer,
    /// It ends within the part before the payload.
    #[error("the signed image is cut short: it ends before its payload begins")]
    CutShort,
    /// The manifest's length is 0 or above 768.
    #[error("the signed image is damaged: its manifest would be {0} bytes long")]
    ManifestLength(usize),
    /// The manifest is wrong.
    #[error("the signed image's manifest is wrong: {0}")]
    Manifest(#[from] ManifestFault),
    /// The source block cannot be read.
    #[error("the signed image is damaged: the block about its source cannot be read")]
    Source,
    /// The check has a name that this version does not know.
    #[error("the signed image has a check that this version of dialhome does not know: {0}")]
    UnknownCheck(String),
    /// The payload does not pass its check.
    #[error("{0}")]
    Check(#[from] CheckFault),
    /// A manifest for several components, whose payloads one file cannot hold.
    #[error("the manifest describes {0} images, and a signed image file carries one")]
    SeveralImages(usize),
    /// The payload has another size.
    #[error("the payload is {found} bytes long, and the manifest says {stated}")]
    Size {
        /// Bytes after the head.
        found: u64,
        /// Bytes by the manifest.
        stated: u32,
    },
    /// The payload has another digest.
    #[error("the payload is damaged: its SHA-256 is {found}, and the manifest says {stated}")]
    Digest {
        /// Of the payload.
        found: Digest,
        /// By the manifest.
        stated: Digest,
    },
}

impl Head {
    /// Reads the head at the front of `bytes`: the head and its length, or `None` where more bytes are
    /// needed. [`HEAD_LEN_MAX`] bytes are always enough.
    ///
    /// # Errors
    /// [`ContainerError`], as soon as the bytes at hand show it.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ContainerError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(ContainerError::NotContainer);
        }
        let mut rest = &bytes[seen..];
        let Some(manifest) = part(&mut rest, |len| {
            (1..=MANIFEST_MAX)
                .contains(&len)
                .then_some(())
                .ok_or(ContainerError::ManifestLength(len))
        })?
        else {
            return Ok(None);
        };
        let parsed = Manifest::parse(manifest)?;
        if parsed.entries().count() != 1 {
            return Err(ContainerError::SeveralImages(parsed.entries().count()));
        }
        let Some(source) = part(&mut rest, |len| {
            (len <= SOURCE_LEN_MAX)
                .then_some(())
                .ok_or(ContainerError::Source)
        })?
        else {
            return Ok(None);
        };
        let (source, check) = read_source(source).ok_or(ContainerError::Source)?;
        let check = check
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| ContainerError::UnknownCheck(check.unwrap_or_default().into()))?;
        let head = Self {
            manifest: manifest.into(),
            source,
            check,
        };
        Ok(Some((head, bytes.len() - rest.len())))
    }

    /// The head as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for part in [
            self.manifest.as_slice(),
            &write_source(&self.source, self.check),
        ] {
            let len = u16::try_from(part.len()).expect("a part is at most 768 bytes");
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// The manifest.
    ///
    /// # Panics
    /// Where `manifest` was replaced by bytes that [`Head::parse`] would have refused.
    #[must_use]
    pub fn parsed(&self) -> Manifest<'_> {
        Manifest::parse(&self.manifest).expect("the manifest was parsed when the head was made")
    }

    /// What the manifest says of the payload.
    ///
    /// # Panics
    /// As [`parsed`](Self::parsed).
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        self.parsed()
            .entries()
            .next()
            .expect("a manifest has an entry")
    }

    /// What an operator calls this image.
    #[must_use]
    pub fn name(&self) -> ImageName {
        let entry = self.entry();
        ImageName {
            product: self.parsed().product().into(),
            component: entry.component,
            version: entry.version.into(),
        }
    }

    /// Checks a payload of this size and digest against the manifest, and makes the image's own check:
    /// `front` is at least the payload's first [`check::FRONT_LEN`] bytes, or all of it where it is shorter.
    ///
    /// # Errors
    /// [`ContainerError::Size`], [`ContainerError::Digest`] or [`ContainerError::Check`].
    pub fn check_payload(
        &self,
        size: u64,
        sha256: Digest,
        front: &[u8],
    ) -> Result<(), ContainerError> {
        let entry = self.entry();
        if size != u64::from(entry.size) {
            return Err(ContainerError::Size {
                found: size,
                stated: entry.size,
            });
        }
        if sha256 != entry.sha256 {
            return Err(ContainerError::Digest {
                found: sha256,
                stated: entry.sha256,
            });
        }
        match self.check {
            Some(check) => Ok(check.verify(front, size)?),
            None => Ok(()),
        }
    }

    /// The store's record of this image.
    #[must_use]
    pub fn record(&self, added: jiff::Timestamp) -> ImageRecord {
        let (manifest, entry) = (self.parsed(), self.entry());
        ImageRecord {
            name: self.name().to_string(),
            product: manifest.product().into(),
            component: entry.component,
            version: entry.version.into(),
            digest: entry.sha256.to_string(),
            manifest_digest: manifest.digest().to_string(),
            source_digest: (self.source.sha256 != entry.sha256)
                .then(|| self.source.sha256.to_string()),
            size: entry.size,
            counter: entry.counter,
            floor: entry.floor,
            hardware: (entry.hardware_min, entry.hardware_max),
            devices: manifest.devices().map(Into::into).collect(),
            signers: manifest
                .signatures()
                .map(|(signer, _)| signer.to_string())
                .collect(),
            check: self.check.map(|check| check.to_string()),
            manifest: self.manifest.clone(),
            added,
        }
    }
}

impl Container {
    /// Reads a whole file and checks the payload against the manifest.
    ///
    /// # Errors
    /// [`ContainerError`], which names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContainerError> {
        let (head, len) = Head::parse(bytes)?.ok_or(ContainerError::CutShort)?;
        let payload = &bytes[len..];
        head.check_payload(payload.len() as u64, digest(payload), payload)?;
        Ok(Self {
            head,
            payload: payload.into(),
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Whatever `out` fails with.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(&self.head.to_bytes())?;
        out.write_all(&self.payload)
    }
}

/// The next part with a length before it; `None` where more bytes are needed.
fn part<'a>(
    rest: &mut &'a [u8],
    check: impl Fn(usize) -> Result<(), ContainerError>,
) -> Result<Option<&'a [u8]>, ContainerError> {
    let Some((len, after)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*len));
    check(len)?;
    let Some((part, after)) = after.split_at_checked(len) else {
        return Ok(None);
    };
    *rest = after;
    Ok(Some(part))
}

/// The source, and the text of the check.
fn read_source(bytes: &[u8]) -> Option<(Source, Option<&str>)> {
    let (name, rest): (&str, _) = postcard::take_from_bytes(bytes).ok()?;
    let (format, rest): (u8, _) = postcard::take_from_bytes(rest).ok()?;
    let (size, rest) = postcard::take_from_bytes(rest).ok()?;
    let (sha256, rest) = rest.split_first_chunk()?;
    let sha256 = Digest(*sha256);
    let check = match rest {
        [] => None,
        rest => match postcard::take_from_bytes(rest).ok()? {
            ("", _) => return None,
            (text, []) => Some(text),
            _ => return None,
        },
    };
    let format = match format {
        0 => Format::Raw,
        1 => Format::Hex,
        _ => return None,
    };
    let source = Source {
        name: name.into(),
        format,
        size,
        sha256,
    };
    (name.len() <= 255).then_some((source, check))
}

fn write_source(source: &Source, check: Option<Check>) -> Vec<u8> {
    let format = match source.format {
        Format::Raw => 0_u8,
        Format::Hex => 1,
    };
    let fields = (source.name.as_str(), format, source.size, source.sha256.0);
    let mut out = vec![0; SOURCE_LEN_MAX];
    let len = postcard::to_slice(&fields, &mut out)
        .expect("a source's name is at most 255 bytes")
        .len();
    out.truncate(len);
    if let Some(check) = check {
        let text = check.to_string();
        out.push(u8::try_from(text.len()).expect("a check's text is short"));
        out.extend_from_slice(text.as_bytes());
    }
    out
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
