//! The gateway's own check of what an operator has signed: a board would refuse it, weeks later and without a word.

use dialhome_proto::id::decode_hex;
use dialhome_proto::statement::{self, GatewaysStatement, Refused};
use dialhome_proto::trust::TrustSet;

use super::{Device, StoreError};
use crate::image::sign::Ed25519;

/// The TrustSet that the device was provisioned with.
pub(crate) fn trust_set(device: &Device) -> Result<TrustSet, StoreError> {
    let mut set = TrustSet {
        epoch: device.trust_epoch,
        threshold: device.trust_threshold,
        keys: Default::default(),
        minimums: Default::default(),
    };
    for text in &device.trust_keys {
        let mut key = [0; 32];
        if !decode_hex(text, &mut key) || set.keys.push(key).is_err() {
            return Err(StoreError::Database(format!(
                "the trust of device {} cannot be read",
                device.id
            )));
        }
    }
    Ok(set)
}

/// The epoch and the gateways of a statement that the board will take.
pub(crate) fn check_statement(
    device: &Device,
    bytes: &[u8],
    in_force: u32,
) -> Result<(u32, Vec<String>), StoreError> {
    let trust = trust_set(device)?;
    let refuse = |refused: Refused| {
        let message = match refused {
            Refused::Malformed(fault) => fault.to_string(),
            Refused::UnknownSigner => format!(
                "device {} does not trust the key that signed this list",
                device.id
            ),
            Refused::WrongDevice => {
                format!(
                    "the list was signed for {}, not for {}",
                    GatewaysStatement::parse(bytes).map_or("?", |s| s.device()),
                    device.id
                )
            }
            Refused::OldEpoch => format!(
                "the list's epoch is not above {in_force}, which device {} has or is about to have",
                device.id
            ),
            Refused::NoTrust | Refused::BadSignature => {
                "the list's signature is not valid".to_owned()
            }
        };
        StoreError::invalid("bad_statement", message)
    };
    let (statement, _) = statement::check(bytes, &device.id, Some(&trust), in_force, &mut Ed25519)
        .map_err(refuse)?;
    Ok((
        statement.epoch(),
        statement.gateways().map(str::to_owned).collect(),
    ))
}

/// Why the device would refuse the manifest's signatures, if it would.
pub(crate) fn refuses(
    device: &Device,
    manifest: &dialhome_proto::manifest::Manifest<'_>,
) -> Option<String> {
    let trust = trust_set(device).ok()?;
    trust
        .verify(manifest.body(), manifest.signatures(), &mut Ed25519)
        .err()
        .map(|reason| reason.to_string())
}
