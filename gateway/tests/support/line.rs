//! What is between one board and the gateway: the demo's relay for TCP, and one for datagrams.

use std::net::SocketAddr;

use dialhome_gateway::demo::relay::{Action, Arrivals, Cut, Direction, Faults, Relay, Stats, Tap};

use super::Transport;
use super::datagrams::{self, Datagrams};

/// Either, with the faults that both know.
pub(crate) enum Line {
    Tcp(Relay),
    Quic(Datagrams),
}

impl Line {
    /// A relay to `upstream` on a free port. Faults of a stream that no datagram has (segments, merging, cuts after a
    /// number of bytes) are for TCP alone.
    pub(crate) async fn start(transport: Transport, upstream: SocketAddr, faults: Faults) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp(Relay::start(upstream, faults).await.expect("a relay")),
            Transport::Quic => {
                let faults = datagrams::Faults {
                    seed: faults.seed,
                    rate: faults.rate,
                    ..datagrams::Faults::default()
                };
                Self::Quic(Datagrams::start(upstream, faults).await)
            }
        }
    }

    /// The relay of TCP, for what only it can do.
    #[track_caller]
    pub(crate) fn tcp(&self) -> &Relay {
        match self {
            Self::Tcp(relay) => relay,
            Self::Quic(_) => panic!("this line carries datagrams"),
        }
    }

    /// The relay of datagrams, for what only it can do.
    #[track_caller]
    pub(crate) fn quic(&self) -> &Datagrams {
        match self {
            Self::Quic(relay) => relay,
            Self::Tcp(_) => panic!("this line carries TCP"),
        }
    }

    /// Where the board dials.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(relay) => relay.address(),
            Self::Quic(relay) => relay.address(),
        }
    }

    /// New mappings go there.
    pub(crate) fn set_upstream(&self, upstream: SocketAddr) {
        match self {
            Self::Tcp(relay) => relay.set_upstream(upstream),
            Self::Quic(relay) => relay.set_upstream(upstream),
        }
    }

    /// What becomes of new mappings; whether refused or swallowed is the same to datagrams.
    pub(crate) fn set_arrivals(&self, arrivals: Arrivals) {
        match self {
            Self::Tcp(relay) => relay.set_arrivals(arrivals),
            Self::Quic(relay) => relay.set_arrivals(arrivals),
        }
    }

    /// The NAT forgets every mapping. TCP's end by RST. To QUIC it is a new port: what was on the way or held is
    /// lost, and the connection goes on.
    pub(crate) fn cut_all(&self) {
        match self {
            Self::Tcp(relay) => relay.cut_all(),
            Self::Quic(relay) => relay.rebind(),
        }
    }

    /// Every mapping goes silent for ever. New ones are relayed.
    pub(crate) fn silence(&self) {
        match self {
            Self::Tcp(relay) => relay.silence(),
            Self::Quic(relay) => relay.silence(),
        }
    }

    /// Resets (over QUIC: forgets) the mapping that carries the `bytes`th byte from now in this direction.
    pub(crate) fn cut_after_bytes(&self, direction: Direction, bytes: u64) {
        self.arm(direction, bytes, Action::Cut(Cut::Reset));
    }

    /// `action` happens at the `bytes`th byte from now in this direction; over QUIC to the datagram that has it.
    pub(crate) fn arm(&self, direction: Direction, bytes: u64, action: Action) {
        match self {
            Self::Tcp(relay) => relay.arm(direction, bytes, action),
            Self::Quic(relay) => relay.arm(direction, bytes, action),
        }
    }

    /// Takes back every armed fault that has not happened.
    pub(crate) fn disarm(&self) {
        match self {
            Self::Tcp(relay) => relay.disarm(),
            Self::Quic(relay) => relay.disarm(),
        }
    }

    /// Faults that are armed and have not happened.
    pub(crate) fn armed(&self) -> usize {
        match self {
            Self::Tcp(relay) => relay.armed(),
            Self::Quic(relay) => relay.armed(),
        }
    }

    /// The counts now. `connections` of a line for datagrams are mappings.
    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::Tcp(relay) => relay.stats(),
            Self::Quic(relay) => relay.stats(),
        }
    }

    /// Waits until the counts are as wanted. Gives no deadline: put one around it.
    pub(crate) async fn wait_until(&self, wanted: impl FnMut(&Stats) -> bool) -> Stats {
        match self {
            Self::Tcp(relay) => relay.wait_until(wanted).await,
            Self::Quic(relay) => relay.wait_until(wanted).await,
        }
    }

    /// What the tap of a TCP relay recorded.
    pub(crate) fn tap(&self) -> Tap {
        self.tcp().tap()
    }
}
