//! Who sits where: each board's id, source address, link, and when it is switched on.

use super::scenario::{Abuse, Arrival, Scenario};
use crate::fleet::words::{Gang, Seat};
use crate::site::Device;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::net::{IpAddr, Ipv4Addr};

/// Hosts of a /24 that boards dial from.
const HOSTS: usize = 250;

/// The ids of so many boards.
#[must_use]
pub(super) fn ids(boards: usize) -> Vec<String> {
    (0..boards)
        .map(|number| format!("board-{number:05}"))
        .collect()
}

/// The address of peer `number`, spread over `networks` (/24) from 127.`first`.0.0 on: one
/// board in each network, then the next host of each.
#[must_use]
pub(super) fn source(first: u8, networks: usize, number: usize) -> IpAddr {
    let network = number % networks.max(1);
    let host = 1 + number / networks.max(1) % HOSTS;
    let byte = |value: usize| u8::try_from(value % 256).unwrap_or(0);
    Ipv4Addr::new(
        127,
        first.saturating_add(byte(network / 256)),
        byte(network),
        byte(host),
    )
    .into()
}

/// First byte after 127 of the boards' networks.
pub(super) const BOARDS: u8 = 128;
/// The same of abusive peers' networks.
pub(super) const ABUSERS: u8 = 192;

/// The seats of these devices.
#[must_use]
pub(super) fn seats(scenario: &Scenario, devices: &[Device], seed: u64) -> Vec<Seat> {
    let mut draw = StdRng::seed_from_u64(seed);
    let links = links(scenario, devices.len(), &mut draw);
    let times = arrivals(scenario, devices.len(), &mut draw);
    let networks = scenario.fleet().networks;
    devices
        .iter()
        .zip(links)
        .zip(times)
        .enumerate()
        .map(|(number, ((device, link), on_at_ms))| Seat {
            id: device.id.clone(),
            key: hex(&device.key),
            source: source(BOARDS, networks, number),
            link,
            on_at_ms,
            deaf_after: None,
        })
        .collect()
}

/// Bytes that a board which never reads does read: its handshake and its Welcome.
const HEARD: u64 = 80;

/// The next devices of these, as boards that never read.
pub(super) fn never_readers(abuse: &Abuse, devices: &mut Vec<Device>) -> Vec<Seat> {
    let count = devices.len().min(abuse.never_read as usize);
    let seats = devices.drain(..count).enumerate();
    seats
        .map(|(number, device)| Seat {
            id: device.id,
            key: hex(&device.key),
            source: source(ABUSERS, abuse.networks, number),
            link: 0,
            on_at_ms: 0,
            deaf_after: Some(HEARD),
        })
        .collect()
}

/// Abusive peers that are no boards.
pub(super) fn gangs(abuse: &Abuse) -> Vec<Gang> {
    let sources: Vec<IpAddr> = (0..abuse.networks)
        .map(|number| source(ABUSERS, abuse.networks, number))
        .collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of a day at most, checked with the scenario"
    )]
    let off_at_ms = abuse.for_s.map(|seconds| (seconds * 1_000.0) as u64);
    let wanted = abuse.gangs().into_iter().filter(|(_, peers)| *peers > 0);
    wanted
        .map(|(mischief, peers)| Gang {
            mischief,
            peers,
            per_s: abuse.per_s,
            sources: sources.clone(),
            on_at_ms: 0,
            off_at_ms,
        })
        .collect()
}

/// Which link each board has: as many of each as its share says, in an order that is drawn.
fn links(scenario: &Scenario, boards: usize, draw: &mut StdRng) -> Vec<usize> {
    let mut ends = Vec::with_capacity(scenario.links.len());
    let mut sum = 0.0;
    for (_, share) in &scenario.links {
        sum += share;
        ends.push(sum);
    }
    let last = ends.len().saturating_sub(1);
    let mut links: Vec<usize> = (0..boards)
        .map(|number| {
            let place = (number as f64 + 0.5) / boards as f64;
            ends.iter().position(|end| place < *end).unwrap_or(last)
        })
        .collect();
    links.shuffle(draw);
    links
}

/// When each board is switched on, in milliseconds.
fn arrivals(scenario: &Scenario, boards: usize, draw: &mut StdRng) -> Vec<u64> {
    let fleet = scenario.fleet();
    let mean_ms = fleet.over_s * 1_000.0 / boards.max(1) as f64;
    let mut now = 0.0;
    (0..boards)
        .map(|_| {
            let at = now;
            now += match fleet.arrive {
                Arrival::AtOnce => 0.0,
                Arrival::Evenly => mean_ms,
                // The distances of a Poisson process are exponential.
                Arrival::Poisson => -mean_ms * (1.0 - draw.random::<f64>()).ln(),
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "milliseconds of a day at most, never negative"
            )]
            {
                at as u64
            }
        })
        .collect()
}

/// Bytes in hex.
#[must_use]
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn scenario(more: &str) -> Scenario {
        let text = format!("about = \"a test\"\n[end]\nwithin_s = 1\n{more}");
        Scenario::parse("test.toml", &text).unwrap()
    }

    fn devices(count: usize) -> Vec<Device> {
        let ids = ids(count).into_iter();
        ids.map(|id| Device { id, key: [3; 32] }).collect()
    }

    #[test]
    fn every_board_has_an_address_of_its_own_in_every_network() {
        let addresses: BTreeSet<_> = (0..1_000)
            .map(|number| source(BOARDS, 300, number))
            .collect();
        assert_eq!(addresses.len(), 1_000);
        assert_eq!(source(BOARDS, 300, 299).to_string(), "127.129.43.1");
        assert_eq!(source(BOARDS, 300, 300).to_string(), "127.128.0.2");
    }

    #[test]
    fn links_are_shared_out_as_the_scenario_says() {
        let scenario = scenario(
            "[fleet]\nboards = 40\n[[link]]\npreset = \"2g\"\nshare = 0.25\n[[link]]\npreset = \"3g\"\nshare = 0.75\n",
        );
        let seats = seats(&scenario, &devices(40), 1);
        assert_eq!(seats.iter().filter(|seat| seat.link == 0).count(), 10);
        assert!(seats.iter().all(|seat| seat.on_at_ms == 0));
    }

    #[test]
    fn arrivals_are_spread_and_repeat_with_the_seed() {
        let evenly = scenario("[fleet]\nboards = 10\narrive = \"evenly\"\nover_s = 10\n");
        let times: Vec<_> = seats(&evenly, &devices(10), 1)
            .iter()
            .map(|seat| seat.on_at_ms)
            .collect();
        assert_eq!(times[..3], [0, 1_000, 2_000]);
        let poisson = scenario("[fleet]\nboards = 1000\narrive = \"poisson\"\nover_s = 100\n");
        let times = |seed| -> Vec<u64> {
            let seats = seats(&poisson, &devices(1_000), seed);
            seats.iter().map(|seat| seat.on_at_ms).collect()
        };
        assert_eq!(times(7), times(7));
        assert_ne!(times(7), times(8));
        // 1,000 distances of 100 ms on average: the last is within five deviations (16 s).
        assert!((84_000..116_000).contains(times(7).last().unwrap()));
    }
}
