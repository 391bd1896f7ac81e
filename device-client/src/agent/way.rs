//! The way to the gateway where there are two: QUIC, and TCP where that does not come up.

use core::fmt;
use std::{
    borrow::ToOwned as _,
    io,
    net::SocketAddr,
    string::String,
    time::{Duration, Instant, SystemTime},
};

use dialhome_proto::{id::Handle, link::quic::EXPORTER_LEN};

use super::{
    config::Quic,
    networks::{self, Networks},
    transport_quic::{QuicError, QuicTransport},
    transport_tcp::{TcpError, TcpTransport},
};
use crate::transport::{LinkFacts, Transport};

/// Longest that QUIC may take to come up before TCP is tried: three of its first packets on a
/// link with a second of delay.
const QUIC_MAX: Duration = Duration::from_secs(8);

/// A connection by QUIC or TCP, whichever works in this network.
#[derive(Debug)]
pub struct Way {
    tcp: TcpTransport,
    quic: Option<QuicTransport>,
    only: bool,
    networks: Networks,
    /// The network and gateway of the dial that QUIC answered, until the device key is proven on it.
    unproven: Option<(String, String)>,
    /// What was said of the choice last: the log has it once.
    said: String,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum WayError {
    /// Of the gateway's name, of TCP, or of neither.
    Tcp(TcpError),
    /// Of QUIC, where it is the only way or the way taken.
    Quic(QuicError),
}

impl fmt::Display for WayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) => error.fmt(f),
            Self::Quic(error) => write!(f, "QUIC: {error}"),
        }
    }
}

impl core::error::Error for WayError {}

impl From<TcpError> for WayError {
    fn from(error: TcpError) -> Self {
        Self::Tcp(error)
    }
}

impl From<QuicError> for WayError {
    fn from(error: QuicError) -> Self {
        Self::Quic(error)
    }
}

impl Way {
    /// A way by `tcp`, and by QUIC with gateways of these pins where `choice` wants it.
    /// `networks` is what is remembered of networks.
    pub(super) fn new(
        tcp: TcpTransport,
        choice: Quic,
        quic: Option<QuicTransport>,
        networks: Networks,
    ) -> Self {
        Self {
            tcp,
            quic: quic.filter(|_| choice != Quic::Off),
            only: choice == Quic::Only,
            networks,
            unproven: None,
            said: String::new(),
        }
    }

    /// Waits as [`TcpTransport::wait`] does; a QUIC connection is served meanwhile.
    ///
    /// # Errors
    /// The system refused to wait.
    pub fn wait(&mut self, to_receive: bool, to_send: bool, time: Duration) -> io::Result<()> {
        match self.by_quic() {
            Some(quic) => quic.wait(to_receive, to_send, time),
            None => self.tcp.wait(to_receive, to_send, time),
        }
    }

    /// Something is expected of the gateway, or is not any more ([`QuicTransport::expect`]).
    pub const fn expect(&mut self, expecting: bool) {
        if let Some(quic) = &mut self.quic {
            quic.expect(expecting);
        }
    }

    fn by_quic(&mut self) -> Option<&mut QuicTransport> {
        self.quic.as_mut().filter(|quic| quic.is_open())
    }

    /// Says how this network is dialled and why, when that is something else than before.
    fn say(&mut self, gateway: &str, network: &str, what: fmt::Arguments<'_>) {
        let text = std::format!("{gateway} {network} {what}");
        if text != self.said {
            tracing::info!(gateway, network, "{what}");
            self.said = text;
        }
    }

    fn try_connect(&mut self, gateway: &str) -> Result<SocketAddr, WayError> {
        let start = Instant::now();
        let deadline = start + self.tcp.connect_time();
        self.tcp.look_up(gateway, deadline)?;
        let network = match (self.tcp.facts().network, self.tcp.addresses().first()) {
            ("", Some(first)) if self.quic.is_some() => networks::name(first),
            (name, _) => name.to_owned(),
        };
        let mut failed = None;
        let wait = self.networks.wait(&network, gateway, SystemTime::now());
        let wait = wait.filter(|_| !self.only);
        if let (Some(left), Some(_)) = (wait, &self.quic) {
            let minutes = left.as_secs().div_ceil(60);
            self.say(
                gateway,
                &network,
                format_args!("over TCP: QUIC did not come up here before; it is tried again at a dial in {minutes} min or later"),
            );
        } else if let Some(quic) = &mut self.quic {
            let bound = if self.only {
                deadline
            } else {
                let share = deadline.saturating_duration_since(start) * 2 / 5;
                (Instant::now() + share.min(QUIC_MAX)).min(deadline)
            };
            match quic.connect(self.tcp.addresses(), bound) {
                Ok(peer) => {
                    self.say(gateway, &network, format_args!("over QUIC"));
                    self.unproven = Some((network, gateway.to_owned()));
                    return Ok(peer);
                }
                Err(QuicError::Stopping) => return Err(TcpError::Stopping.into()),
                Err(error) if self.only => return Err(error.into()),
                Err(error) => failed = Some(error),
            }
        }
        // What comes of TCP decides what a QUIC that did not come up says of the network.
        let peer = self.tcp.connect_to_any(deadline)?;
        if let Some(error) = failed {
            if matches!(error, QuicError::WrongPin) {
                tracing::warn!(gateway, peer = %peer, "{error}; over TCP, where the gateway proves the device key");
            }
            self.say(
                gateway,
                &network,
                format_args!("over TCP: QUIC did not come up: {error}"),
            );
            // Whoever answered has shown that UDP passes: busy, another key, a fault of its own.
            let silent = matches!(error, QuicError::NotReached | QuicError::Refused);
            let note = if silent {
                Networks::only_tcp_worked
            } else {
                Networks::came_up_in_vain
            };
            note(&mut self.networks, &network, gateway, SystemTime::now());
        }
        Ok(peer)
    }
}

impl Transport for Way {
    type Error = WayError;

    fn connect(&mut self, gateway: &str) -> Result<(), WayError> {
        self.close();
        match self.try_connect(gateway) {
            Ok(peer) => {
                tracing::debug!(gateway, %peer, "connected");
                Ok(())
            }
            Err(error) => {
                if matches!(error, WayError::Quic(QuicError::WrongPin)) {
                    tracing::warn!(gateway, %error, "not connected");
                } else {
                    tracing::info!(gateway, %error, "not connected");
                }
                Err(error)
            }
        }
    }

    fn exporter(&mut self, handle: &Handle) -> Option<[u8; EXPORTER_LEN]> {
        self.by_quic()?.exporter(&handle.0)
    }

    fn proven(&mut self) {
        if let Some((network, gateway)) = self.unproven.take() {
            self.networks
                .quic_worked(&network, &gateway, SystemTime::now());
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, WayError> {
        match self.by_quic() {
            Some(quic) => Ok(quic.send(bytes)?),
            None => Ok(self.tcp.send(bytes)?),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, WayError> {
        match self.by_quic() {
            Some(quic) => Ok(quic.receive(buffer)?),
            None => Ok(self.tcp.receive(buffer)?),
        }
    }

    fn close(&mut self) {
        if let Some(quic) = self.by_quic() {
            quic.close();
            // It came up, and gave no session: refused, the wrong gateway behind it, or nothing more passed.
            // TCP, which may end elsewhere, has the next turn.
            if let Some((network, gateway)) = self.unproven.take()
                && !self.only
            {
                self.networks
                    .came_up_in_vain(&network, &gateway, SystemTime::now());
            }
        }
        self.tcp.close();
    }

    fn link_up(&self) -> bool {
        self.tcp.link_up()
    }

    fn facts(&self) -> LinkFacts<'_> {
        self.tcp.facts()
    }
}

#[cfg(test)]
#[path = "way_tests.rs"]
mod tests;
