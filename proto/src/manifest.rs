//! The manifest: what signed images a board should end up with (spec/protocol.md section 6).
//!
//! [`Manifest::parse`] checks the whole layout once and keeps only slices of the input; what it returns
//! can be read without a further error. Whether a board should take it is [`check()`]'s question.

mod check;
mod encode;

use core::fmt;

pub use self::check::{
    Accepted, BoardFacts, ComponentFacts, Offered, Remembered, check, judge_others, recheck,
};
pub use self::encode::{EntryFields, ManifestFields, assemble, encode_body};
use crate::hash::sha256;
use crate::id::{Digest, is_name, is_word};
use crate::limits::{
    COMPONENTS_MAX, MANIFEST_DEVICES_MAX, MANIFEST_MAX, REQUIRES_MAX, VERSION_MAX,
};
use crate::limits::{TRIAL_AWAKE_S, TRIAL_BOOTS, TRIAL_DIALS};
use crate::trust::Signatures;
use crate::wire::{self, Reader, Texts, TextsFault, fields};

/// The bytes that every manifest begins with, so that no other signed text can pass for one.
pub const PREFIX: &[u8; 19] = b"dialhome manifest 1";

/// Bit of [`Manifest::flags`]: this is a security update.
pub const FLAG_SECURITY: u8 = 1;

/// A manifest whose layout is right. Nothing is known about its signatures yet.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    body: &'a [u8],
    product: &'a str,
    flags: u8,
    trial: TrialBudget,
    devices: Texts<'a>,
    entries: Entries<'a>,
    signatures: Signatures<'a>,
}

impl<'a> Manifest<'a> {
    /// Reads a whole manifest, signatures included, and checks everything that needs no key.
    ///
    /// # Errors
    /// The first [`ManifestFault`] found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ManifestFault> {
        if bytes.len() > MANIFEST_MAX {
            return Err(ManifestFault::TooLong);
        }
        let (body, rest) = Body::parse(bytes)?;
        let signatures = Signatures::parse(rest).ok_or(ManifestFault::Signatures)?;
        Ok(Self {
            body: wire::before(bytes, rest),
            product: body.product,
            flags: body.flags,
            trial: body.trial,
            devices: body.devices,
            entries: body.entries,
            signatures,
        })
    }

    /// The product that the images are for.
    #[must_use]
    pub const fn product(&self) -> &'a str {
        self.product
    }

    /// The flags as they stand; bits without a name mean nothing.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the signer marked this as a security update.
    #[must_use]
    pub const fn is_security(&self) -> bool {
        self.flags & FLAG_SECURITY != 0
    }

    /// The trial budget as it stands: 0 is the board's default.
    #[must_use]
    pub const fn trial(&self) -> TrialBudget {
        self.trial
    }

    /// The devices that it is for; none: every device of the product.
    #[must_use]
    pub const fn devices(&self) -> Texts<'a> {
        self.devices
    }

    /// Whether this device may take it.
    #[must_use]
    pub fn is_for(&self, device: &str) -> bool {
        let mut devices = self.devices.peekable();
        devices.peek().is_none() || devices.any(|named| named == device)
    }

    /// The images, in the order of installation.
    #[must_use]
    pub const fn entries(&self) -> Entries<'a> {
        self.entries
    }

    /// The image of this component, if there is one.
    #[must_use]
    pub fn entry(&self, component: u8) -> Option<Entry<'a>> {
        self.entries
            .into_iter()
            .find(|entry| entry.component == component)
    }

    /// The signed bytes, prefix included.
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The signatures over [`body`](Self::body), not checked.
    #[must_use]
    pub const fn signatures(&self) -> Signatures<'a> {
        self.signatures
    }

    /// The manifest digest: SHA-256 of the body. Another signature does not change it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(sha256(&[self.body]))
    }
}

/// The signed fields, without the signatures.
pub(crate) struct Body<'a> {
    product: &'a str,
    flags: u8,
    trial: TrialBudget,
    devices: Texts<'a>,
    entries: Entries<'a>,
}

impl<'a> Body<'a> {
    /// Reads the body at the front of `bytes`, and returns what follows it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ManifestFault> {
        let fields = bytes.strip_prefix(PREFIX).ok_or(ManifestFault::Prefix)?;
        let mut reader = Reader::new(fields);
        let product = reader.take().ok_or(ManifestFault::Malformed)?;
        if !is_name(product) {
            return Err(ManifestFault::Product);
        }
        let flags = reader.take().ok_or(ManifestFault::Malformed)?;
        let trial = reader.take().ok_or(ManifestFault::Malformed)?;
        let devices = Texts::parse(&mut reader, MANIFEST_DEVICES_MAX, is_name)?;
        let entries = Entries::parse(&mut reader)?;
        Ok((
            Self {
                product,
                flags,
                trial,
                devices,
                entries,
            },
            reader.rest(),
        ))
    }
}

fields! {
    /// How long a new image may try to prove itself before the board puts the old one back.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TrialBudget {
        /// Boots without confirmation.
        pub boots: u8,
        /// Failed dials while the link is up.
        pub dials: u16,
        /// Time awake, in seconds.
        pub awake_s: u32,
    }
}

impl TrialBudget {
    /// This budget, with the board's default where a value is 0.
    #[must_use]
    pub const fn or_defaults(self) -> Self {
        Self {
            boots: if self.boots == 0 {
                TRIAL_BOOTS
            } else {
                self.boots
            },
            dials: if self.dials == 0 {
                TRIAL_DIALS
            } else {
                self.dials
            },
            awake_s: if self.awake_s == 0 {
                TRIAL_AWAKE_S
            } else {
                self.awake_s
            },
        }
    }
}

/// One image of a manifest.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Which part of the board it is for, 0: the main one.
    pub component: u8,
    /// For people: see [`is_version`].
    pub version: &'a str,
    /// Place in the order of images of this component, not 0.
    pub counter: u64,
    /// Lowest counter that may follow once this image is confirmed; 0 raises nothing.
    pub floor: u64,
    /// Bytes of the image, not 0.
    pub size: u32,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// First hardware revision that it is for.
    pub hardware_min: u16,
    /// Last hardware revision that it is for.
    pub hardware_max: u16,
    requires: Requires<'a>,
}

impl<'a> Entry<'a> {
    fn parse(reader: &mut Reader<'a>) -> Result<Self, ManifestFault> {
        let entry = Self::read(reader).ok_or(ManifestFault::Malformed)?;
        if !is_version(entry.version) {
            return Err(ManifestFault::Version);
        }
        if entry.counter == 0 {
            return Err(ManifestFault::CounterZero);
        }
        if entry.floor > entry.counter {
            return Err(ManifestFault::FloorAboveCounter);
        }
        if entry.size == 0 {
            return Err(ManifestFault::SizeZero);
        }
        if entry.hardware_min > entry.hardware_max {
            return Err(ManifestFault::HardwareRange);
        }
        Ok(entry)
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            component: reader.take()?,
            version: reader.take()?,
            counter: reader.take()?,
            floor: reader.take()?,
            size: reader.take()?,
            sha256: Digest(*reader.array()?),
            hardware_min: reader.take()?,
            hardware_max: reader.take()?,
            requires: Requires::read(reader)?,
        })
    }

    /// What the board's other components must run for this image to be installed.
    #[must_use]
    pub const fn requires(&self) -> Requires<'a> {
        self.requires
    }

    /// Whether a board of this hardware revision may take it.
    #[must_use]
    pub const fn fits_hardware(&self, revision: u16) -> bool {
        self.hardware_min <= revision && revision <= self.hardware_max
    }
}

/// The images of a manifest, in the order of installation.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    left: u32,
    reader: Reader<'a>,
}

impl<'a> Entries<'a> {
    /// How many are left.
    #[expect(clippy::cast_possible_truncation, reason = "4 at most")]
    pub(crate) const fn how_many(&self) -> u8 {
        self.left as u8
    }

    fn parse(reader: &mut Reader<'a>) -> Result<Self, ManifestFault> {
        let left = reader
            .count(COMPONENTS_MAX)
            .filter(|count| *count != 0)
            .ok_or(ManifestFault::Entries)?;
        let entries = Self {
            left,
            reader: *reader,
        };
        for at in 0..left {
            let entry = Entry::parse(reader)?;
            let earlier = Self {
                left: at,
                ..entries
            };
            if earlier
                .into_iter()
                .any(|other| other.component == entry.component)
            {
                return Err(ManifestFault::DuplicateComponent(entry.component));
            }
        }
        Ok(entries)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        Entry::read(&mut self.reader)
    }
}

/// A component, and the digest of the image that it must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Required {
    /// The component.
    pub component: u8,
    /// SHA-256 of the image that must run there.
    pub digest: Digest,
}

/// What an entry requires of the board's other components.
#[derive(Clone, Copy, Debug)]
pub struct Requires<'a> {
    left: u32,
    reader: Reader<'a>,
}

impl<'a> Requires<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let left = reader.count(REQUIRES_MAX)?;
        let mut requires = Self {
            left,
            reader: *reader,
        };
        for _ in 0..left {
            requires.next()?;
        }
        let end = requires.reader;
        let all = Self {
            left,
            reader: *reader,
        };
        *reader = end;
        Some(all)
    }
}

impl Iterator for Requires<'_> {
    type Item = Required;

    fn next(&mut self) -> Option<Required> {
        self.left = self.left.checked_sub(1)?;
        Some(Required {
            component: self.reader.take()?,
            digest: Digest(*self.reader.array()?),
        })
    }
}

/// Whether `text` may be an image's version: `[A-Za-z0-9._+~-]{1,32}`.
///
/// It stands behind the `@` of an image's name, in logs and in addresses, so it has no space, no `@`
/// and no `/`.
#[must_use]
pub fn is_version(text: &str) -> bool {
    (1..=VERSION_MAX).contains(&text.len()) && is_word(text.as_bytes(), b"._+~-")
}

/// What is wrong with the layout or the values of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFault {
    /// More than 768 bytes.
    TooLong,
    /// It does not begin with [`PREFIX`].
    Prefix,
    /// A field ends early, or does not fit its type.
    Malformed,
    /// The product is not a name.
    Product,
    /// More than 4 devices, or one that is not a name.
    Devices,
    /// No entry, or more than 4.
    Entries,
    /// Two entries for this component.
    DuplicateComponent(u8),
    /// A version is not one ([`is_version`]).
    Version,
    /// A counter is 0.
    CounterZero,
    /// A floor is above its own image's counter: no image could follow, not even this one.
    FloorAboveCounter,
    /// An image of 0 bytes.
    SizeZero,
    /// The first hardware revision is above the last.
    HardwareRange,
    /// Not 1..=3 signatures, or bytes after the last one.
    Signatures,
}

impl From<TextsFault> for ManifestFault {
    fn from(fault: TextsFault) -> Self {
        match fault {
            TextsFault::Malformed => Self::Malformed,
            TextsFault::Wrong => Self::Devices,
        }
    }
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the manifest is longer than 768 bytes",
            Self::Prefix => {
                "this is not a manifest: it does not begin with \"dialhome manifest 1\""
            }
            Self::Malformed => "the manifest is cut short or malformed",
            Self::Product => "the product is not a name of 1 to 64 letters, digits, _ and -",
            Self::Devices => {
                "the manifest may name at most 4 devices, each of 1 to 64 letters, digits, _ and -"
            }
            Self::Entries => "a manifest describes 1 to 4 images",
            Self::DuplicateComponent(component) => {
                return write!(f, "two images for component {component}");
            }
            Self::Version => "the version is not 1 to 32 letters, digits and . _ + ~ -",
            Self::CounterZero => "the counter is 0",
            Self::FloorAboveCounter => "the floor is above the image's own counter",
            Self::SizeZero => "the image is empty",
            Self::HardwareRange => "the first hardware revision is above the last",
            Self::Signatures => "a manifest ends with 1 to 3 signatures and nothing after them",
        })
    }
}

impl core::error::Error for ManifestFault {}
