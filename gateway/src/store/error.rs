//! What the store refuses, and why; every variant is a sentence that says what to do.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// There is no such record.
    #[error("there is no {what} {name}")]
    NotFound {
        /// The kind of record: `device`, `image` or `update`.
        what: &'static str,
        /// The name that was looked up.
        name: String,
    },
    /// The record exists, and its state does not allow this.
    #[error("{message}")]
    Conflict {
        /// The error's name for scripts.
        code: &'static str,
        /// One sentence that says what is in the way.
        message: String,
        /// One sentence that says what to do.
        hint: Option<String>,
    },
    /// What was asked makes no sense.
    #[error("{message}")]
    Invalid {
        /// The error's name for scripts.
        code: &'static str,
        /// One sentence that says what is wrong with it.
        message: String,
    },
    /// A newer session of the device has taken over; this one must not write any more.
    #[error("a newer session of device {device} has taken over")]
    Fenced {
        /// The device.
        device: String,
    },
    /// The update has ended; only a board's own statement is still recorded.
    #[error("update {update} has already ended")]
    Ended {
        /// The update's id.
        update: String,
    },
    /// The disk is full: nothing of this change is stored.
    #[error("the disk that holds {} is full: nothing was stored. Free some space there; the gateway goes on by itself", path.display())]
    DiskFull {
        /// The data directory.
        path: PathBuf,
    },
    /// Another process holds the database.
    #[error("{} is locked by another program. Stop that program, or copy the data directory with `dialhome backup` instead", path.display())]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// Another gateway serves this data directory.
    #[error("another dialhome serve already runs on {}. Stop it first, or give this one another directory with --data", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error("{} is damaged ({detail}). Move it aside and restore the last backup with `dialhome restore FILE`", path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// The data directory was written by a newer version.
    #[error("{} was written by a newer version of Dialhome (format {found}, this one knows {known}). Run that version or newer, or give another directory with --data", path.display())]
    NewerVersion {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// The sealing key does not open what the database holds.
    #[error("{} does not open the keys in the database. Put back the secret.key that belongs to it, or restore a backup: it holds both", path.display())]
    WrongSecret {
        /// The key file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{action} {}: {detail}", path.display())]
    Io {
        /// What was tried, as in "cannot write".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// SQLite refused for a reason that has no name here.
    #[error("the store failed: {0}")]
    Database(String),
    /// The store has stopped: the gateway is ending.
    #[error("the gateway is stopping")]
    Stopped,
}

impl StoreError {
    /// The error's name for scripts, in `snake_case`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Conflict { code, .. } | Self::Invalid { code, .. } => code,
            Self::Fenced { .. } => "fenced",
            Self::Ended { .. } => "ended",
            Self::DiskFull { .. } => "disk_full",
            Self::Locked { .. } => "locked",
            Self::InUse { .. } => "in_use",
            Self::Corrupt { .. } => "corrupt",
            Self::NewerVersion { .. } => "newer_version",
            Self::WrongSecret { .. } => "wrong_secret",
            Self::Io { .. } => "io",
            Self::Database(_) => "database",
            Self::Stopped => "stopping",
        }
    }

    /// One sentence that says what to do, where the message does not already.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Conflict { hint, .. } => hint.clone(),
            Self::NotFound { what, .. } => Some(match *what {
                "device" => "`dialhome device list` shows the devices.".into(),
                "image" => "`dialhome image list` shows the images.".into(),
                _ => "`dialhome device show ID` names a device's open update.".into(),
            }),
            _ => None,
        }
    }

    /// A missing record.
    pub(crate) fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound {
            what,
            name: name.into(),
        }
    }

    /// A record in a state that does not allow what was asked.
    pub(crate) fn conflict(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Conflict {
            code,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// Input that makes no sense.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            code,
            message: message.into(),
        }
    }
}
