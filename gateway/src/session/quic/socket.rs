//! The UDP socket of all boards, and the names of their connections.

use super::unproven::Unproven;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes that the system is asked to keep of what came and was not read; it may give less.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Takes the address for boards that dial over QUIC; an IPv6 wildcard address takes IPv4 too.
///
/// # Errors
/// Of the system: the address is in use, not this machine's, or not permitted.
pub fn bind_quic(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // As much as the system allows: many boards share this one.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

/// A socket whose peers have their IPv4 addresses as such also where it is an IPv6 one, because quinn keeps what
/// it knows of a path when an IPv4 peer comes from another port, which is most often a new mapping of a NAT; and
/// from which no more leaves than may ([`Unproven`]).
#[derive(Debug)]
pub(super) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    is_ipv6: bool,
    unproven: Arc<Unproven>,
}

impl Socket {
    /// Must be called within the runtime.
    ///
    /// # Errors
    /// Of the system.
    pub(super) fn new(
        runtime: &dyn Runtime,
        socket: UdpSocket,
        unproven: Arc<Unproven>,
    ) -> io::Result<Arc<Self>> {
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        Ok(Arc::new(Self {
            inner: runtime.wrap_udp_socket(socket)?,
            is_ipv6,
            unproven,
        }))
    }

    /// The address as the socket has it.
    const fn own(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) if self.is_ipv6 => IpAddr::V6(address.to_ipv6_mapped()),
            address => address,
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let to = transmit.destination;
        if !self.unproven.may_leave(to, transmit.contents) {
            // As one that was lost on the way.
            return Ok(());
        }
        self.inner.try_send(&Transmit {
            destination: SocketAddr::new(self.own(to.ip()), to.port()),
            src_ip: transmit.src_ip.map(|ip| self.own(ip)),
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
        })
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let came = self.inner.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(count)) = &came {
            for one in meta.iter_mut().take(*count) {
                one.addr.set_ip(one.addr.ip().to_canonical());
                one.dst_ip = one.dst_ip.map(|ip| ip.to_canonical());
                self.unproven.came(one.addr, one.len);
            }
        }
        came
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// The number of this gateway among those behind one address. There is one gateway as yet.
const GATEWAY_NUMBER: u8 = 0;

/// Names of connections: the gateway's number, by which something in front could tell several of them apart,
/// then three random bytes and a check with a key.
pub(super) struct Numbered(HashedConnectionIdGenerator);

impl Numbered {
    pub(super) fn new(key: u64) -> Self {
        Self(HashedConnectionIdGenerator::from_key(key))
    }
}

impl ConnectionIdGenerator for Numbered {
    fn generate_cid(&mut self) -> ConnectionId {
        let rest = self.0.generate_cid();
        let mut bytes = vec![GATEWAY_NUMBER];
        bytes.extend_from_slice(&rest);
        ConnectionId::new(&bytes)
    }

    fn validate(&self, name: &ConnectionId) -> Result<(), InvalidCid> {
        match name.split_first() {
            Some((&GATEWAY_NUMBER, rest)) if rest.len() == self.0.cid_len() => {
                self.0.validate(&ConnectionId::new(rest))
            }
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        1 + self.0.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.0.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_connections_have_the_gateways_number_and_are_known_again() {
        let mut names = Numbered::new(7);
        let name = names.generate_cid();
        assert_eq!((name.len(), name[0]), (names.cid_len(), GATEWAY_NUMBER));
        assert!(names.validate(&name).is_ok());
        assert!(Numbered::new(7).validate(&name).is_ok(), "after a restart");
        assert!(Numbered::new(8).validate(&name).is_err());
        let mut other = name.to_vec();
        other[0] = GATEWAY_NUMBER + 1;
        assert!(names.validate(&ConnectionId::new(&other)).is_err());
        assert!(names.validate(&ConnectionId::new(&name[1..])).is_err());
    }
}
