//! TCP over Ethernet as the client's transport: one socket, a fixed address as QEMU's
//! user network gives it, and no names: gateways are `A.B.C.D:PORT`.

use crate::clock::Clock;
use crate::ethernet::Ethernet;
use core::net::SocketAddrV4;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code::Link;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

const OWN: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const ROUTER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// A dial ends after so long at the latest.
const CONNECT_MS: u64 = 10_000;
/// Ports for connections of our own (RFC 6335).
const FIRST_PORT: u16 = 49_152;
/// Sent bytes that nobody acknowledges for so long end the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// What went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NetworkError {
    /// The gateway is not `A.B.C.D:PORT`.
    Address,
    /// Refused, or no answer in time.
    NoAnswer,
    /// The connection is not there any more.
    Closed,
}

pub(crate) struct Network<'a> {
    ethernet: Ethernet,
    interface: Interface,
    sockets: SocketSet<'a>,
    socket: SocketHandle,
    clock: &'a Clock,
    port: u16,
    /// A frame has come since the last dial began.
    heard: bool,
    /// No dial gets anywhere: what a broken image does in the tests.
    broken: bool,
}

impl<'a> Network<'a> {
    /// `noise` chooses the first port, so that a board that was just reset does not come
    /// with the port of its last connection.
    pub(crate) fn new(
        mut ethernet: Ethernet,
        mut sockets: SocketSet<'a>,
        mut socket: Socket<'a>,
        clock: &'a Clock,
        noise: u64,
        broken: bool,
    ) -> Self {
        let address = HardwareAddress::Ethernet(EthernetAddress(Ethernet::address()));
        let mut config = Config::new(address);
        config.random_seed = noise;
        let mut interface = Interface::new(config, &mut ethernet, at(clock));
        interface.update_ip_addrs(|addresses| {
            // The list has room for the first of its addresses.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(OWN), 24));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(ROUTER);
        socket.set_timeout(Some(UNACKNOWLEDGED));
        let socket = sockets.add(socket);
        let [low, high, ..] = noise.to_le_bytes();
        Self {
            ethernet,
            interface,
            sockets,
            socket,
            clock,
            port: u16::from_le_bytes([low, high]) & 0x3fff,
            heard: false,
            broken,
        }
    }

    /// Moves frames; whether anything changed.
    pub(crate) fn poll(&mut self) -> bool {
        let result = self
            .interface
            .poll(at(self.clock), &mut self.ethernet, &mut self.sockets);
        self.heard |= self.ethernet.take_heard();
        result == PollResult::SocketStateChanged
    }

    /// Whether the client would get bytes, or the news that the connection has ended.
    pub(crate) fn can_receive(&mut self) -> bool {
        let socket = self.sockets.get::<Socket<'_>>(self.socket);
        socket.can_recv() || !socket.may_recv()
    }

    /// Whether the client could send bytes, or would hear that it cannot any more.
    pub(crate) fn can_send(&mut self) -> bool {
        let socket = self.sockets.get::<Socket<'_>>(self.socket);
        socket.can_send() || !socket.may_send()
    }

    fn socket(&mut self) -> &mut Socket<'a> {
        self.sockets.get_mut::<Socket<'a>>(self.socket)
    }
}

fn at(clock: &Clock) -> Instant {
    Instant::from_millis(i64::try_from(clock.ms()).unwrap_or(i64::MAX))
}

impl Transport for Network<'_> {
    type Error = NetworkError;

    /// Ends within 10 s.
    fn connect(&mut self, gateway: &str) -> Result<(), NetworkError> {
        let to: SocketAddrV4 = gateway.parse().map_err(|_| NetworkError::Address)?;
        self.socket().abort();
        self.poll();
        self.heard = self.broken;
        if self.broken {
            return Err(NetworkError::NoAnswer);
        }
        self.port = (self.port + 1) & 0x3fff;
        let remote = (IpAddress::Ipv4(*to.ip()), to.port());
        let local = FIRST_PORT + self.port;
        let context = self.interface.context();
        self.sockets
            .get_mut::<Socket<'_>>(self.socket)
            .connect(context, remote, local)
            .map_err(|_| NetworkError::Address)?;
        let due = self.clock.ms() + CONNECT_MS;
        loop {
            self.poll();
            match self.socket().state() {
                State::Established => return Ok(()),
                State::Closed => return Err(NetworkError::NoAnswer),
                _ if self.clock.ms() >= due => break,
                _ => cortex_m::asm::wfi(),
            }
        }
        self.close();
        Err(NetworkError::NoAnswer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, NetworkError> {
        let sent = self.socket().send_slice(bytes);
        let sent = sent.map_err(|_| NetworkError::Closed)?;
        self.poll();
        Ok(sent)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, NetworkError> {
        self.poll();
        let received = self.socket().recv_slice(buffer);
        received.map_err(|_| NetworkError::Closed)
    }

    fn close(&mut self) {
        // What was taken still leaves, as long as the other end takes it.
        self.socket().close();
        self.poll();
    }

    fn link_up(&self) -> bool {
        // The machine does not say whether its cable is in: what it heard does.
        self.heard
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts {
            link: Link::ETHERNET,
            network: "qemu",
            signal_dbm: -128,
        }
    }
}
