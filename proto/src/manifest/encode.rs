//! The signer's side: fields to bytes.

use super::{Body, ManifestFault, PREFIX, Required, TrialBudget};
use crate::id::{Digest, SignerId};
use crate::limits::MANIFEST_MAX;
use crate::trust::encode_signatures;
use crate::wire::Writer;

/// What a manifest says, to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct ManifestFields<'a> {
    /// The product that the images are for.
    pub product: &'a str,
    /// Bit set, see [`super::FLAG_SECURITY`].
    pub flags: u8,
    /// 0 in a value: the board's default.
    pub trial: TrialBudget,
    /// The devices that it is for, at most 4; none: every device of the product.
    pub devices: &'a [&'a str],
    /// The images in the order of installation, 1..=4.
    pub entries: &'a [EntryFields<'a>],
}

/// What a manifest says of one image, to be encoded. [`super::Entry`] has the meaning of each field.
#[derive(Clone, Copy, Debug)]
pub struct EntryFields<'a> {
    /// Which part of the board it is for.
    pub component: u8,
    /// 1 to 32 characters, see [`super::is_version`].
    pub version: &'a str,
    /// Not 0.
    pub counter: u64,
    /// Not above `counter`.
    pub floor: u64,
    /// Bytes, not 0.
    pub size: u32,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// First hardware revision.
    pub hardware_min: u16,
    /// Last hardware revision.
    pub hardware_max: u16,
    /// At most 2.
    pub requires: &'a [Required],
}

/// Writes the body, prefix included, to `out` and returns its length in bytes: the bytes to sign.
///
/// # Errors
/// The [`ManifestFault`] with which a board would refuse it; [`ManifestFault::TooLong`] also where `out`
/// is too short.
pub fn encode_body(fields: &ManifestFields<'_>, out: &mut [u8]) -> Result<usize, ManifestFault> {
    let len = write(fields, out).ok_or(ManifestFault::TooLong)?;
    match Body::parse(&out[..len])? {
        (_, []) => Ok(len),
        // Only reached with a list whose count and content disagree, which `write` never makes.
        _ => Err(ManifestFault::Malformed),
    }
}

fn write(fields: &ManifestFields<'_>, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.bytes(PREFIX)?;
    writer.put(&fields.product)?;
    writer.put(&fields.flags)?;
    writer.put(&fields.trial.boots)?;
    writer.put(&fields.trial.dials)?;
    writer.put(&fields.trial.awake_s)?;
    writer.count(fields.devices.len())?;
    for device in fields.devices {
        writer.put(device)?;
    }
    writer.count(fields.entries.len())?;
    for entry in fields.entries {
        writer.put(&entry.component)?;
        writer.put(&entry.version)?;
        writer.put(&entry.counter)?;
        writer.put(&entry.floor)?;
        writer.put(&entry.size)?;
        writer.bytes(&entry.sha256.0)?;
        writer.put(&entry.hardware_min)?;
        writer.put(&entry.hardware_max)?;
        writer.count(entry.requires.len())?;
        for required in entry.requires {
            writer.put(&required.component)?;
            writer.bytes(&required.digest.0)?;
        }
    }
    Some(writer.len())
}

/// Appends `count || signatures` to the body in `out[..body_len]` and returns the manifest's length.
///
/// # Errors
/// [`ManifestFault::Signatures`] unless there are 1..=3, [`ManifestFault::TooLong`] above 768 bytes or
/// where `out` is too short.
pub fn assemble(
    out: &mut [u8],
    body_len: usize,
    signatures: &[(SignerId, [u8; 64])],
) -> Result<usize, ManifestFault> {
    if !(1..=crate::limits::SIGNATURES_MAX).contains(&signatures.len()) {
        return Err(ManifestFault::Signatures);
    }
    let len = out
        .get_mut(body_len..)
        .and_then(|rest| encode_signatures(signatures, rest))
        .map(|added| body_len + added)
        .filter(|len| *len <= MANIFEST_MAX);
    len.ok_or(ManifestFault::TooLong)
}
