//! QUIC to the gateway, driven from the agent's one thread (spec/protocol.md section 1).
//!
//! The protocol's state machine is quinn-proto's; here are its socket and its clock. Nobody but
//! this thread serves the connection: in `connect`, `send`, `receive`, `close`, and above all
//! in [`QuicTransport::wait`]. While the client works for long (a self-test, a slow commit), what
//! comes waits in the system's socket, and the gateway probes in longer and longer intervals;
//! neither side ends a silent connection before the protocol's own rules do, so the session
//! goes on with the next wait, as over TCP. What differs: the system acknowledges nothing
//! meanwhile, and sends nothing again that was lost right before the work began.
//!
//! The socket is bound to no address and connected to none: a datagram leaves by the address
//! that the host has at that moment, and the gateway follows (connection migration).

use core::fmt;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    string::{String, ToString as _},
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

use bytes::{Bytes, BytesMut};
use dialhome_proto::link::quic::{ALPN, DONE, EXPORTER_LABEL, EXPORTER_LEN};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, ConnectionIdGenerator,
    ConnectionStats, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, NoneTokenStore,
    RandomConnectionIdGenerator, ReadError, StreamEvent, StreamId, TransportConfig, VarInt,
    WriteError,
};
use rustix::{
    event::{PollFd, PollFlags},
    net::sockopt,
};

use super::{
    quic_pins::{self, Pins},
    signals::Signals,
    transport_tcp::{GLANCE, poll},
};

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

/// A QUIC connection to a gateway, with one stream.
#[derive(Debug)]
pub struct QuicTransport {
    endpoint: Arc<EndpointConfig>,
    client: ClientConfig,
    pins: Arc<Pins>,
    link: Option<Link>,
    keepalive: Option<Duration>,
    signals: Signals,
    /// Something is expected of the gateway.
    expecting: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum QuicError {
    /// The gateway showed a key that is none of the pins.
    WrongPin,
    /// No address answered in time.
    NotReached,
    /// Nobody listens there: the host of the gateway said so.
    Refused,
    /// The gateway ended the connection before it was up, or it broke.
    Failed(ConnectionError),
    /// The system gave no socket.
    Socket(io::Error),
    /// The process was asked to end meanwhile.
    Stopping,
    /// There is no connection, or the gateway has closed its side.
    Closed,
}

impl fmt::Display for QuicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPin => f.write_str(
                "wrong_pin: the gateway's key is none of `pins`. Either this is another gateway, or its key is new: compare with `dialhome status` there",
            ),
            Self::NotReached => f.write_str("no answer by UDP in time"),
            Self::Refused => f.write_str("nobody listens on that UDP port"),
            Self::Failed(ConnectionError::ApplicationClosed(close)) => write!(
                f,
                "the gateway closed the connection: {} (0x{:x})",
                String::from_utf8_lossy(&close.reason),
                close.error_code.into_inner()
            ),
            Self::Failed(error) => write!(f, "the connection broke: {error}"),
            Self::Socket(error) => write!(f, "no UDP socket: {error}"),
            Self::Stopping => f.write_str("the agent is stopping"),
            Self::Closed => f.write_str("the connection is closed"),
        }
    }
}

impl core::error::Error for QuicError {}

/// One connection and all that belongs to it.
struct Link {
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    stream: Option<StreamId>,
    /// A datagram that the system did not take at once.
    unsent: Option<(SocketAddr, usize)>,
    out: Vec<u8>,
    /// Bytes may have come that were not read.
    readable: bool,
    /// Bytes may fit that were refused.
    writable: bool,
    /// All that was sent has been acknowledged, and the end of it.
    delivered: bool,
    ended: Option<ConnectionError>,
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

impl QuicTransport {
    /// A transport that speaks to gateways with these keys: SHA-256 of their
    /// SubjectPublicKeyInfo. `keepalive`, where it is not zero, is the longest that a connection is
    /// silent: then a packet keeps the mapping of a NAT. A signal ends a dial.
    ///
    /// # Errors
    /// The cryptography cannot be used, in words.
    pub fn new(pins: &[[u8; 32]], keepalive: Duration, signals: Signals) -> Result<Self, String> {
        let pins = Pins::new(pins);
        let tls = quic_pins::client(Arc::clone(&pins), ALPN);
        let tls = tls.map_err(|error| error.to_string())?;
        let mut client = ClientConfig::new(Arc::new(tls));
        client.token_store(Arc::new(NoneTokenStore));
        let mut endpoint = EndpointConfig::default();
        // There is one connection on this socket: packets need no number to be told apart by,
        // which saves 8 bytes of each that comes.
        endpoint.cid_generator(|| -> std::boxed::Box<dyn ConnectionIdGenerator> {
            std::boxed::Box::new(RandomConnectionIdGenerator::new(0))
        });
        Ok(Self {
            endpoint: Arc::new(endpoint),
            client,
            pins,
            link: None,
            keepalive: Some(keepalive).filter(|time| !time.is_zero()),
            signals,
            expecting: false,
        })
    }

    /// Opens a connection to the first of the addresses that answers. Each that does not
    /// leaves the others an equal share of the time that remains until `deadline`. A
    /// connection that is still open is closed first.
    ///
    /// # Errors
    /// [`QuicError`]; that of the last address.
    pub fn connect(
        &mut self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<SocketAddr, QuicError> {
        self.close();
        let mut last = QuicError::NotReached;
        for (index, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match self.open(*address, Instant::now() + left / others) {
                Ok(link) => {
                    self.link = Some(link);
                    return Ok(*address);
                }
                // Another address of the name is the same gateway.
                Err(error @ (QuicError::Stopping | QuicError::WrongPin)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open(&self, address: SocketAddr, deadline: Instant) -> Result<Link, QuicError> {
        self.pins.take_stranger();
        let mut link = Link::open(address, &self.endpoint, &self.client, self.keepalive)?;
        let probe = Probe::send(address);
        loop {
            link.drive();
            if let Some(error) = link.ended.take() {
                return Err(if self.pins.take_stranger() {
                    QuicError::WrongPin
                } else {
                    QuicError::Failed(error)
                });
            }
            if !link.connection.is_handshaking() {
                link.stream = link.connection.streams().open(Dir::Bi);
                return match link.stream {
                    Some(_) => Ok(link),
                    // A gateway that allows no stream is none.
                    None => Err(QuicError::Closed),
                };
            }
            if self.signals.stop() {
                return Err(QuicError::Stopping);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(QuicError::NotReached);
            }
            if probe.as_ref().is_some_and(Probe::was_refused) {
                return Err(QuicError::Refused);
            }
            let until = link.due().map_or(deadline, |due| due.min(deadline));
            let time = until.saturating_duration_since(now).min(GLANCE);
            let mut waits = Vec::with_capacity(2);
            waits.push(link.poll_fd());
            if let Some(probe) = &probe {
                waits.push(PollFd::new(&probe.0, PollFlags::IN));
            }
            poll(&mut waits, time).map_err(QuicError::Socket)?;
        }
    }

    /// Takes as many of `bytes` as the windows have room for; 0: none now.
    ///
    /// # Errors
    /// There is no connection, or it broke.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, QuicError> {
        let link = self.connected()?;
        let stream = link.stream.ok_or(QuicError::Closed)?;
        let written = link.connection.send_stream(stream).write(bytes);
        let taken = match written {
            Ok(len) => len,
            Err(WriteError::Blocked) => {
                link.writable = false;
                // What came since may have made room.
                link.drive();
                if !link.writable {
                    return link.fault().map_or(Ok(0), Err);
                }
                let again = link.connection.send_stream(stream).write(bytes);
                link.writable = again.is_ok();
                again.unwrap_or(0)
            }
            Err(_) => return Err(QuicError::Closed),
        };
        link.drive();
        Ok(taken)
    }

    /// Puts bytes that have arrived into `buffer`; 0: nothing now.
    ///
    /// # Errors
    /// There is no connection, it broke, or the gateway has closed its side, and every byte
    /// that came before has been returned.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, QuicError> {
        let link = self.connected()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        match link.read(buffer)? {
            0 => {
                link.drive();
                match link.read(buffer)? {
                    0 => link.fault().map_or(Ok(0), Err),
                    len => Ok(len),
                }
            }
            len => Ok(len),
        }
    }

    /// Closes the connection. What was sent is waited for, half a second at most, until it
    /// is acknowledged: a close overtakes what is lost.
    pub fn close(&mut self) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        link.leave();
        let stats = link.connection.stats();
        tracing::debug!(
            sent = stats.path.sent_packets,
            lost = stats.path.lost_packets,
            lost_bytes = stats.path.lost_bytes,
            rtt = ?stats.path.rtt,
            "QUIC connection closed"
        );
    }

    /// Waits until bytes have arrived where `to_receive` asks for them, until bytes can be
    /// sent where `to_send` does, until a signal came, or `time` has passed; serves the
    /// connection meanwhile.
    ///
    /// # Errors
    /// The system refused to wait.
    pub fn wait(&mut self, to_receive: bool, to_send: bool, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let mut until = end;
            if let Some(link) = &mut self.link {
                link.drive();
                let ended = link.ended.is_some() && (to_receive || to_send);
                if ended || (to_receive && link.readable) || (to_send && link.writable) {
                    return Ok(());
                }
                until = link.due().map_or(until, |due| due.min(until));
                if self.expecting {
                    until = link.ask().map_or(until, |ask| ask.min(until));
                }
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let wake = self.signals.wake();
            let mut waits = Vec::with_capacity(2);
            waits.push(PollFd::new(&wake, PollFlags::IN));
            if let Some(link) = self
                .link
                .as_ref()
                .filter(|link| !link.connection.is_drained())
            {
                waits.push(link.poll_fd());
            }
            poll(&mut waits, until.saturating_duration_since(now))?;
            if !waits[0].revents().is_empty() {
                self.signals.clear_wake();
                return Ok(());
            }
        }
    }

    /// Something is expected of the gateway from now on, or is not any more: while it is,
    /// silence is not taken for nothing to say.
    pub const fn expect(&mut self, expecting: bool) {
        self.expecting = expecting;
    }

    /// Whether there is a connection, up or broken.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.link.is_some()
    }

    /// What the connection's TLS exporter gives for this context: no other connection has it.
    #[must_use]
    pub fn exporter(&self, context: &[u8]) -> Option<[u8; EXPORTER_LEN]> {
        let link = self.link.as_ref()?;
        let mut out = [0; EXPORTER_LEN];
        let session = link.connection.crypto_session();
        session
            .export_keying_material(&mut out, EXPORTER_LABEL, context)
            .ok()
            .map(|()| out)
    }

    /// Counts of the connection: packets sent and lost, round trip.
    #[must_use]
    pub fn stats(&self) -> Option<ConnectionStats> {
        self.link.as_ref().map(|link| link.connection.stats())
    }

    fn connected(&mut self) -> Result<&mut Link, QuicError> {
        self.link.as_mut().ok_or(QuicError::Closed)
    }
}

impl Link {
    fn open(
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

    fn poll_fd(&self) -> PollFd<'_> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.unsent.is_some());
        PollFd::new(&self.socket, flags)
    }

    /// When the connection wants to be driven though nothing came.
    fn due(&mut self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// Takes what came, does what is due, sends what there is to send.
    fn drive(&mut self) {
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
    fn fault(&self) -> Option<QuicError> {
        match &self.ended {
            None => None,
            Some(ConnectionError::ApplicationClosed(_)) => Some(QuicError::Closed),
            Some(error) => Some(QuicError::Failed(error.clone())),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, QuicError> {
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
    fn ask(&mut self) -> Option<Instant> {
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
    fn leave(&mut self) {
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
struct Probe(UdpSocket);

impl Probe {
    fn send(address: SocketAddr) -> Option<Self> {
        let socket = UdpSocket::bind(unspecified(address)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(address).ok()?;
        // Too short for a packet of QUIC: a gateway that is there drops it unread.
        socket.send(&[0]).ok()?;
        Some(Self(socket))
    }

    fn was_refused(&self) -> bool {
        let came = self.0.recv(&mut [0; 1]);
        matches!(came, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
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

#[cfg(test)]
#[path = "transport_quic_tests.rs"]
mod tests;
