//! What the agent remembers of networks: whether QUIC came up there, so that a network that
//! lets no UDP through costs its wait once, and not at every dial.
//!
//! ```text
//! dialhome-agent networks 1 PINS          first 8 bytes of the SHA-256 of the pins
//! FAILURES SECONDS GATEWAY NETWORK        one line for each, oldest first
//! ```
//!
//! `FAILURES` is 0 where QUIC worked last; `SECONDS` is when that was noted, since 1970. A file
//! that is not so is forgotten, with a warning: all it saves is time.

use std::{
    borrow::ToOwned as _,
    fs,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    string::String,
    time::{Duration, SystemTime},
    vec::Vec,
};

use std::{format, net::UdpSocket};

use dialhome_proto::limits::{GATEWAY_MAX, NETWORK_MAX};
use sha2::{Digest as _, Sha256};

use super::durable;

/// Pairs of a network and a gateway that are remembered: 16 networks with two gateways. The
/// one noted longest ago makes room.
const ENTRIES_MAX: usize = 32;
/// A file longer than this is none of ours.
const FILE_MAX: u64 = (ENTRIES_MAX * (GATEWAY_MAX + NETWORK_MAX + 64) + 128) as u64;
/// QUIC is tried again so long after TCP alone worked for the first, the second, and every
/// further time: the first may have been a gateway that was just starting.
const AGAIN: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(3600),
    Duration::from_secs(24 * 3600),
];

/// The memory, and its file in the state directory.
#[derive(Debug)]
pub(super) struct Networks {
    path: PathBuf,
    pins: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    failures: u32,
    noted_s: u64,
    gateway: String,
    network: String,
}

impl Networks {
    /// Reads the file; there may be none. What was noted with other pins says nothing.
    pub(super) fn open(path: PathBuf, pins: &[[u8; 32]]) -> Self {
        let digest = Sha256::digest(pins.as_flattened());
        let pins = digest.iter().take(8);
        let pins: String = pins.map(|byte| format!("{byte:02x}")).collect();
        let entries = match read(&path) {
            Ok(text) => match parse(&text, &pins) {
                Some(entries) => entries,
                None => {
                    tracing::warn!(
                        file = %path.display(),
                        "the memory of networks is damaged and is forgotten; QUIC is tried anew"
                    );
                    Vec::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(
                    file = %path.display(), %error,
                    "the memory of networks cannot be read; QUIC is tried anew"
                );
                Vec::new()
            }
        };
        Self {
            path,
            pins,
            entries,
        }
    }

    /// Whether QUIC is worth a try there now; otherwise the time until it is again.
    pub(super) fn wait(&self, network: &str, gateway: &str, now: SystemTime) -> Option<Duration> {
        let entry = &self.entries[self.find(network, gateway)?];
        let again = AGAIN.get(usize::try_from(entry.failures).ok()?.checked_sub(1)?)?;
        // A clock that was set back since, or is not set yet, says nothing.
        let passed = seconds(now).checked_sub(entry.noted_s)?;
        again
            .checked_sub(Duration::from_secs(passed))
            .filter(|left| !left.is_zero())
    }

    /// QUIC came up there.
    pub(super) fn quic_worked(&mut self, network: &str, gateway: &str, now: SystemTime) {
        let place = self.find(network, gateway);
        if place.is_some_and(|place| self.entries[place].failures == 0) {
            // Nothing new: flash is not written for it.
            return;
        }
        self.note(network, gateway, 0, now);
    }

    /// QUIC did not come up there, and TCP did.
    pub(super) fn only_tcp_worked(&mut self, network: &str, gateway: &str, now: SystemTime) {
        let before = self
            .find(network, gateway)
            .map_or(0, |place| self.entries[place].failures);
        let most = u32::try_from(AGAIN.len()).unwrap_or(u32::MAX);
        self.note(network, gateway, (before + 1).min(most), now);
    }

    /// QUIC came up there, so datagrams pass, and gave no session: TCP has the next turn, and soon
    /// QUIC again.
    pub(super) fn came_up_in_vain(&mut self, network: &str, gateway: &str, now: SystemTime) {
        self.note(network, gateway, 1, now);
    }

    fn find(&self, network: &str, gateway: &str) -> Option<usize> {
        let network = plain(network);
        self.entries
            .iter()
            .position(|entry| entry.network == network && entry.gateway == gateway)
    }

    fn note(&mut self, network: &str, gateway: &str, failures: u32, now: SystemTime) {
        if let Some(place) = self.find(network, gateway) {
            self.entries.remove(place);
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.remove(0);
        }
        self.entries.push(Entry {
            failures,
            noted_s: seconds(now),
            gateway: gateway.to_owned(),
            network: plain(network),
        });
        let mut text = format!("{} {}\n", HEADER, self.pins);
        for entry in &self.entries {
            text.push_str(&format!(
                "{} {} {} {}\n",
                entry.failures, entry.noted_s, entry.gateway, entry.network
            ));
        }
        if let Err(error) = durable::replace(&self.path, text.as_bytes()) {
            tracing::warn!(file = %self.path.display(), %error, "the memory of networks was not written");
        }
    }
}

const HEADER: &str = "dialhome-agent networks 1";

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_string(&mut text)
        .or_else(|error| match error.kind() {
            // Not text: damaged, which an empty one is as well.
            io::ErrorKind::InvalidData => Ok(0),
            _ => Err(error),
        })?;
    Ok(text)
}

/// The entries; none of them where they were noted with other pins; `None`: damaged.
fn parse(text: &str, pins: &str) -> Option<Vec<Entry>> {
    if u64::try_from(text.len()).ok()? > FILE_MAX || !text.ends_with('\n') {
        return None;
    }
    let mut lines = text.lines();
    let noted_with = lines.next()?.strip_prefix(HEADER)?.strip_prefix(' ')?;
    let mut entries = Vec::new();
    for line in lines {
        let mut words = line.splitn(4, ' ');
        let entry = Entry {
            failures: words.next()?.parse().ok()?,
            noted_s: words.next()?.parse().ok()?,
            gateway: words.next()?.to_owned(),
            network: words.next()?.to_owned(),
        };
        let known = usize::try_from(entry.failures).is_ok_and(|count| count <= AGAIN.len());
        if !known || entries.len() >= ENTRIES_MAX {
            return None;
        }
        entries.push(entry);
    }
    if noted_with != pins {
        entries.clear();
    }
    Some(entries)
}

/// A name that fits on a line.
fn plain(network: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    network.chars().map(shown).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// What a network without a name is known by: the interface and the prefix of the address from
/// which this host reaches the gateway (/24, or /48 of IPv6). Empty where there is no way.
pub(super) fn name(gateway: &SocketAddr) -> String {
    let any = if gateway.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    // Connecting a UDP socket looks the route up and sends nothing.
    let own = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(gateway)?;
        socket.local_addr()
    });
    let Ok(own) = own else {
        return String::new();
    };
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    match (own.ip().to_canonical(), gateway.ip().to_canonical()) {
        (ip, _) if ip.is_loopback() => "lo".to_owned(),
        (IpAddr::V4(own), IpAddr::V4(to)) => {
            let [a, b, c, _] = own.octets();
            let interface = interface_v4(&read("/proc/net/route"), to.octets());
            format!("{interface} {a}.{b}.{c}.0/24")
        }
        (IpAddr::V6(own), IpAddr::V6(to)) => {
            let [a, b, c, ..] = own.segments();
            let interface = interface_v6(&read("/proc/net/ipv6_route"), to.octets());
            format!("{interface} {a:x}:{b:x}:{c:x}::/48")
        }
        _ => String::new(),
    }
}

/// The interface of the most exact route: `Iface Destination Gateway Flags RefCnt Use Metric
/// Mask ...`, addresses as the machine's own words in hexadecimal.
fn interface_v4(routes: &str, to: [u8; 4]) -> String {
    let to = u32::from_ne_bytes(to);
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let (destination, mask) = (hex(1)?, hex(7)?);
        let metric: u32 = words.get(6)?.parse().ok()?;
        let fits = to & mask == destination;
        fits.then(|| {
            let name = (*words.first()?).to_owned();
            Some((mask.count_ones(), u32::MAX - metric, name))
        })?
    };
    let best = routes.lines().skip(1).filter_map(route).max();
    best.map_or_else(String::new, |(_, _, name)| name)
}

/// The same of IPv6: `destination length source length next-hop metric ... interface`.
fn interface_v6(routes: &str, to: [u8; 16]) -> String {
    let to = u128::from_be_bytes(to);
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let destination = u128::from_str_radix(words.first()?, 16).ok()?;
        let length = u32::from_str_radix(words.get(1)?, 16).ok()?;
        let metric = u32::from_str_radix(words.get(5)?, 16).ok()?;
        let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
        let name = (*words.last()?).to_owned();
        let fits = to & mask == destination && name != "lo";
        fits.then_some((length, u32::MAX - metric, name))
    };
    let best = routes.lines().filter_map(route).max();
    best.map_or_else(String::new, |(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    const PINS: [[u8; 32]; 1] = [[7; 32]];

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn open(dir: &tempfile::TempDir) -> Networks {
        Networks::open(dir.path().join("networks"), &PINS)
    }

    #[test]
    fn a_network_without_udp_is_left_in_peace_longer_each_time_and_a_day_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let (day, start) = (24 * 3600, 1_000_000);
        for (now, wait) in [
            (start, 60),
            (start + 61, 3600),
            (start + 5_000, day),
            (start + 200_000, day),
        ] {
            let mut networks = open(&dir);
            assert_eq!(networks.wait("wlan", "gw:1", at(now)), None);
            networks.only_tcp_worked("wlan", "gw:1", at(now));
            // From the file, as another process reads it.
            let networks = open(&dir);
            let left = |later| networks.wait("wlan", "gw:1", at(now + later));
            assert_eq!(left(0), Some(Duration::from_secs(wait)));
            assert_eq!(left(wait - 1), Some(Duration::from_secs(1)));
            assert_eq!(left(wait), None);
            // Another network, another gateway.
            assert_eq!(networks.wait("lte", "gw:1", at(now)), None);
            assert_eq!(networks.wait("wlan", "gw:2", at(now)), None);
        }
        let mut networks = open(&dir);
        networks.quic_worked("wlan", "gw:1", at(start + 300_000));
        assert_eq!(open(&dir).wait("wlan", "gw:1", at(start + 300_000)), None);
        networks.only_tcp_worked("wlan", "gw:1", at(start + 300_001));
        let wait = open(&dir).wait("wlan", "gw:1", at(start + 300_001));
        assert_eq!(wait, Some(Duration::from_secs(60)));
    }

    #[test]
    fn where_quic_came_up_in_vain_it_has_another_turn_soon() {
        let dir = tempfile::tempdir().unwrap();
        let mut networks = open(&dir);
        for _ in 0..5 {
            networks.only_tcp_worked("wlan", "gw:1", at(100));
        }
        networks.came_up_in_vain("wlan", "gw:1", at(100));
        let left = open(&dir).wait("wlan", "gw:1", at(100));
        assert_eq!(left, Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_clock_that_was_set_back_forbids_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut networks = open(&dir);
        networks.only_tcp_worked("", "gw:1", at(5_000));
        assert_eq!(networks.wait("", "gw:1", at(4_999)), None);
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut networks = open(&dir);
        let name = |n: usize| format!("{n:\u{e4}<20}");
        for n in 0..=ENTRIES_MAX {
            networks.only_tcp_worked(&name(n), "gateway.example:7040", at(10));
        }
        let networks = open(&dir);
        let known = |n| {
            networks
                .wait(&name(n), "gateway.example:7040", at(10))
                .is_some()
        };
        assert!(!known(0) && (1..=ENTRIES_MAX).all(known));
    }

    #[test]
    fn a_damaged_file_is_forgotten_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks");
        open(&dir).only_tcp_worked("line\nbreak", "gw:1", at(10));
        let whole = fs::read_to_string(&path).unwrap();
        assert!(open(&dir).wait("line\nbreak", "gw:1", at(10)).is_some());
        let long = whole.repeat(1000);
        for damaged in [
            "",
            "\n",
            whole.trim_end(),
            &whole[1..],
            &whole.replace("1 10 gw", "9 10 gw"),
            &whole.replace("1 10 gw", "1 -10 gw"),
            &whole.replace("gw:1 line?break", "gw:1"),
            &long,
        ] {
            fs::write(&path, damaged).unwrap();
            let mut networks = open(&dir);
            assert_eq!(networks.entries, [], "{damaged}");
            networks.only_tcp_worked("line\nbreak", "gw:1", at(10));
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert_eq!(open(&dir).entries, []);
        // Another pin: another gateway.
        fs::write(&path, &whole).unwrap();
        assert_eq!(Networks::open(path, &[[8; 32]]).entries, []);
    }

    #[test]
    fn a_network_is_known_by_its_interface_and_prefix() {
        let loopback = "127.0.0.1:7040".parse().unwrap();
        assert_eq!(name(&loopback), "lo");
        let word = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let line = |interface: &str, to: [u8; 4], metric: u32, mask: [u8; 4]| {
            format!(
                "{interface}\t{}\t0\t1\t0\t0\t{metric}\t{}\t0\t0\t0\n",
                word(to),
                word(mask)
            )
        };
        let routes = "Iface\tDestination\n".to_string()
            + &line("wwan0", [0; 4], 700, [0; 4])
            + &line("eth0", [0; 4], 100, [0; 4])
            + &line("tun0", [10, 0, 0, 0], 50, [255, 0, 0, 0]);
        assert_eq!(interface_v4(&routes, [192, 0, 2, 1]), "eth0");
        assert_eq!(interface_v4(&routes, [10, 1, 2, 3]), "tun0");
        assert_eq!(interface_v4("", [10, 1, 2, 3]), "");
        let zeros = "0".repeat(32);
        let routes = format!(
            "{zeros} 00 {zeros} 00 {zeros} 00000400 1 0 3 wwan0\n\
             20010db8{} 20 {zeros} 00 {zeros} 00000100 1 0 1 eth0\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 200200 lo\n",
            "0".repeat(24)
        );
        let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(interface_v6(&routes, address("2001:db8::1")), "eth0");
        assert_eq!(interface_v6(&routes, address("2001:db9::1")), "wwan0");
    }
}
