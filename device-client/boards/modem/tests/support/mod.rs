//! The emulated modem, a gateway's stand-in and a clock, all in virtual time.
#![expect(dead_code, reason = "each test program uses its own part of this")]

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use dialhome_device::modem::{Config as ModemConfig, Host, Modem as Transport, Sara};
use dialhome_modem::{Config, ERROR_REFUSED, Event, Faults, Key, Modem, Order, PIECE_MAX, Request};
use embedded_io::ErrorKind;

/// The gateway that the tests dial; the modem has to look its name up.
pub(crate) const GATEWAY: &str = "gateway.test:4433";
/// One way through the network.
pub(crate) const ONE_WAY: Duration = Duration::from_millis(40);
/// The board's clock wraps around soon after its start.
const CLOCK_START: u32 = u32::MAX - 5_000;

/// What the other end of connections does.
pub(crate) trait Peer {
    /// A connection is there; false: it is refused.
    fn connected(&mut self, key: Key) -> bool;
    /// Bytes came; false: the peer closes.
    fn received(&mut self, key: Key, bytes: &[u8]) -> bool;
    /// The next bytes for the board, at most so many.
    fn next(&mut self, key: Key, most: usize) -> Vec<u8>;
    /// The connection is closed.
    fn closed(&mut self, key: Key);
}

/// Refuses nothing and says nothing.
#[derive(Debug, Default)]
pub(crate) struct Silent;

impl Peer for Silent {
    fn connected(&mut self, _: Key) -> bool {
        true
    }
    fn received(&mut self, _: Key, _: &[u8]) -> bool {
        true
    }
    fn next(&mut self, _: Key, _: usize) -> Vec<u8> {
        Vec::new()
    }
    fn closed(&mut self, _: Key) {}
}

/// Sends back what it gets.
#[derive(Debug, Default)]
pub(crate) struct Echo(pub(crate) VecDeque<u8>);

impl Peer for Echo {
    fn connected(&mut self, _: Key) -> bool {
        true
    }
    fn received(&mut self, _: Key, bytes: &[u8]) -> bool {
        self.0.extend(bytes);
        true
    }
    fn next(&mut self, _: Key, most: usize) -> Vec<u8> {
        let most = most.min(self.0.len());
        self.0.drain(..most).collect()
    }
    fn closed(&mut self, _: Key) {
        self.0.clear();
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) modem: Modem,
    pub(crate) peer: Box<dyn Peer>,
    /// Events under way through the network.
    events: VecDeque<(Duration, Event)>,
    /// Connections, and whether the modem has room for more.
    room: HashMap<Key, bool>,
    to_board: VecDeque<u8>,
    /// Whether the board has a pin to reset the modem, and how often it used it.
    pub(crate) has_reset_pin: bool,
    pub(crate) resets: u32,
    pub(crate) log: Vec<String>,
    /// The modem holds CTS back: it takes so many bytes more, and then none.
    takes: Option<usize>,
    /// When the board's last turn of its main loop was, and the longest time between two.
    idle_at: Duration,
    pub(crate) longest_turn: Duration,
    /// Behind this command of the board's, after this time, the modem says this.
    pub(crate) late: Option<(&'static str, Duration, &'static str)>,
    late_at: Option<Duration>,
    /// Every byte from the board, and from the modem.
    pub(crate) from_board: Vec<u8>,
    pub(crate) from_modem: Vec<u8>,
}

impl World {
    fn pump(&mut self) {
        if self.late_at.is_some_and(|at| at <= self.now) {
            self.late_at = None;
            if let Some((_, _, text)) = self.late.take() {
                self.to_board.extend(text.bytes());
            }
        }
        loop {
            let bytes = self.modem.uart_out(self.now);
            self.from_modem.extend(&bytes);
            self.to_board.extend(bytes);
            while let Some(line) = self.modem.take_log() {
                self.log.push(line);
            }
            let mut moved = false;
            while let Some(request) = self.modem.poll_request() {
                moved = true;
                self.carry_out(request);
            }
            let keys: Vec<Key> = self
                .room
                .keys()
                .copied()
                .filter(|key| self.room[key])
                .collect();
            for key in keys {
                let bytes = self.peer.next(key, PIECE_MAX);
                if !bytes.is_empty() {
                    self.room.insert(key, false);
                    self.post(Event::Data(key, bytes));
                }
            }
            while self.events.front().is_some_and(|(at, _)| *at <= self.now) {
                if let Some((_, event)) = self.events.pop_front() {
                    moved = true;
                    if let Event::Connected(key) = event {
                        self.room.insert(key, true);
                    }
                    self.modem.network(event, self.now);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn post(&mut self, event: Event) {
        self.events.push_back((self.now + ONE_WAY, event));
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Connect { key, address, port } => {
                // A line that loses bytes may make another address of it.
                let is_gateway = (address.as_str(), port) == ("192.0.2.7", 4433);
                if is_gateway && self.peer.connected(key) {
                    self.post(Event::Connected(key));
                } else {
                    self.post(Event::Failed(key, ERROR_REFUSED));
                }
            }
            Request::Send { key, bytes } => {
                self.post(Event::Sent(key, bytes.len()));
                if self.room.contains_key(&key) && !self.peer.received(key, &bytes) {
                    self.room.remove(&key);
                    self.peer.closed(key);
                    self.post(Event::Ended(key));
                }
            }
            Request::More(key) => {
                if let Some(room) = self.room.get_mut(&key) {
                    *room = true;
                }
            }
            Request::Close(key) | Request::Abandon(key) => {
                self.room.remove(&key);
                self.peer.closed(key);
            }
        }
    }

    /// Lets time pass to where something happens, and no further than 10 ms.
    fn idle(&mut self) {
        self.pump();
        let next = [self.modem.next_at(), self.events.front().map(|(at, _)| *at)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::MAX);
        self.now = next
            .min(self.now + Duration::from_millis(10))
            .max(self.now + Duration::from_micros(20));
        self.pump();
    }
}

/// The whole of it, shared by the serial line, the clock and the test.
#[derive(Clone)]
pub(crate) struct Bench(Rc<RefCell<World>>);

pub(crate) type Device<'c> = Transport<'c, Bench, Bench, Sara>;

impl Bench {
    pub(crate) fn new(mut config: Config, faults: Faults, peer: impl Peer + 'static) -> Self {
        config
            .names
            .push(("gateway.test".to_owned(), "192.0.2.7".to_owned()));
        Self(Rc::new(RefCell::new(World {
            now: Duration::ZERO,
            modem: Modem::new(config, faults),
            peer: Box::new(peer),
            events: VecDeque::new(),
            room: HashMap::new(),
            to_board: VecDeque::new(),
            has_reset_pin: true,
            resets: 0,
            log: Vec::new(),
            takes: None,
            idle_at: Duration::ZERO,
            longest_turn: Duration::ZERO,
            late: None,
            late_at: None,
            from_board: Vec::new(),
            from_modem: Vec::new(),
        })))
    }

    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    pub(crate) fn device<'c>(
        &self,
        config: &'c ModemConfig<'c>,
        buffer: &'c mut [u8],
    ) -> Device<'c> {
        Transport::new(self.clone(), self.clone(), config, buffer)
    }

    pub(crate) fn now(&self) -> Duration {
        self.world().now
    }

    /// Lets so much time pass.
    pub(crate) fn pass(&self, time: Duration) {
        let mut world = self.world();
        let until = world.now + time;
        while world.now < until {
            world.idle();
        }
    }

    pub(crate) fn order(&self, order: &str) {
        let mut world = self.world();
        let now = world.now;
        let order: Order = order.parse().expect("an order");
        world.modem.order(order, now);
    }

    /// What the log has about faults, starts and whatever else happened.
    pub(crate) fn log(&self) -> String {
        let mut world = self.world();
        world.pump();
        world.log.join("\n")
    }

    /// From now on the modem takes so many bytes, and then none.
    pub(crate) fn hold_cts(&self, takes: usize) {
        let mut world = self.world();
        world.takes = Some(takes);
        world.idle_at = world.now;
        world.longest_turn = Duration::ZERO;
    }

    /// How often the board has sent this.
    pub(crate) fn sent(&self, command: &str) -> usize {
        let world = self.world();
        let sent = String::from_utf8_lossy(&world.from_board).into_owned();
        sent.matches(command).count()
    }
}

/// How long the board's serial line waits for CTS.
const CTS: Duration = Duration::from_secs(1);

impl embedded_io::ErrorType for Bench {
    type Error = ErrorKind;
}

impl embedded_io::Write for Bench {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let mut world = self.world();
        let len = bytes.len().min(world.takes.unwrap_or(usize::MAX));
        let bytes = &bytes[..len];
        if let Some(takes) = &mut world.takes {
            *takes -= len;
        }
        if len == 0 {
            world.now += CTS;
            return Err(ErrorKind::TimedOut);
        }
        let now = world.now;
        world.from_board.extend(bytes);
        world.modem.uart_in(bytes, now);
        if let Some((command, after, _)) = world.late
            && world.from_board.ends_with(command.as_bytes())
        {
            world.late_at = Some(now + after);
        }
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl embedded_io::Read for Bench {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut world = self.world();
        match (world.to_board.pop_front(), buffer.first_mut()) {
            (Some(byte), Some(room)) => {
                *room = byte;
                Ok(1)
            }
            _ => Ok(0),
        }
    }
}

impl embedded_io::ReadReady for Bench {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        let mut world = self.world();
        if world.to_board.is_empty() {
            world.pump();
        }
        Ok(!world.to_board.is_empty())
    }
}

impl Host for Bench {
    fn millis(&mut self) -> u32 {
        let mut world = self.world();
        // Even looking at the clock takes time.
        world.now += Duration::from_micros(1);
        let millis = u32::try_from(world.now.as_millis()).expect("a short test");
        CLOCK_START.wrapping_add(millis)
    }

    fn idle(&mut self) {
        let mut world = self.world();
        let turn = world.now.saturating_sub(world.idle_at);
        world.longest_turn = world.longest_turn.max(turn);
        world.idle();
        world.idle_at = world.now;
    }

    fn reset_modem(&mut self) -> bool {
        let mut world = self.world();
        if world.has_reset_pin {
            world.resets += 1;
            let now = world.now;
            world.modem.reset(now);
        }
        world.has_reset_pin
    }
}
