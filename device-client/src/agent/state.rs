//! The state directory: its layout, and the lock that keeps a second agent out.
//!
//! ```text
//! STATE/lock          held while an agent runs, or its launcher; holds its process number
//! STATE/lock.agent    the same of an agent that has a launcher
//! STATE/journal/      cells of the journal, two copies each
//! STATE/slots/a, b    images
//! STATE/current       symbolic link to the image that runs
//! STATE/switch        there while an image is being tried, or the old one brought back
//! STATE/log           the end of the log, from one process of the agent to the next
//! STATE/networks      in which networks QUIC came up, and in which TCP alone did
//! STATE/output-*      what commands printed that failed for an update, for its outcome
//! STATE/boot_id       the kernel's boot id at the last start
//! STATE/components/N/ slots, current and switch of component N
//! ```

use core::fmt;
use std::{
    borrow::ToOwned as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    string::String,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

/// Time for what an agent that was killed had just begun to start: it holds the lock until it is
/// another program.
const FREE_MAX: Duration = Duration::from_secs(5);
/// Time for the agent before this one to be gone.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// A state directory that this process alone uses.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    /// Locked until this is dropped, or the process ends in any way.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// Another process holds the lock.
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other's process number as it wrote it, empty where it did not.
        process: String,
    },
    /// The directory, or something in it, cannot be made or opened.
    Unusable {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { dir, process } => {
                write!(f, "state {}: another dialhome-agent", dir.display())?;
                if !process.is_empty() {
                    write!(f, " (process {process})")?;
                }
                f.write_str(
                    " uses it. Stop that one, or give this one a --state directory of its own",
                )
            }
            Self::Unusable { path, error } => write!(
                f,
                "state {}: {error}. --state must be a directory on a disk with room, which this user may write",
                path.display()
            ),
        }
    }
}

impl core::error::Error for StateError {}

impl State {
    /// Makes the directory where it is not there yet (mode 0700), and takes its lock, for which it
    /// waits 5 s at most.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        Self::take(dir, "lock", FREE_MAX)
    }

    /// The same for an agent whose launcher has the directory. The agent that ran before it
    /// is given some time to be gone.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open_launched(dir: &Path) -> Result<Self, StateError> {
        Self::take(dir, "lock.agent", LEAVE_MAX)
    }

    fn take(dir: &Path, name: &str, patience: Duration) -> Result<Self, StateError> {
        let unusable = |path: &Path, error| StateError::Unusable {
            path: path.to_owned(),
            error,
        };
        for path in [dir.to_owned(), dir.join("journal"), dir.join("slots")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| unusable(&path, error))?;
        }
        // An absolute path holds for commands that change their directory.
        let dir = fs::canonicalize(dir).map_err(|error| unusable(dir, error))?;
        let path = dir.join(name);
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let lock = made.and_then(|_| File::open(&path));
        let lock = lock.map_err(|error| unusable(&path, error))?;
        let end = Instant::now() + patience;
        while let Err(errno) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if errno == rustix::io::Errno::WOULDBLOCK && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(unusable(&path, errno.into()));
            }
            let mut process = String::new();
            // Who it is only helps the message.
            let _ = (&lock).take(20).read_to_string(&mut process);
            let process = process.trim().to_owned();
            return Err(StateError::InUse { dir, process });
        }
        // Held by a file that is open for reading: one that is open for writing keeps its file
        // system from being made read-only.
        let noted = OpenOptions::new().write(true).open(&path);
        noted
            .and_then(|mut file| {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())
            })
            .and_then(|()| super::durable::sync_dir(&dir))
            .map_err(|error| unusable(&path, error))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::PermissionsExt as _, string::ToString as _};

    #[test]
    fn a_second_agent_on_one_state_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let first = State::open(&path).unwrap();
        let message = State::open(&path).unwrap_err().to_string();
        let process = std::process::id().to_string();
        assert!(message.contains("another dialhome-agent"), "{message}");
        assert!(message.contains(&process), "{message}");
        drop(first);
        State::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_state_that_is_a_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "x").unwrap();
        let message = State::open(&path).unwrap_err().to_string();
        assert!(message.contains("--state must be a directory"), "{message}");
    }
}
