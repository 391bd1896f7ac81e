//! The client as one task of an async executor. Its pattern: `poll` does what can be done
//! now, then the task awaits what `Wake` names, and polls again. The same task on a
//! microcontroller awaits embassy-time's timer and the socket's readiness instead of tokio's.
//!
//! Runs against a gateway as `blocking` does:
//!
//! ```text
//! cargo run -p dialhome-device --example asynchronous -- lamp-1.bin lamp-1/
//! ```

mod board;

use board::{FileBoot, FileJournal, FileSlot, RECEIVE, Urandom, config};
use dialhome_device::client::{Client, Parts, Provision, Wake};
use dialhome_device::provision::Record;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The bound of a dial. The client's own, for dial and handshake together, is 30 s.
const CONNECT: Duration = Duration::from_secs(20);

/// A socket, or the wish for one.
enum Tcp {
    Down,
    /// `connect` was called: the task dials when it waits next.
    Dialing(String),
    Up(TcpStream),
    /// The dial failed; the client hears of it when it sends.
    Failed(ErrorKind),
}

impl Transport for Tcp {
    type Error = io::Error;

    /// Returns at once, so that other tasks run while the dial is under way.
    fn connect(&mut self, gateway: &str) -> io::Result<()> {
        *self = Self::Dialing(gateway.to_owned());
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Up(stream) => or_nothing_now(stream.try_write(bytes)),
            Self::Dialing(_) => Ok(0),
            Self::Failed(kind) => Err((*kind).into()),
            Self::Down => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Up(stream) => match stream.try_read(buffer) {
                // 0 from a socket is its end; 0 to the client is "nothing now".
                Ok(0) if !buffer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
                received => or_nothing_now(received),
            },
            Self::Dialing(_) => Ok(0),
            Self::Failed(kind) => Err((*kind).into()),
            Self::Down => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn close(&mut self) {
        *self = Self::Down;
    }

    fn link_up(&self) -> bool {
        true // A modem would say whether it is registered.
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts::UNKNOWN
    }
}

fn or_nothing_now(moved: io::Result<usize>) -> io::Result<usize> {
    match moved {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        moved => moved,
    }
}

impl Tcp {
    /// Dials, or waits for what the client wants, `time` at the most.
    async fn wait(&mut self, wake: &Wake, time: Duration) {
        let interest = match (wake.on_receive, wake.on_send) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        match (&mut *self, interest) {
            (Self::Dialing(gateway), _) => {
                *self = match timeout(CONNECT, TcpStream::connect(&*gateway)).await {
                    Ok(Ok(stream)) => Self::Up(stream),
                    Ok(Err(error)) => Self::Failed(error.kind()),
                    Err(_) => Self::Failed(ErrorKind::TimedOut),
                };
            }
            (Self::Up(stream), Some(interest)) => {
                // Bytes, room, the end, an error or the deadline: the next poll tells which.
                let _ = timeout(time, stream.ready(interest)).await;
            }
            _ => sleep(time).await,
        }
    }
}

/// From a start of the board to its next restart.
async fn boot(record: &Record<'_>, dir: &Path) -> io::Result<()> {
    let key = DeviceKey::new(*record.key);
    let provision = Provision {
        key: &key,
        gateways: &record.gateways,
        trust: record.trust.as_ref(),
        seed: Some(record.seed),
    };
    let parts = Parts {
        transport: Tcp::Down,
        boot: FileBoot::start(dir)?,
        slot: FileSlot(dir.to_owned()),
        journal: FileJournal(dir.to_owned()),
        rng: Urandom::open()?,
    };
    let start = Instant::now();
    let clock = || Millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
    let config = config(record.device, record.product);
    let mut client = Client::<_, _, _, _, _, RECEIVE>::start(config, provision, parts, clock());
    loop {
        let wake = client.poll(clock());
        if wake.restarting {
            return Ok(());
        }
        let time = wake.at.map_or(3_600_000, |at| at.since(clock()));
        let time = Duration::from_millis(time);
        client.parts().transport.wait(&wake, time).await;
    }
}

/// What else the board does. It goes on during a dial and between the chunks of an image.
async fn blink() {
    loop {
        sleep(Duration::from_secs(1)).await;
        eprint!(".");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [record, dir] = &arguments[..] else {
        return Err("usage: asynchronous RECORD DIRECTORY".into());
    };
    let bytes = std::fs::read(record).map_err(|error| format!("{record}: {error}"))?;
    let record = Record::parse(&bytes)?;
    tokio::spawn(blink());
    loop {
        boot(&record, Path::new(dir)).await?;
        eprintln!("the board restarts");
    }
}
