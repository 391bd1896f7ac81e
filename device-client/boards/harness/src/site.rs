//! A real gateway with its operator, for boards in QEMU: the executables of this
//! repository, spoken to through the command line only.
//!
//! ```no_run
//! # async fn example() -> Result<(), dialhome_board_harness::Error> {
//! use dialhome_board_harness::{firmware, site::Bench};
//! let bench = Bench::start("thermostat").await?;
//! let image = firmware::build()?.image("dialhome-board-lm3s6965evb", 0)?;
//! let name = bench.image("1.0.0", 1, &image.bytes, &[]).await?;
//! let record = bench.provision("board-1", "10.0.2.2:7040").await?;
//! // start the machine with the record ...
//! bench.online("board-1").await?;
//! bench.push("board-1", &name, &[]).await?;
//! # Ok(()) }
//! ```
//!
//! Nothing here measures time: a wait ends when the thing happens, and fails with the
//! end of the logs when it does not happen for [`PATIENCE`].

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dialhome_gateway::demo::relay::{Faults, Relay};
use dialhome_gateway::demo::site::{Cli, Outcome, Programs, Site, SiteError};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::Error;

/// A wait that takes this long will not end any more, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A gateway and its operator. Dropping it ends the gateway; after a panic its folder
/// stays, and is named.
#[derive(Debug)]
pub struct Bench {
    /// The gateway, its files and its logs.
    pub site: Site,
    product: String,
    /// Declared last, so that it goes after the processes that write to it.
    folder: TempDir,
}

/// Both executables, which cargo builds into the folder above the tests.
///
/// # Errors
/// One of them is not there.
pub fn programs() -> Result<Programs, Error> {
    let own = std::env::current_exe().map_err(Error::io("the path of this program"))?;
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"));
    let dialhome = folder.unwrap_or(Path::new(".")).join("dialhome");
    Ok(Programs::beside(&dialhome)?)
}

impl Bench {
    /// A running gateway for boards of one product, and an operator's key.
    ///
    /// # Errors
    /// The programs are not built, or the gateway did not start.
    pub async fn start(product: &str) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("dialhome-board-")
            .tempdir()
            .map_err(Error::io("a temporary directory"))?;
        let mut site = Site::new(folder.path(), programs()?)?;
        site.start_gateway().await?;
        site.make_key().await?;
        Ok(Self {
            site,
            product: product.to_owned(),
            folder,
        })
    }

    /// The folder of everything: put the board's files there.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The operator's command line.
    #[must_use]
    pub fn cli(&self) -> Cli {
        self.site.cli()
    }

    /// The port on which the gateway takes boards.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.site.listen().port()
    }

    /// A relay in front of the gateway, for boards that are to have a bad link.
    ///
    /// # Errors
    /// No port is free.
    pub async fn relay(&self, faults: Faults) -> Result<Relay, Error> {
        Relay::start(self.site.listen(), faults)
            .await
            .map_err(Error::io("a relay"))
    }

    /// Adds a device that dials `gateway`, and gives the record that its board takes
    /// (`dialhome device pack`).
    ///
    /// # Errors
    /// A command failed.
    pub async fn provision(&self, id: &str, gateway: &str) -> Result<Vec<u8>, Error> {
        let board = self.site.add_board(id, &self.product, gateway, "").await?;
        let record = board.config.with_extension("bin");
        let (toml, out) = (text(&board.config), text(&record));
        self.cli()
            .json(&["device", "pack", &toml, "--out", &out])
            .await?;
        std::fs::read(&record).map_err(Error::file(&record))
    }

    /// Signs an image with the operator's key, adds it to the gateway, and gives its
    /// name there. `options` are more of `image sign`.
    ///
    /// # Errors
    /// A command failed.
    pub async fn image(
        &self,
        version: &str,
        counter: u64,
        bytes: &[u8],
        options: &[&str],
    ) -> Result<String, Error> {
        let signed = self.sign(version, counter, bytes, options).await?;
        self.cli().json(&["image", "add", &text(&signed)]).await?;
        Ok(format!("{}@{version}", self.product))
    }

    /// Signs an image, and gives the signed file.
    ///
    /// # Errors
    /// The file could not be written, or the command failed.
    pub async fn sign(
        &self,
        version: &str,
        counter: u64,
        bytes: &[u8],
        options: &[&str],
    ) -> Result<PathBuf, Error> {
        let file = self.path().join(format!("{version}.bin"));
        std::fs::write(&file, bytes).map_err(Error::file(&file))?;
        let signed = file.with_extension("dhi");
        let (source, out, key) = (text(&file), text(&signed), text(&self.site.key()));
        let counter = counter.to_string();
        let mut args = vec!["image", "sign", &source, "--product", &self.product];
        args.extend(["--version", version, "--counter", &counter]);
        args.extend(["--key", &key, "--out", &out]);
        args.extend(options);
        self.cli().json(&args).await?;
        Ok(signed)
    }

    /// Pushes an image and waits for the end, whatever that is.
    ///
    /// # Errors
    /// The command could not be run, or the push does not end.
    pub async fn push(&self, id: &str, image: &str, options: &[&str]) -> Result<Outcome, Error> {
        let cli = self.cli();
        let mut args = vec!["push", id, image];
        args.extend(options);
        match timeout(PATIENCE * 2, cli.run(&args)).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(self.overdue(&format!("the end of the push to {id}"), PATIENCE * 2)),
        }
    }

    /// Starts a push without waiting for it, and gives the update's id.
    ///
    /// # Errors
    /// The push was refused.
    pub async fn push_no_wait(
        &self,
        id: &str,
        image: &str,
        options: &[&str],
    ) -> Result<String, Error> {
        let mut args = vec!["push", id, image, "--no-wait"];
        args.extend(options);
        let outcome = self.cli().run(&args).await?;
        let (command, output) = (outcome.command.clone(), outcome.stdout.clone());
        let update = outcome.json["update"].as_str().map(ToOwned::to_owned);
        match update {
            Some(update) => Ok(update),
            None => {
                outcome.done()?;
                Err(Error::Site(SiteError::Output {
                    command,
                    what: "update".to_owned(),
                    output,
                }))
            }
        }
    }

    /// Waits until the gateway has a session of this board; gives the device's document.
    ///
    /// # Errors
    /// It has none in time.
    pub async fn online(&self, id: &str) -> Result<Value, Error> {
        self.until(&["device", "show", id], |device| device["online"] == true)
            .await
    }

    /// Waits until the gateway has none.
    ///
    /// # Errors
    /// It still has one.
    pub async fn offline(&self, id: &str) -> Result<Value, Error> {
        self.until(&["device", "show", id], |device| device["online"] == false)
            .await
    }

    /// Waits until the update is in this state; gives its document.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn reaches(&self, update: &str, state: &str) -> Result<Value, Error> {
        self.until(&["update", "show", update], |update| {
            update["state"] == state
        })
        .await
    }

    /// Waits until the update has come to an end, whichever.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn ends(&self, update: &str) -> Result<Value, Error> {
        self.until(&["update", "show", update], |update| {
            ["confirmed", "failed", "reverted", "canceled", "abandoned"]
                .iter()
                .any(|state| update["state"] == *state)
        })
        .await
    }

    /// Asks again after each event of the gateway until the answer is as wanted.
    ///
    /// # Errors
    /// The command failed, or its answer is not as wanted in time.
    pub async fn until<S: AsRef<str>>(
        &self,
        args: &[S],
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Error> {
        let mut last = Value::Null;
        let asking = async {
            let mut events: Option<Events> = None;
            loop {
                let answer = self.cli().json(args).await?;
                if wanted(&answer) {
                    return Ok(answer);
                }
                last = answer;
                // The stream is opened after the first answer and before the second, so
                // that no change falls between; a tick stands in for what has no event.
                match &mut events {
                    None => events = Some(Events::follow(&self.cli())?),
                    Some(stream) => {
                        let _ = timeout(Duration::from_millis(250), stream.next()).await;
                    }
                }
            }
        };
        let found = timeout(PATIENCE, asking).await;
        found.unwrap_or_else(|_| {
            let asked = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
            let what = format!("what is wanted of `dialhome {asked}` (last: {last:#})");
            Err(self.overdue(&what, PATIENCE))
        })
    }

    fn overdue(&self, what: &str, within: Duration) -> Error {
        Error::overdue(what, within, &self.site.log("gateway"))
    }
}

impl Drop for Bench {
    #[expect(clippy::print_stderr, reason = "it is for the reader of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("everything of this test is in {}", self.path().display());
        }
    }
}

/// The gateway's events, as `dialhome events --follow` prints them.
#[derive(Debug)]
pub struct Events {
    lines: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _child: Child,
}

impl Events {
    /// From now on.
    ///
    /// # Errors
    /// The command could not be started.
    pub fn follow(cli: &Cli) -> Result<Self, Error> {
        let mut child = cli
            .command(&["events", "--follow"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("dialhome events"))?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| Error::io("its output")(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self {
            lines: BufReader::new(output).lines(),
            _child: child,
        })
    }

    /// The next event; none when the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        let line = self.lines.next_line().await.ok().flatten()?;
        serde_json::from_str(&line).ok()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
