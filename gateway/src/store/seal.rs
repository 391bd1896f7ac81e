//! Device keys at rest: sealed under `secret.key`, which lies beside the database and not in it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::StoreError;

/// Name of the sealing key in the data directory.
pub(crate) const SECRET_KEY: &str = "secret.key";

/// A device's keys, opened; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The key in force.
    pub(crate) current: Zeroizing<[u8; 32]>,
    /// The key that a rotation has made.
    pub(crate) pending: Option<Zeroizing<[u8; 32]>>,
}

/// The sealing key.
pub(crate) struct Seal(LessSafeKey);

impl Seal {
    /// Reads the key of the data directory, or makes it where `may_create`.
    pub(crate) fn open(data: &Path, may_create: bool) -> Result<Self, StoreError> {
        let path = data.join(SECRET_KEY);
        let fault = |action, error: std::io::Error| match error.kind() {
            ErrorKind::StorageFull => StoreError::DiskFull { path: data.into() },
            _ => StoreError::Io {
                action,
                path: path.clone(),
                detail: error.to_string(),
            },
        };
        match File::open(&path) {
            Ok(file) => {
                let mut key = Zeroizing::new(Vec::with_capacity(33));
                file.take(33)
                    .read_to_end(&mut key)
                    .map_err(|error| fault("cannot read", error))?;
                Self::from_bytes(&key).ok_or(StoreError::WrongSecret { path })
            }
            Err(error) if error.kind() == ErrorKind::NotFound && may_create => {
                let key = random_key()?;
                write_secret(data, SECRET_KEY, &*key)
                    .map_err(|error| fault("cannot write", error))?;
                Self::from_bytes(&*key).ok_or(StoreError::WrongSecret { path })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(StoreError::WrongSecret { path })
            }
            Err(error) => Err(fault("cannot read", error)),
        }
    }

    /// The sealing key from its 32 bytes; none where there are not 32.
    pub(crate) fn from_bytes(key: &[u8]) -> Option<Self> {
        (key.len() == 32)
            .then(|| UnboundKey::new(&CHACHA20_POLY1305, key).ok())
            .flatten()
            .map(|key| Self(LessSafeKey::new(key)))
    }

    /// Seals a device's keys, bound to its id.
    pub(crate) fn seal(&self, device: &str, keys: &Keys) -> Result<Vec<u8>, StoreError> {
        let mut plain = Zeroizing::new(keys.current.to_vec());
        if let Some(pending) = &keys.pending {
            plain.extend_from_slice(&**pending);
        }
        self.seal_bytes(device, &plain)
    }

    /// Opens what [`Seal::seal`] made; none where the key or the device is another.
    pub(crate) fn open_keys(&self, device: &str, sealed: &[u8]) -> Option<Keys> {
        let plain = self.open_bytes(device, sealed)?;
        let current = Zeroizing::new(*plain.first_chunk()?);
        let pending = match plain.len() {
            32 => None,
            64 => Some(Zeroizing::new(*plain.last_chunk()?)),
            _ => return None,
        };
        Some(Keys { current, pending })
    }

    /// Seals bytes, bound to `label`: nonce, ciphertext, tag.
    pub(crate) fn seal_bytes(&self, label: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let broken = |_| StoreError::Database("the sealing of a key failed".into());
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(broken)?;
        let mut body = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(label.as_bytes()),
                &mut body,
            )
            .map_err(broken)?;
        Ok([&nonce[..], &body].concat())
    }

    /// Opens what [`Seal::seal_bytes`] made.
    pub(crate) fn open_bytes(&self, label: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(label.as_bytes()),
                &mut body,
            )
            .ok()?
            .len();
        body.truncate(length);
        Some(body)
    }
}

/// Writes a secret of the data directory, for its owner only. Under another name first: a kill in between
/// must not leave half of it.
pub(crate) fn write_secret(data: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let draft = data.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, data.join(name))?;
    File::open(data)?.sync_all()
}

/// 32 random bytes.
pub(crate) fn random_key() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut key = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *key)
        .map_err(|_| StoreError::Database("the system gave no random bytes".into()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_for_its_own_device_and_key_only() {
        let seal = Seal::from_bytes(&[1; 32]).unwrap();
        let keys = Keys {
            current: Zeroizing::new([7; 32]),
            pending: Some(Zeroizing::new([8; 32])),
        };
        let sealed = seal.seal("board-1", &keys).unwrap();
        assert!(seal.open_keys("board-1", &sealed) == Some(keys));
        assert!(seal.open_keys("board-2", &sealed).is_none());
        assert!(
            Seal::from_bytes(&[2; 32])
                .unwrap()
                .open_keys("board-1", &sealed)
                .is_none()
        );
        assert!(!sealed.windows(8).any(|bytes| bytes == [7; 8]));
    }

    #[test]
    fn the_sealing_key_is_made_once_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Seal::open(dir.path(), false),
            Err(StoreError::WrongSecret { .. })
        ));
        let sealed = Seal::open(dir.path(), true)
            .unwrap()
            .seal_bytes("x", b"plain")
            .unwrap();
        assert_eq!(
            Seal::open(dir.path(), true)
                .unwrap()
                .open_bytes("x", &sealed)
                .unwrap()
                .as_slice(),
            b"plain"
        );
        let mode = std::fs::metadata(dir.path().join(SECRET_KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
