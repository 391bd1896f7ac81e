//! The operator's signing keys: Ed25519 in two small PEM files, never on the gateway.
//!
//! FILE is the private key (PKCS #8, mode 0600) and FILE.pub the public one (SPKI), as `openssl genpkey
//! -algorithm ed25519` and `openssl pkey -pubout` would write them; both programs read each other's files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dialhome_proto::id::SignerId;
use dialhome_proto::trust::signer_id;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// A key file is a few hundred bytes; a bigger one is another file.
const FILE_LEN_MAX: u64 = 16 * 1024;

/// What is wrong with a key file.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file is there already, and a key is never overwritten.
    #[error("{} exists already, and a key is never overwritten", .0.display())]
    Exists(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read the private key.
    #[error("others may read or write the private key {} (its mode is {mode:04o})", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A public key where a private one is needed.
    #[error("{} is a public key, and signing needs the private one", .0.display())]
    IsPublic(PathBuf),
    /// A private key where a public one is needed.
    #[error("{} is a private key, and here the public one is needed", .0.display())]
    IsPrivate(PathBuf),
    /// A private key under a passphrase.
    #[error("{} is encrypted with a passphrase, which is not supported", .0.display())]
    Encrypted(PathBuf),
    /// Neither kind of key.
    #[error("{} is not an Ed25519 key in PEM form", .0.display())]
    NotKey(PathBuf),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(String),
}

impl KeyError {
    /// What to do about it, where that is not plain from the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(_) => Some("Choose another name with --out.".into()),
            Self::Open { path, .. } => Some(format!("Run `chmod 600 {}`.", path.display())),
            Self::IsPublic(path) => {
                let private = path.with_extension("");
                Some(format!("Use {}.", private.display()))
            }
            Self::IsPrivate(path) => Some(format!("Use {}.", public_path(path).display())),
            Self::Encrypted(path) => Some(format!(
                "Decrypt it with `openssl pkey -in {} -out FILE` and keep FILE on this machine only.",
                path.display()
            )),
            Self::NotKey(_) => Some("Make one with `dialhome key generate --out FILE`.".into()),
            Self::File { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                Some("Make a key with `dialhome key generate --out FILE`.".into())
            }
            Self::File { .. } | Self::Random(_) => None,
        }
    }

    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| match error.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists(path),
            _ => Self::File { path, error },
        }
    }
}

/// Two files that hold a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The private key.
    pub private: PathBuf,
    /// The public key: the private one's path and `.pub`.
    pub public: PathBuf,
    /// The id that stands for the key in signatures.
    pub signer: SignerId,
}

/// FILE.pub for FILE.
#[must_use]
pub fn public_path(private: &Path) -> PathBuf {
    let mut path = private.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// Makes a key and writes both files, which must not be there yet.
///
/// # Errors
/// [`KeyError::Exists`], [`KeyError::File`] or [`KeyError::Random`]; then neither file is left behind.
pub fn generate(private: &Path) -> Result<KeyFiles, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| KeyError::Random(error.to_string()))?;
    let key = SigningKey::from_bytes(&seed);
    // Without the public half, which is optional there: OpenSSL does not read a file that has it.
    let pair = KeypairBytes {
        secret_key: *seed,
        public_key: None,
    };
    let private_pem = pair
        .to_pkcs8_pem(LineEnding::LF)
        .expect("32 bytes are a key");
    let public_pem = key
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .expect("a public key has an encoding");
    let public = public_path(private);
    write_new(private, 0o600, private_pem.as_bytes())?;
    if let Err(error) = write_new(&public, 0o644, public_pem.as_bytes()) {
        // Nobody has used the key that this call has just made.
        drop(std::fs::remove_file(private));
        return Err(error);
    }
    Ok(KeyFiles {
        private: private.into(),
        public,
        signer: signer_id(key.verifying_key().as_bytes()),
    })
}

/// Creates the file, which must not exist, and waits until it is on the disk.
fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), KeyError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(KeyError::file(path))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|error| {
        drop(std::fs::remove_file(path));
        KeyError::File {
            path: path.into(),
            error,
        }
    })
}

/// Reads a private key.
///
/// A file that others may read or write is refused, as ssh does: the signing key is all that stands between
/// a stolen gateway and the boards, and a warning would scroll by in the script that signs every build.
///
/// # Errors
/// [`KeyError`], which names what the file is instead.
pub fn read_private(path: &Path) -> Result<SigningKey, KeyError> {
    let (text, mode) = read(path)?;
    if text.contains("-----BEGIN PUBLIC KEY-----") {
        return Err(KeyError::IsPublic(path.into()));
    }
    if text.contains("ENCRYPTED") {
        return Err(KeyError::Encrypted(path.into()));
    }
    let key = SigningKey::from_pkcs8_pem(text.trim()).map_err(|_| KeyError::NotKey(path.into()))?;
    // Only of a key is it worth saying: another file may be as open as it likes.
    if mode & 0o077 != 0 {
        return Err(KeyError::Open {
            path: path.into(),
            mode,
        });
    }
    Ok(key)
}

/// Reads a public key: the 32 bytes of it.
///
/// # Errors
/// [`KeyError`], which names what the file is instead.
pub fn read_public(path: &Path) -> Result<[u8; 32], KeyError> {
    let (text, _) = read(path)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::IsPrivate(path.into()));
    }
    match VerifyingKey::from_public_key_pem(text.trim()) {
        // Under a key of small order nearly any text would seem signed.
        Ok(key) if !key.is_weak() => Ok(key.to_bytes()),
        _ => Err(KeyError::NotKey(path.into())),
    }
}

fn read(path: &Path) -> Result<(Zeroizing<String>, u32), KeyError> {
    let file = File::open(path).map_err(KeyError::file(path))?;
    let mode = file.metadata().map_err(KeyError::file(path))?.mode() & 0o7777;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(KeyError::file(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::NotKey(path.into()))?;
    Ok((Zeroizing::new(text.into()), mode))
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
