//! TCP to the gateway, never blocking but in `connect`.

use core::fmt;
use std::{
    borrow::ToOwned as _,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
    string::String,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
    vec::Vec,
};

use dialhome_proto::code::Link;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::signals::Signals;
use crate::transport::{LinkFacts, Transport};

/// How often a wait looks whether the process was asked to end.
pub(super) const GLANCE: Duration = Duration::from_millis(200);

/// Time that the kernel lets sent bytes go unacknowledged before the connection is lost,
/// in milliseconds, as at the gateway: between two acks of a transfer there is less.
const UNACKNOWLEDGED_MS_MAX: u32 = 120_000;

/// A TCP connection to a gateway.
///
/// `connect` looks the name up and tries every address of it, IPv6 and IPv4, all within
/// the time that [`TcpTransport::new`] was given; an address that does not answer leaves
/// the others an equal share of what remains.
#[derive(Debug)]
pub struct TcpTransport {
    stream: Option<TcpStream>,
    /// Addresses of the gateway that was dialled last.
    addresses: Vec<SocketAddr>,
    /// A lookup that took longer than its dial; the resolver cannot be stopped.
    lookup: Option<Lookup>,
    connect_time: Duration,
    link: Link,
    network: String,
    signals: Signals,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum TcpError {
    /// The name could not be looked up.
    Lookup(io::Error),
    /// The name has no address.
    NoAddress,
    /// No address answered in time; the last one's error where it gave one.
    NotReached(Option<io::Error>),
    /// The process was asked to end meanwhile.
    Stopping,
    /// There is no connection, or the gateway has closed it.
    Closed,
    /// The connection broke.
    Broken(io::Error),
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => write!(f, "the gateway's name could not be looked up: {error}"),
            Self::NoAddress => f.write_str("the gateway's name has no address"),
            Self::NotReached(Some(error)) => write!(f, "the gateway was not reached: {error}"),
            Self::NotReached(None) => f.write_str("the gateway was not reached in time"),
            Self::Stopping => f.write_str("the agent is stopping"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
        }
    }
}

impl core::error::Error for TcpError {}

#[derive(Debug)]
struct Lookup {
    gateway: String,
    answer: Receiver<io::Result<Vec<SocketAddr>>>,
}

impl Lookup {
    fn start(gateway: &str) -> io::Result<Self> {
        let (sender, answer) = mpsc::channel();
        let name = gateway.to_owned();
        thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || {
                // Nobody waits any more where this fails.
                let _ = sender.send(name.to_socket_addrs().map(Iterator::collect));
            })?;
        Ok(Self {
            gateway: gateway.to_owned(),
            answer,
        })
    }
}

impl TcpTransport {
    /// A transport that gives each dial `connect_time`, and says `link` and `network`
    /// of itself. A signal ends a dial.
    #[must_use]
    pub fn new(connect_time: Duration, link: Link, network: &str, signals: Signals) -> Self {
        Self {
            stream: None,
            addresses: Vec::new(),
            lookup: None,
            connect_time,
            link,
            network: network.to_owned(),
            signals,
        }
    }

    /// Waits until bytes have arrived where `to_receive` asks for them, until bytes can be
    /// sent where `to_send` does, until a signal came, or `time` has passed.
    ///
    /// # Errors
    /// The system refused to wait.
    pub fn wait(&self, to_receive: bool, to_send: bool, time: Duration) -> io::Result<()> {
        let wake = self.signals.wake();
        let mut waits = Vec::with_capacity(2);
        waits.push(PollFd::new(&wake, PollFlags::IN));
        // Without either, a connection that the other end closed would wake at once, for ever.
        if let Some(stream) = self.stream.as_ref().filter(|_| to_receive || to_send) {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, to_receive);
            flags.set(PollFlags::OUT, to_send);
            waits.push(PollFd::new(stream, flags));
        }
        poll(&mut waits, time)?;
        self.signals.clear_wake();
        Ok(())
    }

    /// The other end of the connection.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.stream.as_ref()?.peer_addr().ok()
    }

    fn resolve(&mut self, gateway: &str, deadline: Instant) -> Result<Vec<SocketAddr>, TcpError> {
        let lookup = match self.lookup.take() {
            Some(lookup) => match lookup.answer.try_recv() {
                // Asked in the last dial, answered since.
                Ok(Ok(addresses)) if lookup.gateway == gateway => return Ok(addresses),
                Err(mpsc::TryRecvError::Empty) if lookup.gateway == gateway => lookup,
                // However often it is dialled, one thread at most hangs in the resolver:
                // another name waits for it.
                Err(mpsc::TryRecvError::Empty) => {
                    self.lookup = Some(lookup);
                    return Err(TcpError::Lookup(io::ErrorKind::TimedOut.into()));
                }
                _ => Lookup::start(gateway).map_err(TcpError::Lookup)?,
            },
            None => Lookup::start(gateway).map_err(TcpError::Lookup)?,
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lookup.answer.recv_timeout(left.min(GLANCE)) {
                Ok(answer) => return answer.map_err(TcpError::Lookup),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(TcpError::Lookup(io::ErrorKind::Other.into()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.signals.stop() {
                return Err(TcpError::Stopping);
            }
            if left.is_zero() {
                self.lookup = Some(lookup);
                return Err(TcpError::Lookup(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Opens a connection to one address; `Ok(None)`: not in time.
    fn open(&self, address: SocketAddr, deadline: Instant) -> Result<Option<TcpStream>, TcpError> {
        let family = if address.is_ipv6() {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let broken = |errno: Errno| TcpError::Broken(errno.into());
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None);
        let socket: OwnedFd = socket.map_err(broken)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(errno) => return Err(broken(errno)),
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut waits = [PollFd::new(&socket, PollFlags::OUT)];
            poll(&mut waits, left.min(GLANCE)).map_err(TcpError::Broken)?;
            if !waits[0].revents().is_empty() {
                break;
            }
            if self.signals.stop() {
                return Err(TcpError::Stopping);
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
        sockopt::socket_error(&socket)
            .and_then(|result| result)
            .and_then(|()| sockopt::set_tcp_nodelay(&socket, true))
            .map_err(broken)?;
        Ok(Some(TcpStream::from(socket)))
    }

    /// How long a dial may take.
    #[must_use]
    pub const fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// Addresses of the gateway that was looked up last.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Looks up the gateway that is dialled next.
    ///
    /// # Errors
    /// The name has no address, was not looked up in time, or the process is to end.
    pub fn look_up(&mut self, gateway: &str, deadline: Instant) -> Result<(), TcpError> {
        self.addresses = self.resolve(gateway, deadline)?;
        if self.addresses.is_empty() {
            return Err(TcpError::NoAddress);
        }
        Ok(())
    }

    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// None did in time, or the process is to end.
    pub fn connect_to_any(&mut self, deadline: Instant) -> Result<SocketAddr, TcpError> {
        let mut last = None;
        for (index, address) in self.addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(self.addresses.len() - index).unwrap_or(u32::MAX);
            match self.open(*address, Instant::now() + left / others) {
                Ok(Some(stream)) => {
                    let peer = *address;
                    self.stream = Some(stream);
                    self.bound_unacknowledged();
                    return Ok(peer);
                }
                Ok(None) => {}
                Err(TcpError::Broken(error)) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(TcpError::NotReached(last))
    }

    fn connected(&mut self) -> Result<&mut TcpStream, TcpError> {
        self.stream.as_mut().ok_or(TcpError::Closed)
    }

    fn bound_unacknowledged(&self) {
        if let Some(stream) = &self.stream
            && let Err(error) = sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)
        {
            // The client's own deadlines stand behind it.
            tracing::debug!(%error, "TCP_USER_TIMEOUT");
        }
    }
}

impl Transport for TcpTransport {
    type Error = TcpError;

    fn connect(&mut self, gateway: &str) -> Result<(), TcpError> {
        self.close();
        let deadline = Instant::now() + self.connect_time;
        let result = self
            .look_up(gateway, deadline)
            .and_then(|()| self.connect_to_any(deadline))
            .map(|_| ());
        match &result {
            Ok(()) => tracing::debug!(gateway, peer = ?self.peer(), "connected"),
            Err(error) => tracing::info!(gateway, %error, "not connected"),
        }
        result
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, TcpError> {
        moved(self.connected()?.write(bytes))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TcpError> {
        let stream = self.connected()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        match stream.read(buffer) {
            Ok(0) => Err(TcpError::Closed),
            result => moved(result),
        }
    }

    fn close(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        // Bytes that were not read would turn the close into a reset, which may overtake
        // what was sent last.
        let _ = stream.shutdown(Shutdown::Write);
        let mut unread = [0; 4096];
        for _ in 0..64 {
            if !matches!(stream.read(&mut unread), Ok(len) if len > 0) {
                break;
            }
        }
    }

    fn link_up(&self) -> bool {
        if !self.addresses.is_empty() {
            if self
                .addresses
                .iter()
                .all(|address| address.ip().is_loopback())
            {
                return true;
            }
            if !self.addresses.iter().any(has_route) {
                return false;
            }
        }
        any_interface_up(Path::new("/sys/class/net"))
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts {
            link: self.link,
            network: &self.network,
            signal_dbm: LinkFacts::UNKNOWN.signal_dbm,
        }
    }
}

fn moved(result: io::Result<usize>) -> Result<usize, TcpError> {
    match result {
        Ok(len) => Ok(len),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            _ => Err(TcpError::Broken(error)),
        },
    }
}

pub(super) fn poll(waits: &mut [PollFd<'_>], time: Duration) -> io::Result<()> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match rustix::event::poll(waits, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the system knows a way to the address. Connecting a UDP socket looks the
/// route up and sends nothing.
fn has_route(address: &SocketAddr) -> bool {
    let local: SocketAddr = if address.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    UdpSocket::bind(local).is_ok_and(|socket| socket.connect(address).is_ok())
}

/// Whether an interface other than the loopback works: up, or of a kind that does not
/// say (tunnels) and has a carrier.
fn any_interface_up(interfaces: &Path) -> bool {
    let Ok(entries) = fs::read_dir(interfaces) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let value = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if entry.file_name() == "lo" {
            return false;
        }
        match value("operstate").trim() {
            "up" => true,
            "unknown" => value("carrier").trim() == "1",
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, net::TcpListener, string::ToString as _, vec};

    const LONG: Duration = Duration::from_secs(60);

    fn transport(connect_time: Duration) -> TcpTransport {
        TcpTransport::new(connect_time, Link::LTE, "Telia", Signals::none().unwrap())
    }

    fn connected(address: &str) -> Option<(TcpTransport, TcpStream)> {
        // A machine without IPv6 has no ::1.
        let listener = TcpListener::bind(address).ok()?;
        let mut transport = transport(LONG);
        let gateway = listener.local_addr().unwrap().to_string();
        transport.connect(&gateway).unwrap();
        let (stream, _) = listener.accept().unwrap();
        Some((transport, stream))
    }

    /// Waits for what `step` does, woken by the socket.
    fn until<T>(
        transport: &mut TcpTransport,
        mut step: impl FnMut(&mut TcpTransport) -> Option<T>,
    ) -> T {
        let end = Instant::now() + LONG;
        loop {
            if let Some(done) = step(transport) {
                return done;
            }
            assert!(Instant::now() < end, "nothing came");
            transport.wait(true, false, Duration::from_secs(1)).unwrap();
        }
    }

    #[test]
    fn bytes_go_both_ways_over_ipv4_and_ipv6() {
        let mut tried = 0;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some((mut transport, mut gateway)) = connected(address) else {
                continue;
            };
            tried += 1;
            assert_eq!(transport.receive(&mut [0; 8]).unwrap(), 0);
            assert_eq!(transport.send(b"hello").unwrap(), 5);
            let mut bytes = [0; 5];
            gateway.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
            gateway.write_all(b"welcome").unwrap();
            let mut bytes = [0; 32];
            let len = until(&mut transport, |t| {
                Some(t.receive(&mut bytes).unwrap()).filter(|n| *n > 0)
            });
            assert_eq!(&bytes[..len], b"welcome");
            assert!(transport.link_up());
        }
        assert!(tried > 0);
    }

    #[test]
    fn a_name_with_several_addresses_reaches_the_one_that_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut transport = transport(LONG);
        transport.connect(&format!("localhost:{port}")).unwrap();
        assert_eq!(transport.peer().unwrap().port(), port);
    }

    #[test]
    fn a_full_socket_takes_nothing_and_goes_on_when_it_is_read() {
        let (mut transport, mut gateway) = connected("127.0.0.1:0").unwrap();
        let bytes = vec![7; 1 << 20];
        let mut sent = 0;
        loop {
            match transport.send(&bytes).unwrap() {
                0 => break,
                len => sent += len,
            }
        }
        let reader = thread::spawn(move || {
            let mut total = 0;
            let mut buffer = vec![0; 1 << 16];
            while let Ok(len @ 1..) = gateway.read(&mut buffer) {
                total += len;
            }
            total
        });
        let end = Instant::now() + LONG;
        let more = loop {
            transport.wait(false, true, Duration::from_secs(1)).unwrap();
            match transport.send(b"more").unwrap() {
                0 => assert!(Instant::now() < end),
                len => break len,
            }
        };
        transport.close();
        assert_eq!(reader.join().unwrap(), sent + more);
    }

    #[test]
    fn a_close_is_an_error_after_the_last_byte() {
        let (mut transport, mut gateway) = connected("127.0.0.1:0").unwrap();
        gateway.write_all(b"end").unwrap();
        drop(gateway);
        let mut received = Vec::new();
        until(&mut transport, |t| {
            let mut bytes = [0; 2];
            match t.receive(&mut bytes) {
                Ok(len) => {
                    received.extend_from_slice(&bytes[..len]);
                    None
                }
                Err(TcpError::Closed) => Some(()),
                Err(error) => panic!("{error}"),
            }
        });
        assert_eq!(received, b"end");
        transport.close();
        assert!(matches!(transport.send(b"x"), Err(TcpError::Closed)));
        assert!(matches!(
            transport.receive(&mut [0; 1]),
            Err(TcpError::Closed)
        ));
    }

    #[test]
    fn what_was_sent_before_a_close_arrives_though_bytes_were_unread() {
        let (mut transport, mut gateway) = connected("127.0.0.1:0").unwrap();
        gateway.write_all(&[1; 1000]).unwrap();
        let mut first = [0; 1];
        until(&mut transport, |t| {
            Some(t.receive(&mut first).unwrap()).filter(|n| *n > 0)
        });
        transport.send(b"bye").unwrap();
        transport.close();
        let mut bytes = Vec::new();
        gateway.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"bye");
    }

    #[test]
    fn nobody_listening_is_not_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = transport(LONG).connect(&gateway).unwrap_err();
        assert!(matches!(error, TcpError::NotReached(Some(_))), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn an_address_that_never_answers_ends_with_the_dials_time() {
        // A listener whose queue is full drops what comes.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        loop {
            let mut next = transport(Duration::from_millis(300));
            match next.connect(&address.to_string()) {
                Ok(()) => filling.push(next),
                Err(error) => {
                    assert!(matches!(error, TcpError::NotReached(None)), "{error}");
                    break;
                }
            }
            assert!(filling.len() < 100);
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_said() {
        let error = transport(LONG)
            .connect("no-such-host.invalid:1")
            .unwrap_err();
        assert!(matches!(error, TcpError::Lookup(_)), "{error}");
    }

    #[test]
    fn an_interface_counts_when_it_works() {
        let dir = tempfile::tempdir().unwrap();
        let set = |name: &str, operstate: &str, carrier: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("operstate"), operstate).unwrap();
            fs::write(path.join("carrier"), carrier).unwrap();
        };
        set("lo", "up\n", "1\n");
        assert!(!any_interface_up(dir.path()));
        set("eth0", "down\n", "0\n");
        assert!(!any_interface_up(dir.path()));
        set("tun0", "unknown\n", "1\n");
        assert!(any_interface_up(dir.path()));
        set("tun0", "unknown\n", "0\n");
        assert!(!any_interface_up(dir.path()));
        set("eth0", "up\n", "1\n");
        assert!(any_interface_up(dir.path()));
        assert!(!any_interface_up(&dir.path().join("none")));
    }

    #[test]
    fn the_user_timeout_reaches_the_socket() {
        let (transport, _gateway) = connected("127.0.0.1:0").unwrap();
        let stream = transport.stream.as_ref().unwrap();
        assert_eq!(sockopt::tcp_user_timeout(stream), Ok(UNACKNOWLEDGED_MS_MAX));
    }
}
