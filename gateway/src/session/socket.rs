//! A board's socket: with the runtime while there is work, by itself while the session is parked.
//!
//! What the runtime keeps of a socket that waits is 256 bytes; a parked one needs none of it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use tokio::net::TcpStream;

/// A connected socket.
#[derive(Debug)]
pub(super) enum Socket {
    /// The runtime looks after it.
    Live(TcpStream),
    /// It is open, and nobody waits for it here.
    Parked(std::net::TcpStream),
    /// The system did not take it: the connection counts as broken.
    Gone,
}

impl Socket {
    /// The socket, to wait for it.
    ///
    /// # Errors
    /// `NotConnected` where the runtime does not have it.
    pub(super) fn live(&self) -> io::Result<&TcpStream> {
        match self {
            Self::Live(stream) => Ok(stream),
            Self::Parked(_) | Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads what is there. The runtime knows only after a while that a socket which it was just
    /// given has bytes; a parked one is asked directly.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there, otherwise the connection is broken.
    pub(super) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Live(stream) => stream.try_read(bytes),
            Self::Parked(stream) => (&*stream).read(bytes),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// [`Self::try_read`] into what `bytes` has room for.
    ///
    /// # Errors
    /// As there.
    pub(super) fn try_read_buf(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        if let Self::Live(stream) = self {
            return stream.try_read_buf(bytes);
        }
        let known = bytes.len();
        bytes.resize(bytes.capacity(), 0);
        let read = self.try_read(&mut bytes[known..]);
        bytes.truncate(known + read.as_ref().map_or(0, |read| *read));
        read
    }

    /// Writes what the system takes.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing now, otherwise the connection is broken.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Live(stream) => stream.try_write(bytes),
            Self::Parked(stream) => (&*stream).write(bytes),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Gives it back to the runtime. Must be called within one.
    pub(super) fn enter(&mut self) {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Parked(stream) => TcpStream::from_std(stream).map_or(Self::Gone, Self::Live),
            other => other,
        };
    }

    /// Takes it from the runtime.
    pub(super) fn leave(&mut self) {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Live(stream) => stream.into_std().map_or(Self::Gone, Self::Parked),
            other => other,
        };
    }

    /// Closes it.
    pub(super) fn lose(&mut self) {
        *self = Self::Gone;
    }

    /// The open file, where there is one.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Live(stream) => Some(stream.as_fd()),
            Self::Parked(stream) => Some(stream.as_fd()),
            Self::Gone => None,
        }
    }

    /// The system's number of the open file.
    pub(super) fn number(&self) -> Option<u32> {
        u32::try_from(self.file()?.as_raw_fd()).ok()
    }
}
