//! A gateway and boards in one directory, run from their real executables and
//! spoken to through the command line only. The demo and the tests stand on it.
//!
//! ```text
//! DIR/data/         the gateway's data, with admin.sock
//! DIR/logs/         NAME.log for every process
//! DIR/operator.key  the signing key, and operator.key.pub
//! DIR/boards/ID/    agent.toml, state/
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::process::Command;

use super::process::{Process, tail};

/// A gateway that is well is ready in well under a second; a machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a log in an error.
const TAIL_LINES: usize = 12;

/// Why something on a site did not work.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// One of the two programs is not there.
    #[error("there is no {} at {}: build both programs first, `cargo build --bins`", .name, .path.display())]
    ProgramMissing {
        /// `dialhome` or `dialhome-agent`.
        name: &'static str,
        /// Where it was expected.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A process that should run has ended.
    #[error("{name} ended by itself ({status}); the end of {}:\n{tail}", .log.display())]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{what} was not there after {} s; look into {}", .within.as_secs(), .look.display())]
    Overdue {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// Where to look.
        look: PathBuf,
    },
    /// A command failed.
    #[error("`dialhome {command}` gave exit code {}: {message}", .code.map_or("none".to_owned(), |code| code.to_string()))]
    Command {
        /// Its arguments.
        command: String,
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
        /// What it printed on stderr.
        message: String,
    },
    /// A command printed something else than its contract says.
    #[error("`dialhome {command}` printed no {what}: {output}")]
    Output {
        /// Its arguments.
        command: String,
        /// What was expected.
        what: String,
        /// What it printed instead.
        output: String,
    },
}

impl SiteError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The two executables.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `dialhome`.
    pub dialhome: PathBuf,
    /// `dialhome-agent`.
    pub agent: PathBuf,
}

impl Programs {
    /// Both, where the agent lies beside `dialhome`.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn beside(dialhome: &Path) -> Result<Self, SiteError> {
        let agent = dialhome.with_file_name("dialhome-agent");
        for (name, path) in [("dialhome", dialhome), ("dialhome-agent", agent.as_path())] {
            if !path.is_file() {
                return Err(SiteError::ProgramMissing {
                    name,
                    path: path.to_owned(),
                });
            }
        }
        Ok(Self {
            dialhome: dialhome.to_owned(),
            agent,
        })
    }
}

/// What one `dialhome` command gave back.
#[derive(Debug)]
pub struct Outcome {
    /// The arguments, for messages.
    pub command: String,
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it printed, as JSON; null where it printed none.
    pub json: Value,
    /// What it printed, as text.
    pub stdout: String,
    /// The sentence for people.
    pub stderr: String,
}

impl Outcome {
    /// The JSON of a command that must have succeeded.
    ///
    /// # Errors
    /// It did not give exit code 0.
    pub fn done(self) -> Result<Value, SiteError> {
        if self.code == Some(0) {
            return Ok(self.json);
        }
        let message = if self.stderr.trim().is_empty() {
            self.stdout
        } else {
            self.stderr
        };
        Err(SiteError::Command {
            command: self.command,
            code: self.code,
            message: message.trim().to_owned(),
        })
    }
}

/// The `dialhome` command against one gateway.
#[derive(Clone, Debug)]
pub struct Cli {
    program: PathBuf,
    socket: PathBuf,
}

impl Cli {
    /// A command that is ready to be started: `dialhome --socket S --json ARGS`.
    #[must_use]
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(&self.socket).arg("--json");
        command
            .args(args.iter().map(AsRef::as_ref))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run<S: AsRef<str>>(&self, args: &[S]) -> Result<Outcome, SiteError> {
        let text = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let output = self
            .command(args)
            .output()
            .await
            .map_err(SiteError::io(format!(
                "{} could not be started",
                self.program.display()
            )))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Outcome {
            command: text,
            code: output.status.code(),
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed, and gives its JSON.
    ///
    /// # Errors
    /// It could not be started, or did not give exit code 0.
    pub async fn json<S: AsRef<str>>(&self, args: &[S]) -> Result<Value, SiteError> {
        self.run(args).await?.done()
    }
}

/// A board of the site: its files. What runs it is a [`Process`].
#[derive(Clone, Debug)]
pub struct Board {
    /// The device id.
    pub id: String,
    /// The provisioning file with the agent's settings.
    pub config: PathBuf,
    /// The agent's state directory.
    pub state: PathBuf,
}

/// A directory with a gateway and boards.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    programs: Programs,
    listen: SocketAddr,
    gateway: Option<Process>,
    serve_with: Vec<String>,
}

impl Site {
    /// Prepares the directory. Nothing runs yet.
    ///
    /// # Errors
    /// A directory could not be made, or no port is free.
    pub fn new(root: &Path, programs: Programs) -> Result<Self, SiteError> {
        for folder in [root.to_owned(), root.join("logs"), root.join("boards")] {
            std::fs::create_dir_all(&folder)
                .map_err(SiteError::io(folder.display().to_string()))?;
        }
        let listen = free_port().map_err(SiteError::io("no port is free on this machine"))?;
        Ok(Self {
            root: root.to_owned(),
            programs,
            listen,
            gateway: None,
            serve_with: Vec::new(),
        })
    }

    /// Where the gateway listens for boards, the same after every restart.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Has the gateway listen there from its next start on.
    pub fn set_listen(&mut self, listen: SocketAddr) {
        self.listen = listen;
    }

    /// The directory of everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The log of a process by its name: `gateway`, or a board's id.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// The admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("data/admin.sock")
    }

    /// The file of the operator's signing key; `.pub` is beside it.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.root.join("operator.key")
    }

    /// The command line against this gateway.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli {
            program: self.programs.dialhome.clone(),
            socket: self.socket(),
        }
    }

    /// Further arguments of `dialhome serve`, from its next start on.
    pub fn serve_with(&mut self, args: &[&str]) {
        self.serve_with = args.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// Starts the gateway and waits until it answers.
    ///
    /// # Errors
    /// It ended, or did not answer in time.
    pub async fn start_gateway(&mut self) -> Result<(), SiteError> {
        let data = self.root.join("data");
        let listen = self.listen.to_string();
        let args = [
            "serve".as_ref(),
            "--data".as_ref(),
            data.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
        ];
        let args = args
            .into_iter()
            .chain(self.serve_with.iter().map(AsRef::as_ref));
        let mut gateway = Process::spawn(
            "gateway",
            &self.programs.dialhome,
            args,
            &self.log("gateway"),
        )
        .map_err(SiteError::io("the gateway could not be started"))?;
        self.answers(&mut gateway).await?;
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Waits until the admin socket takes a connection and answers `status`.
    async fn answers(&self, gateway: &mut Process) -> Result<(), SiteError> {
        let answering = async {
            // A socket file may be left from a gateway that was killed: only a
            // connection says that somebody is there. Nothing tells when a program
            // begins to listen, so it is tried again.
            while UnixStream::connect(self.socket()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.cli().json(&["status"]).await.map(|_| ())
        };
        tokio::select! {
            answered = tokio::time::timeout(READY_WITHIN, answering) => answered.unwrap_or_else(|_| {
                Err(SiteError::Overdue {
                    what: "the gateway's admin socket".to_owned(),
                    within: READY_WITHIN,
                    look: self.log("gateway"),
                })
            }),
            status = gateway.wait() => Err(SiteError::Ended {
                name: "gateway".to_owned(),
                status: status.map_err(SiteError::io("the gateway"))?,
                log: gateway.log().to_owned(),
                tail: gateway.log_tail(TAIL_LINES),
            }),
        }
    }

    /// The gateway's process, while it is meant to run.
    pub fn gateway(&mut self) -> Option<&mut Process> {
        self.gateway.as_mut()
    }

    /// The gateway's process id, while it runs.
    #[must_use]
    pub fn gateway_pid(&self) -> Option<u32> {
        self.gateway.as_ref()?.id()
    }

    /// `kill -9` for the gateway.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub async fn kill_gateway(&mut self) -> Result<(), SiteError> {
        match self.gateway.take() {
            Some(gateway) => gateway
                .kill9()
                .await
                .map_err(SiteError::io("the gateway could not be killed")),
            None => Ok(()),
        }
    }

    /// Ends the gateway as an operator would (SIGTERM).
    ///
    /// # Errors
    /// The signal could not be sent.
    pub async fn stop_gateway(
        &mut self,
        patience: Duration,
    ) -> Result<Option<ExitStatus>, SiteError> {
        match self.gateway.take() {
            Some(gateway) => gateway
                .stop(patience)
                .await
                .map_err(SiteError::io("the gateway could not be stopped")),
            None => Ok(None),
        }
    }

    /// Makes the operator's signing key.
    ///
    /// # Errors
    /// The command failed.
    pub async fn make_key(&self) -> Result<(), SiteError> {
        self.cli()
            .json(&["key", "generate", "--out", &text(&self.key())])
            .await
            .map(|_| ())
    }

    /// Adds a device that dials `gateway` and trusts the operator's key, and writes
    /// the agent's file: what `device add` gave, then `settings` (TOML tables). Settings that
    /// say nothing of QUIC keep the agent to TCP: the relays before a gateway speak no other.
    ///
    /// # Errors
    /// The command failed, or the file could not be written.
    pub async fn add_board(
        &self,
        id: &str,
        product: &str,
        gateway: &str,
        settings: &str,
    ) -> Result<Board, SiteError> {
        let folder = self.root.join("boards").join(id);
        let config = folder.join("agent.toml");
        let state = folder.join("state");
        std::fs::create_dir_all(&state).map_err(SiteError::io(state.display().to_string()))?;
        let trust = format!("{}.pub", text(&self.key()));
        let out = text(&config);
        let args = [
            "device",
            "add",
            id,
            "--product",
            product,
            "--trust",
            &trust,
            "--gateway",
            gateway,
            "--out",
            &out,
        ];
        self.cli().json(&args).await?;
        let board = Board {
            id: id.to_owned(),
            config,
            state,
        };
        board.add_settings(&over_tcp(settings))?;
        Ok(board)
    }

    /// Starts a board's agent. It is not online yet: `device.online` tells.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_agent(&self, board: &Board) -> Result<Process, SiteError> {
        let args = [
            "--config".as_ref(),
            board.config.as_os_str(),
            "--state".as_ref(),
            board.state.as_os_str(),
        ];
        Process::spawn(&board.id, &self.programs.agent, args, &self.log(&board.id)).map_err(
            SiteError::io(format!("the agent of {} could not be started", board.id)),
        )
    }

    /// An error that shows the end of a log.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        tail(&self.log(name), TAIL_LINES)
    }
}

impl Board {
    /// Adds tables to the agent's file.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn add_settings(&self, settings: &str) -> Result<(), SiteError> {
        use std::io::Write as _;
        let write = || {
            let mut file = std::fs::File::options().append(true).open(&self.config)?;
            writeln!(file, "\n{settings}")
        };
        write().map_err(SiteError::io(self.config.display().to_string()))
    }

    /// The file that `current` points to, once an image was activated.
    #[must_use]
    pub fn current(&self) -> Option<PathBuf> {
        std::fs::canonicalize(self.state.join("current")).ok()
    }
}

/// The settings with `quic = "off"`, unless they choose themselves, or there are none.
fn over_tcp(settings: &str) -> String {
    const TABLE: &str = "[agent]\n";
    const CHOICE: &str = "quic = \"off\"\n";
    if settings.is_empty() || settings.contains("\nquic = ") {
        return settings.to_owned();
    }
    match settings.split_once(TABLE) {
        Some((before, after)) => format!("{before}{TABLE}{CHOICE}{after}"),
        None => format!("{settings}\n{TABLE}{CHOICE}"),
    }
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A port below the range from which outgoing connections get theirs, so that
/// none of them takes it while the gateway is down between two starts.
fn free_port() -> io::Result<SocketAddr> {
    let mut random = rand::rng();
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, random.random_range(10_240..32_768)));
        // Boards may dial it over QUIC too.
        match TcpListener::bind(address).and(UdpSocket::bind(address)) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}
