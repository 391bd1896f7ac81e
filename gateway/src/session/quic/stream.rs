//! The one stream of a board's QUIC connection, as a session reads and writes it, and what the connection met.
//!
//! A session asks what is there and what there is room for, without waiting, and waits for both at once;
//! quinn knows reads and writes that wait. So one chunk that was read stays here until the session takes it.

use super::super::registry::Registry;
use super::super::socket::Reason;
use crate::admin::QuicCounts;
use crate::store::docs::QuicTrafficDoc;
use bytes::{Buf as _, Bytes};
use dialhome_proto::code;
use dialhome_proto::link::quic::{DONE, closed, refused};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Most that is taken out of the connection at a time, in bytes: the window of the stream.
const READ_MAX: usize = 8 * 1024;

/// Both directions, and the connection that they are of.
#[derive(Debug)]
pub(in crate::session) struct Stream {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// Read, and not taken yet.
    chunk: Bytes,
    /// The board says no more.
    ended: bool,
    _counted: Counted,
}

impl Stream {
    pub(in crate::session) const fn new(
        connection: Connection,
        send: SendStream,
        receive: RecvStream,
        counted: Counted,
    ) -> Self {
        Self {
            connection,
            send,
            receive,
            chunk: Bytes::new(),
            ended: false,
            _counted: counted,
        }
    }

    /// Ready where there is something to read, or the end.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || !self.chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // Nothing is lost where it is not waited for to the end.
        pin!(self.receive.read_chunk(READ_MAX, true))
            .poll(context)
            .map_ok(|chunk| match chunk {
                Some(chunk) => self.chunk = chunk.bytes,
                None => self.ended = true,
            })
            .map_err(Into::into)
    }

    /// Ready where there is something to read, if that is wanted, or where some of `rest` could be written: how
    /// much was. quinn has no other way to ask for room.
    ///
    /// # Errors
    /// The connection is broken.
    pub(in crate::session) fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        hearing: bool,
        rest: &[u8],
    ) -> Poll<io::Result<usize>> {
        if hearing && let Poll::Ready(ready) = self.poll_readable(context) {
            return Poll::Ready(ready.map(|()| 0));
        }
        if rest.is_empty() {
            return Poll::Pending;
        }
        Pin::new(&mut self.send)
            .poll_write(context, rest)
            .map_err(Into::into)
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there, otherwise the connection is broken.
    pub(in crate::session) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.poll_readable(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready?,
            Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
        }
        let len = self.chunk.len().min(bytes.len());
        if let Some(room) = bytes.get_mut(..len) {
            self.chunk.copy_to_slice(room);
        }
        if self.chunk.is_empty() {
            // It is a part of a datagram's memory.
            self.chunk = Bytes::new();
        }
        Ok(len)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` where there is none, otherwise the connection is broken.
    pub(in crate::session) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.send).poll_write(&mut context, bytes) {
            Poll::Ready(written) => written.map_err(Into::into),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes `rest` and the end of the stream; returns when the board has acknowledged both.
    ///
    /// # Errors
    /// The connection is broken, or the board reads no more.
    pub(in crate::session) async fn say_last(&mut self, rest: &[u8]) -> io::Result<()> {
        self.send.write_all(rest).await?;
        self.send.finish().map_err(quinn::WriteError::from)?;
        match self.send.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(quinn::WriteError::Stopped(code).into()),
            Err(error) => Err(quinn::WriteError::from(error).into()),
        }
    }

    /// Closes the connection with the code for this reason; nothing that is still on its way is waited for.
    pub(in crate::session) fn hang_up(&mut self, reason: Reason) {
        let (code, name) = match reason {
            Reason::Done => (DONE, "done".to_owned()),
            Reason::Close(code) => (closed(code), code.to_string()),
        };
        self.connection
            .close(VarInt::from_u32(code), name.as_bytes());
    }

    /// Where the board is now, and packets and bytes that were lost so far.
    pub(in crate::session) fn path(&self) -> (SocketAddr, u64, u64) {
        let met = self.connection.stats().path;
        (
            self.connection.remote_address(),
            met.lost_packets,
            met.lost_bytes,
        )
    }
}

impl Drop for Stream {
    /// Its session ended without a word, because its place went to another before it said Hello.
    fn drop(&mut self) {
        if self.connection.close_reason().is_none() {
            let code = VarInt::from_u32(refused(code::Refusal::BUSY));
            self.connection.close(code, b"busy");
        }
    }
}

/// What a session over QUIC has met so far.
#[derive(Debug)]
pub(in crate::session) struct Path(Mutex<Met>);

#[derive(Debug)]
struct Met {
    now: SocketAddr,
    lost_packets: u64,
    lost_bytes: u64,
    address_changes: u32,
    /// When a change was last said in the log, and changes since.
    said: Option<Instant>,
    unsaid: u32,
}

/// Changes of address are said in the log at most so often; they are counted always.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Changes of address that are to be said.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::session) struct Moved {
    /// Where the board was before the last of them.
    pub(in crate::session) before: SocketAddr,
    /// How many there were since this was said last.
    pub(in crate::session) times: u32,
}

impl Path {
    pub(in crate::session) const fn new(peer: SocketAddr) -> Self {
        Self(Mutex::new(Met {
            now: peer,
            lost_packets: 0,
            lost_bytes: 0,
            address_changes: 0,
            said: None,
            unsaid: 0,
        }))
    }

    fn met(&self) -> std::sync::MutexGuard<'_, Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the board is now, as far as is known.
    pub(in crate::session) fn now(&self) -> SocketAddr {
        self.met().now
    }

    /// For the operator.
    pub(in crate::session) fn doc(&self) -> QuicTrafficDoc {
        let met = self.met();
        QuicTrafficDoc {
            lost_packets: met.lost_packets,
            lost_bytes: met.lost_bytes,
            address_changes: met.address_changes,
        }
    }

    /// Notes where the board is and what its connection has lost by now; what is to be said of
    /// its changes of address.
    pub(in crate::session) fn note(
        &self,
        totals: &QuicTotals,
        now: SocketAddr,
        lost_packets: u64,
        lost_bytes: u64,
    ) -> Option<Moved> {
        let mut met = self.met();
        let packets = lost_packets.saturating_sub(met.lost_packets);
        let bytes = lost_bytes.saturating_sub(met.lost_bytes);
        totals.lost_packets.fetch_add(packets, Ordering::Relaxed);
        totals.lost_bytes.fetch_add(bytes, Ordering::Relaxed);
        met.lost_packets += packets;
        met.lost_bytes += bytes;
        let before = std::mem::replace(&mut met.now, now);
        if before == now {
            return None;
        }
        met.address_changes += 1;
        met.unsaid += 1;
        totals.address_changes.fetch_add(1, Ordering::Relaxed);
        if met.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        met.said = Some(Instant::now());
        let times = std::mem::take(&mut met.unsaid);
        Some(Moved { before, times })
    }
}

/// One of the sessions over QUIC.
#[derive(Debug)]
pub(in crate::session) struct Counted(Arc<Registry>);

impl Counted {
    pub(in crate::session) fn new(registry: Arc<Registry>) -> Self {
        registry.quic.sessions.fetch_add(1, Ordering::Relaxed);
        Self(registry)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.quic.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is open over QUIC, and what all its connections met since the start.
#[derive(Debug, Default)]
pub(in crate::session) struct QuicTotals {
    pub(in crate::session) sessions: AtomicU64,
    pub(in crate::session) connections: AtomicU64,
    pub(in crate::session) retries: AtomicU64,
    lost_packets: AtomicU64,
    lost_bytes: AtomicU64,
    address_changes: AtomicU64,
}

impl QuicTotals {
    pub(in crate::session) fn counts(&self) -> QuicCounts {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        QuicCounts {
            sessions: load(&self.sessions),
            connections: load(&self.connections),
            lost_packets: load(&self.lost_packets),
            lost_bytes: load(&self.lost_bytes),
            address_changes: load(&self.address_changes),
            retries: load(&self.retries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_once_and_a_change_of_address_is_said_once() {
        let totals = QuicTotals::default();
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let path = Path::new(at(1));
        assert_eq!(path.note(&totals, at(1), 2, 2_400), None);
        let moved = Moved {
            before: at(1),
            times: 1,
        };
        assert_eq!(path.note(&totals, at(2), 5, 6_000), Some(moved));
        assert_eq!(path.note(&totals, at(2), 5, 6_000), None);
        // Whoever goes to and fro does not fill the log.
        assert_eq!(path.note(&totals, at(1), 5, 6_000), None);
        assert_eq!(path.note(&totals, at(2), 5, 6_000), None);
        assert_eq!(path.now(), at(2));
        let counts = totals.counts();
        assert_eq!((counts.lost_packets, counts.lost_bytes), (5, 6_000));
        assert_eq!(counts.address_changes, 3);
        assert_eq!(path.doc().address_changes, 3);
    }
}
