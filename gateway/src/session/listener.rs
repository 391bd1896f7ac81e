//! Accepting boards and shaking hands, within bounds (spec/protocol.md sections 1 and 2).

use super::parking;
use super::place::Place;
use super::registry::Handle;
use super::run::Running;
use super::{Gateway, HANDSHAKES_PER_MINUTE, clock};
use crate::link::Rejected;
use crate::store::KeyRecord;
use dialhome_proto::code::{self, CloseCode};
use dialhome_proto::gateway::Session;
use dialhome_proto::limits::HANDSHAKE_MS;
use dialhome_proto::link::{
    DeviceKey, FIRST_FLIGHT_LEN, MESSAGE_1_LEN, PREAMBLE_LEN, Preamble, PreambleFault, Records,
    Refusal,
};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::TaskTracker;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 4_096;
/// Time that the kernel lets sent bytes go unacknowledged before the connection is lost, in milliseconds.
const USER_TIMEOUT_MS: u32 = 120_000;
/// What a refused board is told to wait, in seconds; it is a hint.
const RETRY_AFTER_S: u16 = 60;

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
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves boards until `until`; then closes every session as `stopping` and waits for them.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, until: impl Future<Output = ()>) {
    let tasks = TaskTracker::new();
    let mut wakes = gateway.store.subscribe_wakes();
    let attendant = tokio::spawn(parking::attend(Arc::clone(&gateway), tasks.clone()));
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            wake = wakes.recv() => match wake {
                Some(device) => gateway.registry.wake_changed(device.as_ref()),
                None => break,
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => accept(&gateway, &tasks, stream, peer),
                Err(error) => {
                    // Most likely the limit on open files: what is open goes on, and the rest is tried again.
                    tracing::warn!(%error, "a board's connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    crate::admin::Live::close_all(&*gateway.registry, CloseCode::STOPPING);
    let _ = tokio::time::timeout(Duration::from_secs(10), async {
        // Parked sessions are told as well; each is a task again while it says Close.
        while !gateway.registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tasks.close();
        tasks.wait().await;
    })
    .await;
    attendant.abort();
}

fn accept(gateway: &Arc<Gateway>, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
    let gateway = Arc::clone(gateway);
    let Some(place) = Place::take(&gateway.registry, peer.ip()) else {
        gateway.registry.refused.fetch_add(1, Ordering::Relaxed);
        let _ = stream.try_write(&Refusal::new(code::Refusal::BUSY, RETRY_AFTER_S).encode());
        return;
    };
    let sessions = tasks.clone();
    tasks.spawn(async move {
        let shaken =
            tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS), shake(&gateway, stream))
                .await;
        drop(place);
        match shaken {
            Ok(Some((stream, records, key))) => {
                let handle = Arc::new(Handle::new(
                    gateway.store.next_generation(),
                    peer,
                    gateway.parking.names(),
                ));
                let session = Session::new(records, clock());
                let running = Running::new(gateway, stream, session, key, handle);
                // A task of its own: the session's memory is then not the handshake's too.
                sessions.spawn(running.run());
            }
            Ok(None) | Err(_) => {
                gateway.registry.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

async fn shake(
    gateway: &Gateway,
    mut stream: TcpStream,
) -> Option<(TcpStream, Records, Arc<KeyRecord>)> {
    stream.set_nodelay(true).ok()?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MS).ok()?;
    let mut flight = [0; FIRST_FLIGHT_LEN];
    // A stranger's first bytes are enough to see that they are not for us.
    stream.read_exact(&mut flight[..PREAMBLE_LEN]).await.ok()?;
    let preamble = match Preamble::decode(flight.first_chunk()?) {
        Ok(preamble) => preamble,
        Err(PreambleFault::NotMagic) => return None,
        Err(PreambleFault::Version(_)) => return refuse(stream, code::Refusal::VERSION).await,
        Err(PreambleFault::Suite(_)) => return refuse(stream, code::Refusal::SUITE).await,
    };
    stream.read_exact(&mut flight[PREAMBLE_LEN..]).await.ok()?;
    let message_1: &[u8; MESSAGE_1_LEN] = flight.last_chunk()?;
    let known = gateway.store.find_key(preamble.handle);
    if known
        .as_ref()
        .is_some_and(|key| key.suites & (1 << preamble.suite) == 0)
    {
        return refuse(stream, code::Refusal::SUITE).await;
    }
    let key = known.as_ref().map(|known| DeviceKey::new(known.key));
    let checked = match gateway.responder.check(&preamble, message_1, key.as_ref()) {
        Ok(checked) => checked,
        Err(rejected) => return reject(stream, &preamble, rejected).await,
    };
    let known = known?;
    if gateway.registry.count_handshake(&known.device) > HANDSHAKES_PER_MINUTE {
        // Delayed, never locked out: the board's own dials must get through.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let accepted = match checked.reply() {
        Ok(accepted) => accepted,
        Err(rejected) => return reject(stream, &preamble, rejected).await,
    };
    stream.write_all(&accepted.answer).await.ok()?;
    Some((stream, Records::new(&accepted.keys), known))
}

async fn reject<T>(stream: TcpStream, preamble: &Preamble, rejected: Rejected) -> Option<T> {
    tracing::debug!(handle = %preamble.handle, ?rejected, "refused a handshake");
    refuse(stream, rejected.code()).await
}

async fn refuse<T>(mut stream: TcpStream, code: code::Refusal) -> Option<T> {
    let _ = stream
        .write_all(&Refusal::new(code, RETRY_AFTER_S).encode())
        .await;
    // The refusal leaves before the connection does, also when the board's bytes were not all read.
    let _ = stream.shutdown().await;
    let mut rest = [0; 64];
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut rest)).await;
    None
}
