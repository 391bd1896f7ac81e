//! One gateway per data directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;

use super::StoreError;

/// The lock on a data directory; the system releases it when the process ends, however it ends.
pub(crate) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the directory where there is none (mode 0700) and locks it.
    pub(crate) fn take(data: &Path) -> Result<Self, StoreError> {
        let fault = |action, error: std::io::Error| match error.kind() {
            ErrorKind::StorageFull => StoreError::DiskFull { path: data.into() },
            _ => StoreError::Io {
                action,
                path: data.into(),
                detail: error.to_string(),
            },
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .map_err(|error| fault("cannot make", error))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(data.join("lock"))
            .map_err(|error| fault("cannot write in", error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: data.into() }),
            Err(error) => Err(fault("cannot lock", error.into())),
        }
    }
}
