//! Crews of [`crate::fleet`], whose boards are real clients, as a row needs them.

use super::Setup;
use super::clients::{give_way, hear, hex, program, source};
use crate::Error;
use crate::fleet::words::{Client, Link, Order, Roll, Seat, Tick, Word};
use crate::site::{Device, PRODUCT, Site};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, timeout_at};

/// Crews, least: one for each core of a small machine.
const CREWS: usize = 2;
/// Milliseconds between two ticks.
const TICK_MS: u32 = 50;

/// What a row wants of its boards.
#[derive(Clone, Debug)]
pub(super) struct Company<'a> {
    pub(super) site: &'a Site,
    pub(super) gateway: SocketAddr,
    pub(super) devices: &'a [Device],
    pub(super) image: &'a [u8],
    pub(super) link: Link,
    pub(super) receive_buffer: u16,
    pub(super) window: u32,
}

/// Some crews. They end with this value.
#[derive(Debug)]
pub(super) struct Crews {
    crews: Vec<(Child, ChildStdin)>,
    words: UnboundedReceiver<(usize, Word)>,
    ticks: Vec<Tick>,
}

impl Crews {
    /// Starts crews and switches their boards on.
    pub(super) async fn start(setup: &Setup, company: &Company<'_>) -> Result<Self, Error> {
        let image = company.site.folder().join("image.crew");
        std::fs::write(&image, company.image)
            .map_err(|error| Error::of(&image.display().to_string(), &error))?;
        let count = CREWS.min(company.devices.len()).max(1);
        let (say, words) = mpsc::unbounded_channel();
        let mut crews = Self {
            crews: Vec::new(),
            words,
            ticks: vec![Tick::default(); count],
        };
        let share = company.devices.len().div_ceil(count).max(1);
        for (number, devices) in company.devices.chunks(share).enumerate() {
            let failed =
                |error: &dyn std::fmt::Display| Error::of("a crew cannot be started", error);
            let mut child = program(&setup.own, None)
                .arg("crew")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| failed(&error))?;
            let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(failed(&"no pipes"));
            };
            tokio::spawn(hear(number, output, say.clone(), |why| Word::Failed {
                why,
            }));
            let roll = company.roll(devices, number * share, image.clone());
            let mut line = serde_json::to_string(&roll).map_err(|error| failed(&error))?;
            line.push('\n');
            let begin = serde_json::to_string(&Order::Begin).map_err(|error| failed(&error))?;
            line.push_str(&begin);
            line.push('\n');
            input
                .write_all(line.as_bytes())
                .await
                .map_err(|error| failed(&error))?;
            crews.crews.push((child, input));
        }
        crews.ticks.truncate(crews.crews.len());
        Ok(crews)
    }

    /// See [`super::clients::give_way`].
    pub(super) async fn give_way(&self) -> Result<(), Error> {
        give_way(self.crews.iter().filter_map(|(child, _)| child.id())).await
    }

    /// Waits until all ticks together say so; at most for so long.
    pub(super) async fn until(
        &mut self,
        what: &str,
        most: Duration,
        sum: impl Fn(&Tick) -> u64,
        wanted: u64,
    ) -> Result<(), Error> {
        let until = Instant::now() + most;
        loop {
            let all: u64 = self.ticks.iter().map(&sum).sum();
            if all >= wanted {
                return Ok(());
            }
            match timeout_at(until, self.words.recv()).await {
                Ok(Some((number, word))) => self.hear(number, word)?,
                Ok(None) => return Err(Error::new("all crews have ended")),
                Err(_) => {
                    return Err(Error::new(format!(
                        "{what}: {all} of {wanted} within {} s",
                        most.as_secs()
                    )));
                }
            }
        }
    }

    fn hear(&mut self, number: usize, word: Word) -> Result<(), Error> {
        match word {
            Word::Tick(tick) => {
                if let Some(last) = self.ticks.get_mut(number) {
                    *last = *tick;
                }
                Ok(())
            }
            Word::Failed { why } => Err(Error::new(why)),
            Word::Broken { id, how } => Err(Error::new(format!("{id} broke a promise: {how}"))),
            Word::Ready | Word::FirstByte { .. } | Word::Ended => Ok(()),
        }
    }

    /// What the crews have said so far, as a sum.
    pub(super) fn now(&mut self, sum: impl Fn(&Tick) -> u64) -> Result<u64, Error> {
        while let Ok((number, word)) = self.words.try_recv() {
            self.hear(number, word)?;
        }
        Ok(self.ticks.iter().map(sum).sum())
    }
}

impl Company<'_> {
    fn roll(&self, devices: &[Device], first: usize, image: PathBuf) -> Roll {
        let boards = devices
            .iter()
            .enumerate()
            .map(|(number, device)| Seat {
                id: device.id.clone(),
                key: hex(&device.key),
                source: source(first + number),
                link: 0,
                deaf_after: None,
                // Not all in one moment, and no rows are about dialing here.
                on_at_ms: (first + number) as u64 / 4,
            })
            .collect();
        Roll {
            seed: 1 + first as u64,
            gateway: self.gateway,
            trust: hex(&self.site.trusted()),
            product: PRODUCT.into(),
            links: vec![self.link.clone()],
            images: vec![image],
            client: Client {
                receive_buffer: self.receive_buffer,
                window: self.window,
                erase_unit: 4096,
                ping_s: 3600,
                redial_ms: [20, 1000],
                // No row is about what comes after the restart: it does not come.
                restart_ms: 3_600_000,
            },
            boards,
            gangs: Vec::new(),
            tick_ms: TICK_MS,
        }
    }
}
