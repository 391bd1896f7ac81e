//! The launcher of an agent that updates itself, without a gateway: what it starts, what it
//! counts, and where it goes back. Every executable is real.
#![cfg(feature = "agent")]

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, fs::symlink, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dialhome-agent");
/// A wait that takes so long will not end any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A board, a gateway that only takes connections, and images as text.
struct Board {
    dir: tempfile::TempDir,
    gateway: TcpListener,
}

impl Board {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
        gateway.set_nonblocking(true).unwrap();
        let board = Self { dir, gateway };
        let text = format!(
            "id = \"board-1\"\nproduct = \"sensor\"\nkey = \"{}\"\ngateways = [\"{}\"]\n\
             [agent]\nself_update = true\nheartbeat_s = 1\nconnect_ms = 500\n",
            "07".repeat(32),
            board.gateway.local_addr().unwrap()
        );
        fs::write(board.path("board.toml"), text).unwrap();
        fs::create_dir_all(board.path("state/slots")).unwrap();
        board
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn executable(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// A script in slot b, which writes a line into `started` and goes on as given, is on trial.
    fn tries(&self, script: &str, starts: u8) {
        let started = self.path("started");
        let text = format!("#!/bin/sh\necho start >>{}\n{script}\n", started.display());
        self.executable("state/slots/b", text.as_bytes());
        self.on_trial(starts);
    }

    /// What is in slot b is on trial, with two starts before the old agent is put back.
    fn on_trial(&self, starts: u8) {
        let _ = fs::remove_file(self.path("state/current"));
        symlink("slots/b", self.path("state/current")).unwrap();
        let record = format!(
            "step = \"trial\"\nimage = \"{}\"\nto = \"slots/b\"\nupdate = \"\"\n\
             version = \"\"\nboots = 2\nstarts = {starts}\n",
            "00".repeat(32)
        );
        fs::write(self.path("state/switch"), record).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--config")
            .arg(self.path("board.toml"))
            .arg("--state")
            .arg(self.path("state"))
            .stderr(Stdio::piped());
        command
    }

    fn launch(&self) -> Launcher {
        Launcher(self.command().spawn().unwrap())
    }

    /// Waits until an agent has dialled, which is the installed one: scripts do not.
    fn dialled(&self) {
        until("an agent that dials", || match self.gateway.accept() {
            Ok((mut link, _)) => {
                link.set_nonblocking(false).unwrap();
                link.read_exact(&mut [0; 62]).is_ok()
            }
            Err(_) => false,
        });
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.path("started"))
            .unwrap_or_default()
            .lines()
            .count()
    }

    /// The old agent runs, and nothing of the trial is left.
    fn is_back(&self) {
        self.dialled();
        for name in ["state/switch", "state/current"] {
            assert!(fs::symlink_metadata(self.path(name)).is_err(), "{name}");
        }
    }
}

fn until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < end, "{what} is not there");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A launcher that runs, ended with the test.
struct Launcher(Child);

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Launcher {
    fn end(&mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.wait()
    }

    /// Its exit status and its log.
    fn wait(&mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        // The agent that it started writes there too: it is gone when this ends.
        let stderr = self.0.stderr.take().unwrap();
        std::io::BufReader::new(stderr)
            .read_to_string(&mut log)
            .unwrap();
        (self.0.wait().unwrap(), log)
    }

    fn agent(&self) -> Option<PathBuf> {
        let pid = self.0.id();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let agent = list.split_whitespace().next()?;
        Some(Path::new("/proc").join(agent))
    }
}

#[test]
fn an_agent_that_ends_uses_up_its_starts() {
    let board = Board::new();
    board.tries("exit 3", 0);
    let mut launcher = board.launch();
    board.is_back();
    assert_eq!(board.starts(), 2);
    let (status, log) = launcher.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("exit status: 3"), "{log}");
}

#[test]
fn starts_are_counted_over_power_cuts() {
    let board = Board::new();
    // It gives signs of life until nobody takes them any more.
    board.tries("while :; do printf '\\006'; sleep 0.1; done", 0);
    for number in 1..=2 {
        let mut launcher = board.launch();
        until("the start", || board.starts() == number);
        launcher.end(Signal::KILL);
    }
    let _launcher = board.launch();
    board.is_back();
    assert_eq!(board.starts(), 2);
}

#[test]
fn an_agent_that_hangs_is_ended_with_what_it_started() {
    let board = Board::new();
    let pid = board.path("pid");
    board.tries(&format!("sleep 1000 & echo $! >{}; wait", pid.display()), 1);
    let mut launcher = board.launch();
    board.is_back();
    assert_eq!(board.starts(), 1);
    let pid = fs::read_to_string(pid).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    assert!(stat.is_err() || stat.unwrap().contains(") Z "));
    let (_, log) = launcher.end(Signal::TERM);
    assert!(log.contains("no sign of life for 2 s"), "{log}");
}

#[test]
fn what_this_machine_cannot_execute_is_tried_once() {
    let mut foreign = fs::read(PROGRAM).unwrap();
    foreign.truncate(4096);
    // A machine's number that nobody has.
    foreign[18..20].copy_from_slice(&[0xfe, 0x01]);
    for image in [&foreign[..], b"no program at all", b""] {
        let board = Board::new();
        board.executable("state/slots/b", image);
        board.on_trial(0);
        let mut launcher = board.launch();
        board.is_back();
        let (_, log) = launcher.end(Signal::TERM);
        assert_eq!(log.matches("cannot be executed").count(), 1, "{log}");
    }
    // Nor what is not there any more.
    let board = Board::new();
    board.on_trial(0);
    let _launcher = board.launch();
    board.is_back();
}

#[test]
fn an_installed_agent_that_is_damaged_is_replaced_by_the_launchers_own() {
    let board = Board::new();
    board.executable("state/slots/a", b"no program any more");
    symlink("slots/a", board.path("state/current")).unwrap();
    let launcher = board.launch();
    board.dialled();
    let runs = launcher.agent().unwrap().join("exe");
    assert_eq!(fs::read_link(runs).unwrap(), Path::new(PROGRAM));
    // It is the next update that mends it.
    let kept = fs::read_link(board.path("state/current")).unwrap();
    assert_eq!(kept, Path::new("slots/a"));
}

#[test]
fn an_agent_that_is_settled_ends_its_launcher_with_its_own_code() {
    let board = Board::new();
    board.executable("state/slots/a", b"#!/bin/sh\nexit 9\n");
    symlink("slots/a", board.path("state/current")).unwrap();
    assert_eq!(board.launch().wait().0.code(), Some(9));
    board.executable("state/slots/a", b"#!/bin/sh\nkill -KILL $$\n");
    assert_eq!(board.launch().wait().0.code(), Some(128 + 9));
}

#[test]
fn an_agent_ends_with_its_launcher_and_another_launcher_is_refused() {
    let board = Board::new();
    let mut launcher = board.launch();
    board.dialled();
    let agent = launcher.agent().unwrap();
    let (status, log) = board.launch().wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("another dialhome-agent"), "{log}");
    let (status, _) = launcher.end(Signal::KILL);
    assert_eq!(status.signal(), Some(9));
    until("the agent's end", || !agent.exists());
}

/// Its launcher may be killed before the agent has tied itself to it.
#[test]
fn an_agent_whose_launcher_is_gone_does_not_become_one() {
    let board = Board::new();
    board.tries("exit 3", 1);
    let mut orphan = board.command();
    orphan.env("DIALHOME_AGENT_LAUNCHER", "1");
    let (status, log) = Launcher(orphan.spawn().unwrap()).wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("its launcher is gone"), "{log}");
    assert_eq!(board.starts(), 0);
}
