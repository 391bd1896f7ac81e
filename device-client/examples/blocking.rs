//! The client in a loop that blocks, as on a board whose program has nothing else to do,
//! or gives the client a thread. Anyone can run it against a gateway:
//!
//! ```text
//! dialhome device add lamp-1 --product lamp --trust operator.key.pub --gateway 127.0.0.1:7040 --out lamp-1.toml
//! dialhome device pack lamp-1.toml --out lamp-1.bin
//! cargo run -p dialhome-device --example blocking -- lamp-1.bin lamp-1/
//! ```
//!
//! The board's flash is the directory; see `board/mod.rs`.

mod board;

use board::{FileBoot, FileJournal, FileSlot, RECEIVE, Urandom, config};
use dialhome_device::client::{Client, Parts, Provision, Wake};
use dialhome_device::provision::Record;
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// The bound of `connect`, for each address of a name.
const CONNECT: Duration = Duration::from_secs(10);

/// A socket that does not block.
struct Tcp(Option<TcpStream>);

impl Transport for Tcp {
    type Error = io::Error;

    fn connect(&mut self, gateway: &str) -> io::Result<()> {
        self.close();
        let mut last = ErrorKind::AddrNotAvailable.into();
        for address in gateway.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_nonblocking(true)?;
                    self.0 = Some(stream);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.0.as_ref().ok_or(ErrorKind::NotConnected)?;
        or_nothing_now(stream.write(bytes))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0.as_ref().ok_or(ErrorKind::NotConnected)?;
        match stream.read(buffer) {
            // 0 from a socket is its end; 0 to the client is "nothing now".
            Ok(0) if !buffer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
            received => or_nothing_now(received),
        }
    }

    fn close(&mut self) {
        self.0 = None;
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
    /// Waits for what the client wants, `time` at the most.
    fn wait(&self, wake: &Wake, time: Duration) -> io::Result<()> {
        match &self.0 {
            // std has no poll(2). With one it would wait for room as well.
            _ if wake.on_send => std::thread::sleep(time.min(Duration::from_millis(10))),
            Some(stream) if wake.on_receive && !time.is_zero() => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(time))?;
                // Bytes, the end, an error or the deadline: `receive` tells which.
                let _ = stream.peek(&mut [0]);
                stream.set_nonblocking(true)?;
            }
            _ => std::thread::sleep(time),
        }
        Ok(())
    }
}

/// From a start of the board to its next restart.
fn boot(record: &Record<'_>, dir: &Path) -> io::Result<()> {
    let key = DeviceKey::new(*record.key);
    let provision = Provision {
        key: &key,
        gateways: &record.gateways,
        trust: record.trust.as_ref(),
        seed: Some(record.seed),
    };
    let parts = Parts {
        transport: Tcp(None),
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
        client.parts().transport.wait(&wake, time)?;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [record, dir] = &arguments[..] else {
        return Err("usage: blocking RECORD DIRECTORY".into());
    };
    let bytes = std::fs::read(record).map_err(|error| format!("{record}: {error}"))?;
    let record = Record::parse(&bytes)?;
    loop {
        boot(&record, Path::new(dir))?;
        eprintln!("the board restarts");
    }
}
