//! The `.dhi` file: a signed manifest, what its images were made from, and the images.
//!
//! ```text
//! "DHI1" | length, u16 BE | manifest | for each entry: length, u16 BE | source block | payloads, to the end of the file
//! ```
//!
//! Source blocks and payloads stand in the order of the manifest's entries, 1 to 4, and nothing is between two
//! payloads: the manifest says how long each is.
//!
//! A source block is `name: text`, `format: u8` (0 raw, 1 hex), `size: u64`, `sha256: [u8; 32]` in the
//! encoding of spec/frames.md section 1, and then, where the payload was checked for its board
//! (`image sign --check`), the check as `text` of 1 to 32 bytes. It is not signed: it helps a person to find a
//! file again, and decides nothing. What decides is the manifest, and the payload is checked against it here;
//! the check is made again from the payload, and the gateway remembers which one a product needs.

use std::io;

use dialhome_proto::id::Digest;
use dialhome_proto::limits::{COMPONENTS_MAX, MANIFEST_MAX};
use dialhome_proto::manifest::{Entry, Manifest, ManifestFault};
use thiserror::Error;

use super::check::{self, Check, CheckFault};
use super::name::{ImageName, NamedPart};
use super::source::{Format, Source, digest};
use crate::store::{EntryRecord, ImageRecord};

/// The bytes that every `.dhi` file begins with.
pub const MAGIC: &[u8; 4] = b"DHI1";

/// Longest source block, in bytes: name 2 + 255, format 1, size 10, digest 32, check 1 + 32.
pub const SOURCE_LEN_MAX: usize = 2 + 255 + 1 + 10 + 32 + (1 + check::TEXT_MAX);

/// Longest part before the payloads, in bytes.
pub const HEAD_LEN_MAX: usize =
    MAGIC.len() + 2 + MANIFEST_MAX + COMPONENTS_MAX * (2 + SOURCE_LEN_MAX);

/// What stands before the payloads. The manifest's layout has been checked, its signatures have not: whom a
/// board trusts is the board's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The manifest, signatures included.
    pub manifest: Vec<u8>,
    /// Where the payloads come from, one for each entry of the manifest.
    pub origins: Vec<Origin>,
}

/// Where one payload comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What it was made from.
    pub source: Source,
    /// What it was checked for, and is checked for again.
    pub check: Option<Check>,
}

/// A whole `.dhi` file in memory; the payloads are those that the manifest describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What stands before the payloads.
    pub head: Head,
    /// The images, in the order of the manifest's entries.
    pub payloads: Vec<Vec<u8>>,
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
    /// Of several payloads, one and all behind it are not there.
    #[error("the payload of component {0} is missing: the file ends before it")]
    Missing(u8),
    /// Of several payloads, another one stands in this place.
    #[error(
        "the payloads are not in the manifest's order: that of component {found} stands where that of component {component} belongs"
    )]
    Order {
        /// Whose payload belongs there.
        component: u8,
        /// Whose payload stands there.
        found: u8,
    },
    /// The file goes on behind the last of several payloads.
    #[error("the file is longer than its {0} payloads, by the sizes that the manifest says")]
    TooLong(usize),
    /// What is wrong with one of several payloads.
    #[error("component {component}: {fault}")]
    Of {
        /// Whose payload it is.
        component: u8,
        /// [`ContainerError::Size`], [`ContainerError::Digest`] or [`ContainerError::Check`].
        fault: Box<Self>,
    },
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
        let mut origins = Vec::new();
        for _ in Manifest::parse(manifest)?.entries() {
            let Some(block) = part(&mut rest, |len| {
                (len <= SOURCE_LEN_MAX)
                    .then_some(())
                    .ok_or(ContainerError::Source)
            })?
            else {
                return Ok(None);
            };
            let (source, check) = read_source(block).ok_or(ContainerError::Source)?;
            let check = check
                .map(|text| text.parse())
                .transpose()
                .map_err(|_| ContainerError::UnknownCheck(check.unwrap_or_default().into()))?;
            origins.push(Origin { source, check });
        }
        let head = Self {
            manifest: manifest.into(),
            origins,
        };
        Ok(Some((head, bytes.len() - rest.len())))
    }

    /// The head as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let blocks = self
            .origins
            .iter()
            .map(|origin| write_source(&origin.source, origin.check));
        for part in std::iter::once(self.manifest.clone()).chain(blocks) {
            let len = u16::try_from(part.len()).expect("a part is at most 768 bytes");
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&part);
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

    /// What the manifest says of the payloads, one to four, in order.
    ///
    /// # Panics
    /// As [`parsed`](Self::parsed).
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<'_>> {
        self.parsed().entries().collect()
    }

    /// Bytes of all payloads together.
    ///
    /// # Panics
    /// As [`parsed`](Self::parsed).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.parsed()
            .entries()
            .map(|entry| u64::from(entry.size))
            .sum()
    }

    /// What an operator calls this image.
    #[must_use]
    pub fn name(&self) -> ImageName {
        let manifest = self.parsed();
        let parts = manifest.entries().map(|entry| NamedPart {
            component: entry.component,
            version: entry.version.into(),
        });
        ImageName {
            product: manifest.product().into(),
            parts: parts.collect(),
        }
    }

    /// Checks the payload in this place, of this size and digest, against the manifest, and makes its own
    /// check: `front` is at least the payload's first [`check::FRONT_LEN`] bytes, or all of it where it is
    /// shorter.
    ///
    /// # Errors
    /// [`ContainerError::Size`], [`ContainerError::Digest`] or [`ContainerError::Check`], of one of several
    /// within [`ContainerError::Of`]; of several also [`ContainerError::Missing`] and [`ContainerError::Order`].
    ///
    /// # Panics
    /// Where the manifest has no entry in this place.
    pub fn check_payload(
        &self,
        place: usize,
        size: u64,
        sha256: Digest,
        front: &[u8],
    ) -> Result<(), ContainerError> {
        let entries = self.entries();
        let entry = &entries[place];
        let component = entry.component;
        let several = entries.len() > 1;
        if several && size == 0 {
            return Err(ContainerError::Missing(component));
        }
        let fault = if size != u64::from(entry.size) {
            ContainerError::Size {
                found: size,
                stated: entry.size,
            }
        } else if sha256 != entry.sha256 {
            if let Some(other) = entries.iter().find(|other| other.sha256 == sha256) {
                return Err(ContainerError::Order {
                    component,
                    found: other.component,
                });
            }
            ContainerError::Digest {
                found: sha256,
                stated: entry.sha256,
            }
        } else {
            let check = self.origins.get(place).and_then(|origin| origin.check);
            match check.map(|check| check.verify(front, size)) {
                Some(Err(fault)) => fault.into(),
                _ => return Ok(()),
            }
        };
        Err(if several {
            ContainerError::Of {
                component,
                fault: Box::new(fault),
            }
        } else {
            fault
        })
    }

    /// The store's record of this image. Its size is at most 4,294,967,295 where it is above that.
    ///
    /// # Panics
    /// As [`parsed`](Self::parsed).
    #[must_use]
    pub fn record(&self, added: jiff::Timestamp) -> ImageRecord {
        let manifest = self.parsed();
        let entries: Vec<EntryRecord> = manifest
            .entries()
            .zip(&self.origins)
            .map(|(entry, origin)| EntryRecord {
                component: entry.component,
                version: entry.version.into(),
                digest: entry.sha256.to_string(),
                source_digest: (origin.source.sha256 != entry.sha256)
                    .then(|| origin.source.sha256.to_string()),
                size: entry.size,
                counter: entry.counter,
                floor: entry.floor,
                hardware: (entry.hardware_min, entry.hardware_max),
                check: origin.check.map(|check| check.to_string()),
            })
            .collect();
        let first = entries.first().cloned().expect("a manifest has an entry");
        ImageRecord {
            name: self.name().to_string(),
            product: manifest.product().into(),
            component: first.component,
            version: first.version,
            digest: first.digest,
            manifest_digest: manifest.digest().to_string(),
            source_digest: first.source_digest,
            size: u32::try_from(self.size()).unwrap_or(u32::MAX),
            counter: first.counter,
            floor: first.floor,
            hardware: first.hardware,
            devices: manifest.devices().map(Into::into).collect(),
            signers: manifest
                .signatures()
                .map(|(signer, _)| signer.to_string())
                .collect(),
            check: first.check,
            entries: if entries.len() > 1 {
                entries
            } else {
                Vec::new()
            },
            manifest: self.manifest.clone(),
            added,
        }
    }
}

impl Container {
    /// Reads a whole file and checks the payloads against the manifest.
    ///
    /// # Errors
    /// [`ContainerError`], which names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContainerError> {
        let (head, len) = Head::parse(bytes)?.ok_or(ContainerError::CutShort)?;
        let entries = head.entries();
        let mut rest = &bytes[len..];
        let mut payloads = Vec::with_capacity(entries.len());
        for (place, entry) in entries.iter().enumerate() {
            // One payload alone is whatever follows the head.
            let len = if entries.len() == 1 {
                rest.len()
            } else {
                rest.len().min(entry.size as usize)
            };
            let payload = &rest[..len];
            let sound = head.check_payload(place, len as u64, digest(payload), payload);
            if let Err(fault) = sound {
                return Err(misplaced(&entries, place, rest).unwrap_or(fault));
            }
            payloads.push(payload.into());
            rest = &rest[len..];
        }
        if !rest.is_empty() {
            return Err(ContainerError::TooLong(entries.len()));
        }
        drop(entries);
        Ok(Self { head, payloads })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Whatever `out` fails with.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(&self.head.to_bytes())?;
        self.payloads
            .iter()
            .try_for_each(|payload| out.write_all(payload))
    }
}

/// That another entry's payload begins where the one in this place belongs.
fn misplaced(entries: &[Entry<'_>], place: usize, rest: &[u8]) -> Option<ContainerError> {
    let found = entries.iter().enumerate().find(|(other, entry)| {
        *other != place
            && rest
                .get(..entry.size as usize)
                .is_some_and(|payload| digest(payload) == entry.sha256)
    });
    found.map(|(_, other)| ContainerError::Order {
        component: entries[place].component,
        found: other.component,
    })
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
