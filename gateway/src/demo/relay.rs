//! A TCP relay that plays the network between a board and its gateway: carrier
//! NAT that forgets idle mappings without a word, links that are cut in the
//! middle of a record, bytes that are held back, torn apart and glued together.
//!
//! The relay sees ciphertext only. Everything that it does by chance follows
//! from [`Faults::seed`] and the number of the mapping, so that a failing test
//! prints a seed and can be run again; what the kernel makes of read sizes and
//! of the order of two directions is not under its control.
//!
//! Use one relay for each board when faults are to hit one board only.

mod mapping;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// The way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the board to the gateway.
    ToGateway,
    /// From the gateway to the board.
    ToBoard,
}

/// How a mapping ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both ends get a RST at once.
    Reset,
    /// Both ends get a FIN, as if the other one had closed.
    Close,
    /// Nobody is told. Bytes vanish in both directions, as in a NAT that forgot
    /// the mapping, until [`Faults::dead_after`].
    Silent,
    /// The board's end gets a RST; the gateway's end stays open and silent until
    /// [`Faults::dead_after`], as after a power cut on the board.
    HalfOpen,
}

/// What happens to bytes at a chosen place of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The mapping ends.
    Cut(Cut),
    /// The mapping holds its bytes, in both directions, for so long.
    Stall(Duration),
    /// The next byte goes on with one bit changed.
    FlipBit,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// It is relayed.
    #[default]
    Relay,
    /// It gets a RST: no way to the gateway.
    Refuse,
    /// It is accepted, and then nothing ever comes: a link that only looks alive.
    Swallow,
}

/// The faults that a relay makes by itself. The default makes none.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Everything random follows from it.
    pub seed: u64,
    /// A mapping without a byte in either direction for so long ends.
    pub idle_timeout: Option<Duration>,
    /// How an idle mapping ends.
    pub idle_cut: Cut,
    /// A mapping ends after so many bytes, both directions together, drawn anew
    /// for each mapping. Must not be empty.
    pub cut_after: Option<Range<u64>>,
    /// How it ends then: one of these, drawn anew. Empty means [`Cut::Reset`].
    pub cut_kinds: Vec<Cut>,
    /// No more of those cuts than this.
    pub cuts_max: u64,
    /// Bytes are held after so many bytes, drawn anew each time. Must not be empty.
    pub stall_every: Option<Range<u64>>,
    /// How long they are held. Must not be empty.
    pub stall_for: Range<Duration>,
    /// Bytes go on in writes of such a size, drawn anew for each write. `None`: as they came.
    pub segment: Option<Range<usize>>,
    /// Some of the bytes that came wait up to so long for others, and go on in one write with them.
    pub merge: Option<Duration>,
    /// Bytes a second, in each direction of each mapping.
    pub rate: Option<u64>,
    /// A mapping that ended silently keeps its two sockets so long, then both ends get a RST.
    pub dead_after: Duration,
    /// More mappings at a time than this are refused: each has two sockets and 32 KiB of buffers.
    pub mappings_max: usize,
    /// Record the length of each write and the first bytes of each connection.
    pub tap: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 0,
            idle_timeout: None,
            idle_cut: Cut::Silent,
            cut_after: None,
            cut_kinds: Vec::new(),
            cuts_max: u64::MAX,
            stall_every: None,
            stall_for: Duration::from_millis(1)..Duration::from_millis(50),
            segment: None,
            merge: None,
            rate: None,
            dead_after: Duration::from_secs(120),
            mappings_max: 1024,
            tap: false,
        }
    }
}

/// What a relay has seen and done. Counts never fall, `open` excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that were accepted, refused ones included.
    pub connections: u64,
    /// Connections that were refused: by [`Arrivals::Refuse`], or because the gateway was not there.
    pub refused: u64,
    /// Mappings whose sockets are open now, silent ones included.
    pub open: u64,
    /// Mappings that ended by [`Cut::Reset`].
    pub resets: u64,
    /// Mappings that ended by [`Cut::Close`].
    pub closes: u64,
    /// Mappings that ended by [`Cut::Silent`].
    pub silenced: u64,
    /// Mappings that ended by [`Cut::HalfOpen`].
    pub half_opened: u64,
    /// Times that bytes were held.
    pub stalls: u64,
    /// Bytes that went on to the gateway.
    pub to_gateway: u64,
    /// Bytes that went on to the board.
    pub to_board: u64,
    /// Bytes that vanished in mappings that had ended silently.
    pub vanished: u64,
}

impl Stats {
    /// All mappings that the relay ended, however.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.resets + self.closes + self.silenced + self.half_opened
    }

    /// Bytes that went on in one direction.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::ToGateway => self.to_gateway,
            Direction::ToBoard => self.to_board,
        }
    }
}

/// One write of the relay, as its tap saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of the connection, from 1.
    pub connection: u64,
    /// The way that it went.
    pub direction: Direction,
    /// Its length in bytes.
    pub len: usize,
}

/// What the tap recorded. Bounded: the oldest entries are kept, later ones are not recorded.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    /// The writes, in order.
    pub segments: Vec<Segment>,
    /// The first bytes of each connection towards the gateway: preamble and first message.
    pub openings: HashMap<u64, Vec<u8>>,
}

impl Tap {
    /// 24 bytes each: at most 24 MB.
    const SEGMENTS_MAX: usize = 1 << 20;
    /// A preamble and the first handshake message are 62 bytes.
    const OPENING_LEN: usize = 256;
    const OPENINGS_MAX: usize = 4096;

    fn record(&mut self, segment: Segment, bytes: &[u8]) {
        if self.segments.len() < Self::SEGMENTS_MAX {
            self.segments.push(segment);
        }
        if segment.direction == Direction::ToGateway
            && (self.openings.len() < Self::OPENINGS_MAX
                || self.openings.contains_key(&segment.connection))
        {
            let opening = self.openings.entry(segment.connection).or_default();
            let room = Self::OPENING_LEN - opening.len();
            opening.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}

/// A running relay, and the handle to make faults with. Dropping it ends every
/// mapping and frees the port.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// A fault that waits for its place in the stream.
#[derive(Debug)]
struct Armed {
    direction: Direction,
    /// Bytes that still go on before it.
    left: u64,
    action: Action,
}

/// What all mappings of a relay share.
#[derive(Debug)]
struct Shared {
    faults: Faults,
    stats: watch::Sender<Stats>,
    arrivals: Mutex<Arrivals>,
    upstream: Mutex<SocketAddr>,
    /// In the order in which they were asked for; each counts from then.
    armed: Mutex<VecDeque<Armed>>,
    /// The order to end, for each mapping that still relays or is silent.
    mappings: Mutex<HashMap<u64, watch::Sender<Option<Cut>>>>,
    /// Nothing goes on before this.
    stalled_until: Mutex<Option<Instant>>,
    random_cuts_left: Mutex<u64>,
    tap: Mutex<Tap>,
}

/// A panic of one mapping must not hide what the others saw.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Listens on a free loopback port and relays every connection to `upstream`.
    ///
    /// # Errors
    /// The port could not be bound.
    pub async fn start(upstream: SocketAddr, faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            random_cuts_left: Mutex::new(faults.cuts_max),
            faults,
            stats: watch::Sender::new(Stats::default()),
            arrivals: Mutex::default(),
            upstream: Mutex::new(upstream),
            armed: Mutex::default(),
            mappings: Mutex::default(),
            stalled_until: Mutex::default(),
            tap: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where boards dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there: the gateway moved.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *locked(&self.shared.upstream) = upstream;
    }

    /// What becomes of new connections from now on; open ones stay.
    pub fn set_arrivals(&self, arrivals: Arrivals) {
        *locked(&self.shared.arrivals) = arrivals;
    }

    /// Ends every open mapping by RST, silent ones too.
    pub fn cut_all(&self) {
        self.end_all(Cut::Reset);
    }

    /// Every open mapping goes silent. New connections are relayed.
    pub fn silence(&self) {
        self.end_all(Cut::Silent);
    }

    /// Ends every open mapping in the way that is asked for.
    pub fn end_all(&self, cut: Cut) {
        for order in locked(&self.shared.mappings).values() {
            order.send_replace(Some(cut));
        }
    }

    /// Resets the mapping that carries the `bytes`th byte from now in this direction, after that byte.
    pub fn cut_after_bytes(&self, direction: Direction, bytes: u64) {
        self.arm(direction, bytes, Action::Cut(Cut::Reset));
    }

    /// `action` happens to the mapping that carries the `bytes`th byte from now
    /// in this direction, after that byte. Several may be armed at a time.
    pub fn arm(&self, direction: Direction, bytes: u64, action: Action) {
        locked(&self.shared.armed).push_back(Armed {
            direction,
            left: bytes,
            action,
        });
    }

    /// Faults that are armed and have not happened.
    #[must_use]
    pub fn armed(&self) -> usize {
        locked(&self.shared.armed).len()
    }

    /// Takes back every armed fault that has not happened.
    pub fn disarm(&self) {
        locked(&self.shared.armed).clear();
    }

    /// Holds all bytes in both directions, of all mappings, for so long from now.
    pub fn stall(&self, duration: Duration) {
        *locked(&self.shared.stalled_until) = Some(Instant::now() + duration);
        self.shared.count(|stats| stats.stalls += 1);
    }

    /// The counts now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.borrow()
    }

    /// Waits until the counts are as `wanted` says, and returns them. Gives no
    /// deadline: put one around it.
    pub async fn wait_until(&self, wanted: impl FnMut(&Stats) -> bool) -> Stats {
        let mut seen = self.shared.stats.subscribe();
        let mut wanted = wanted;
        // The sender lives as long as `self`, so that the wait ends only by success.
        match seen.wait_for(|stats| wanted(stats)).await {
            Ok(stats) => *stats,
            Err(_) => self.stats(),
        }
    }

    /// What the tap recorded until now; empty without [`Faults::tap`].
    #[must_use]
    pub fn tap(&self) -> Tap {
        locked(&self.shared.tap).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The task owns the listener and the set of mappings: all of them end with it.
        self.accepting.abort();
    }
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut Stats)) {
        self.stats.send_modify(change);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut mappings = JoinSet::new();
    let mut number = 0_u64;
    loop {
        let board = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((board, _)) => board,
                Err(_) => {
                    // Out of descriptors, most likely: mappings that end free some.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = mappings.join_next() => continue,
        };
        number += 1;
        shared.count(|stats| stats.connections += 1);
        let arrivals = *locked(&shared.arrivals);
        if arrivals == Arrivals::Refuse || mappings.len() >= shared.faults.mappings_max {
            shared.count(|stats| stats.refused += 1);
            reset(board);
            continue;
        }
        let order = watch::Sender::new(match arrivals {
            Arrivals::Swallow => Some(Cut::Silent),
            Arrivals::Relay | Arrivals::Refuse => None,
        });
        let orders = order.subscribe();
        locked(&shared.mappings).insert(number, order);
        mappings.spawn(mapping::run(number, board, orders, Arc::clone(&shared)));
    }
}

/// Closes with a RST; what was not sent is thrown away.
fn reset(stream: TcpStream) {
    // On failure the socket is gone already.
    let _ = stream.set_zero_linger();
    drop(stream);
}
