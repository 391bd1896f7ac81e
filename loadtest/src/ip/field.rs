//! A gateway's namespace, one for each board, and the forwarder between them: a thread that
//! reads what a side sends off its TUN device and writes it to the other's when it is due.

use super::way::{Count, Shape, Way};
use crate::Error;
use crate::site::namespace::{Namespace, run};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tappers::{Interface, Tun};

/// Where the gateway listens, at every address of its namespace.
pub const GATEWAY_PORT: u16 = 7040;
/// Boards, most: the addresses of 10.78.0.0/16 in networks of four.
const BOARDS_MAX: usize = 1 << 14;
/// What TCP does about congestion: Linux's default, whatever this machine is set to.
pub const CONGESTION_CONTROL: &str = "cubic";
/// Longest IP packet, in bytes, as on Ethernet and by most modems.
const MTU: usize = 1500;

/// A link for each board of some. Dropping it removes devices and namespaces.
#[derive(Debug)]
pub struct Field {
    gateway: Namespace,
    boards: Vec<Namespace>,
    shared: Arc<Shared>,
    forwarder: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    links: Mutex<Vec<Link>>,
    /// Readable when the forwarder shall end.
    stop: OwnedFd,
}

#[derive(Debug)]
struct Link {
    down: Way,
    up: Way,
    /// When the board sent its first packet.
    first_us: Option<u64>,
    /// A blackout that comes once so many bytes have gone down, and its length.
    dark_at: Option<(u64, u64)>,
    /// When that one is over.
    dark_until_us: Option<u64>,
}

impl Link {
    fn down(&mut self, packet: &[u8], now_us: u64) {
        self.down.push(packet, now_us);
        if let Some((_, long_us)) = self
            .dark_at
            .take_if(|(bytes, _)| self.down.count.bytes >= *bytes)
        {
            let until_us = now_us.saturating_add(long_us);
            self.down.darken(until_us);
            self.up.darken(until_us);
            self.dark_until_us = Some(until_us);
        }
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Field {
    /// A board behind each of these links; losses and jitter come of the seeds.
    ///
    /// # Errors
    /// The user is not root, or a device or namespace cannot be made.
    pub fn new(links: &[(Shape, u64)]) -> Result<Self, Error> {
        if links.len() > BOARDS_MAX {
            return Err(Error::new(format!("at most {BOARDS_MAX} boards")));
        }
        let gateway = Namespace::new("field")?;
        let mut boards = Vec::with_capacity(links.len());
        let mut devices = Vec::with_capacity(links.len());
        let mut ways = Vec::with_capacity(links.len());
        for (number, (shape, seed)) in links.iter().enumerate() {
            let board = Namespace::new(&format!("board{number}"))?;
            let near = device(&gateway, &format!("air{number}"), address(number, 1))?;
            let far = device(&board, "air", address(number, 2))?;
            boards.push(board);
            devices.push((near, far));
            let [queue_down, queue_up] = shape.queue;
            ways.push(Link {
                down: Way::new(shape, shape.down_bits_per_s, queue_down, *seed),
                up: Way::new(shape, shape.up_bits_per_s, queue_up, !*seed),
                first_us: None,
                dark_at: None,
                dark_until_us: None,
            });
        }
        let stop = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|error| Error::of("the forwarder cannot be stopped", &error))?;
        let shared = Arc::new(Shared {
            start: Instant::now(),
            links: Mutex::new(ways),
            stop,
        });
        let forwarder = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("forwarder".into())
                .spawn(move || forward(&shared, &devices))
                .map_err(|error| Error::of("no thread for the forwarder", &error))?
        };
        Ok(Self {
            gateway,
            boards,
            shared,
            forwarder: Some(forwarder),
        })
    }

    /// The namespace that the gateway runs in.
    #[must_use]
    pub fn gateway(&self) -> &str {
        self.gateway.name()
    }

    /// The namespace of a board, and where it dials.
    ///
    /// # Errors
    /// There is no such board.
    pub fn board(&self, number: usize) -> Result<(&str, SocketAddr), Error> {
        let board = self.boards.get(number).ok_or_else(no_board)?;
        let at = (address(number, 1), GATEWAY_PORT).into();
        Ok((board.name(), at))
    }

    /// What has crossed a board's link so far, down and up.
    ///
    /// # Errors
    /// There is no such board, or nothing is forwarded any more.
    pub fn count(&self, number: usize) -> Result<[Count; 2], Error> {
        if self.forwarder.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(Error::new("the forwarder between the namespaces has ended"));
        }
        let links = self.shared.links();
        let link = links.get(number).ok_or_else(no_board)?;
        Ok([link.down.count, link.up.count])
    }

    /// When a board sent its first packet, if it has.
    #[must_use]
    pub fn first_packet(&self, number: usize) -> Option<Instant> {
        let first_us = self.shared.links().get(number)?.first_us?;
        Some(self.shared.start + Duration::from_micros(first_us))
    }

    /// Once so many bytes more have gone down to the board, nothing passes for so long, in
    /// either direction.
    ///
    /// # Errors
    /// There is no such board.
    pub fn darken_after(&self, number: usize, bytes: u64, long: Duration) -> Result<(), Error> {
        let mut links = self.shared.links();
        let link = links.get_mut(number).ok_or_else(no_board)?;
        let long_us = u64::try_from(long.as_micros()).unwrap_or(u64::MAX);
        link.dark_at = Some((link.down.count.bytes + bytes, long_us));
        link.dark_until_us = None;
        Ok(())
    }

    /// When the blackout ends, or ended, that [`Self::darken_after`] asked for, once it has begun.
    #[must_use]
    pub fn dark_until(&self, number: usize) -> Option<Instant> {
        let until_us = self.shared.links().get(number)?.dark_until_us?;
        Some(self.shared.start + Duration::from_micros(until_us))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // The devices end with the thread, before the namespaces that they are in.
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Some(forwarder) = self.forwarder.take() {
            let _ = forwarder.join();
        }
    }
}

fn no_board() -> Error {
    Error::new("there is no such board in the field")
}

/// Side 1 is the gateway's, side 2 the board's, of the board's own network of four addresses.
fn address(number: usize, side: u8) -> Ipv4Addr {
    let byte = |value: usize| u8::try_from(value % 256).unwrap_or(0);
    Ipv4Addr::new(10, 78, byte(number / 64), byte(number % 64 * 4) + side)
}

/// A TUN device that is moved into a namespace: its file stays with this process, which
/// therefore needs not enter the namespace.
fn device(within: &Namespace, name: &str, address: Ipv4Addr) -> Result<Tun, Error> {
    let failed = |error: &std::io::Error| {
        Error::of(
            "no TUN device (it needs root and /dev/net/tun: `modprobe tun`)",
            error,
        )
    };
    // Until it is moved there, under a name that nobody else has.
    let octets = address.octets();
    let passing = format!(
        "d{:x}x{:02x}{:02x}",
        std::process::id(),
        octets[2],
        octets[3]
    );
    let mut tun = Interface::new(&passing)
        .and_then(Tun::new_named)
        .map_err(|error| failed(&error))?;
    tun.set_nonblocking(true).map_err(|error| failed(&error))?;
    let mtu = MTU.to_string();
    run(&[
        "ip",
        "link",
        "set",
        &passing,
        "netns",
        within.name(),
        "name",
        name,
    ])?;
    within.ip(&["addr", "add", &format!("{address}/30"), "dev", name])?;
    within.ip(&["link", "set", name, "mtu", &mtu, "up"])?;
    // By the route, since a namespace of its own may not choose it for all.
    let (own, net) = (address.to_string(), u32::from(address) & !3);
    let net = format!("{}/30", Ipv4Addr::from(net));
    let route = ["route", "replace", &net, "dev", name, "proto", "kernel"];
    let way = ["scope", "link", "src", &own, "congctl", CONGESTION_CONTROL];
    within.ip(&[&route[..], &way].concat())?;
    Ok(tun)
}

/// Forwards between each pair, the gateway's side first, until it is told to stop.
fn forward(shared: &Shared, devices: &[(Tun, Tun)]) {
    let mut files = vec![PollFd::new(&shared.stop, PollFlags::IN)];
    for (near, far) in devices {
        files.push(PollFd::new(near, PollFlags::IN));
        files.push(PollFd::new(far, PollFlags::IN));
    }
    let mut buffer = [0; 2 * MTU];
    loop {
        let due_us = deliver(shared, devices);
        let wait = due_us.map(|due_us| {
            let wait = Duration::from_micros(due_us.saturating_sub(shared.now_us()));
            Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        match poll(&mut files, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let mut ready = files.iter().map(|file| !file.revents().is_empty());
        if ready.next().unwrap_or(true) {
            return;
        }
        let mut links = shared.links();
        for ((near, far), link) in devices.iter().zip(links.iter_mut()) {
            if ready.next() == Some(true) {
                while let Ok(len) = near.recv(&mut buffer) {
                    let packet = buffer.get(..len).unwrap_or_default();
                    link.down(packet, shared.now_us());
                }
            }
            if ready.next() == Some(true) {
                while let Ok(len) = far.recv(&mut buffer) {
                    let now_us = shared.now_us();
                    link.first_us.get_or_insert(now_us);
                    let packet = buffer.get(..len).unwrap_or_default();
                    link.up.push(packet, now_us);
                }
            }
        }
    }
}

/// Writes what is due; gives when the next is.
fn deliver(shared: &Shared, devices: &[(Tun, Tun)]) -> Option<u64> {
    let mut links = shared.links();
    let now_us = shared.now_us();
    let mut next_us: Option<u64> = None;
    for ((near, far), link) in devices.iter().zip(links.iter_mut()) {
        for (way, to) in [(&mut link.down, far), (&mut link.up, near)] {
            while let Some(packet) = way.pop(now_us) {
                // A side that takes no packets has lost it: the network promises nothing.
                let _ = to.send(&packet);
            }
            next_us = match (next_us, way.due_us()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }
    next_us
}
