//! A board's way to the gateway: a socket, and what becomes of it.

use super::flash::Stopwatch;
use super::tally::Tally;
use super::words::Word;
use crate::measure::clock;
use dialhome_device::client::Wake;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::link::{REFUSED_LEN, Refusal};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of one read from a socket.
const SCRATCH: usize = 64 * 1024;
/// Spare buffers that are kept for boards whose bytes wait.
const SPARES: usize = 64;

/// What all wires of a crew share.
pub(super) struct Exchange {
    pub(super) gateway: SocketAddr,
    pub(super) tally: Rc<Tally>,
    scratch: RefCell<Box<[u8]>>,
    spares: RefCell<Vec<Vec<u8>>>,
    /// Why the crew cannot go on.
    failure: RefCell<Option<String>>,
    failed: Notify,
}

impl Exchange {
    pub(super) fn new(gateway: SocketAddr, tally: Rc<Tally>) -> Self {
        Self {
            gateway,
            tally,
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            spares: RefCell::default(),
            failure: RefCell::default(),
            failed: Notify::new(),
        }
    }

    /// Waits until the crew cannot go on, and says why.
    pub(super) async fn failure(&self) -> String {
        loop {
            if let Some(why) = self.failure.borrow_mut().take() {
                return why;
            }
            self.failed.notified().await;
        }
    }

    fn fail(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
        self.failed.notify_one();
    }

    /// A socket whose other end believes that it is connected: what comes vanishes.
    fn bury(self: &Rc<Self>, stream: TcpStream) {
        let exchange = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while stream.readable().await.is_ok() {
                match stream.try_read(&mut exchange.scratch.borrow_mut()) {
                    Ok(0) => break,
                    Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        });
    }

    /// The system's refusal to open one more connection, in words; `None`: another error.
    fn limit(source: IpAddr, error: &io::Error) -> Option<String> {
        use rustix::io::Errno;
        use rustix::process::{Resource, getrlimit};
        match Errno::from_io_error(error)? {
            Errno::MFILE => {
                let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
                Some(format!(
                    "this process may have {limit} open files and has them: share the boards among more crews"
                ))
            }
            Errno::NFILE => {
                Some("the system's limit on open files is reached (fs.file-max)".into())
            }
            Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => Some(format!(
                "no port is left for a connection from {source} (net.ipv4.ip_local_port_range), or it is no address of this machine: share the boards among more source addresses"
            )),
            Errno::NOBUFS | Errno::NOMEM => {
                Some("the system has no memory left for a connection".into())
            }
            _ => None,
        }
    }
}

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
}

/// A board's connection.
pub(super) struct Wire {
    exchange: Rc<Exchange>,
    watch: Rc<Stopwatch>,
    id: Rc<str>,
    source: IpAddr,
    state: State,
    /// Bytes off the socket that the client has not taken, and how many of them it has.
    held: Vec<u8>,
    taken: usize,
    spoke_at: Option<Instant>,
    now: Ending,
    /// The connection that ended last, until the board's task has looked.
    ended: Option<Ending>,
    dark_until: Option<Instant>,
    /// The first byte from now on is announced.
    pub(super) watched: Cell<bool>,
}

/// What is said so shortly before the end was the reason for it.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(5);

impl Wire {
    pub(super) fn new(
        exchange: Rc<Exchange>,
        watch: Rc<Stopwatch>,
        id: Rc<str>,
        source: IpAddr,
    ) -> Self {
        Self {
            exchange,
            watch,
            id,
            source,
            state: State::Down,
            held: Vec::new(),
            taken: 0,
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

    /// Gets on with a dial, and says when there is something for the client to do.
    pub(super) fn poll(&mut self, wake: &Wake, cx: &mut Context<'_>) -> Poll<()> {
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
            State::Up(stream) => {
                let readable = wake.on_receive
                    && (!self.held.is_empty() || stream.poll_read_ready(cx).is_ready());
                let writable = wake.on_send && stream.poll_write_ready(cx).is_ready();
                if readable || writable {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }
            State::Failed(_) if wake.on_receive || wake.on_send => Poll::Ready(()),
            State::Down | State::Vanished | State::Failed(_) => Poll::Pending,
        }
    }

    fn not_connected(&self, error: &io::Error) -> State {
        if let Some(limit) = Exchange::limit(self.source, error) {
            self.exchange.fail(limit);
        }
        State::Failed(error.kind())
    }

    fn dial(&self) -> io::Result<Connecting> {
        let socket = match self.source {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.bind(SocketAddr::new(self.source, 0))?;
        Ok(Box::pin(socket.connect(self.exchange.gateway)))
    }

    /// Reads what has come, and gives the client as much as it takes.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let State::Up(stream) = &self.state else {
            return Ok(0);
        };
        let mut scratch = self.exchange.scratch.borrow_mut();
        let len = match stream.try_read(&mut scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
            Ok(len) => len,
        };
        let at_ns = clock::now_ns();
        self.watch.arrived_ns.set(at_ns);
        if self.watched.take() {
            self.exchange.tally.say(Word::FirstByte {
                id: self.id.to_string(),
                at_ns,
            });
        }
        self.exchange
            .tally
            .count(|tick| tick.bytes_down += len as u64);
        let bytes = scratch.get(..len).unwrap_or(&[]);
        for (to, from) in self.now.first.iter_mut().skip(self.now.received).zip(bytes) {
            *to = *from;
        }
        self.now.received = self.now.received.saturating_add(len);
        let (given, rest) = bytes.split_at(len.min(buffer.len()));
        if let Some(room) = buffer.get_mut(..given.len()) {
            room.copy_from_slice(given);
        }
        if !rest.is_empty() {
            if self.held.capacity() == 0 {
                self.held = self.exchange.spares.borrow_mut().pop().unwrap_or_default();
            }
            self.held.extend_from_slice(rest);
        }
        Ok(given.len())
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
}

/// A client's hold on its board's wire.
#[derive(Clone, Copy)]
pub(super) struct Line<'w>(pub(super) &'w RefCell<Wire>);

impl Transport for Line<'_> {
    type Error = io::Error;

    fn connect(&mut self, _gateway: &str) -> io::Result<()> {
        let up = self.link_up();
        let wire = &mut *self.0.borrow_mut();
        wire.now = Ending::default();
        wire.spoke_at = None;
        wire.exchange.tally.count(|tick| tick.dials += 1);
        if !up {
            wire.now.fault = Some(ErrorKind::NetworkDown);
            wire.ended = Some(wire.now);
            return Err(ErrorKind::NetworkDown.into());
        }
        wire.state = match wire.dial() {
            Ok(connecting) => State::Dialing(connecting),
            Err(error) => wire.not_connected(&error),
        };
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
        let sent = match &wire.state {
            State::Up(stream) => match stream.try_write(bytes) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(wire.broke(error.kind())),
            },
            State::Dialing(_) => return Ok(0),
            State::Vanished => return Ok(bytes.len()),
            State::Failed(kind) => {
                let kind = *kind;
                return Err(wire.broke(kind));
            }
            State::Down => return Err(ErrorKind::NotConnected.into()),
        };
        let since = wire.watch.acks_ns.take();
        if since != 0 {
            wire.exchange.tally.acknowledged(since);
        }
        wire.spoke_at = Some(Instant::now());
        wire.exchange
            .tally
            .count(|tick| tick.bytes_up += sent as u64);
        Ok(sent)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
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
        match &wire.state {
            State::Up(_) => match wire.read(buffer) {
                Ok(len) => {
                    if len > 0 {
                        wire.spoke_at = None;
                    }
                    Ok(len)
                }
                Err(error) => Err(wire.broke(error.kind())),
            },
            State::Dialing(_) | State::Vanished => Ok(0),
            State::Failed(kind) => {
                let kind = *kind;
                Err(wire.broke(kind))
            }
            State::Down => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn close(&mut self) {
        let wire = &mut *self.0.borrow_mut();
        if matches!(wire.state, State::Down) {
            return;
        }
        wire.state = State::Down;
        wire.now.had_last_word = wire.spoke_at.is_some_and(|at| at.elapsed() < LAST_WORD);
        wire.ended = Some(wire.now);
        wire.drop_held();
    }

    fn link_up(&self) -> bool {
        let wire = self.0.borrow();
        wire.dark_until.is_none_or(|until| until <= Instant::now())
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts::UNKNOWN
    }
}
