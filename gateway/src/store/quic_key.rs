//! The key that boards know this gateway by over QUIC: an Ed25519 key in `quic.key`, beside `secret.key`.
//!
//! Boards have the digest of its public half, the pin, in their provisioning (spec/protocol.md section 1).
//! So it is in the backup, and a restore puts the backup's in place of this directory's own.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::StoreError;
use super::seal::{random_key, write_secret};

/// Name of the key in the data directory.
pub(crate) const QUIC_KEY: &str = "quic.key";

/// Name of a key that a restore is about to put in its place.
const STAGED: &str = "quic.key.restored";

/// The gateway's key.
#[derive(Clone)]
pub(crate) struct QuicKey {
    key: SigningKey,
    pin: [u8; 32],
}

impl std::fmt::Debug for QuicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicKey({})", super::hex(&self.pin))
    }
}

impl QuicKey {
    /// Reads the key of the data directory, or makes it where there is none.
    ///
    /// # Errors
    /// It cannot be read, made or used.
    pub(crate) fn open(data: &Path, is_new: bool) -> Result<Self, StoreError> {
        if std::fs::remove_file(data.join(STAGED)).is_ok() {
            tracing::warn!(
                "a restore was broken off before its end: repeat it where `dialhome device list` does not show the backup's boards, or boards dial over TCP alone"
            );
        }
        let path = data.join(QUIC_KEY);
        let fault = |action, error: std::io::Error| match error.kind() {
            ErrorKind::StorageFull => StoreError::DiskFull { path: data.into() },
            _ => StoreError::Io {
                action,
                path: path.clone(),
                detail: error.to_string(),
            },
        };
        let seed = match File::open(&path) {
            Ok(file) => {
                let mut seed = Zeroizing::new(Vec::with_capacity(33));
                file.take(33)
                    .read_to_end(&mut seed)
                    .map_err(|error| fault("cannot read", error))?;
                seed
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let seed = random_key()?;
                write_secret(data, QUIC_KEY, &*seed)
                    .map_err(|error| fault("cannot write", error))?;
                if !is_new {
                    tracing::warn!(file = %path.display(), "there was no key for QUIC, and a new one was made: boards that were given the pin of another dial over TCP, and not at all where they are told to use QUIC only; put the old key back from a backup, or give them the new pin");
                }
                Zeroizing::new(seed.to_vec())
            }
            Err(error) => return Err(fault("cannot read", error)),
        };
        Self::from_bytes(&seed).ok_or_else(|| StoreError::Io {
            action: "cannot use",
            path: path.clone(),
            detail: "it is not 32 bytes long; put the right one back from a backup, or remove it: boards that were given its pin then dial over TCP".into(),
        })
    }

    /// The key from the 32 bytes of its file; none where there are not 32.
    pub(crate) fn from_bytes(seed: &[u8]) -> Option<Self> {
        let key = SigningKey::from_bytes(seed.try_into().ok()?);
        let spki = key.verifying_key().to_public_key_der().ok()?;
        let pin = Sha256::digest(spki.as_bytes()).into();
        Some(Self { key, pin })
    }

    /// The 32 bytes of its file.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Writes this key beside the directory's own, durably; [`Self::adopt`] puts it in its place.
    pub(crate) fn stage(&self, data: &Path) -> std::io::Result<()> {
        write_secret(data, STAGED, self.key.as_bytes())
    }

    /// Puts the key that was staged in place of the directory's own.
    pub(crate) fn adopt(data: &Path) -> std::io::Result<()> {
        std::fs::rename(data.join(STAGED), data.join(QUIC_KEY))?;
        File::open(data)?.sync_all()
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub(crate) const fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// The key as PKCS #8, in DER; none is never the case.
    pub(crate) fn pkcs8(&self) -> Option<Zeroizing<Vec<u8>>> {
        let der = self.key.to_pkcs8_der().ok()?;
        Some(Zeroizing::new(der.as_bytes().to_vec()))
    }

    /// The SubjectPublicKeyInfo, in DER: 44 bytes.
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        let der = self.key.verifying_key().to_public_key_der().ok()?;
        Some(der.as_bytes().to_vec())
    }

    /// A secret for one purpose, the same after a restart.
    pub(crate) fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, self.key.as_bytes());
        let mut derived = Zeroizing::new([0; 32]);
        derived.copy_from_slice(aws_lc_rs::hmac::sign(&key, label.as_bytes()).as_ref());
        derived
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_for_its_owner_only_and_its_pin_is_that_of_its_44_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let made = QuicKey::open(dir.path(), true).unwrap();
        let read = QuicKey::open(dir.path(), true).unwrap();
        assert_eq!(made.pin(), read.pin());
        let mode = std::fs::metadata(dir.path().join(QUIC_KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let spki = read.spki().unwrap();
        assert_eq!(spki.len(), 44);
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&spki)), read.pin());
        assert_ne!(read.derive("a"), read.derive("b"));
        std::fs::write(dir.path().join(QUIC_KEY), [7; 31]).unwrap();
        assert!(QuicKey::open(dir.path(), true).is_err());
    }
}
