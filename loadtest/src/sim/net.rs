//! A link that splits, merges, delays, stalls, cuts and goes silent, on a virtual clock.

use super::power::Power;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::id::Handle;
use dialhome_proto::link::quic::EXPORTER_LEN;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Board to gateway.
    Up,
    /// Gateway to board.
    Down,
}

/// How a connection breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// Both ends learn it: what is under way is lost.
    Reset,
    /// Neither end learns it: bytes vanish in both directions.
    Silent,
    /// As `Silent`, in the direction of the break alone.
    HalfSilent,
}

/// A break after so many bytes of one direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The direction whose bytes are counted.
    pub way: Way,
    /// So many bytes still arrive.
    pub after: u64,
    /// What happens then.
    pub how: Break,
}

/// The link's manners.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Manners {
    /// One way, in milliseconds.
    pub delay_ms: u64,
    /// Up to so much more for each piece.
    pub jitter_ms: u64,
    /// Chance that what is sent at once stalls, and for how long at the most, in milliseconds.
    pub stall: (f64, u64),
    /// Pieces are at most so long, in bytes.
    pub piece: usize,
    /// Bytes that a sender may have under way.
    pub room: usize,
    /// Chance that a connection is cut, somewhere within so many bytes.
    pub cut: (f64, u64),
}

impl Manners {
    /// A link without faults.
    pub const GOOD: Self = Self {
        delay_ms: 20,
        jitter_ms: 0,
        stall: (0.0, 0),
        piece: 4096,
        room: 64 * 1024,
        cut: (0.0, 1),
    };
}

#[derive(Debug, Default)]
struct Pipe {
    under_way: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    in_pipe: usize,
    total: u64,
    last_due: u64,
    /// The sender has closed; the receiver learns at that time.
    end_at: Option<u64>,
    is_silent: bool,
}

#[derive(Debug, Default)]
struct Conn {
    up: Pipe,
    down: Pipe,
    cut: Option<(Way, u64, Option<Break>)>,
    is_reset: bool,
}

impl Conn {
    const fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Whether nothing will come of it any more.
    fn is_over(&self, now: u64) -> bool {
        let is_dead = |pipe: &Pipe| {
            pipe.under_way.is_empty()
                && (pipe.is_silent || pipe.end_at.is_some_and(|end| end <= now))
        };
        self.is_reset || (is_dead(&self.up) && is_dead(&self.down))
    }
}

/// Every connection between the board and the gateway.
#[derive(Debug)]
pub struct Net {
    /// The clock, in milliseconds.
    pub now: u64,
    /// How the link behaves for connections from now on.
    pub manners: Manners,
    /// Connections protect what they carry, as QUIC's do: both sides prove the device key over
    /// an exporter, and records go in plain.
    pub is_quic: bool,
    /// The board is attached to its network.
    pub link_up: bool,
    /// Something answers at the gateway's address.
    pub gateway_up: bool,
    /// Cuts for the next connections, in order, before any by chance.
    pub cuts: VecDeque<Cut>,
    /// Connections whose link was cut.
    pub cuts_done: u64,
    /// Addresses that were dialed, in order.
    pub dialed: Vec<String>,
    /// Bytes that arrived, up and down, over all connections.
    pub bytes: (u64, u64),
    conns: Vec<Conn>,
    /// Those before it are over.
    first: usize,
    waiting: VecDeque<usize>,
    rng: SmallRng,
}

impl Net {
    /// A network.
    #[must_use]
    pub fn new(manners: Manners, seed: u64) -> Self {
        Self {
            now: 0,
            manners,
            is_quic: false,
            link_up: true,
            gateway_up: true,
            cuts: VecDeque::new(),
            cuts_done: 0,
            dialed: Vec::new(),
            bytes: (0, 0),
            conns: Vec::new(),
            first: 0,
            waiting: VecDeque::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// What the exporter of this connection gives, where there is one: no two give the same.
    #[must_use]
    pub fn exporter(&self, id: usize) -> Option<[u8; EXPORTER_LEN]> {
        let mut bytes = [0xE7; EXPORTER_LEN];
        bytes[..8].copy_from_slice(&u64::try_from(id).unwrap_or(u64::MAX).to_be_bytes());
        self.is_quic.then_some(bytes)
    }

    fn connect(&mut self) -> Option<usize> {
        if !self.link_up || !self.gateway_up {
            return None;
        }
        let cut = self.cuts.pop_front().or_else(|| {
            let (chance, within) = self.manners.cut;
            self.rng.random_bool(chance).then(|| Cut {
                way: if self.rng.random_bool(0.5) {
                    Way::Up
                } else {
                    Way::Down
                },
                after: self.rng.random_range(0..within),
                how: [Break::Reset, Break::Silent, Break::HalfSilent]
                    [self.rng.random_range(0..3_usize)],
            })
        });
        self.conns.push(Conn {
            cut: cut.map(|cut| (cut.way, cut.after, Some(cut.how))),
            ..Conn::default()
        });
        let id = self.conns.len() - 1;
        self.waiting.push_back(id);
        Some(id)
    }

    /// The next connection that the gateway has not seen.
    pub fn accept(&mut self) -> Option<usize> {
        self.waiting.pop_front()
    }

    /// Sends; `None`: the connection is broken.
    pub fn send(&mut self, id: usize, way: Way, bytes: &[u8]) -> Option<usize> {
        let (now, manners) = (self.now, self.manners);
        let conn = self.conns.get_mut(id)?;
        if conn.is_reset || conn.pipe(way).end_at.is_some() {
            return None;
        }
        let room = manners.room.saturating_sub(conn.pipe(way).in_pipe);
        let mut taken = bytes.len().min(room);
        // The gateway's shell has buffers of its own.
        if way == Way::Down {
            taken = bytes.len();
        }
        let mut passing = taken;
        let mut breaks = None;
        if let Some((of, after, how @ Some(_))) = &mut conn.cut
            && *of == way
        {
            let left = usize::try_from(*after).unwrap_or(usize::MAX);
            if passing >= left {
                passing = left;
                breaks = how.take();
            }
            *after -= u64::try_from(passing).expect("fits");
        }
        let stall = if self.rng.random_bool(manners.stall.0) {
            self.rng.random_range(0..=manners.stall.1)
        } else {
            0
        };
        let pipe = conn.pipe(way);
        pipe.total += u64::try_from(taken).expect("fits");
        pipe.in_pipe += taken;
        if !pipe.is_silent {
            let mut rest = &bytes[..passing];
            while !rest.is_empty() {
                let len = self
                    .rng
                    .random_range(1..=manners.piece.min(rest.len()).max(1));
                let (piece, more) = rest.split_at(len);
                rest = more;
                let mut due = now + manners.delay_ms + stall;
                if manners.jitter_ms > 0 {
                    due += self.rng.random_range(0..=manners.jitter_ms);
                }
                due = due.max(pipe.last_due);
                pipe.last_due = due;
                pipe.under_way.push_back((due, piece.to_vec()));
            }
        }
        if let Some(how) = breaks {
            self.cuts_done += 1;
            match how {
                // Later than what is under way, or at once: both happen.
                Break::Reset if self.rng.random_bool(0.5) => self.reset(id),
                Break::Reset => {
                    for way in [Way::Up, Way::Down] {
                        let pipe = self.conns[id].pipe(way);
                        pipe.end_at = Some(pipe.last_due.max(now + manners.delay_ms));
                    }
                }
                Break::Silent => {
                    self.conns[id].up.is_silent = true;
                    self.conns[id].down.is_silent = true;
                }
                Break::HalfSilent => self.conns[id].pipe(way).is_silent = true,
            }
        }
        Some(taken)
    }

    /// Both ends lose the connection and what is under way.
    pub fn reset(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        conn.is_reset = true;
        conn.up = Pipe::default();
        conn.down = Pipe::default();
    }

    /// Every open connection is reset, as by the end of the gateway's process.
    pub fn reset_all(&mut self) {
        for id in 0..self.conns.len() {
            self.reset(id);
        }
        self.waiting.clear();
    }

    /// Every open connection goes silent: a mapping was dropped, or the board lost power.
    pub fn silence_all(&mut self) {
        for conn in &mut self.conns {
            conn.up.is_silent = true;
            conn.down.is_silent = true;
        }
    }

    /// An end closes: the other learns it after what is under way.
    pub fn close(&mut self, id: usize, way: Way) {
        let due = self.now + self.manners.delay_ms;
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let pipe = conn.pipe(way);
        if !pipe.is_silent && pipe.end_at.is_none() {
            pipe.end_at = Some(due.max(pipe.last_due));
        }
    }

    /// Receives what has arrived; `None`: broken, or closed and read to the end.
    pub fn receive(&mut self, id: usize, way: Way, room: &mut [u8]) -> Option<usize> {
        let now = self.now;
        let conn = self.conns.get_mut(id)?;
        if conn.is_reset {
            return None;
        }
        let pipe = conn.pipe(way);
        while let Some((due, _)) = pipe.under_way.front()
            && *due <= now
            && let Some((_, piece)) = pipe.under_way.pop_front()
        {
            pipe.in_pipe -= piece.len();
            pipe.arrived.extend(piece);
        }
        let len = room.len().min(pipe.arrived.len());
        for (to, from) in room.iter_mut().zip(pipe.arrived.drain(..len)) {
            *to = from;
        }
        let counted = u64::try_from(len).expect("fits");
        let at_end = pipe.end_at.is_some_and(|end| end <= now)
            && pipe.under_way.is_empty()
            && pipe.arrived.is_empty();
        match way {
            Way::Up => self.bytes.0 += counted,
            Way::Down => self.bytes.1 += counted,
        }
        (len > 0 || !at_end).then_some(len)
    }

    /// When something arrives that has not yet.
    pub fn next_arrival(&mut self) -> Option<u64> {
        while self
            .conns
            .get(self.first)
            .is_some_and(|conn| conn.is_over(self.now))
        {
            self.first += 1;
        }
        let live = self.conns.iter().skip(self.first);
        let pipes = live.flat_map(|conn| [&conn.up, &conn.down]);
        let times =
            pipes.flat_map(|pipe| [pipe.under_way.front().map(|(due, _)| *due), pipe.end_at]);
        times.flatten().filter(|due| *due > self.now).min()
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }
}

/// The link was down, refused or broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// The transport as the client has it.
#[derive(Clone, Debug)]
pub struct SimTransport {
    /// The network.
    pub net: Rc<RefCell<Net>>,
    /// The connection.
    pub conn: Option<usize>,
    /// Whether the board has power.
    pub power: Power,
}

impl Transport for SimTransport {
    type Error = Broken;

    fn connect(&mut self, gateway: &str) -> Result<(), Broken> {
        if self.power.is_off() {
            return Err(Broken);
        }
        let mut net = self.net.borrow_mut();
        net.dialed.push(gateway.to_owned());
        if gateway.starts_with("nowhere") {
            return Err(Broken);
        }
        self.conn = net.connect();
        self.conn.map(|_| ()).ok_or(Broken)
    }

    fn exporter(&mut self, _: &Handle) -> Option<[u8; EXPORTER_LEN]> {
        self.net.borrow().exporter(self.conn?)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if self.power.is_off() {
            return Err(Broken);
        }
        let id = self.conn.ok_or(Broken)?;
        self.net.borrow_mut().send(id, Way::Up, bytes).ok_or(Broken)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        if self.power.is_off() {
            return Err(Broken);
        }
        let id = self.conn.ok_or(Broken)?;
        self.net
            .borrow_mut()
            .receive(id, Way::Down, buffer)
            .ok_or(Broken)
    }

    fn close(&mut self) {
        if let Some(id) = self.conn.take()
            && !self.power.is_off()
        {
            self.net.borrow_mut().close(id, Way::Up);
        }
    }

    fn link_up(&self) -> bool {
        self.net.borrow().link_up
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts::UNKNOWN
    }
}
