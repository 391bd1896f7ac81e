//! A UDP relay that plays a NAT and a bad link between one board and its gateway: mappings that get another port or
//! die, time in which nothing passes, datagrams that are lost, doubled, late, out of order or damaged.
//!
//! It knows next to nothing of QUIC. A mapping is a source address of the board, which is one dial of the agent: that
//! begins with a datagram of 1,200 bytes and more. What is shorter comes from its probe for a port where nobody
//! listens, which this relay never answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dialhome_gateway::demo::relay::{Action, Arrivals, Cut, Direction, Stats};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// No datagram is longer.
const LONGEST: usize = 65_536;
/// No first one of a connection is shorter.
const FIRST: usize = 1_200;

/// What happens by itself, each to so many datagrams of a thousand. The default does nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// All draws follow from it.
    pub(crate) seed: u64,
    /// Do not arrive.
    pub(crate) dropped: u32,
    /// Arrive twice.
    pub(crate) doubled: u32,
    /// Arrive some milliseconds late, so that others overtake them.
    pub(crate) late: u32,
    /// Arrive with one bit changed.
    pub(crate) damaged: u32,
    /// Bytes a second in each direction; what is too much waits in the kernel, and is lost where that is full.
    pub(crate) rate: Option<u64>,
}

/// How late a datagram is, in milliseconds.
const LATE_MS: Range<u64> = 1..15;

/// What happened to datagrams, and how often mappings were made anew for one dial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marred {
    pub(crate) dropped: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    pub(crate) damaged: u64,
    pub(crate) rebound: u64,
}

/// A running relay. Dropping it ends every mapping and frees the port.
pub(crate) struct Datagrams {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    front: UdpSocket,
    faults: Faults,
    stats: watch::Sender<Stats>,
    state: Mutex<State>,
}

struct State {
    upstream: SocketAddr,
    arrivals: Arrivals,
    armed: VecDeque<(Direction, u64, Action)>,
    mappings: HashMap<SocketAddr, Mapping>,
    /// Source addresses that have been seen, whatever became of their mappings.
    known: HashSet<SocketAddr>,
    /// Those that nothing passes for any more.
    dead: HashSet<SocketAddr>,
    /// Those that found nobody at the gateway's port.
    unheard: HashSet<SocketAddr>,
    /// Nothing passes for anybody, or for one of them, until then.
    dark_until: Option<Instant>,
    held_until: HashMap<SocketAddr, Instant>,
    random: StdRng,
    marred: Marred,
    /// When the rate lets the next datagram go, to the gateway and to the board.
    free_at: [Instant; 2],
}

struct Mapping {
    out: Arc<UdpSocket>,
    answering: JoinHandle<()>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// How a datagram goes on.
struct Passage {
    copies: usize,
    late: Option<Duration>,
    /// Not before this.
    at: Option<Instant>,
}

impl Datagrams {
    /// Listens on a free loopback port.
    pub(crate) async fn start(upstream: SocketAddr, faults: Faults) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = front.local_addr().expect("its address");
        let now = Instant::now();
        let shared = Arc::new(Shared {
            front,
            stats: watch::Sender::new(Stats::default()),
            state: Mutex::new(State {
                upstream,
                arrivals: Arrivals::Relay,
                armed: VecDeque::new(),
                mappings: HashMap::new(),
                known: HashSet::new(),
                dead: HashSet::new(),
                unheard: HashSet::new(),
                dark_until: None,
                held_until: HashMap::new(),
                random: StdRng::seed_from_u64(faults.seed),
                marred: Marred::default(),
                free_at: [now, now],
            }),
            faults,
        });
        let listening = tokio::spawn(listen(Arc::clone(&shared)));
        Self {
            address,
            shared,
            listening,
        }
    }

    /// Where the board dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// New mappings go there.
    pub(crate) fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.state().upstream = upstream;
    }

    /// What becomes of datagrams of new dials: nothing but [`Arrivals::Relay`] lets them pass.
    pub(crate) fn set_arrivals(&self, arrivals: Arrivals) {
        self.shared.state().arrivals = arrivals;
    }

    /// The gateway sees each board at a new port from now on; what it sends to the old one is lost. Ends a hold.
    pub(crate) fn rebind(&self) {
        self.shared.rebind(&mut self.shared.state());
    }

    /// Nothing passes any more for the dials that have been until now.
    pub(crate) fn silence(&self) {
        self.shared.silence(&mut self.shared.state());
    }

    /// Nothing passes for so long.
    pub(crate) fn dark(&self, duration: Duration) {
        self.shared.state().dark_until = Some(Instant::now() + duration);
        self.shared.count(|stats| stats.stalls += 1);
    }

    /// `action` happens at the datagram that carries the `bytes`th byte from now: it is the last one that passes, or
    /// the one that is damaged.
    pub(crate) fn arm(&self, direction: Direction, bytes: u64, action: Action) {
        let armed = &mut self.shared.state().armed;
        armed.push_back((direction, bytes, action));
    }

    /// Takes back every armed fault that has not happened.
    pub(crate) fn disarm(&self) {
        self.shared.state().armed.clear();
    }

    /// Faults that are armed and have not happened.
    pub(crate) fn armed(&self) -> usize {
        self.shared.state().armed.len()
    }

    /// What has become of datagrams until now.
    pub(crate) fn marred(&self) -> Marred {
        self.shared.state().marred
    }

    /// The counts now.
    pub(crate) fn stats(&self) -> Stats {
        *self.shared.stats.borrow()
    }

    /// Waits until the counts are as wanted.
    pub(crate) async fn wait_until(&self, wanted: impl FnMut(&Stats) -> bool) -> Stats {
        let mut seen = self.shared.stats.subscribe();
        let mut wanted = wanted;
        let reached = seen.wait_for(|stats| wanted(stats)).await;
        *reached.expect("its sender lives as long as this")
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.listening.abort();
        // Their tasks hold what they are listed in.
        self.shared.state().mappings.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics within")
    }

    fn count(&self, change: impl FnOnce(&mut Stats)) {
        self.stats.send_modify(change);
    }

    fn rebind(&self, state: &mut State) {
        let count = state.mappings.len() as u64;
        state.mappings.clear();
        state.held_until.clear();
        self.count(|stats| {
            stats.resets += count;
            stats.open = 0;
        });
    }

    fn silence(&self, state: &mut State) {
        state.dead.extend(state.known.iter());
        let count = state.mappings.len() as u64;
        state.mappings.clear();
        self.count(|stats| {
            stats.silenced += count;
            stats.open = 0;
        });
    }

    /// What becomes of one datagram, and what it brings about.
    fn judge(&self, board: SocketAddr, direction: Direction, bytes: &mut [u8]) -> Option<Passage> {
        let mut state = self.state();
        let state = &mut *state;
        let len = bytes.len() as u64;
        let now = Instant::now();
        let held_until = state.held_until.get(&board).copied().max(state.dark_until);
        if state.dead.contains(&board) || held_until.is_some_and(|until| now < until) {
            self.count(|stats| stats.vanished += len);
            return None;
        }
        let mut happens = Vec::new();
        state.armed.retain_mut(|(armed, left, action)| {
            if *armed != direction {
                return true;
            }
            *left = left.saturating_sub(len);
            if *left == 0 {
                happens.push(*action);
            }
            *left > 0
        });
        let (random, marred, faults) = (&mut state.random, &mut state.marred, &self.faults);
        let mut damaged = random.random_ratio(faults.damaged, 1_000);
        let mut end = None;
        for action in happens {
            match action {
                Action::FlipBit => damaged = true,
                other => end = Some(other),
            }
        }
        if damaged {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
            marred.damaged += 1;
        }
        let mut passage = Passage {
            copies: 1,
            late: None,
            at: None,
        };
        if random.random_ratio(faults.dropped, 1_000) {
            marred.dropped += 1;
            passage.copies = 0;
        } else if random.random_ratio(faults.doubled, 1_000) {
            marred.doubled += 1;
            passage.copies = 2;
        }
        if random.random_ratio(faults.late, 1_000) {
            marred.late += 1;
            passage.late = Some(Duration::from_millis(random.random_range(LATE_MS)));
        }
        if let Some(rate) = faults.rate {
            let free_at = &mut state.free_at[usize::from(direction == Direction::ToBoard)];
            passage.at = Some(*free_at);
            *free_at = (*free_at).max(now) + Duration::from_micros(len * 1_000_000 / rate);
        }
        match end {
            Some(Action::Stall(duration)) => {
                state.held_until.insert(board, now + duration);
                self.count(|stats| stats.stalls += 1);
            }
            Some(Action::Cut(Cut::Silent | Cut::HalfOpen)) => self.silence(state),
            Some(Action::Cut(Cut::Reset | Cut::Close)) => self.rebind(state),
            Some(Action::FlipBit) | None => {}
        }
        self.count(|stats| match direction {
            Direction::ToGateway => stats.to_gateway += len,
            Direction::ToBoard => stats.to_board += len,
        });
        Some(passage)
    }

    /// The socket that the gateway sees this board at.
    async fn mapping(self: &Arc<Self>, board: SocketAddr, len: usize) -> Option<Arc<UdpSocket>> {
        let upstream = {
            let mut state = self.state();
            if let Some(mapping) = state.mappings.get(&board) {
                return Some(Arc::clone(&mapping.out));
            }
            if state.dead.contains(&board) {
                return None;
            }
            if !state.known.contains(&board) && len < FIRST {
                return None;
            }
            if state.known.insert(board) {
                self.count(|stats| stats.connections += 1);
                if state.arrivals != Arrivals::Relay {
                    state.dead.insert(board);
                    self.count(|stats| stats.refused += 1);
                    return None;
                }
            } else {
                state.marred.rebound += 1;
            }
            state.upstream
        };
        let out = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
        out.connect(upstream).await.ok()?;
        let out = Arc::new(out);
        let answering = tokio::spawn(answer(Arc::clone(self), board, Arc::clone(&out)));
        let mapping = Mapping {
            out: Arc::clone(&out),
            answering,
        };
        self.state().mappings.insert(board, mapping);
        self.count(|stats| stats.open += 1);
        Some(out)
    }
}

/// From the board to the gateway.
async fn listen(shared: Arc<Shared>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok((len, board)) = shared.front.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(out) = shared.mapping(board, len).await else {
            shared.count(|stats| stats.vanished += len as u64);
            continue;
        };
        let bytes = &mut buffer[..len];
        if let Some(passage) = shared.judge(board, Direction::ToGateway, bytes) {
            pass(passage, bytes, Way::ToGateway(out)).await;
        }
    }
}

/// From the gateway to the board.
async fn answer(shared: Arc<Shared>, board: SocketAddr, out: Arc<UdpSocket>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok(len) = out.recv(&mut buffer).await else {
            if shared.state().unheard.insert(board) {
                shared.count(|stats| stats.refused += 1);
            }
            continue;
        };
        let bytes = &mut buffer[..len];
        if let Some(passage) = shared.judge(board, Direction::ToBoard, bytes) {
            pass(passage, bytes, Way::ToBoard(Arc::clone(&shared), board)).await;
        }
    }
}

/// Where a datagram goes.
enum Way {
    ToGateway(Arc<UdpSocket>),
    ToBoard(Arc<Shared>, SocketAddr),
}

impl Way {
    async fn send(&self, bytes: &[u8], copies: usize) {
        for _ in 0..copies {
            // An error is the answer to an earlier one: nobody listens there.
            let _ = match self {
                Self::ToGateway(out) => out.send(bytes).await,
                Self::ToBoard(shared, board) => shared.front.send_to(bytes, board).await,
            };
        }
    }
}

/// Sends when it is time. A late one does not hold up those behind it.
async fn pass(passage: Passage, bytes: &[u8], way: Way) {
    let Passage { copies, late, at } = passage;
    if let Some(at) = at {
        sleep_until(at).await;
    }
    match late {
        None => way.send(bytes, copies).await,
        Some(late) => {
            let bytes = bytes.to_vec();
            tokio::spawn(async move {
                sleep(late).await;
                way.send(&bytes, copies).await;
            });
        }
    }
}
