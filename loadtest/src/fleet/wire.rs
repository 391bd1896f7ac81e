//! A board's way to the gateway: a socket, the link before it, and what becomes of both.

use super::exchange::{Exchange, SPARES, micros};
use super::flash::Stopwatch;
use super::link::{Fate, Model};
use super::words::{Link, Seat, Word};
use crate::measure::clock;
use dialhome_device::client::Wake;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code;
use dialhome_proto::link::{REFUSED_LEN, Refusal};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

/// What is said so shortly before the end was the reason for it.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Least and largest buffer that the kernel holds before a slow link, in bytes: what it
/// holds must be felt at the gateway as the link's own, and not as a wide one before it.
const KERNEL_BUFFER: [u64; 2] = [8 * 1024, 256 * 1024];
/// The same of a board that stops reading.
const KERNEL_BUFFER_DEAF: u32 = 4 * 1024;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

enum State {
    Down,
    Dialing(Connecting),
    Up(TcpStream),
    /// The gateway's end may be open still; nothing comes and nothing arrives.
    Vanished,
    Failed(ErrorKind),
}

/// How a connection ended, as the wire saw it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    /// What the link did; `None`: the client closed it.
    pub(super) fault: Option<ErrorKind>,
    /// The last thing was that the board said something.
    pub(super) had_last_word: bool,
    /// Bytes that came on it, and the first of them.
    received: usize,
    first: [u8; REFUSED_LEN],
}

impl Ending {
    /// The gateway's refusal, where it was one.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if self.received < REFUSED_LEN {
            return None;
        }
        Refusal::decode(&self.first)
    }

    fn note(&mut self, bytes: &[u8]) {
        let rest = self.first.iter_mut().skip(self.received);
        for (to, from) in rest.zip(bytes) {
            *to = *from;
        }
        self.received = self.received.saturating_add(bytes.len());
    }
}

/// A board's connection.
pub(super) struct Wire {
    exchange: Rc<Exchange>,
    watch: Rc<Stopwatch>,
    id: Rc<str>,
    source: IpAddr,
    /// Nothing is read of a connection after so many bytes.
    deaf_after: u64,
    /// What the link's times count from.
    epoch: Instant,
    /// `None`: bytes pass as they are.
    model: Option<Box<Model>>,
    state: State,
    /// Bytes off the socket that the client has not taken, and how many of them it has.
    held: Vec<u8>,
    taken: usize,
    /// The gateway's end of the connection is over; the board hears of it in time.
    over: Option<ErrorKind>,
    /// Bytes that came off the socket.
    received: u64,
    spoke_at: Option<Instant>,
    now: Ending,
    /// The connection that ended last, until the board's task has looked.
    ended: Option<Ending>,
    dark_until: Option<Instant>,
    /// The first byte from now on is announced.
    pub(super) watched: Cell<bool>,
}

impl Wire {
    pub(super) fn new(
        exchange: Rc<Exchange>,
        watch: Rc<Stopwatch>,
        id: Rc<str>,
        seat: &Seat,
        epoch: Instant,
        model: Option<Box<Model>>,
    ) -> Self {
        Self {
            exchange,
            watch,
            id,
            source: seat.source,
            deaf_after: seat.deaf_after.unwrap_or(u64::MAX),
            epoch,
            model,
            state: State::Down,
            held: Vec::new(),
            taken: 0,
            over: None,
            received: 0,
            spoke_at: None,
            now: Ending::default(),
            ended: None,
            dark_until: None,
            watched: Cell::new(false),
        }
    }

    pub(super) fn take_ended(&mut self) -> Option<Ending> {
        self.ended.take()
    }

    /// The link is gone until then, and with it the way back to every connection.
    pub(super) fn darken(&mut self, until: Instant) {
        self.dark_until = self.dark_until.max(Some(until));
        self.vanish();
    }

    /// The board, or its network, has forgotten the connection; the gateway has not.
    pub(super) fn vanish(&mut self) {
        match std::mem::replace(&mut self.state, State::Vanished) {
            State::Up(stream) => {
                self.exchange.bury(stream);
                self.drop_held();
            }
            State::Dialing(_) => {}
            state @ (State::Down | State::Vanished | State::Failed(_)) => self.state = state,
        }
    }

    /// What the way there did to the connection.
    fn suffer(&mut self, fate: Fate) {
        match fate {
            Fate::Holds => {}
            Fate::Lost => self.vanish(),
            Fate::Reset => {
                let reset = State::Failed(ErrorKind::ConnectionReset);
                if let State::Up(stream) = std::mem::replace(&mut self.state, reset) {
                    // So that its end sends a reset and no FIN.
                    let _ = stream.set_zero_linger();
                }
            }
        }
    }

    /// Gets on with a dial and with what is on the air. Ready: there is something for the
    /// client to do; `due`: when to look again without anybody's doing.
    pub(super) fn poll(
        &mut self,
        wake: &Wake,
        cx: &mut Context<'_>,
        due: &mut Instant,
    ) -> Poll<()> {
        match &mut self.state {
            State::Dialing(connecting) => {
                let Poll::Ready(connected) = connecting.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                self.state = match connected {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        State::Up(stream)
                    }
                    Err(error) => self.not_connected(&error),
                };
                Poll::Ready(())
            }
            State::Up(_) if self.model.is_some() => self.pump(wake, cx, due),
            State::Up(stream) if self.received >= self.deaf_after => {
                ready(wake.on_send && stream.poll_write_ready(cx).is_ready())
            }
            State::Up(stream) => {
                let readable = wake.on_receive
                    && (!self.held.is_empty() || stream.poll_read_ready(cx).is_ready());
                let writable = wake.on_send && stream.poll_write_ready(cx).is_ready();
                ready(readable || writable)
            }
            State::Failed(_) => ready(wake.on_receive || wake.on_send),
            State::Down | State::Vanished => Poll::Pending,
        }
    }

    /// Moves bytes between the socket and the link's model.
    fn pump(&mut self, wake: &Wake, cx: &mut Context<'_>, due: &mut Instant) -> Poll<()> {
        let now_us = micros(self.epoch);
        let (State::Up(stream), Some(model)) = (&self.state, &mut self.model) else {
            return Poll::Pending;
        };
        let mut fate = model.advance(now_us);
        if fate == Fate::Holds && self.over.is_none() {
            while model.up.due_us() <= now_us {
                if let Err(error) = self.exchange.write(stream, &mut model.up, self.epoch) {
                    self.over = Some(error.kind());
                    fate = model.end_down(now_us);
                    break;
                }
                if model.up.due_us() <= now_us && stream.poll_write_ready(cx).is_pending() {
                    break;
                }
            }
        }
        while fate == Fate::Holds
            && self.over.is_none()
            && self.received < self.deaf_after
            && model.down.has_room(now_us)
            && stream.poll_read_ready(cx).is_ready()
        {
            let mut scratch = self.exchange.scratch.borrow_mut();
            let most = model.down.room(now_us).min(scratch.len());
            let read = stream.try_read(scratch.get_mut(..most).unwrap_or(&mut []));
            self.over = match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Ok(0) => Some(ErrorKind::UnexpectedEof),
                Err(error) => Some(error.kind()),
                Ok(len) => {
                    self.received += len as u64;
                    self.exchange
                        .tally
                        .count(|tick| tick.bytes_down += len as u64);
                    let bytes = scratch.get(..len).unwrap_or(&[]);
                    fate = model.carry_down(bytes, now_us, clock::now_ns());
                    continue;
                }
            };
            fate = model.end_down(now_us);
        }
        if fate != Fate::Holds {
            self.suffer(fate);
            return ready(fate == Fate::Reset);
        }
        let arrived = !model.down.arrived(now_us).is_empty() || model.down.has_ended(now_us);
        let readable = wake.on_receive && arrived;
        let writable = wake.on_send && model.up.has_room(now_us);
        let mut next_us = u64::MAX;
        let mut consider = |at_us: u64| {
            // What is overdue waits for the client or for the socket.
            if at_us > now_us {
                next_us = next_us.min(at_us);
            }
        };
        consider(model.down.due_us());
        consider(model.up.due_us());
        let reads = self.over.is_none() && self.received < self.deaf_after;
        if reads && !model.down.has_room(now_us) {
            consider(model.down.room_us(now_us));
        }
        if wake.on_send {
            consider(model.up.room_us(now_us));
        }
        if next_us < u64::MAX {
            *due = (*due).min(self.epoch + Duration::from_micros(next_us));
        }
        ready(readable || writable)
    }

    fn not_connected(&self, error: &io::Error) -> State {
        if let Some(limit) = Exchange::limit(self.source, error) {
            self.exchange.fail(limit);
        }
        State::Failed(error.kind())
    }

    fn dial(&self, link: &Link) -> io::Result<Connecting> {
        let socket = match self.source {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        if let Some(bytes) = link.bytes_under_way() {
            let [least, most] = KERNEL_BUFFER;
            let size = u32::try_from(bytes.clamp(least, most)).unwrap_or(u32::MAX);
            socket.set_recv_buffer_size(size)?;
        }
        if self.deaf_after < u64::MAX {
            socket.set_recv_buffer_size(KERNEL_BUFFER_DEAF)?;
        }
        socket.bind(SocketAddr::new(self.source, 0))?;
        let gateway = self.exchange.gateway;
        if link.round_trip_ms == 0 {
            return Ok(Box::pin(socket.connect(gateway)));
        }
        // SYN and its answer cross the link before the board can say anything.
        let round_trip = Duration::from_millis(link.round_trip_ms.into());
        Ok(Box::pin(async move {
            sleep(round_trip).await;
            socket.connect(gateway).await
        }))
    }

    /// Reads what has come, and gives the client as much as it takes.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let State::Up(stream) = &self.state else {
            return Ok(0);
        };
        if self.received >= self.deaf_after {
            return Ok(0);
        }
        let mut scratch = self.exchange.scratch.borrow_mut();
        let len = match stream.try_read(&mut scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
            Ok(len) => len,
        };
        self.received += len as u64;
        let at_ns = clock::now_ns();
        self.watch.arrived_ns.set(at_ns);
        self.exchange
            .tally
            .count(|tick| tick.bytes_down += len as u64);
        let bytes = scratch.get(..len).unwrap_or(&[]);
        self.now.note(bytes);
        let (given, rest) = bytes.split_at(len.min(buffer.len()));
        if let Some(room) = buffer.get_mut(..given.len()) {
            room.copy_from_slice(given);
        }
        let len = given.len();
        if !rest.is_empty() {
            if self.held.capacity() == 0 {
                self.held = self.exchange.spares.borrow_mut().pop().unwrap_or_default();
            }
            self.held.extend_from_slice(rest);
        }
        drop(scratch);
        self.announce(at_ns);
        Ok(len)
    }

    /// Gives the client what has arrived over the link's model.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let now_us = micros(self.epoch);
        let Some(model) = &mut self.model else {
            return Ok(0);
        };
        let arrived = model.down.arrived(now_us);
        let len = arrived.len().min(buffer.len());
        let (Some(to), Some(from)) = (buffer.get_mut(..len), arrived.get(..len)) else {
            return Ok(0);
        };
        if len == 0 {
            return match self.over.filter(|_| model.down.has_ended(now_us)) {
                Some(kind) => Err(kind.into()),
                None => Ok(0),
            };
        }
        to.copy_from_slice(from);
        self.now.note(to);
        let watch = &self.watch;
        model.down.take(len, |stamp, _| watch.arrived_ns.set(stamp));
        self.announce(clock::now_ns());
        Ok(len)
    }

    fn announce(&self, at_ns: u64) {
        if self.watched.take() {
            self.exchange.tally.say(Word::FirstByte {
                id: self.id.to_string(),
                at_ns,
            });
        }
    }

    /// Sends over the socket, or over the link's model.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State::Up(stream) = &self.state else {
            return Ok(0);
        };
        let Some(model) = &mut self.model else {
            let len = match stream.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                written => written?,
            };
            let since = self.watch.acks_ns.take();
            if since != 0 {
                self.exchange.tally.acknowledged(since);
            }
            self.exchange
                .tally
                .count(|tick| tick.bytes_up += len as u64);
            return Ok(len);
        };
        let now_us = micros(self.epoch);
        let mut fate = model.advance(now_us);
        let mut len = 0;
        if fate == Fate::Holds && model.up.has_room(now_us) {
            len = bytes.len().min(model.up.room(now_us));
            let stamp = self.watch.acks_ns.take();
            fate = model.carry_up(bytes.get(..len).unwrap_or(bytes), now_us, stamp);
        }
        self.suffer(fate);
        match fate {
            Fate::Holds => Ok(len),
            Fate::Lost => Ok(bytes.len()),
            Fate::Reset => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    fn drop_held(&mut self) {
        let mut spare = std::mem::take(&mut self.held);
        self.taken = 0;
        let mut spares = self.exchange.spares.borrow_mut();
        if spare.capacity() > 0 && spares.len() < SPARES {
            spare.clear();
            spares.push(spare);
        }
    }

    fn broke(&mut self, kind: ErrorKind) -> io::Error {
        self.now.fault = Some(kind);
        kind.into()
    }

    fn is_up(&mut self) -> bool {
        let now_us = micros(self.epoch);
        let up = self.model.as_mut().is_none_or(|model| {
            model.advance(now_us);
            model.is_up(now_us)
        });
        up && self.dark_until.is_none_or(|until| until <= Instant::now())
    }
}

const fn ready(is_ready: bool) -> Poll<()> {
    if is_ready {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

/// A client's hold on its board's wire.
#[derive(Clone, Copy)]
pub(super) struct Line<'w> {
    pub(super) wire: &'w RefCell<Wire>,
    pub(super) link: &'w Link,
}

impl Transport for Line<'_> {
    type Error = io::Error;

    fn connect(&mut self, _gateway: &str) -> io::Result<()> {
        let wire = &mut *self.wire.borrow_mut();
        wire.now = Ending::default();
        wire.spoke_at = None;
        wire.over = None;
        wire.received = 0;
        wire.exchange.tally.count(|tick| tick.dials += 1);
        if !wire.is_up() {
            wire.now.fault = Some(ErrorKind::NetworkDown);
            wire.ended = Some(wire.now);
            return Err(ErrorKind::NetworkDown.into());
        }
        if let Some(model) = &mut wire.model {
            model.begin(micros(wire.epoch));
        }
        wire.state = match wire.dial(self.link) {
            Ok(connecting) => State::Dialing(connecting),
            Err(error) => wire.not_connected(&error),
        };
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wire = &mut *self.wire.borrow_mut();
        match &wire.state {
            State::Up(_) => match wire.write(bytes) {
                Ok(sent) => {
                    if sent > 0 {
                        wire.spoke_at = Some(Instant::now());
                    }
                    Ok(sent)
                }
                Err(error) => Err(wire.broke(error.kind())),
            },
            State::Dialing(_) => Ok(0),
            State::Vanished => Ok(bytes.len()),
            State::Failed(kind) => {
                let kind = *kind;
                Err(wire.broke(kind))
            }
            State::Down => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = &mut *self.wire.borrow_mut();
        if let Some(held) = wire.held.get(wire.taken..).filter(|held| !held.is_empty()) {
            let len = held.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..len), held.get(..len)) {
                to.copy_from_slice(from);
            }
            wire.taken += len;
            if wire.taken == wire.held.len() {
                wire.drop_held();
            }
            wire.spoke_at = None;
            return Ok(len);
        }
        let received = match &wire.state {
            State::Up(_) if wire.model.is_some() => wire.take(buffer),
            State::Up(_) => wire.read(buffer),
            State::Dialing(_) | State::Vanished => Ok(0),
            State::Failed(kind) => Err((*kind).into()),
            State::Down => return Err(ErrorKind::NotConnected.into()),
        };
        match received {
            Ok(0) => Ok(0),
            Ok(len) => {
                wire.spoke_at = None;
                Ok(len)
            }
            Err(error) => Err(wire.broke(error.kind())),
        }
    }

    fn close(&mut self) {
        let wire = &mut *self.wire.borrow_mut();
        let state = std::mem::replace(&mut wire.state, State::Down);
        if matches!(state, State::Down) {
            return;
        }
        if let (State::Up(stream), Some(model)) = (state, &mut wire.model) {
            // What was said is on the air, and arrives.
            let up = model.take_up();
            wire.exchange.finish(stream, up, wire.epoch);
        }
        wire.now.had_last_word = wire.spoke_at.is_some_and(|at| at.elapsed() < LAST_WORD);
        wire.ended = Some(wire.now);
        wire.drop_held();
    }

    fn link_up(&self) -> bool {
        self.wire.borrow_mut().is_up()
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts {
            link: match self.link.name.as_str() {
                "2g" => code::Link::GSM,
                "3g" => code::Link::UMTS,
                "lte_m" => code::Link::LTE_M,
                "nb_iot" => code::Link::NB_IOT,
                "loopback" => code::Link::ETHERNET,
                _ => code::Link::OTHER,
            },
            network: &self.link.name,
            ..LinkFacts::UNKNOWN
        }
    }
}
