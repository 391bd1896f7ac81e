//! Places for handshakes under way: a bound on all, and one on each network.

use super::registry::Registry;
use super::{HANDSHAKES_MAX, HANDSHAKES_OF_NETWORK_MAX};
use dashmap::mapref::entry::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A place among the handshakes under way, as long as it is kept.
pub(super) struct Place {
    registry: Arc<Registry>,
    network: IpAddr,
}

impl Place {
    /// None where all are taken, or the source's network has its share: one network that
    /// opens connections and says nothing must not keep the others out.
    pub(super) fn take(registry: &Arc<Registry>, peer: IpAddr) -> Option<Self> {
        let network = network_of(peer);
        let all = registry.handshakes.fetch_add(1, Ordering::AcqRel);
        let mut share = registry.handshakes_from.entry(network).or_insert(0);
        *share += 1;
        let fits = all < HANDSHAKES_MAX as u64 && *share <= HANDSHAKES_OF_NETWORK_MAX;
        drop(share);
        let place = Self {
            registry: Arc::clone(registry),
            network,
        };
        // A place that does not fit gives back what it took.
        fits.then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.handshakes.fetch_sub(1, Ordering::AcqRel);
        if let Entry::Occupied(mut share) = self.registry.handshakes_from.entry(self.network) {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }
}

/// The /24 or /48 that an address belongs to.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_share_and_no_more_and_gives_it_back() {
        let registry = Arc::<Registry>::default();
        let from = |text: &str| Place::take(&registry, text.parse().unwrap());
        let held: Vec<_> = (0..HANDSHAKES_OF_NETWORK_MAX)
            .map(|_| from("192.0.2.7").expect("the share is not used up"))
            .collect();
        assert!(from("192.0.2.200").is_none(), "the same /24");
        assert!(from("::ffff:192.0.2.1").is_none(), "the same /24, mapped");
        assert!(from("192.0.3.7").is_some(), "another network");
        drop(held);
        assert!(from("192.0.2.200").is_some());
        assert_eq!(registry.handshakes.load(Ordering::Acquire), 0);
        assert!(registry.handshakes_from.is_empty());
    }
}
