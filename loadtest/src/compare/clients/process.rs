//! One process of clients.

use super::connection::{self, Connection};
use super::{Order, Roll, Word};
use crate::Error;
use serde::Serialize;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that are made at a time where not said otherwise.
const AT_ONCE: usize = 32;
/// A connection that is not made within this time will not be.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does what standard input says, until it is closed.
///
/// # Errors
/// Standard input holds something else.
pub fn run() -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::of("no runtime", &error))?
        .block_on(serve())
}

async fn serve() -> Result<(), Error> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut next = async || {
        lines
            .next_line()
            .await
            .map_err(|error| Error::of("standard input", &error))
    };
    let Some(line) = next().await? else {
        return Ok(());
    };
    let roll: Roll = serde_json::from_str(&line).map_err(|error| Error::of("the roll", &error))?;
    let mut clients = match Clients::new(roll) {
        Ok(clients) => clients,
        Err(error) => {
            say(&Word::Failed {
                why: error.to_string(),
            });
            return Ok(());
        }
    };
    say(&Word::Done {
        clients: 0,
        bytes: 0,
    });
    while let Some(line) = next().await? {
        let order: Order =
            serde_json::from_str(&line).map_err(|error| Error::of("an order", &error))?;
        match clients.obey(order).await {
            Ok((clients, bytes)) => say(&Word::Done { clients, bytes }),
            Err(error) => say(&Word::Failed {
                why: error.to_string(),
            }),
        }
    }
    Ok(())
}

/// Writes a line to standard output.
pub(super) fn say<T: Serialize>(word: &T) {
    let Ok(mut line) = serde_json::to_string(word) else {
        return;
    };
    line.push('\n');
    // Nobody listens any more: standard input ends as well, and with it this process.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

struct Clients {
    way: Arc<connection::Way>,
    /// Seats that have been given a connection.
    opened: usize,
    open: Vec<Connection>,
    idle: JoinSet<()>,
}

impl Clients {
    fn new(roll: Roll) -> Result<Self, Error> {
        Ok(Self {
            way: Arc::new(connection::Way::new(roll)?),
            opened: 0,
            open: Vec::new(),
            idle: JoinSet::new(),
        })
    }

    async fn obey(&mut self, order: Order) -> Result<(usize, u64), Error> {
        match order {
            Order::Open { count } => {
                let seats = self.opened..self.opened + count;
                self.opened += count;
                let made = self.connect(seats, AT_ONCE, true).await?;
                Ok((made, 0))
            }
            Order::Dial { count, at_once } => {
                let made = self.connect(0..count, at_once, false).await?;
                Ok((made, 0))
            }
            Order::Fetch(fetch) => {
                let fetch = Arc::new(fetch);
                let mut tasks = JoinSet::new();
                for mut connection in self.open.drain(..) {
                    let fetch = Arc::clone(&fetch);
                    tasks.spawn(async move { connection.fetch(&fetch).await.map(|()| connection) });
                }
                let mut clients = 0;
                while let Some(task) = tasks.join_next().await {
                    self.open.push(joined(task)?);
                    clients += 1;
                }
                Ok((clients, clients as u64 * fetch.size as u64))
            }
            Order::Publish { file, piece } => {
                let bytes = std::fs::read(&file)
                    .map_err(|error| Error::of(&file.display().to_string(), &error))?;
                for connection in &mut self.open {
                    connection.publish(&bytes, piece).await?;
                }
                Ok((self.open.len(), bytes.len() as u64))
            }
            Order::Idle => {
                let clients = self.open.len();
                for (number, connection) in self.open.drain(..).enumerate() {
                    // Spread over the interval, as the pings of real clients are.
                    let share = number as f64 / clients as f64;
                    let first = Duration::from_secs(self.way.roll.ping_s.into()).mul_f64(share);
                    let every = Duration::from_secs(self.way.roll.ping_s.into());
                    self.idle.spawn(async move {
                        if let Err(error) = connection.idle(first, every).await {
                            say(&Word::Failed {
                                why: error.to_string(),
                            });
                        }
                    });
                }
                Ok((clients, 0))
            }
        }
    }

    /// Connects the seats with these numbers (again from the first where there are fewer),
    /// and keeps the connections or drops them.
    async fn connect(
        &mut self,
        numbers: std::ops::Range<usize>,
        at_once: usize,
        keep: bool,
    ) -> Result<usize, Error> {
        let mut tasks = JoinSet::new();
        let mut made = 0;
        let mut done = |connection: Connection| {
            made += 1;
            if keep {
                self.open.push(connection);
            }
        };
        for number in numbers {
            if tasks.len() >= at_once
                && let Some(task) = tasks.join_next().await
            {
                done(joined(task)?);
            }
            let way = Arc::clone(&self.way);
            tasks.spawn(async move {
                match timeout(PATIENCE, Connection::open(&way, number)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(Error::new(format!(
                        "a connection was not made within {} s",
                        PATIENCE.as_secs()
                    ))),
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            done(joined(task)?);
        }
        Ok(made)
    }
}

fn joined<T>(task: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    task.map_err(|error| Error::of("a client's task", &error))?
}
