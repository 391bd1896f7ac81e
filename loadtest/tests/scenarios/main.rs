//! `dialhome-loadtest run`, as a process: its scenarios, what it says, and what is left of it.
#![forbid(unsafe_code)]

mod builtin;
mod ends;
mod page;
mod pages;
mod wrong;

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A run that takes this long does not end any more.
const PATIENCE: Duration = Duration::from_secs(280);

/// A command under test; the gateway's program is beside it.
fn command() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_dialhome-loadtest"));
    let gateway = program.with_file_name("dialhome");
    assert!(
        gateway.is_file(),
        "there is no {}: build it with `cargo build --bins`, as `make test` does",
        gateway.display()
    );
    let mut command = Command::new(program);
    command
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A scenario of few boards in a folder of its own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(scenario: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine.toml"), scenario).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(self.path("report.json")).unwrap()).unwrap()
    }

    /// Plays it, with reports.
    fn start(&self) -> Running {
        let mut command = command();
        command.arg(self.path("mine.toml"));
        command.arg("--json").arg(self.path("report.json"));
        command.arg("--html").arg(self.path("report.html"));
        Running::start(command)
    }
}

/// A run under way; it is killed where the test ends before it.
struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
    output: String,
}

/// How a run ended.
struct Ended {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the run is started");
        let stdout = child.stdout.take().expect("its output");
        let mut stderr = child.stderr.take().expect("its errors");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let read = BufReader::new(stdout).lines().map_while(Result::ok);
            read.for_each(|line| drop(send.send(line)));
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self {
            child,
            lines,
            errors: Some(errors),
            output: String::new(),
        }
    }

    /// Waits for a line with these words.
    fn line(&mut self, words: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.output.push_str(&line);
                    self.output.push('\n');
                    if line.contains(words) {
                        return;
                    }
                }
                Err(_) => panic!("no line with {words:?} came:\n{}", self.output),
            }
        }
    }

    /// Its child processes: each id, and whether it is a crew.
    fn children(&self) -> Vec<(i32, bool)> {
        let parent = self.child.id().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| {
                let pid: i32 = process.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(process.path().join("stat")).ok()?;
                // PID (name) state PPID ...; the name may hold anything.
                let ppid = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
                let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
                (ppid == parent).then(|| (pid, line.split('\0').nth(1) == Some("crew")))
            })
            .collect()
    }

    fn signal(&self, signal: Signal) {
        send(i32::try_from(self.child.id()).unwrap(), signal);
    }

    /// Waits until it has ended.
    fn end(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.output.push_str(&line);
                    self.output.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it did not end:\n{}", self.output),
            }
        }
        let code = self.child.wait().expect("its end").code();
        let errors = self.errors.take().expect("not taken yet").join().unwrap();
        Ended {
            code,
            output: std::mem::take(&mut self.output),
            errors,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    #[track_caller]
    fn expect(&self, code: i32, words: &[&str]) {
        let said = format!("{}\n{}", self.output, self.errors);
        assert_eq!(self.code, Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in:\n{said}");
        }
    }
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).expect("the process is there");
}

/// Waits until none of these processes is left.
fn gone(processes: &[(i32, bool)]) {
    let until = Instant::now() + Duration::from_secs(60);
    for (pid, _) in processes {
        // A process that nobody waited for any more is reaped by init: that takes a moment.
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < until, "process {pid} is left");
            std::thread::yield_now();
        }
    }
}

/// A few boards, no update, and a run that would last for minutes.
const LONG: &str = r#"about = "a test"
[fleet]
boards = 5
crews = 2
[end]
wait_s = 250
within_s = 270
"#;

/// A few boards and an update.
const SHORT: &str = r#"about = "a test"
[fleet]
boards = 5
[image]
kib = 8
[[step]]
after = "online"
push = { share = 1.0, watch = true }
[end]
after = "settled"
within_s = 200
[limits]
confirmed_share = { at_least = 1 }
broken = { at_most = 0 }
"#;
