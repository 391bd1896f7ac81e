//! A board's connection: a socket, or the one stream of a QUIC connection.
//!
//! A socket is with the runtime while there is work, and by itself while the session is parked: what the
//! runtime keeps of one that waits is 256 bytes, and a parked one needs none of it. A stream has a connection
//! that must be driven at any time, so its session keeps its task.

use super::quic::stream::Stream;
use dialhome_proto::code::CloseCode;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Why a connection ends, as far as QUIC says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// Both sides are done.
    Done,
    /// The session's close code.
    Close(CloseCode),
}

/// A connection.
#[derive(Debug)]
pub(super) enum Socket {
    /// The runtime looks after it.
    Live(TcpStream),
    /// It is open, and nobody waits for it here.
    Parked(std::net::TcpStream),
    /// The one stream of a QUIC connection.
    Quic(Box<Stream>),
    /// The system did not take it: the connection counts as broken.
    Gone,
}

impl Socket {
    /// Whether a session waits by the socket alone, without a task.
    pub(super) const fn parks(&self) -> bool {
        !matches!(self, Self::Quic(_))
    }

    /// Ready where there is something to read, if that is wanted, or room to write where there is a `rest`; how
    /// much of it was written at once, which only QUIC does. The task is woken otherwise. Must be called within
    /// a runtime.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        hearing: bool,
        rest: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.enter();
        match self {
            Self::Live(stream) => {
                if hearing && let Poll::Ready(ready) = stream.poll_read_ready(context) {
                    return Poll::Ready(ready.map(|()| 0));
                }
                if !rest.is_empty()
                    && let Poll::Ready(ready) = stream.poll_write_ready(context)
                {
                    return Poll::Ready(ready.map(|()| 0));
                }
                Poll::Pending
            }
            Self::Quic(stream) => stream.poll_ready(context, hearing, rest),
            Self::Parked(_) | Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Reads what is there. The runtime knows only after a while that a socket which it was just
    /// given has bytes; a parked one is asked directly.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there, otherwise the connection is broken.
    pub(super) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Live(stream) => stream.try_read(bytes),
            Self::Parked(stream) => stream.read(bytes),
            Self::Quic(stream) => stream.try_read(bytes),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// [`Self::try_read`] into what `bytes` has room for.
    ///
    /// # Errors
    /// As there.
    pub(super) fn try_read_buf(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
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
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Live(stream) => stream.try_write(bytes),
            Self::Parked(stream) => stream.write(bytes),
            Self::Quic(stream) => stream.try_write(bytes),
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

    /// Writes `rest`, and that nothing follows; returns when the board has it, or the connection is broken.
    ///
    /// # Errors
    /// It is broken.
    pub(super) async fn say_last(&mut self, rest: &[u8]) -> io::Result<()> {
        self.enter();
        let stream = match self {
            Self::Live(stream) => stream,
            Self::Quic(stream) => return stream.say_last(rest).await,
            Self::Parked(_) | Self::Gone => return Err(io::ErrorKind::NotConnected.into()),
        };
        let mut sent = 0;
        while sent < rest.len() {
            stream.writable().await?;
            match stream.try_write(&rest[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        rustix::net::shutdown(&*stream, rustix::net::Shutdown::Write)?;
        // Bytes that the board sent meanwhile are read away: a reset would swallow the Close.
        let mut away = [0_u8; 512];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut away) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes it, and says why where there is a way to.
    pub(super) fn hang_up(&mut self, reason: Reason) {
        if let Self::Quic(stream) = self {
            stream.hang_up(reason);
        }
        self.lose();
    }

    /// Over QUIC: where the board is now, and packets and bytes that were lost so far.
    pub(super) fn path(&self) -> Option<(SocketAddr, u64, u64)> {
        match self {
            Self::Quic(stream) => Some(stream.path()),
            _ => None,
        }
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
            Self::Quic(_) | Self::Gone => None,
        }
    }

    /// The system's number of the open file.
    pub(super) fn number(&self) -> Option<u32> {
        u32::try_from(self.file()?.as_raw_fd()).ok()
    }
}
