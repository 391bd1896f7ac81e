//! Clients of the servers that are compared, in processes of their own, so that no client's
//! work or open files are counted as a server's. [`process`] is such a process;
//! [`Clients`] starts some and tells them what to do, in lines of JSON.

mod board;
mod connection;
pub(super) mod http;
pub(super) mod mqtt;
pub(crate) mod process;
mod quic;

use super::Setup;
use crate::Error;
use crate::site::leash;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

/// Connections of one process, most: a process may have 20,000 open files on some machines.
const PER_PROCESS: usize = 5_000;
/// A process that says nothing for so long while something is awaited of it will not any more.
const PATIENCE: Duration = Duration::from_secs(300);
/// Processes, least: one for each core of a small machine.
const PROCESSES: usize = 2;

/// What a process of clients is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Roll {
    /// Where they dial.
    pub(super) server: SocketAddr,
    /// What they speak.
    pub(super) kind: Kind,
    /// Seconds between pings of an idle connection; 0: none.
    pub(super) ping_s: u32,
    /// The clients.
    pub(super) seats: Vec<Seat>,
}

/// What the clients speak.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Dialhome, as a board without storage: handshake, Hello, pings; it declines every Offer.
    Board,
    /// The same over QUIC, with the proofs for a handshake.
    Quic {
        /// The pin of the gateway's key, in hex.
        pin: String,
    },
    /// As [`Kind::Board`], but content with the answer to its handshake.
    Handshake,
    /// MQTT 3.1.1 with user and password.
    Mqtt(Topics),
    /// HTTP/1.1.
    Http {
        /// The certificate that is trusted, in PEM; None: no TLS.
        trusted: Option<String>,
        /// What a new connection asks for first; empty: nothing.
        first: String,
    },
}

/// What an MQTT client subscribes to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Topics {
    /// The topic that it alone hears: [`topic`].
    pub(super) own: bool,
    /// [`SHARED_TOPIC`].
    pub(super) shared: bool,
}

/// One client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seat {
    /// Its name.
    pub(super) id: String,
    /// Its key, or the password in the same form.
    pub(super) key: [u8; 32],
    /// The address that it dials from; None: whichever there is.
    pub(super) source: Option<IpAddr>,
}

/// The topic that one client alone hears.
pub(super) fn topic(id: &str) -> String {
    format!("one/{id}")
}

/// The topic that all hear.
pub(super) const SHARED_TOPIC: &str = "all";

/// What the clients are told then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The next so many connect, authenticate and stay; answered by [`Word::Done`].
    Open {
        /// Clients.
        count: usize,
    },
    /// Those that are open take a file; answered by [`Word::Done`] with the bytes of it.
    Fetch(Fetch),
    /// Those that are open publish a file to all; answered by [`Word::Done`].
    Publish {
        /// The file.
        file: PathBuf,
        /// Bytes of a message.
        piece: usize,
    },
    /// So many connect, authenticate and leave; answered by [`Word::Done`].
    Dial {
        /// Connections.
        count: usize,
        /// At most so many at a time.
        at_once: usize,
    },
    /// Those that are open and not idle yet are idle from now on: they ping, and say when
    /// a first byte comes ([`Word::Heard`]). Answered by [`Word::Done`].
    Idle,
}

/// A file that is fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fetch {
    /// Its path (HTTP); the topic that all hear has it otherwise.
    pub(super) path: String,
    /// Bytes of each request; 0: the whole.
    pub(super) range: u32,
    /// Its size.
    pub(super) size: usize,
    /// Its SHA-256.
    pub(super) sha256: [u8; 32],
}

/// What the clients say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The roll was read, or an order is carried out, by all.
    Done {
        /// Clients that did it.
        clients: usize,
        /// Bytes that they verified.
        bytes: u64,
    },
    /// The first byte of what came for an idle client.
    Heard {
        /// The client.
        id: String,
        /// When, by [`crate::measure::clock`].
        at_ns: u64,
    },
    /// Something did not happen.
    Failed {
        /// In words.
        why: String,
    },
}

/// Some processes of clients. They end with this value.
#[derive(Debug)]
pub(super) struct Clients {
    processes: Vec<Process>,
    words: UnboundedReceiver<(usize, Word)>,
    /// First bytes that came while something else was awaited.
    heard: Vec<(String, u64)>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    seats: usize,
    opened: usize,
}

impl Clients {
    /// Starts as many processes as the seats need, `within` a network namespace where one
    /// is named.
    pub(super) async fn start(
        setup: &Setup,
        roll: Roll,
        within: Option<&str>,
    ) -> Result<Self, Error> {
        let count = roll.seats.len().div_ceil(PER_PROCESS).max(PROCESSES);
        let count = count.min(roll.seats.len()).max(1);
        let (say, words) = mpsc::unbounded_channel();
        let mut clients = Self {
            processes: Vec::new(),
            words,
            heard: Vec::new(),
        };
        let Roll {
            server,
            kind,
            ping_s,
            mut seats,
        } = roll;
        for number in 0..count {
            let rest = seats.split_off(seats.len() / (count - number));
            let mine = std::mem::replace(&mut seats, rest);
            let mut child = program(&setup.own, within)
                .arg("clients")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| Error::of("a process of clients cannot be started", &error))?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(Error::new("a process of clients has no pipes"));
            };
            tokio::spawn(hear(number, output, say.clone(), |why| Word::Failed {
                why,
            }));
            clients.processes.push(Process {
                child,
                input,
                seats: mine.len(),
                opened: 0,
            });
            let roll = Roll {
                server,
                kind: kind.clone(),
                ping_s,
                seats: mine,
            };
            clients.tell(number, &roll).await?;
        }
        clients.done(count).await?;
        Ok(clients)
    }

    async fn tell<T: Serialize>(&mut self, number: usize, what: &T) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::of("clients cannot be told", error);
        let mut line = serde_json::to_string(what).map_err(|error| failed(&error))?;
        line.push('\n');
        let Some(process) = self.processes.get_mut(number) else {
            return Err(Error::new("there is no such process of clients"));
        };
        process
            .input
            .write_all(line.as_bytes())
            .await
            .map_err(|error| failed(&error))
    }

    /// Waits until so many processes have done what they were told; gives what they did.
    async fn done(&mut self, mut processes: usize) -> Result<(usize, u64), Error> {
        let mut sum = (0, 0);
        while processes > 0 {
            match timeout(PATIENCE, self.words.recv()).await {
                Ok(Some((_, Word::Done { clients, bytes }))) => {
                    sum = (sum.0 + clients, sum.1 + bytes);
                    processes -= 1;
                }
                Ok(Some((_, Word::Heard { id, at_ns }))) => self.heard.push((id, at_ns)),
                Ok(Some((_, Word::Failed { why }))) => return Err(Error::new(why)),
                Ok(None) => return Err(Error::new("all clients have ended")),
                Err(_) => {
                    return Err(Error::new(format!(
                        "clients did not do what they were told within {} s",
                        PATIENCE.as_secs()
                    )));
                }
            }
        }
        Ok(sum)
    }

    /// So many more connect, authenticate and stay.
    pub(super) async fn open(&mut self, count: usize) -> Result<(), Error> {
        let shares = self.shares(count, |process| process.seats - process.opened)?;
        for (number, share) in shares.iter().enumerate() {
            self.tell(number, &Order::Open { count: *share }).await?;
            if let Some(process) = self.processes.get_mut(number) {
                process.opened += share;
            }
        }
        let (opened, _) = self.done(shares.len()).await?;
        if opened != count {
            return Err(Error::new(format!(
                "{opened} of {count} clients are connected"
            )));
        }
        Ok(())
    }

    /// How many each process takes of `count`.
    fn shares(&self, count: usize, room: impl Fn(&Process) -> usize) -> Result<Vec<usize>, Error> {
        let mut left = count;
        let mut shares = Vec::with_capacity(self.processes.len());
        for (number, process) in self.processes.iter().enumerate() {
            let share = left
                .div_ceil(self.processes.len() - number)
                .min(room(process));
            shares.push(share);
            left -= share;
        }
        if left > 0 {
            return Err(Error::new(format!(
                "{left} clients more than there are seats"
            )));
        }
        Ok(shares)
    }

    /// Those that are open begin to fetch; [`Self::fetched`] waits for them.
    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<(), Error> {
        self.all(&Order::Fetch(fetch.clone())).await
    }

    /// Waits until all have fetched, and checks that it was `bytes` in all.
    pub(super) async fn fetched(&mut self, bytes: u64) -> Result<(), Error> {
        let (_, came) = self.done(self.processes.len()).await?;
        if came != bytes {
            return Err(Error::new(format!("{came} of {bytes} bytes arrived")));
        }
        Ok(())
    }

    /// Those that are open publish a file to all, in messages of so many bytes.
    pub(super) async fn publish(&mut self, file: PathBuf, piece: usize) -> Result<(), Error> {
        self.all(&Order::Publish { file, piece }).await?;
        self.done(self.processes.len()).await.map(drop)
    }

    /// The first of all connects, authenticates and stays.
    pub(super) async fn open_first(&mut self) -> Result<(), Error> {
        self.tell(0, &Order::Open { count: 1 }).await?;
        if let Some(process) = self.processes.first_mut() {
            process.opened += 1;
        }
        match self.done(1).await? {
            (1, _) => Ok(()),
            _ => Err(Error::new("the first client is not connected")),
        }
    }

    /// So many connect, authenticate and leave.
    pub(super) async fn dial(&mut self, count: usize, at_once: usize) -> Result<(), Error> {
        let shares = self.shares(count, |_| usize::MAX)?;
        let at_once = at_once.div_ceil(shares.len());
        for (number, share) in shares.iter().enumerate() {
            let count = *share;
            self.tell(number, &Order::Dial { count, at_once }).await?;
        }
        let (dialed, _) = self.done(shares.len()).await?;
        if dialed != count {
            return Err(Error::new(format!("{dialed} of {count} dials succeeded")));
        }
        Ok(())
    }

    /// See [`give_way`].
    pub(super) async fn give_way(&self) -> Result<(), Error> {
        let ids = self
            .processes
            .iter()
            .filter_map(|process| process.child.id());
        give_way(ids).await
    }

    /// Fails if a client has failed since.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        while let Ok((_, word)) = self.words.try_recv() {
            match word {
                Word::Failed { why } => return Err(Error::new(why)),
                Word::Heard { id, at_ns } => self.heard.push((id, at_ns)),
                Word::Done { .. } => {}
            }
        }
        Ok(())
    }

    /// Those that are open are idle from now on.
    pub(super) async fn idle(&mut self) -> Result<(), Error> {
        self.all(&Order::Idle).await?;
        self.done(self.processes.len()).await.map(drop)
    }

    async fn all(&mut self, order: &Order) -> Result<(), Error> {
        for number in 0..self.processes.len() {
            self.tell(number, order).await?;
        }
        Ok(())
    }

    /// Waits for the first byte that `id` hears after `since_ns`, and says when it came.
    pub(super) async fn heard(&mut self, id: &str, since_ns: u64) -> Result<u64, Error> {
        let is_it = |heard: &(String, u64)| heard.0 == id && heard.1 >= since_ns;
        if let Some(found) = self.heard.iter().find(|heard| is_it(heard)) {
            return Ok(found.1);
        }
        self.heard.clear();
        loop {
            match timeout(Duration::from_secs(30), self.words.recv()).await {
                Ok(Some((_, Word::Heard { id, at_ns }))) => {
                    if is_it(&(id, at_ns)) {
                        return Ok(at_ns);
                    }
                }
                Ok(Some((_, Word::Failed { why }))) => return Err(Error::new(why)),
                Ok(Some((_, Word::Done { .. }))) => {}
                Ok(None) => return Err(Error::new("all clients have ended")),
                Err(_) => return Err(Error::new(format!("nothing came to {id} within 30 s"))),
            }
        }
    }
}

/// Gives on what a process says in lines of JSON, and at last that it has ended.
pub(super) async fn hear<W: DeserializeOwned>(
    number: usize,
    output: ChildStdout,
    say: UnboundedSender<(usize, W)>,
    failed: fn(String) -> W,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let word =
            serde_json::from_str(&line).unwrap_or_else(|error| failed(format!("{error}: {line}")));
        if say.send((number, word)).is_err() {
            return;
        }
    }
    let why = format!("process {number} of clients or boards ended before it was told to");
    let _ = say.send((number, failed(why)));
}

/// `path` as a command that ends with this process, within a network namespace where one is named.
pub(super) fn program(path: &std::path::Path, within: Option<&str>) -> Command {
    // In order: a master that is killed leaves its workers behind.
    leash::command(path, within, Signal::TERM)
}

/// These processes have the processor when nobody else wants it, as if they were on other
/// machines: what they are beside to is measured without what they cost themselves.
pub(super) async fn give_way(ids: impl Iterator<Item = u32>) -> Result<(), Error> {
    for id in ids {
        // By its program: to tell the system's scheduler so takes a call without a safe form.
        let said = Command::new("chrt")
            .args(["--all-tasks", "--idle", "--pid", "0", &id.to_string()])
            .output()
            .await
            .map_err(|error| Error::of("chrt (Debian: util-linux) cannot be run", &error))?;
        if !said.status.success() {
            return Err(Error::new(format!(
                "a load's priority cannot be lowered: {}",
                String::from_utf8_lossy(&said.stderr).trim()
            )));
        }
    }
    Ok(())
}

/// The address that client `number` dials from: 200 in a /24, so that no network's limit is met.
pub(super) fn source(number: usize) -> IpAddr {
    let byte = |value: usize| u8::try_from(value % 256).unwrap_or(0);
    let net = number / 200;
    Ipv4Addr::new(127, 10 + byte(net / 256), byte(net), 1 + byte(number % 200)).into()
}

/// So many clients with names and passwords of their own.
pub(super) fn seats(count: usize) -> Vec<Seat> {
    (0..count)
        .map(|number| {
            let mut key = [0; 32];
            for (place, byte) in key.iter_mut().zip((number as u64 + 1).to_be_bytes()) {
                *place = byte;
            }
            Seat {
                id: format!("client-{number:05}"),
                key,
                source: Some(source(number)),
            }
        })
        .collect()
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where this program lies.
pub(super) fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe()
        .map_err(|error| Error::of("this program's own path is not known", &error))
}
