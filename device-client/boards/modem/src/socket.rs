//! A socket of the modem.

use std::collections::VecDeque;

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Connecting,
    Open,
    /// The other end has closed it; what came before can still be read.
    Ended,
}

/// The network's side of a connection, told apart over the life of the modem.
pub type Key = u32;

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) state: State,
    pub(crate) key: Key,
    /// From the network, not read yet.
    pub(crate) received: VecDeque<u8>,
    /// From the board, not given to the network yet.
    pub(crate) to_send: Vec<u8>,
    /// Given to the network, which has not said that it has them.
    pub(crate) in_flight: usize,
    /// The network waits for room.
    pub(crate) is_full: bool,
    /// The last error, as `+USOCTL=s,1` says it.
    pub(crate) error: u32,
    /// The unasked line is to tell the result of the connection.
    pub(crate) connects_async: bool,
}

impl Socket {
    pub(crate) fn new(key: Key) -> Self {
        Self {
            state: State::Created,
            key,
            received: VecDeque::new(),
            to_send: Vec::new(),
            in_flight: 0,
            is_full: false,
            error: 0,
            connects_async: false,
        }
    }

    /// The state as `+USOCTL=s,10` says it: RFC 793's, from 0 inactive over 2 SYN sent
    /// and 4 established to 7 close wait.
    pub(crate) const fn tcp_state(&self) -> u32 {
        match self.state {
            State::Created => 0,
            State::Connecting => 2,
            State::Open => 4,
            State::Ended => 7,
        }
    }
}
