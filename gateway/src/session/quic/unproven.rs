//! What may leave by the UDP socket towards addresses that have not proven to be the peers' own.
//!
//! RFC 9000 section 8.1 allows three times what came from there. quinn counts, too, but lets a whole datagram
//! go where any of it is left (<https://github.com/quinn-rs/quinn/issues/1082>), so up to four times would
//! leave: here the datagram that crosses three times is dropped, as one that was lost on the way. That is for
//! datagrams of a handshake alone: whoever begins one in another board's name must not slow its session.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Least bytes of the datagram that a connection begins with; shorter ones are not looked at.
const FIRST_LEN: usize = 1_200;
/// What may leave for each byte that came.
const FACTOR: usize = 3;
/// The bit of a first byte that packets of a handshake have, and those of a session have not.
const LONG_HEADER: u8 = 0x80;
/// Time for a connection that was given up to say its last, which counts too.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Addresses of half-open connections that have not proven them.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    /// How many there are, to be looked at without the lock.
    count: AtomicUsize,
    budgets: Mutex<HashMap<SocketAddr, Budget>>,
}

#[derive(Debug, Default)]
struct Budget {
    connections: usize,
    /// Bytes that may leave.
    left: usize,
    /// When the last of its connections was given up.
    given_up: Option<Instant>,
}

impl Unproven {
    fn budgets(&self) -> MutexGuard<'_, HashMap<SocketAddr, Budget>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection from here has begun.
    pub(super) fn begins(self: &Arc<Self>, address: SocketAddr) -> Doubt {
        let mut budgets = self.budgets();
        let budget = budgets.entry(address).or_default();
        budget.connections += 1;
        budget.left += FACTOR * FIRST_LEN;
        self.count.store(budgets.len(), Ordering::Release);
        Doubt {
            unproven: Arc::clone(self),
            address,
            proven: false,
        }
    }

    /// Forgets those whose connections are long gone.
    pub(super) fn look(&self) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut budgets = self.budgets();
        let gone = |budget: &Budget| {
            let since = budget.given_up.filter(|_| budget.connections == 0);
            since.is_some_and(|since| since.elapsed() >= LAST_WORDS)
        };
        budgets.retain(|_, budget| !gone(budget));
        self.count.store(budgets.len(), Ordering::Release);
    }

    /// So many bytes have come from there.
    pub(super) fn came(&self, from: SocketAddr, bytes: usize) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(budget) = self.budgets().get_mut(&from) {
            budget.left += FACTOR * bytes;
        }
    }

    /// Whether this datagram may leave, which then counts.
    pub(super) fn may_leave(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let mut budgets = self.budgets();
        let Some(budget) = budgets.get_mut(&to) else {
            return true;
        };
        let of_handshake = datagram
            .first()
            .is_some_and(|first| first & LONG_HEADER != 0);
        if of_handshake && datagram.len() > budget.left {
            return false;
        }
        budget.left = budget.left.saturating_sub(datagram.len());
        true
    }
}

/// A connection from an address that is not proven, until it is, or the connection is given up.
#[derive(Debug)]
pub(super) struct Doubt {
    unproven: Arc<Unproven>,
    address: SocketAddr,
    proven: bool,
}

impl Doubt {
    /// The peer has the address.
    pub(super) fn proven(mut self) {
        self.proven = true;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        let mut budgets = self.unproven.budgets();
        if let Some(budget) = budgets.get_mut(&self.address) {
            budget.connections -= 1;
            budget.given_up = Some(Instant::now());
        }
        if self.proven {
            // Of whichever connection: the address is proven for all of them.
            budgets.remove(&self.address);
        }
        let count = budgets.len();
        self.unproven.count.store(count, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproven_address_gets_three_times_its_bytes_and_no_more_until_it_is_proven() {
        let unproven = Arc::<Unproven>::default();
        let here = SocketAddr::from(([192, 0, 2, 1], 7));
        let elsewhere = SocketAddr::from(([192, 0, 2, 2], 7));
        let handshake = |len| vec![0xC0; len];
        let session = |len| vec![0x40; len];
        assert!(unproven.may_leave(here, &handshake(9_999)), "not known");
        let doubt = unproven.begins(here);
        assert!(unproven.may_leave(here, &handshake(2_400)));
        assert!(unproven.may_leave(here, &session(54)));
        assert!(!unproven.may_leave(here, &handshake(1_200)), "too much");
        assert!(unproven.may_leave(here, &handshake(1_146)));
        assert!(!unproven.may_leave(here, &handshake(1)));
        // A session from there goes on, and another address has nothing to do with it.
        assert!(unproven.may_leave(here, &session(1_200)));
        assert!(unproven.may_leave(elsewhere, &handshake(9_999)));
        unproven.came(here, 100);
        assert!(unproven.may_leave(here, &handshake(300)));
        assert!(!unproven.may_leave(here, &handshake(1)));
        drop(doubt);
        unproven.look();
        assert!(!unproven.may_leave(here, &handshake(1)), "its last words");
        unproven.begins(here).proven();
        assert!(unproven.may_leave(here, &handshake(9_999)));
        assert_eq!(unproven.count.load(Ordering::Acquire), 0);
    }
}
