//! `dialhome key generate`: the operator's signing key, on the operator's machine.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::error::CliError;
use crate::image::key::{self, KeyError};

/// `dialhome key ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum KeyCommand {
    /// Make an Ed25519 signing key: FILE, to be kept secret, and FILE.pub, for `device add --trust`
    Generate(GenerateArgs),
}

/// The arguments of `dialhome key generate`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct GenerateArgs {
    /// Where the private key goes (mode 0600); the public key goes to FILE.pub. Neither may exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// A key that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// The private key's file.
    pub private: PathBuf,
    /// The public key's file.
    pub public: PathBuf,
    /// The id that stands for the key in signatures, 16 hexadecimal digits.
    pub signer: String,
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Signing key {}\n  private  {}  (keep it off the gateway, and keep a copy)\n  public   {}  (for `dialhome device add --trust`)",
            self.signer,
            self.private.display(),
            self.public.display()
        )
    }
}

/// Makes the key; what is printed is the caller's business.
///
/// # Errors
/// `key_exists`, `key_file` (both exit code 1).
pub fn run(args: &GenerateArgs) -> Result<Generated, CliError> {
    let files = key::generate(&args.out)?;
    Ok(Generated {
        private: files.private,
        public: files.public,
        signer: files.signer.to_string(),
    })
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        let code = match error {
            KeyError::Exists(_) => "key_exists",
            KeyError::File { .. } | KeyError::Random(_) => "key_file",
            KeyError::Open { .. } => "key_permissions",
            KeyError::IsPublic(_)
            | KeyError::IsPrivate(_)
            | KeyError::Encrypted(_)
            | KeyError::NotKey(_) => "bad_key",
        };
        let failed = Self::failed(code, format!("{error}."));
        match error.hint() {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_key_of_the_same_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let args = GenerateArgs {
            out: dir.path().join("op.key"),
        };
        let made = run(&args).unwrap();
        assert!(made.public.ends_with("op.key.pub"));
        assert!(made.to_string().contains(&made.signer));
        let before = std::fs::read(&made.private).unwrap();
        let error = run(&args).unwrap_err();
        assert_eq!((error.exit, error.code), (1, "key_exists"));
        assert!(error.message.contains("op.key exists already"), "{error}");
        assert!(error.hint.is_some());
        assert_eq!(std::fs::read(&made.private).unwrap(), before);
    }
}
