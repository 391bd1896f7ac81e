//! Manifests and gateways statements, signed with the operator's keys. Nothing here runs on a gateway.

use std::ops::RangeInclusive;

use dialhome_proto::id::SignerId;
use dialhome_proto::limits::{MANIFEST_MAX, SIGNATURES_MAX, STATEMENT_MAX};
use dialhome_proto::manifest::{
    self, EntryFields, FLAG_SECURITY, ManifestFault, ManifestFields, Required, TrialBudget,
};
use dialhome_proto::statement::{self, StatementFault};
use dialhome_proto::trust::{VerifySignature, signer_id};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;

use super::source::digest;

/// What a manifest is to say of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The product.
    pub product: String,
    /// The version.
    pub version: String,
    /// The component, 0: the main one.
    pub component: u8,
    /// Place in the order of images; by convention the time of signing in Unix seconds.
    pub counter: u64,
    /// Lowest counter that may follow once this image is confirmed. 0 raises no board's floor, so that
    /// every older image can still be put back; it is what `dialhome image sign` takes without `--floor`.
    pub floor: u64,
    /// Hardware revisions that it is for.
    pub hardware: RangeInclusive<u16>,
    /// Devices that it is for, at most 4; none: every device of the product.
    pub devices: Vec<String>,
    /// A security update.
    pub security: bool,
    /// 0 in a value: the board's default.
    pub trial: TrialBudget,
    /// What other components must run, at most 2.
    pub requires: Vec<Required>,
}

/// What a manifest is to say of all its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The product.
    pub product: String,
    /// Devices that it is for, at most 4; none: every device of the product.
    pub devices: Vec<String>,
    /// A security update.
    pub security: bool,
    /// 0 in a value: the board's default.
    pub trial: TrialBudget,
}

/// What a manifest of one or several images is to say of one of them; as in [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The component, 0: the main one.
    pub component: u8,
    /// The version.
    pub version: String,
    /// Place in the order of images of this component.
    pub counter: u64,
    /// Lowest counter that may follow.
    pub floor: u64,
    /// Hardware revisions that it is for.
    pub hardware: RangeInclusive<u16>,
    /// What other components must run, at most 2.
    pub requires: Vec<Required>,
}

/// Why a manifest or statement was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// No key, or more than 3.
    #[error("{0} keys were given; 1 to 3 can sign")]
    Keys(usize),
    /// One key was given twice: its second signature would count for nothing.
    #[error("the key {0} was given twice")]
    DuplicateKey(SignerId),
    /// The image does not fit a 32-bit size.
    #[error("the image is {0} bytes long; at most 4,294,967,295 can be described")]
    TooBig(usize),
    /// A board would refuse the manifest.
    #[error("{0}")]
    Manifest(#[from] ManifestFault),
    /// A board would refuse the statement.
    #[error("{0}")]
    Statement(#[from] StatementFault),
}

/// The manifest of an image, signed by each of the keys.
///
/// # Errors
/// [`SignError`].
pub fn sign(image: &[u8], about: &Description, keys: &[SigningKey]) -> Result<Vec<u8>, SignError> {
    let release = Release {
        product: about.product.clone(),
        devices: about.devices.clone(),
        security: about.security,
        trial: about.trial,
    };
    let part = Part {
        component: about.component,
        version: about.version.clone(),
        counter: about.counter,
        floor: about.floor,
        hardware: about.hardware.clone(),
        requires: about.requires.clone(),
    };
    sign_parts(&release, &[(&part, image)], keys)
}

/// The manifest of several images, in the order of installation, signed by each of the keys.
///
/// # Errors
/// [`SignError`].
pub fn sign_parts(
    release: &Release,
    parts: &[(&Part, &[u8])],
    keys: &[SigningKey],
) -> Result<Vec<u8>, SignError> {
    let devices: Vec<&str> = release.devices.iter().map(String::as_str).collect();
    let mut entries = Vec::with_capacity(parts.len());
    for (part, image) in parts {
        entries.push(EntryFields {
            component: part.component,
            version: &part.version,
            counter: part.counter,
            floor: part.floor,
            size: u32::try_from(image.len()).map_err(|_| SignError::TooBig(image.len()))?,
            sha256: digest(image),
            hardware_min: *part.hardware.start(),
            hardware_max: *part.hardware.end(),
            requires: &part.requires,
        });
    }
    let fields = ManifestFields {
        product: &release.product,
        flags: if release.security { FLAG_SECURITY } else { 0 },
        trial: release.trial,
        devices: &devices,
        entries: &entries,
    };
    let mut out = vec![0; MANIFEST_MAX];
    let body = manifest::encode_body(&fields, &mut out)?;
    let signatures = signatures(&out[..body], keys)?;
    let len = manifest::assemble(&mut out, body, &signatures)?;
    out.truncate(len);
    Ok(out)
}

/// The statement that this device is to dial these gateways (HOST:PORT, 1 to 4), signed by each of the keys.
///
/// # Errors
/// [`SignError`].
pub fn sign_gateways(
    device: &str,
    epoch: u32,
    gateways: &[&str],
    keys: &[SigningKey],
) -> Result<Vec<u8>, SignError> {
    let mut out = vec![0; STATEMENT_MAX];
    let body = statement::encode_body(device, epoch, gateways, &mut out)?;
    let signatures = signatures(&out[..body], keys)?;
    let len = statement::assemble(&mut out, body, &signatures)?;
    out.truncate(len);
    Ok(out)
}

fn signatures(body: &[u8], keys: &[SigningKey]) -> Result<Vec<(SignerId, [u8; 64])>, SignError> {
    if !(1..=SIGNATURES_MAX).contains(&keys.len()) {
        return Err(SignError::Keys(keys.len()));
    }
    let mut signatures: Vec<(SignerId, [u8; 64])> = Vec::with_capacity(keys.len());
    for key in keys {
        let id = signer_id(key.verifying_key().as_bytes());
        if signatures.iter().any(|(earlier, _)| *earlier == id) {
            return Err(SignError::DuplicateKey(id));
        }
        signatures.push((id, key.sign(body).to_bytes()));
    }
    Ok(signatures)
}

/// Ed25519 verification as a board does it: strict, so that one body has one signature per key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl VerifySignature for Ed25519 {
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(public_key).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
