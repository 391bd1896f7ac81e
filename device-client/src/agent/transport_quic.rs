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
    net::SocketAddr,
    string::{String, ToString as _},
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

use dialhome_proto::link::quic::{ALPN, EXPORTER_LABEL, EXPORTER_LEN};
use quinn_proto::{
    ClientConfig, ConnectionError, ConnectionIdGenerator, ConnectionStats, Dir, EndpointConfig,
    NoneTokenStore, RandomConnectionIdGenerator, WriteError,
};
use rustix::event::{PollFd, PollFlags};

use super::{
    quic_link::{Link, Probe},
    quic_pins::{self, Pins},
    signals::Signals,
    transport_tcp::{GLANCE, poll},
};

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
                waits.push(PollFd::new(probe, PollFlags::IN));
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

#[cfg(test)]
#[path = "transport_quic_tests.rs"]
mod tests;
