//! One QUIC connection of the agent: quinn-proto's state machine with its socket, its clock and
//! its one stream.

use core::fmt;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

use bytes::{Bytes, BytesMut};
use dialhome_proto::link::quic::DONE;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Endpoint,
    EndpointConfig, Event, ReadError, StreamEvent, StreamId, TransportConfig, VarInt,
};
use rustix::{
    event::{PollFd, PollFlags},
    net::sockopt,
};

use super::{transport_quic::QuicError, transport_tcp::poll};

/// Bytes that the gateway may have on the way, at most.
const RECEIVE_WINDOW_MAX: usize = 256 * 1024;
/// And at least.
const RECEIVE_WINDOW_MIN: usize = 64 * 1024;
/// Bytes that the system's socket is asked to hold: while the client writes to flash, nobody
/// else takes what comes, and what does not fit there is lost.
const SOCKET_BUFFER: usize = 512 * 1024;
/// Bytes sent and not acknowledged, at most.
const SEND_WINDOW: u64 = 64 * 1024;
/// Longest datagram that is taken, in bytes: what an Ethernet carries.
const DATAGRAM_MAX: usize = 1472;
/// Datagrams taken from the socket before anything else is done.
const DATAGRAMS_MAX: usize = 64;
/// A close waits for so long for what was sent last to be acknowledged.
const DELIVER_MAX: Duration = Duration::from_millis(500);
/// While the gateway owes something and nothing was heard for so long, it is asked to say so:
/// behind a NAT whose mapping has expired only a packet from here makes another.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two such packets there is never more.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The name that TLS asks for and nobody is told.
const SERVER_NAME: &str = "dialhome";

/// One connection and all that belongs to it.
pub(super) struct Link {
    pub(super) socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub(super) connection: Connection,
    pub(super) stream: Option<StreamId>,
    /// A datagram that the system did not take at once.
    unsent: Option<(SocketAddr, usize)>,
    out: Vec<u8>,
    /// Bytes may have come that were not read.
    pub(super) readable: bool,
    /// Bytes may fit that were refused.
    pub(super) writable: bool,
    /// All that was sent has been acknowledged, and the end of it.
    delivered: bool,
    pub(super) ended: Option<ConnectionError>,
    /// When a datagram came last, and bytes of the stream.
    heard: Instant,
    /// When to ask whether the gateway is still there, if something is expected of it.
    ask_after: Duration,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.connection.remote_address())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn open(
        address: SocketAddr,
        endpoint: &Arc<EndpointConfig>,
        client: &ClientConfig,
        keepalive: Option<Duration>,
    ) -> Result<Self, QuicError> {
        let socket = UdpSocket::bind(unspecified(address)).map_err(QuicError::Socket)?;
        socket.set_nonblocking(true).map_err(QuicError::Socket)?;
        let mut client = client.clone();
        client.transport_config(Arc::new(transport_config(
            receive_window(&socket),
            keepalive,
        )));
        // Discovery of a larger path MTU would need datagrams that nobody cuts up, and the
        // board says little.
        let mut endpoint = Endpoint::new(Arc::clone(endpoint), None, false, None);
        let begun = endpoint.connect(Instant::now(), client, address, SERVER_NAME);
        let (handle, connection) =
            begun.map_err(|error| QuicError::Socket(io::Error::other(error)))?;
        Ok(Self {
            socket,
            endpoint,
            handle,
            connection,
            stream: None,
            unsent: None,
            out: Vec::with_capacity(DATAGRAM_MAX),
            readable: false,
            writable: true,
            delivered: false,
            ended: None,
            heard: Instant::now(),
            ask_after: SILENCE,
        })
    }

    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.unsent.is_some());
        PollFd::new(&self.socket, flags)
    }

    /// When the connection wants to be driven though nothing came.
    pub(super) fn due(&mut self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// Takes what came, does what is due, sends what there is to send.
    pub(super) fn drive(&mut self) {
        self.take_datagrams();
        // After what came: an acknowledgement that waited in the socket is none too late.
        let now = Instant::now();
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        self.note();
        self.transmit();
    }

    fn take_datagrams(&mut self) {
        let mut room = [0; DATAGRAM_MAX];
        for _ in 0..DATAGRAMS_MAX {
            let (len, from) = match self.socket.recv_from(&mut room) {
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Nothing there; or the network says that something did not arrive, which
                // the connection finds out by itself.
                Err(_) => return,
            };
            let now = Instant::now();
            let data = BytesMut::from(room.get(..len).unwrap_or(&[]));
            self.out.clear();
            let event = self
                .endpoint
                .handle(now, from, None, None, data, &mut self.out);
            match event {
                Some(DatagramEvent::ConnectionEvent(handle, event)) if handle == self.handle => {
                    self.heard = now;
                    self.connection.handle_event(event);
                    self.note();
                }
                Some(DatagramEvent::Response(response)) => {
                    let bytes = self.out.get(..response.size).unwrap_or(&[]);
                    let _ = self.socket.send_to(bytes, response.destination);
                }
                _ => {}
            }
        }
    }

    /// Hands events between endpoint and connection, and notes those for us.
    fn note(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { .. }) => {
                    self.readable = true;
                    self.ask_after = SILENCE;
                }
                Event::Stream(StreamEvent::Writable { .. }) => self.writable = true,
                Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Stopped { .. }) => {
                    self.delivered = true;
                }
                Event::ConnectionLost { reason } => {
                    tracing::debug!(%reason, "QUIC connection lost");
                    self.ended = Some(reason);
                }
                _ => {}
            }
        }
    }

    fn transmit(&mut self) {
        loop {
            let (to, len) = match self.unsent.take() {
                Some(unsent) => unsent,
                None => {
                    self.out.clear();
                    let now = Instant::now();
                    match self.connection.poll_transmit(now, 1, &mut self.out) {
                        Some(transmit) => (transmit.destination, transmit.size),
                        None => return,
                    }
                }
            };
            let Some(bytes) = self.out.get(..len) else {
                return;
            };
            match self.socket.send_to(bytes, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent = Some((to, len));
                    return;
                }
                // Whatever else it is, no route or a filter: it counts as lost, and is sent
                // again in time.
                Err(error) => tracing::debug!(%error, "a datagram was not sent"),
                Ok(_) => {}
            }
        }
    }

    /// What an operation ends with where the connection has ended.
    pub(super) fn fault(&self) -> Option<QuicError> {
        match &self.ended {
            None => None,
            Some(ConnectionError::ApplicationClosed(_)) => Some(QuicError::Closed),
            Some(error) => Some(QuicError::Failed(error.clone())),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, QuicError> {
        let stream = self.stream.ok_or(QuicError::Closed)?;
        let mut stream = self.connection.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else {
            return Err(QuicError::Closed);
        };
        let mut filled = 0;
        let mut end = None;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match chunks.next(room.len()) {
                Ok(Some(chunk)) => {
                    for (to, from) in room.iter_mut().zip(&chunk.bytes) {
                        *to = *from;
                    }
                    filled += chunk.bytes.len().min(room.len());
                }
                Err(ReadError::Blocked) => {
                    self.readable = false;
                    break;
                }
                Ok(None) | Err(_) => {
                    end = Some(QuicError::Closed);
                    break;
                }
            }
        }
        if chunks.finalize().should_transmit() {
            self.transmit();
        }
        match end {
            Some(error) if filled == 0 => Err(error),
            _ => Ok(filled),
        }
    }

    /// Asks whether the gateway is still there, where it was silent for long enough; when to
    /// ask next. The answer, or the lack of it, is the connection's to see to: a packet
    /// that is not acknowledged is sent again and again.
    pub(super) fn ask(&mut self) -> Option<Instant> {
        if self.ended.is_some() {
            return None;
        }
        let now = Instant::now();
        if now >= self.heard + self.ask_after {
            self.connection.ping();
            self.transmit();
            self.heard = now;
            self.ask_after = (self.ask_after * 2).min(SILENCE_MAX);
        }
        Some(self.heard + self.ask_after)
    }

    /// Says the end of the stream, waits until all was acknowledged, and closes.
    pub(super) fn leave(&mut self) {
        let end = Instant::now() + DELIVER_MAX;
        let finished = self
            .stream
            .is_some_and(|stream| self.connection.send_stream(stream).finish().is_ok());
        while finished && !self.delivered && self.ended.is_none() {
            self.drive();
            if self.delivered || self.ended.is_some() || !self.pause(end) {
                break;
            }
        }
        self.connection.close(
            Instant::now(),
            VarInt::from_u32(DONE),
            Bytes::from_static(b"done"),
        );
        // The close may have to wait its turn as every packet has.
        let sent = |link: &Self| link.connection.stats().udp_tx.datagrams;
        let before = sent(self);
        while self.ended.is_none() {
            self.drive();
            if sent(self) > before || !self.pause(end) {
                break;
            }
        }
    }

    /// Waits for what comes or is due; false at `end`.
    fn pause(&mut self, end: Instant) -> bool {
        let now = Instant::now();
        let until = self.due().map_or(end, |due| due.min(end));
        let time = until.saturating_duration_since(now);
        now < end && poll(&mut [self.poll_fd()], time).is_ok()
    }
}

/// A second socket that asks for nothing: where nobody listens on the gateway's UDP port, its
/// host says so to this one, because it is connected, and the dial need not wait.
pub(super) struct Probe(UdpSocket);

impl Probe {
    pub(super) fn send(address: SocketAddr) -> Option<Self> {
        let socket = UdpSocket::bind(unspecified(address)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(address).ok()?;
        // Too short for a packet of QUIC: a gateway that is there drops it unread.
        socket.send(&[0]).ok()?;
        Some(Self(socket))
    }

    pub(super) fn was_refused(&self) -> bool {
        let came = self.0.recv(&mut [0; 1]);
        matches!(came, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The local end for this remote one.
fn unspecified(remote: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if remote.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    (ip, 0).into()
}

/// How much the gateway may have on the way: no more than the system's socket holds for us. The
/// system counts about twice the bytes of a datagram.
fn receive_window(socket: &UdpSocket) -> u32 {
    let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER);
    let holds = sockopt::socket_recv_buffer_size(socket).unwrap_or(0) / 2;
    let window = holds.clamp(RECEIVE_WINDOW_MIN, RECEIVE_WINDOW_MAX);
    u32::try_from(window).unwrap_or(u32::MAX)
}

fn transport_config(window: u32, keepalive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // The protocol's own pings say when a session is over, and may be hours apart.
        .max_idle_timeout(None)
        .keep_alive_interval(keepalive)
        .stream_receive_window(VarInt::from_u32(window))
        .receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    config
}
