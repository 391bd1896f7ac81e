//! The launcher of an agent that updates itself, without a gateway: what it starts, what it
//! counts, and where it goes back. Every executable is real.
#![cfg(feature = "agent")]

use std::{
    fmt::Write as _,
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
use sha2::{Digest as _, Sha256};

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
        self.mark("state/slots/b");
        self.on_trial(starts);
    }

    /// Takes this file for an agent, as the one that installs it does.
    fn mark(&self, name: &str) {
        let bytes = fs::read(self.path(name)).unwrap();
        let digest = Sha256::digest(bytes);
        let mut marks = fs::read_to_string(self.path("state/agents")).unwrap_or_default();
        for byte in digest {
            write!(marks, "{byte:02x}").unwrap();
        }
        fs::write(self.path("state/agents"), marks + "\n").unwrap();
    }

    /// A settled agent in slot a.
    fn has(&self, content: &[u8]) {
        self.executable("state/slots/a", content);
        self.mark("state/slots/a");
        let _ = fs::remove_file(self.path("state/current"));
        symlink("slots/a", self.path("state/current")).unwrap();
    }

    /// An image that is no agent, and writes a line into `started`.
    fn application(&self, name: &str, ending: &str) {
        let started = self.path("started");
        let text = format!("#!/bin/sh\necho start >>{}\n{ending}\n", started.display());
        self.executable(name, text.as_bytes());
    }

    /// Changes the record of the image on trial.
    fn record(&self, before: &str, after: &str) {
        let record = fs::read_to_string(self.path("state/switch")).unwrap();
        fs::write(self.path("state/switch"), record.replace(before, after)).unwrap();
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

    /// The agent that runs is the launcher's own executable.
    fn runs_own(&self, launcher: &Launcher) {
        let runs = launcher.agent().unwrap().join("exe");
        assert_eq!(fs::read_link(runs).unwrap(), Path::new(PROGRAM));
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

    /// The same of one that may be stuck.
    fn ends(&mut self) -> (ExitStatus, String) {
        until("its end", || self.0.try_wait().unwrap().is_some());
        self.wait()
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        stat.contains(") T ")
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
        board.mark("state/slots/b");
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
    // It can be executed still, and would end or crash each time.
    let whole = fs::read(PROGRAM).unwrap();
    let mut zeros = whole.clone();
    let middle = zeros.len() / 2;
    zeros[middle..middle + 4096].fill(0);
    // Or is no program at all, and was so when it was installed.
    let none = &b"no program any more"[..];
    for (installed, damaged) in [(&whole[..], &zeros[..]), (none, none)] {
        let board = Board::new();
        board.has(installed);
        board.executable("state/slots/a", damaged);
        let launcher = board.launch();
        board.dialled();
        board.runs_own(&launcher);
        // It is the next update that mends it.
        let kept = fs::read_link(board.path("state/current")).unwrap();
        assert_eq!(kept, Path::new("slots/a"));
    }
}

/// `self_update` was turned on for a board whose component 0 was an application so far.
#[test]
fn an_image_that_was_not_installed_as_an_agent_is_never_started_as_one() {
    for ending in ["exit 0", "while :; do sleep 1; done"] {
        // Settled.
        let board = Board::new();
        board.application("state/slots/a", ending);
        symlink("slots/a", board.path("state/current")).unwrap();
        let mut launcher = board.launch();
        board.dialled();
        board.runs_own(&launcher);
        let (_, log) = launcher.end(Signal::TERM);
        assert!(log.contains("was not installed as an agent"), "{log}");
        assert_eq!(board.starts(), 0);
        // On trial, as an application is.
        let board = Board::new();
        board.application("state/slots/b", ending);
        board.on_trial(0);
        let _launcher = board.launch();
        board.is_back();
        assert_eq!(board.starts(), 0);
    }
    // The image before the first agent, to which the trial of that goes back.
    for step in ["trial", "installing", "restoring", "returned"] {
        let board = Board::new();
        board.application("state/slots/a", "exit 0");
        board.executable("state/slots/b", b"#!/bin/sh\nexit 3\n");
        board.mark("state/slots/b");
        board.on_trial(1);
        let old = format!("\"{step}\"\nfrom = \"slots/a\"");
        board.record("\"trial\"", &old);
        let launcher = board.launch();
        board.dialled();
        board.runs_own(&launcher);
        assert_eq!(board.starts(), 0, "{step}");
    }
}

#[test]
fn an_agent_that_is_stuck_does_not_hold_up_the_end() {
    let board = Board::new();
    let mut launcher = board.launch();
    board.dialled();
    let agent = launcher.agent().unwrap();
    let number = agent.file_name().unwrap().to_str().unwrap();
    let pid = Pid::from_raw(number.parse().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    kill_process(Pid::from_child(&launcher.0), Signal::TERM).unwrap();
    let (status, log) = launcher.ends();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("no sign of life silent_s=2 asked=true"),
        "{log}"
    );
    assert!(!agent.exists());
}

/// An agent that waits for a command does not look at the signal until that has ended.
#[test]
fn an_agent_that_works_is_waited_for() {
    let board = Board::new();
    let (asked, started) = (board.path("asked"), board.path("started"));
    // Three times as long as one that gives no sign of life has.
    let script = format!(
        "#!/bin/sh\ntrap 'echo >{0}' TERM\necho start >>{1}\n\
         alive() {{ printf '\\006'; sleep 0.1; }}\n\
         while ! [ -e {0} ]; do alive; done\n\
         for i in 1 2 3 4 5 6; do for j in 1 2 3 4 5 6 7 8 9 10; do alive; done; done\nexit 7\n",
        asked.display(),
        started.display()
    );
    board.has(script.as_bytes());
    let mut launcher = board.launch();
    until("the start", || board.starts() == 1);
    kill_process(Pid::from_child(&launcher.0), Signal::TERM).unwrap();
    let (status, log) = launcher.ends();
    assert_eq!(status.code(), Some(7), "{log}");
}

#[test]
fn an_end_between_two_starts_costs_none() {
    let board = Board::new();
    board.tries("exit 3", 0);
    board.record("boots = 2", "boots = 100");
    let mut launcher = board.launch();
    let pid = Pid::from_child(&launcher.0);
    // Held while it rests, which it does longer each time.
    until("a rest", || {
        let before = board.starts();
        kill_process(pid, Signal::STOP).unwrap();
        until("its halt", || launcher.is_stopped());
        let rests = before > 3 && launcher.agent().is_none() && board.starts() == before;
        if !rests {
            kill_process(pid, Signal::CONT).unwrap();
        }
        rests
    });
    let before = board.starts();
    kill_process(pid, Signal::TERM).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let (status, log) = launcher.ends();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(board.starts(), before, "{log}");
    let record = fs::read_to_string(board.path("state/switch")).unwrap();
    assert!(record.contains(&format!("starts = {before}\n")), "{record}");
}

#[test]
fn an_agent_that_is_settled_ends_its_launcher_with_its_own_code() {
    let board = Board::new();
    board.has(b"#!/bin/sh\nexit 9\n");
    assert_eq!(board.launch().wait().0.code(), Some(9));
    board.has(b"#!/bin/sh\nkill -KILL $$\n");
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
    let (status, log) = Launcher(orphan.spawn().unwrap()).ends();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("its launcher is gone"), "{log}");
    assert_eq!(board.starts(), 0);
}
