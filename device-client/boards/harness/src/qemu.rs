//! One emulated machine: its process, what it prints, and QEMU's own control channel
//! (QMP). Dropping it kills it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::Error;
use crate::site::PATIENCE;

/// A machine starts and answers in well under a second; the host may be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How a machine is started. The rest of its arguments are the board's own.
#[derive(Clone, Debug)]
pub struct Spec {
    /// QEMU's name of the machine.
    pub machine: &'static str,
    /// What is put into flash: an ELF file, or raw bytes for address 0.
    pub kernel: PathBuf,
    /// What the guest finds as its arguments (semihosting).
    pub guest_args: Vec<String>,
    /// More arguments for QEMU.
    pub args: Vec<String>,
    /// The guest's reset stops the machine in the state `shutdown` instead of resetting
    /// it: [`Qemu::event`] `SHUTDOWN` tells, and [`Qemu::reset`] goes on.
    pub stop_at_reset: bool,
    /// The folder for the control socket.
    pub folder: PathBuf,
    /// What the guest and QEMU print is added to this file.
    pub log: PathBuf,
}

/// A running machine.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    qmp: OwnedWriteHalf,
    answers: mpsc::UnboundedReceiver<Value>,
    events: mpsc::UnboundedReceiver<Value>,
    passed: VecDeque<Value>,
    console: Arc<Console>,
    log: PathBuf,
    /// The guest's own resets stop it.
    stops_at_reset: bool,
}

#[derive(Debug, Default)]
struct Console {
    lines: Mutex<Lines>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    /// Lines up to here were waited for already.
    seen: usize,
    closed: usize,
}

impl Console {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Qemu {
    /// Starts the machine and greets its control channel. The guest runs already when
    /// this returns.
    ///
    /// # Errors
    /// QEMU is not installed, refused its arguments, or did not answer.
    pub async fn start(spec: &Spec) -> Result<Self, Error> {
        let socket = tempfile::Builder::new()
            .prefix("qmp-")
            .make_in(&spec.folder, |path| UnixListener::bind(path))
            .map_err(Error::io("a socket for QEMU"))?;
        let mut command = Command::new("qemu-system-arm");
        command
            .args(["-M", spec.machine, "-nodefaults", "-nographic"])
            .args(["-monitor", "none", "-kernel"])
            .arg(&spec.kernel)
            .arg("-chardev")
            .arg(format!("socket,id=qmp,path={}", socket.path().display()))
            .args(["-mon", "chardev=qmp,mode=control"]);
        let mut semihosting = "enable=on,target=native,arg=firmware".to_owned();
        for arg in &spec.guest_args {
            semihosting.push_str(",arg=");
            semihosting.push_str(arg);
        }
        command.args(["-semihosting-config", &semihosting]);
        // Stopped until events are listened to: a guest may reset within milliseconds.
        let stays_stopped = spec.args.iter().any(|arg| arg == "-S");
        if !stays_stopped {
            command.arg("-S");
        }
        if spec.stop_at_reset {
            command.args(["-action", "reboot=shutdown,shutdown=pause"]);
        }
        let mut child = command
            .args(&spec.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(
                "qemu-system-arm could not be started (is it installed?)",
            ))?;
        let console = Arc::new(Console::default());
        if let Some(output) = child.stdout.take() {
            tokio::spawn(follow(output, Arc::clone(&console), spec.log.clone()));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(follow(output, Arc::clone(&console), spec.log.clone()));
        }
        let accepted = tokio::select! {
            accepted = timeout(ANSWER_WITHIN, socket.as_file().accept()) => accepted,
            _ = child.wait() => return Err(Error::ended("its control channel opened", &spec.log)),
        };
        let (stream, _) = accepted
            .map_err(|_| Error::overdue("QEMU's control channel", ANSWER_WITHIN, &spec.log))?
            .map_err(Error::io("QEMU's control channel"))?;
        let (qmp, answers, events) = split(stream);
        let mut machine = Self {
            child,
            qmp,
            answers,
            events,
            passed: VecDeque::new(),
            console,
            log: spec.log.clone(),
            stops_at_reset: spec.stop_at_reset,
        };
        machine.answer("greeting").await?;
        machine.command("qmp_capabilities", json!({})).await?;
        if !stays_stopped {
            machine.cont().await?;
        }
        Ok(machine)
    }

    /// One command of the control channel, and what it returns.
    ///
    /// # Errors
    /// QEMU refused it, ended, or did not answer.
    pub async fn command(&mut self, name: &str, arguments: Value) -> Result<Value, Error> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        self.qmp
            .write_all(line.as_bytes())
            .await
            .map_err(|_| Error::ended(name, &self.log))?;
        let mut answer = self.answer(name).await?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(Error::Refused {
                command: name.to_owned(),
                answer: answer.to_string(),
            }),
        }
    }

    async fn answer(&mut self, what: &str) -> Result<Value, Error> {
        match timeout(ANSWER_WITHIN, self.answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::ended(what, &self.log)),
            Err(_) => Err(Error::overdue(what, ANSWER_WITHIN, &self.log)),
        }
    }

    /// Waits for an event of the control channel by its name, or takes one that has
    /// come since the last that was asked for. Events of other names are kept.
    ///
    /// # Errors
    /// The machine ended, or the event did not come in time.
    pub async fn event(&mut self, name: &str, within: Duration) -> Result<Value, Error> {
        if let Some(at) = self.passed.iter().position(|event| event["event"] == name) {
            return self
                .passed
                .remove(at)
                .ok_or_else(|| Error::ended(name, &self.log));
        }
        let waiting = async {
            while let Some(event) = self.events.recv().await {
                if event["event"] == name {
                    return Some(event);
                }
                self.passed.push_back(event);
            }
            None
        };
        match timeout(within, waiting).await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(Error::ended(name, &self.log)),
            Err(_) => Err(Error::overdue(name, within, &self.log)),
        }
    }

    /// Waits until the guest has printed a line that contains `words`, among those that
    /// came after the last that was waited for; gives that line.
    ///
    /// # Errors
    /// The machine ended without it, or it did not come in time.
    pub async fn says(&self, words: &str, within: Duration) -> Result<String, Error> {
        let waiting = async {
            loop {
                let changed = self.console.changed.notified();
                {
                    let mut lines = self.console.lines();
                    let from = lines.seen;
                    let found = lines.all[from..]
                        .iter()
                        .position(|line| line.contains(words));
                    if let Some(at) = found {
                        lines.seen = from + at + 1;
                        return Some(lines.all[from + at].clone());
                    }
                    // Both of its outputs have ended.
                    if lines.closed == 2 {
                        return None;
                    }
                }
                changed.await;
            }
        };
        let what = format!("the line \"{words}\"");
        match timeout(within, waiting).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(Error::ended(&what, &self.log)),
            Err(_) => Err(Error::overdue(&what, within, &self.log)),
        }
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.console.lines().all.clone()
    }

    /// Cuts the power: `kill -9`. It does nothing more, and is gone when this returns.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub async fn cut_power(mut self) -> Result<(), Error> {
        self.child
            .kill()
            .await
            .map_err(Error::io("the machine could not be killed"))
    }

    /// Ends the machine in order: what it has under way on its drives is finished.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn quit(mut self) -> Result<ExitStatus, Error> {
        // It may be gone before it has answered.
        let _ = self.command("quit", json!({})).await;
        self.wait(PATIENCE).await
    }

    /// Waits until the machine ends by itself.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        match timeout(within, self.child.wait()).await {
            Ok(status) => status.map_err(Error::io("the machine")),
            Err(_) => Err(Error::overdue("its end", within, &self.log)),
        }
    }

    /// Stops the guest between two instructions.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.command("stop", json!({})).await.map(|_| ())
    }

    /// Goes on after [`Self::stop`].
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn cont(&mut self) -> Result<(), Error> {
        self.command("cont", json!({})).await.map(|_| ())
    }

    /// Resets a machine that stopped at its guest's reset, and lets it run. RAM that the
    /// image does not initialise keeps what it held.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn reset(&mut self) -> Result<(), Error> {
        // What holds for the guest's own reset would hold for this one as well.
        self.command("set-action", json!({ "reboot": "reset" }))
            .await?;
        self.command("system_reset", json!({})).await?;
        self.event("RESET", ANSWER_WITHIN).await?;
        if self.stops_at_reset {
            self.command("set-action", json!({ "reboot": "shutdown" }))
                .await?;
        }
        self.cont().await
    }

    /// Writes the guest's memory, as its processor sees it, to a file.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn memsave(&mut self, address: u32, len: u32, file: &Path) -> Result<(), Error> {
        let arguments = json!({
            "cpu-index": 0, "val": address, "size": len, "filename": file,
        });
        self.command("memsave", arguments).await.map(|_| ())
    }

    /// Pulls or plugs the network cable of a netdev by its id.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn set_link(&mut self, name: &str, up: bool) -> Result<(), Error> {
        self.command("set_link", json!({ "name": name, "up": up }))
            .await
            .map(|_| ())
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

/// Sorts what comes over the control channel into answers and events.
fn split(
    stream: UnixStream,
) -> (
    OwnedWriteHalf,
    mpsc::UnboundedReceiver<Value>,
    mpsc::UnboundedReceiver<Value>,
) {
    let (read, write) = stream.into_split();
    let (answers, answered) = mpsc::unbounded_channel();
    let (events, happened) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let value: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            let to = if value.get("event").is_some() {
                &events
            } else {
                &answers
            };
            if to.send(value).is_err() {
                break;
            }
        }
    });
    (write, answered, happened)
}

/// Keeps the lines of one output of the process, and adds them to its log.
async fn follow(output: impl AsyncRead + Unpin, console: Arc<Console>, log: PathBuf) {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .ok();
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes).await, Ok(1..)) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if let Some(file) = &mut file {
            // A log that cannot be written is missed by nobody but the reader of it.
            let _ = writeln!(file, "{line}");
        }
        console.lines().all.push(line);
        console.changed.notify_waiters();
        bytes.clear();
    }
    console.lines().closed += 1;
    console.changed.notify_waiters();
}
