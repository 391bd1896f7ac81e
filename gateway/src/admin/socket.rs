//! The Unix socket: its path, its mode, and what may lie there already.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::UnixListener;

/// Longest path of a Unix socket on Linux, in bytes.
pub const SOCKET_PATH_MAX: usize = 107;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The system takes no longer paths.
    #[error("the socket's path {} has {length} bytes, and a Unix socket takes at most {SOCKET_PATH_MAX}. Give a shorter one with --socket", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// A gateway listens there.
    #[error("another gateway already listens on {}. Stop it first, or give this one another socket with --socket", .0.display())]
    InUse(PathBuf),
    /// Something else lies there.
    #[error("{} exists and is no socket. Move it away, or give another path with --socket", .0.display())]
    NotSocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl SocketError {
    /// The error's name for scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "socket_path_too_long",
            Self::InUse(_) => "socket_in_use",
            Self::NotSocket(_) => "not_a_socket",
            Self::Io { .. } => "socket",
        }
    }
}

/// The listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens at `path`, mode 0660. A socket that a dead gateway left is removed. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        check_length(path)?;
        let fault = |error| SocketError::Io {
            path: path.into(),
            error,
        };
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotSocket(path.into()));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(SocketError::InUse(path.into())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(fault)?
                }
                Err(error) => return Err(fault(error)),
            },
        }
        // The mode is right from the first instant: nobody connects between bind and chmod.
        let before = rustix::process::umask(Mode::from_raw_mode(0o117));
        let listener = UnixListener::bind(path);
        rustix::process::umask(before);
        Ok(Self {
            listener: listener.map_err(fault)?,
            path: path.into(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Refuses a path that the system would cut or refuse without words.
///
/// # Errors
/// [`SocketError::TooLong`].
pub(crate) fn check_length(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        return Err(SocketError::TooLong {
            path: path.into(),
            length,
        });
    }
    Ok(())
}
