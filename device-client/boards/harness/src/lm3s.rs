//! The board `lm3s6965evb`: its flash and its card between the runs of the machine, and
//! the machine while it runs. The host plays the boot stage at every start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::card::Card;
use crate::firmware::{self, Image};
use crate::qemu::{Qemu, Spec};
use crate::site::PATIENCE;
use crate::{Error, sdu};

/// The crate of its firmware.
pub const PROGRAM: &str = "dialhome-board-lm3s6965evb";
/// Its flash, in bytes.
const FLASH: usize = 256 * 1024;
/// Where the provisioning record lies.
const RECORD: usize = 0x3F000;
/// The host as the guest sees it behind QEMU's NAT.
pub const HOST: &str = "10.0.2.2";
/// The ids of its network and of its card.
const NETWORK: &str = "net0";
const CARD: &str = "sd0";

/// A board that is off: what is in its flash and on its card.
#[derive(Debug)]
pub struct Board {
    folder: PathBuf,
    flash: Vec<u8>,
    /// The card, where one is put in.
    pub card: Option<Card>,
    /// More arguments for QEMU's drive, such as a driver that makes errors.
    pub drive: Option<String>,
    /// Where the boot stage loses its power, the next time that it has something to do.
    pub sdu_cut: Option<sdu::Cut>,
    /// Times that the boot stage wrote a sketch, cut or not.
    pub flashed: u32,
    log: PathBuf,
}

/// The image of this board as it was built.
///
/// # Errors
/// The firmware could not be built.
pub fn image() -> Result<Image, Error> {
    firmware::build()?.image(PROGRAM, 0)
}

impl Board {
    /// A board with an image and a provisioning record in its flash, as a programmer
    /// leaves it. Its files go into `folder`, which is made.
    ///
    /// # Errors
    /// The image is too large, or the folder could not be made.
    pub fn new(
        folder: &Path,
        image: &Image,
        record: &[u8],
        card: Option<Card>,
    ) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let mut flash = vec![0xff; FLASH];
        let too_long = || Error::Image {
            path: folder.to_owned(),
            problem: "the image or the record does not fit the flash".to_owned(),
        };
        flash[..RECORD]
            .get_mut(..image.bytes.len())
            .ok_or_else(too_long)?
            .copy_from_slice(&image.bytes);
        flash[RECORD..]
            .get_mut(..record.len())
            .ok_or_else(too_long)?
            .copy_from_slice(record);
        Ok(Self {
            folder: folder.to_owned(),
            flash,
            card,
            drive: None,
            sdu_cut: None,
            flashed: 0,
            log: folder.join("console.log"),
        })
    }

    /// What the guest printed, over all runs.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether this image is in its flash.
    #[must_use]
    pub fn holds(&self, image: &Image) -> bool {
        self.flash.starts_with(&image.bytes)
    }

    /// Switches the board on: the boot stage, as often as its power is cut there, then
    /// the sketch. It runs until [`Running::cut_power`]; guest resets go through the boot
    /// stage as they would.
    ///
    /// # Errors
    /// QEMU could not be started.
    pub async fn start(mut self) -> Result<Running, Error> {
        let qemu = self.boot().await?;
        let (orders, taken) = mpsc::channel(8);
        let log = self.log.clone();
        Ok(Running {
            orders,
            log,
            keeper: tokio::spawn(keep(self, qemu, taken)),
        })
    }

    /// The boot stage until it comes to its end, and the machine.
    async fn boot(&mut self) -> Result<Qemu, Error> {
        loop {
            let due = self.update_waits();
            let cut = self.sdu_cut.take_if(|_| due);
            self.flashed += u32::from(due);
            if sdu::run(self.card.as_ref(), &mut self.flash, cut)? {
                break;
            }
        }
        let kernel = self.folder.join("flash.bin");
        fs::write(&kernel, &self.flash).map_err(Error::file(&kernel))?;
        let mut args = vec![
            "-serial".to_owned(),
            "null".to_owned(),
            "-nic".to_owned(),
            format!("user,model=stellaris,id={NETWORK}"),
        ];
        if let Some(card) = &self.card {
            args.push("-drive".to_owned());
            args.push(match &self.drive {
                Some(drive) => format!("if=sd,id={CARD},{drive}"),
                // The power that is cut here is the machine's, never the host's: nothing is
                // gained where QEMU waits for the host's disk at its end, a minute on a busy one.
                None => format!(
                    "if=sd,id={CARD},format=raw,cache=unsafe,file={}",
                    card.path().display()
                ),
            });
        }
        Qemu::start(&Spec {
            machine: "lm3s6965evb",
            kernel,
            guest_args: Vec::new(),
            args,
            stop_at_reset: true,
            folder: self.folder.clone(),
            log: self.log.clone(),
        })
        .await
    }

    /// Whether the boot stage has something to do.
    fn update_waits(&self) -> bool {
        let update = self.card.as_ref().map(|card| card.read(sdu::UPDATE));
        matches!(update, Some(Ok(Some(file))) if file.len() > sdu::SKETCH)
    }
}

/// What a running board is told.
enum Order {
    Command(&'static str, Value, oneshot::Sender<Result<Value, Error>>),
    Cut,
    Off,
}

/// A board that is on. Dropping it ends the machine.
#[derive(Debug)]
pub struct Running {
    orders: mpsc::Sender<Order>,
    log: PathBuf,
    keeper: JoinHandle<(Board, Result<(), Error>)>,
}

impl Running {
    /// `kill -9` for the machine: the board is off, with what its card and flash hold.
    ///
    /// # Errors
    /// The machine had ended already, by itself.
    pub async fn cut_power(self) -> Result<Board, Error> {
        self.end(Order::Cut).await
    }

    /// Switches it off in order.
    ///
    /// # Errors
    /// As [`Self::cut_power`].
    pub async fn off(self) -> Result<Board, Error> {
        self.end(Order::Off).await
    }

    async fn end(mut self, order: Order) -> Result<Board, Error> {
        // A keeper that is gone says below why.
        let _ = self.orders.send(order).await;
        match (&mut self.keeper).await {
            Ok((board, Ok(()))) => Ok(board),
            Ok((_, Err(error))) => Err(error),
            Err(_) => Err(Error::ended("it was switched off", &self.log)),
        }
    }

    /// One command of QEMU's control channel.
    ///
    /// # Errors
    /// QEMU refused it.
    pub async fn command(&self, name: &'static str, arguments: Value) -> Result<Value, Error> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::ended(name, &self.log);
        self.orders
            .send(Order::Command(name, arguments, answer))
            .await
            .map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Pulls the network cable, or plugs it in.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn set_link(&self, up: bool) -> Result<(), Error> {
        let arguments = json!({ "name": NETWORK, "up": up });
        self.command("set_link", arguments).await.map(|_| ())
    }

    /// Pulls the card out.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn pull_card(&self) -> Result<(), Error> {
        let arguments = json!({ "device": CARD, "force": true });
        self.command("eject", arguments).await.map(|_| ())
    }

    /// Puts a card in.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn insert_card(&self, card: &Card) -> Result<(), Error> {
        let arguments = json!({
            "device": CARD, "filename": card.path(), "format": "raw",
        });
        self.command("blockdev-change-medium", arguments)
            .await
            .map(|_| ())
    }

    /// Waits until the guest has printed so many lines with these words, over all runs
    /// of the board.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn says(&self, words: &str, times: usize) -> Result<(), Error> {
        // The machine changes at every start of the boot stage; its log does not.
        let reading = async {
            loop {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                if text.lines().filter(|line| line.contains(words)).count() >= times {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let what = format!("\"{words}\" ({times})");
        tokio::time::timeout(PATIENCE, reading)
            .await
            .map_err(|_| Error::overdue(&what, PATIENCE, &self.log))
    }

    /// Where the guest's words go.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The machine goes with its keeper.
        self.keeper.abort();
    }
}

/// Sees to a running board: resets go through the boot stage.
async fn keep(
    mut board: Board,
    qemu: Qemu,
    mut orders: mpsc::Receiver<Order>,
) -> (Board, Result<(), Error>) {
    let result = tend(&mut board, qemu, &mut orders).await;
    (board, result)
}

/// A guest that does not reset is no fault: this only bounds one wait among many.
const A_LONG_TIME: Duration = Duration::from_secs(3600);

async fn tend(
    board: &mut Board,
    mut qemu: Qemu,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<(), Error> {
    loop {
        let order = tokio::select! {
            event = qemu.event("SHUTDOWN", A_LONG_TIME) => {
                event?;
                if board.update_waits() {
                    qemu.quit().await?;
                    qemu = board.boot().await?;
                } else {
                    qemu.reset().await?;
                }
                continue;
            }
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Command(name, arguments, answer)) => {
                // The one who asked may have stopped waiting.
                let _ = answer.send(qemu.command(name, arguments).await);
            }
            Some(Order::Cut) => return qemu.cut_power().await,
            Some(Order::Off) | None => return qemu.quit().await.map(|_| ()),
        }
    }
}

/// The largest number that the guest has printed after these words, over all runs; 0
/// where it has printed none.
#[must_use]
pub fn largest(log: &Path, words: &str) -> u32 {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix(words)?.trim().parse().ok())
        .max()
        .unwrap_or(0)
}
