//! Accepting boards and shaking hands, within bounds (spec/protocol.md sections 1 and 2).

use super::accept_faults;
use super::parking;
use super::place::Place;
use super::quic::Door;
use super::registry::{Handle, Registry};
use super::run::Running;
use super::socket::Socket;
use super::{Gateway, HANDSHAKES_PER_MINUTE, RETRY_AFTER_S, SILENT_GRACE_MS, STOP_MS, clock};
use crate::admin::RefusedFor;
use crate::link::Rejected;
use crate::store::KeyRecord;
use dialhome_proto::code;
use dialhome_proto::gateway::Session;
use dialhome_proto::limits::HANDSHAKE_MS;
use dialhome_proto::link::{
    DeviceKey, FIRST_FLIGHT_LEN, MESSAGE_1_LEN, PREAMBLE_LEN, Preamble, PreambleFault, Records,
    Refusal,
};
use quinn::Incoming;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 4_096;
/// Time that the kernel lets sent bytes go unacknowledged before the connection is lost, in milliseconds.
const USER_TIMEOUT_MS: u32 = 120_000;
/// Time until another connection is asked for after the system gave none.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Looks after which what the registry need not remember any more is forgotten.
const FORGET_EVERY: u32 = 60;

/// Open files that connections of boards leave to everything else, where the limit is not below four times as many.
const FILES_KEPT: u64 = 64;

/// Where boards come from.
#[derive(Debug)]
pub struct Listeners {
    /// TCP.
    pub tcp: TcpListener,
    /// UDP, for QUIC, where boards may dial so.
    pub quic: Option<UdpSocket>,
}

impl From<TcpListener> for Listeners {
    fn from(tcp: TcpListener) -> Self {
        Self { tcp, quic: None }
    }
}

/// Listens for boards; an IPv6 wildcard address takes IPv4 too.
///
/// # Errors
/// Of the system: the address is in use, not this machine's, or not permitted.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    // Its connections inherit these: two calls less for each of them.
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves boards until `until`; then closes every session as `stopping` and waits for them.
///
/// # Errors
/// Of the system: it does not watch the listening sockets.
pub async fn serve(
    gateway: Arc<Gateway>,
    listeners: impl Into<Listeners>,
    until: impl Future<Output = ()>,
) -> io::Result<()> {
    let Listeners {
        tcp: listener,
        quic,
    } = listeners.into();
    let tasks = TaskTracker::new();
    let open =
        |socket: &UdpSocket| Door::open(Arc::clone(&gateway), tasks.clone(), socket.try_clone()?);
    let mut door = quic.as_ref().map(open).transpose()?;
    // The connections are not for this runtime, which would be told of each and told to forget it.
    #[expect(
        deprecated,
        reason = "what takes its place is unsafe, for types that may change their file; this one cannot"
    )]
    let listener = AsyncFd::with_interest(listener.into_std()?, Interest::READABLE)?;
    let mut wakes = gateway.store.subscribe_wakes();
    let attendants: Vec<_> = (gateway.lanes.all().iter().zip(0..))
        .map(|(lane, number)| {
            let attend = parking::attend(Arc::clone(&gateway), number, tasks.clone());
            lane.runtime.spawn(attend)
        })
        .collect();
    let mut look = tokio::time::interval(parking::LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    let rates = Arc::clone(&gateway.registry.rates);
    let rates = tokio::spawn(async move { rates.run().await });
    tokio::pin!(until);
    // While the system gives no connections the rest goes on.
    let again = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(again);
    let mut resting = false;
    loop {
        tokio::select! {
            () = &mut until => break,
            wake = wakes.recv() => match wake {
                Some(device) => gateway.registry.wake_changed(device.as_ref()),
                None => break,
            },
            ready = listener.readable(), if !resting => match ready?.try_io(take_connection) {
                Ok(Ok((stream, peer))) => accept(&gateway, &tasks, stream, peer),
                Ok(Err(error)) => {
                    not_accepted(&gateway, &error);
                    resting = true;
                    again.as_mut().reset(tokio::time::Instant::now() + ACCEPT_AGAIN);
                }
                Err(_would_block) => {}
            },
            incoming = next_of(door.as_ref()) => match (incoming, &mut door) {
                (Some(incoming), Some(door)) => door.arrived(incoming),
                _ => {
                    // Those whose sessions it had come back; it is opened anew at the next look.
                    let broken = "the UDP socket for QUIC is broken, and with it the sessions over QUIC";
                    gateway.registry.accept_faults.add(&io::Error::other(broken));
                    door = None;
                }
            },
            _ = look.tick() => {
                match (&door, &quic) {
                    (Some(door), _) => door.look(),
                    (None, Some(socket)) => {
                        // What is wrong with it was said; those over TCP go on.
                        door = open(socket).ok();
                    }
                    (None, None) => {}
                }
                gateway.registry.turns.look(clock());
                looks = looks.wrapping_add(1);
                if looks.is_multiple_of(FORGET_EVERY) {
                    gateway.registry.forget_old();
                }
            }
            () = &mut again, if resting => resting = false,
        }
    }
    drop(listener);
    gateway.registry.stop();
    let all_closed = tokio::time::timeout(Duration::from_millis(STOP_MS), async {
        // Parked sessions are told as well; each is a task again while it says Close. Who shakes
        // hands may end that and is told then; who says nothing is not waited for.
        while !gateway.registry.is_empty() || !tasks.is_empty() {
            gateway.registry.places.end_silent(SILENT_GRACE_MS);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tasks.close();
        tasks.wait().await;
    });
    let refusing = async {
        match &door {
            Some(door) => door.refuse_all().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = all_closed => {}
        () = refusing => {}
    }
    if let Some(door) = door {
        door.close().await;
    }
    attendants.iter().for_each(tokio::task::JoinHandle::abort);
    rates.abort();
    Ok(())
}

/// The next connection over QUIC; never one where there is no QUIC.
async fn next_of(door: Option<&Door>) -> Option<Incoming> {
    match door {
        Some(door) => door.next().await,
        None => std::future::pending().await,
    }
}

/// The next connection, which no runtime looks after yet.
fn take_connection(
    listener: &AsyncFd<std::net::TcpListener>,
) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (stream, peer) = rustix::net::acceptfrom_with(listener.get_ref(), flags)?;
    let peer = peer.ok_or(rustix::io::Errno::CONNABORTED)?;
    Ok((stream.into(), SocketAddr::try_from(peer)?))
}

/// Counts and says that a connection could not be had, and makes room where files are short.
fn not_accepted(gateway: &Gateway, error: &io::Error) {
    gateway.registry.accept_faults.add(error);
    if accept_faults::no_files(error) {
        // Somebody who connects and says nothing keeps a file from a board that speaks.
        gateway.registry.places.make_room();
    }
}

/// Whether the connection has one of the last files that this process may open: those are
/// the operator's, the store's and the images'. The system gives the lowest number that is free.
fn has_last_file(number: u32) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.is_some_and(|limit| u64::from(number) >= limit - FILES_KEPT.min(limit / 4))
}

fn accept(
    gateway: &Arc<Gateway>,
    tasks: &TaskTracker,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) {
    let number = u32::try_from(stream.as_raw_fd()).unwrap_or(0);
    if has_last_file(number) {
        not_accepted(gateway, &rustix::io::Errno::MFILE.into());
        gateway.registry.count_refused(RefusedFor::Busy);
        return refuse_now(
            &stream,
            code::Refusal::BUSY,
            gateway.registry.busy_retry_s(),
        );
    }
    let mut place = match gateway.registry.places.take(peer.ip(), true) {
        Ok(place) => place,
        Err(reason) => {
            gateway.registry.count_refused(reason);
            return refuse_now(
                &stream,
                code::Refusal::BUSY,
                gateway.registry.busy_retry_s(),
            );
        }
    };
    let gateway = Arc::clone(gateway);
    let sessions = tasks.clone();
    let named = place.task();
    let mut accepted = Accepted {
        registry: Arc::clone(&gateway.registry),
        socket: Socket::Parked(stream),
        in_time: true,
        spoke: false,
    };
    let lane = gateway.lanes.of(number).runtime.clone();
    let shaking = async move {
        let lane = gateway.lanes.of(number);
        let within = Duration::from_millis(HANDSHAKE_MS);
        let shaking = shake(&gateway, &lane.cryptography, &mut accepted, &mut place);
        match tokio::time::timeout(within, shaking).await {
            Ok(Ok(shaken)) => {
                let handle = Handle::new(shaken.2, peer, lane.parking.names());
                begin(&gateway, &sessions, accepted.take(), shaken, handle, place);
            }
            Ok(Err(reason)) => {
                // It was answered, or is worth no answer.
                drop(accepted.take());
                gateway.registry.count_refused(reason);
            }
            Err(_) => {
                accepted.is_late();
                gateway.registry.count_refused(if accepted.spoke {
                    RefusedFor::Busy
                } else {
                    RefusedFor::Silent
                });
            }
        }
    };
    let task = tasks.spawn_on(shaking, &lane);
    let _ = named.set(task.abort_handle());
}

/// A connection while its handshake is under way, which may be broken off at any time.
struct Accepted {
    registry: Arc<Registry>,
    socket: Socket,
    /// The time for its handshake is not over.
    in_time: bool,
    /// Its first flight was read.
    spoke: bool,
}

impl Accepted {
    /// The time for its handshake is over.
    const fn is_late(&mut self) {
        self.in_time = false;
    }

    /// The connection, which is another's from now on.
    const fn take(&mut self) -> Socket {
        std::mem::replace(&mut self.socket, Socket::Gone)
    }
}

impl Drop for Accepted {
    /// Its place went to another. In a storm that meets boards whose first flight is on its way,
    /// or came and was not read yet: they must hear `busy`, and no reset. So must who spoke in time
    /// and found the gateway too busy to listen.
    fn drop(&mut self) {
        let Some(stream) = self.socket.file() else {
            return;
        };
        if self.in_time || self.spoke || read_away(stream) {
            let retry_after_s = self.registry.busy_retry_s();
            refuse_now(stream, code::Refusal::BUSY, retry_after_s);
        }
    }
}

/// Its keys, whose it is, and its generation.
pub(super) type Shaken = (Records, Arc<KeyRecord>, u64);

/// Begins the session of a connection whose handshake is done, over whichever transport, on the lane that this
/// is called in. It is a task of its own: the session's memory is then not the handshake's too.
pub(super) fn begin(
    gateway: &Arc<Gateway>,
    sessions: &TaskTracker,
    socket: Socket,
    (records, key, _): Shaken,
    handle: Handle,
    mut place: Place,
) {
    let session = Session::new(records, clock());
    let named = Arc::default();
    place.waits(Some(Arc::clone(&named)));
    let handle = Arc::new(handle);
    let running = Running::new(Arc::clone(gateway), socket, session, key, handle, place);
    let task = sessions.spawn(running.run());
    let _ = named.set(task.abort_handle());
}

async fn shake(
    gateway: &Gateway,
    cryptography: &Semaphore,
    accepted: &mut Accepted,
    place: &mut Place,
) -> Result<Shaken, RefusedFor> {
    let lost = |_| RefusedFor::NoHandshake;
    accepted.socket.enter();
    let Socket::Live(stream) = &mut accepted.socket else {
        return Err(RefusedFor::NoHandshake);
    };
    let mut flight = [0; FIRST_FLIGHT_LEN];
    // A stranger's first bytes are enough to see that they are not for us; a board's come at once.
    let read = read_some(stream, &mut flight, PREAMBLE_LEN)
        .await
        .map_err(lost)?;
    let preamble = flight.first_chunk().ok_or(RefusedFor::NoHandshake)?;
    let preamble = match Preamble::decode(preamble) {
        Ok(preamble) => preamble,
        Err(PreambleFault::NotMagic) => return Err(RefusedFor::NoHandshake),
        Err(PreambleFault::Version(_)) => {
            return Err(refuse(stream, code::Refusal::VERSION, RefusedFor::Version));
        }
        Err(PreambleFault::Suite(_)) => {
            return Err(refuse(stream, code::Refusal::SUITE, RefusedFor::Suite));
        }
    };
    let (_, rest) = flight.split_at_mut(read);
    stream.read_exact(rest).await.map_err(lost)?;
    accepted.spoke = true;
    keep(place).await;
    let message_1: &[u8; MESSAGE_1_LEN] = flight.last_chunk().ok_or(RefusedFor::NoHandshake)?;
    let known = gateway.store.find_key(preamble.handle);
    if known
        .as_ref()
        .is_some_and(|key| key.suites & (1 << preamble.suite) == 0)
    {
        return Err(refuse(stream, code::Refusal::SUITE, RefusedFor::Suite));
    }
    let key = known.as_ref().map(|known| DeviceKey::new(known.key));
    let mut turn = cryptography.acquire().await;
    let checked = gateway
        .responder
        .check(&preamble, message_1, key.as_ref())
        .map_err(|rejected| reject(stream, &preamble, rejected))?;
    let known = known.ok_or(RefusedFor::Key)?;
    if known.dials.count(clock()) > HANDSHAKES_PER_MINUTE {
        // Delayed, never locked out: the board's own dials must get through.
        drop(turn);
        place.waits(None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        keep(place).await;
        turn = cryptography.acquire().await;
    }
    let reply = checked
        .reply()
        .map_err(|rejected| reject(stream, &preamble, rejected))?;
    drop(turn);
    // Before the answer leaves: a board that dials again after it has a higher one.
    let generation = gateway.store.next_generation();
    stream.write_all(&reply.answer).await.map_err(lost)?;
    Ok((Records::new(&reply.keys), known, generation))
}

/// Reads until there are at least so many bytes; how many there are.
async fn read_some(stream: &mut TcpStream, bytes: &mut [u8], at_least: usize) -> io::Result<usize> {
    let mut read = 0;
    while read < at_least {
        match stream
            .read(bytes.get_mut(read..).unwrap_or_default())
            .await?
        {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    Ok(read)
}

/// The peer has said what it owed. Where its place went to another while that came, this task is
/// about to be ended, and must not go on until it is.
pub(super) async fn keep(place: &Place) {
    if !place.spoke() {
        std::future::pending::<()>().await;
    }
}

fn reject(stream: &TcpStream, preamble: &Preamble, rejected: Rejected) -> RefusedFor {
    tracing::debug!(handle = %preamble.handle, ?rejected, "refused a handshake");
    refuse(stream, rejected.code(), RefusedFor::Key)
}

fn refuse(stream: &TcpStream, code: code::Refusal, reason: RefusedFor) -> RefusedFor {
    refuse_now(stream, code, rand::random_range(RETRY_AFTER_S));
    reason
}

/// Refuses without waiting for anything: the five bytes always fit a new connection's buffer.
fn refuse_now(stream: impl AsFd, code: code::Refusal, retry_after_s: u16) {
    // Of the system itself: the runtime takes a connection that it was just given for one that
    // is not ready, and the refusal would never leave.
    let refusal = Refusal::new(code, retry_after_s).encode();
    let _ = rustix::net::send(&stream, &refusal, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
    // A reset for what has arrived could overtake the refusal.
    read_away(stream);
}

/// Reads what has arrived of a first flight; whether that was anything.
fn read_away(stream: impl AsFd) -> bool {
    let mut rest = [0; 256];
    let read = rustix::net::recv(stream, &mut rest, RecvFlags::DONTWAIT);
    read.is_ok_and(|(read, _)| read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialhome_proto::link::REFUSED_LEN;
    use std::io::{Read as _, Write as _};

    /// A board's end of a connection on which its first flight has left, and the gateway's.
    async fn connected() -> (std::net::TcpStream, TcpStream) {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let mut board = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        board.write_all(&[7; FIRST_FLIGHT_LEN]).unwrap();
        board
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        (board, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_refusal_leaves_at_once_and_no_reset_takes_it_away() {
        let (mut board, stream) = connected().await;
        refuse_now(&stream, code::Refusal::BUSY, 9);
        drop(stream);
        let mut heard = Vec::new();
        board.read_to_end(&mut heard).expect("no reset");
        assert_eq!(heard, Refusal::new(code::Refusal::BUSY, 9).encode());
    }

    /// What the board hears where the gateway breaks its handshake off.
    async fn broken_off(in_time: bool, unread: bool, spoke: bool) -> Vec<u8> {
        let (mut board, stream) = connected().await;
        assert!(unread || read_away(&stream));
        let registry = Arc::new(Registry::new(crate::session::Limits::default()));
        drop(Accepted {
            registry,
            socket: Socket::Live(stream),
            in_time,
            spoke,
        });
        let mut heard = Vec::new();
        board.read_to_end(&mut heard).expect("no reset");
        heard
    }

    #[tokio::test]
    async fn a_board_whose_place_went_to_another_hears_busy() {
        for (in_time, unread, spoke) in [
            (true, true, false),
            (true, false, false),
            (false, true, false),
            (false, false, true),
        ] {
            let heard = broken_off(in_time, unread, spoke).await;
            let heard: [u8; REFUSED_LEN] = heard.try_into().expect("a refusal");
            let refusal = Refusal::decode(&heard).expect("a refusal");
            assert_eq!(refusal.code, code::Refusal::BUSY);
            assert!((2..=10).contains(&refusal.retry_after_s));
        }
        // Who said nothing in all its time has nothing to hear.
        assert!(broken_off(false, false, false).await.is_empty());
    }
}
