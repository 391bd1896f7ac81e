//! Peers that are no good boards.

use super::exchange::Exchange;
use super::tally::one_more;
use super::words::{Gang, GangCount, Mischief};
use dialhome_proto::id::Handle;
use dialhome_proto::link::{FIRST_FLIGHT_LEN, Preamble, REFUSED_LEN, Refusal};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Random bytes of a peer that sends such.
const RUBBISH: usize = 512;
/// A peer whose connection could not be opened waits so long.
const PAUSE: Duration = Duration::from_millis(100);
/// What a timer may be late.
const LATE: Duration = Duration::from_millis(20);

/// One gang at its work, until it is dropped.
pub(super) async fn play(
    gang: Gang,
    place: usize,
    exchange: Rc<Exchange>,
    began: Instant,
    seed: u64,
) {
    sleep_until(began + Duration::from_millis(gang.on_at_ms)).await;
    let work = open(&gang, place, &exchange, seed);
    match gang.off_at_ms {
        None => work.await,
        Some(off_ms) => {
            let until = began + Duration::from_millis(off_ms);
            let _ = tokio::time::timeout_at(until, work).await;
            // What was open went with the work.
            count(&exchange, place, |count| count.open = 0);
        }
    }
}

/// Opens connections, each as soon as there is a peer for it and its time has come.
async fn open(gang: &Gang, place: usize, exchange: &Rc<Exchange>, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut connections = JoinSet::new();
    let mut due = Instant::now();
    let between = Duration::from_secs(1)
        .checked_div(gang.per_s)
        .unwrap_or_default();
    for source in gang.sources.iter().cycle() {
        while connections.try_join_next().is_some() {}
        while connections.len() >= gang.peers as usize {
            if connections.join_next().await.is_none() {
                return; // No peers, no connections.
            }
        }
        sleep_until(due).await;
        // A timer that rings late is made up for, a gateway that makes them wait is not.
        let earliest = Instant::now().checked_sub(LATE).unwrap_or(due);
        due = earliest.max(due + between);
        let (words, len) = say(gang.mischief, &mut rng);
        let exchange = Rc::clone(exchange);
        let source = *source;
        connections.spawn_local(async move {
            let said = words.get(..len).unwrap_or(&words);
            connection(source, said, place, &exchange).await;
        });
    }
}

/// What a peer says.
fn say(mischief: Mischief, rng: &mut SmallRng) -> ([u8; RUBBISH], usize) {
    let mut words = [0; RUBBISH];
    rng.fill_bytes(&mut words);
    let mut handle = [0; 8];
    rng.fill_bytes(&mut handle);
    let preamble = Preamble::new(Handle(handle)).encode();
    // What follows the preamble is the ephemeral key and a tag: random bytes both of them.
    for (to, from) in words.iter_mut().zip(preamble) {
        if mischief != Mischief::Rubbish {
            *to = from;
        }
    }
    let len = match mischief {
        Mischief::Silent => 0,
        Mischief::HalfPreamble => preamble.len() / 2,
        Mischief::UnknownHandle => FIRST_FLIGHT_LEN,
        Mischief::Rubbish => RUBBISH,
    };
    (words, len)
}

/// One connection, from its beginning to the gateway's end of it.
async fn connection(source: IpAddr, said: &[u8], place: usize, exchange: &Exchange) {
    let mut stream = match connect(source, exchange.gateway).await {
        Ok(stream) => stream,
        Err(error) => {
            count(exchange, place, |count| count.unopened += 1);
            if let Some(limit) = Exchange::limit(source, &error) {
                exchange.fail(limit);
            }
            sleep(PAUSE).await;
            return;
        }
    };
    count(exchange, place, |count| {
        count.opened += 1;
        count.open += 1;
    });
    let refused = listen(&mut stream, said).await;
    count(exchange, place, |count| {
        if let Some(refusal) = refused {
            one_more(&mut count.refused, &refusal.code.to_string());
        }
        count.closed += 1;
        count.open -= 1;
    });
}

async fn connect(source: IpAddr, gateway: SocketAddr) -> io::Result<TcpStream> {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(gateway).await
}

/// Says it, and hears the gateway out; gives its refusal, where that was one.
async fn listen(stream: &mut TcpStream, said: &[u8]) -> Option<Refusal> {
    let mut answer = [0; REFUSED_LEN];
    if stream.write_all(said).await.is_err() || stream.read_exact(&mut answer).await.is_err() {
        return None;
    }
    let refused = Refusal::decode(&answer);
    // A gateway that takes a flight as good waits for its Hello.
    while matches!(stream.read(&mut answer).await, Ok(len) if len > 0) {}
    refused
}

fn count(exchange: &Exchange, place: usize, change: impl FnOnce(&mut GangCount)) {
    exchange
        .tally
        .count(|tick| tick.gangs.get_mut(place).map_or((), change));
}
