//! An agent that is its board's component 0: it replaces its own executable and comes back, or the
//! old one does. Every executable here is real: the agent itself, the same with bytes behind
//! its end, scripts, and a file for another machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Bench, Image, PATIENCE, programs};
use dialhome_gateway::demo::process::Process;
use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::demo::site::Board;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// FOLDER/sick makes the self-test fail. An agent on trial may be silent for 2 s.
const SETTINGS: &str = r#"
[agent]
self_update = true
heartbeat_s = 1
connect_ms = 500

[reconnect]
first_ms = 20
max_ms = 200

[self_test]
command = ["sh", "-c", "! grep . FOLDER/sick"]
"#;

const ID: &str = "linkit-1";

/// A gateway, and a board with an installed agent.
struct Linkit {
    bench: Bench,
    board: Board,
    installed: PathBuf,
    launcher: Process,
}

impl Linkit {
    async fn start() -> Self {
        let mut bench = Bench::start().await;
        let board = bench.add_board(ID, Faults::default(), SETTINGS).await;
        // Without what a debugger needs: it is sent several times.
        let installed = bench.path().join("installed-agent");
        let stripped = std::process::Command::new("strip")
            .arg("-o")
            .args([&installed, &programs().agent])
            .status();
        assert!(stripped.expect("strip").success());
        let launcher = spawn(&bench, &board, &installed);
        let linkit = Self {
            bench,
            board,
            installed,
            launcher,
        };
        linkit.runs(&digest_of(&linkit.installed)).await;
        linkit
    }

    /// The image for which `image sign` takes any options.
    async fn agent(&self, version: &str) -> Image {
        let mut bytes = fs::read(&self.installed).unwrap();
        // What lies behind an executable's sections is not loaded.
        bytes.extend_from_slice(version.as_bytes());
        self.image(version, &bytes).await
    }

    /// An image that may be started twice before it is confirmed.
    async fn image(&self, version: &str, bytes: &[u8]) -> Image {
        let options = ["--trial-boots", "2"];
        self.bench.image_with(version, bytes, &options).await
    }

    /// The gateway knows that the executable with this digest runs, and so it is.
    async fn runs(&self, digest: &str) {
        let says = |device: &Value| {
            device["online"] == true && device["components"][0]["digest"] == digest
        };
        let device = self.bench.until(&["device", "show", ID], says).await;
        let agent = &device["components"][0];
        assert_eq!(agent["digest_from"], "booted", "{device}");
        assert_eq!(agent["revert"], "swap", "{device}");
        // The launcher's only child: whatever failed was reaped.
        let is_alone = || match children(self.launcher.id().unwrap())[..] {
            // Between two of them it may be gone when it is looked at.
            [child] => fs::read(format!("/proc/{child}/exe")).is_ok_and(|exe| hex(&exe) == digest),
            _ => false,
        };
        let waiting = async {
            while !is_alone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let alone = tokio::time::timeout(PATIENCE, waiting).await;
        alone.unwrap_or_else(|_| panic!("other processes run\n{}", self.bench.logs()));
    }

    /// Ends the launcher, which takes the agent with it, and starts it again; its exit code.
    async fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.launcher.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.launcher.wait()).await;
        let ended = ended.expect("the launcher's end").unwrap();
        self.launcher = spawn(&self.bench, &self.board, &self.installed);
        ended.code()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bench.site.log(ID)).unwrap()
    }

    /// Waits until the log says this, from there on.
    async fn says(&self, from: &mut usize, words: &str) {
        let waiting = async {
            while !self.log()[*from..].contains(words) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, waiting).await;
        said.unwrap_or_else(|_| panic!("no `{words}`\n{}", self.bench.logs()));
    }

    /// A push of an agent that does not come up, and what the record has to add.
    async fn goes_back(&self, image: &Image, reason: &str) -> String {
        let before = self.bench.online(ID).await;
        let before = before["components"][0]["digest"].as_str().unwrap();
        let pushed = self.bench.push(ID, &image.name, &[]).await;
        let update = pushed.ended("reverted", 1);
        assert_eq!(update["reason"], reason, "{update}\n{}", self.bench.logs());
        self.runs(before).await;
        update["detail"].as_str().unwrap_or_default().to_owned()
    }
}

fn spawn(bench: &Bench, board: &Board, program: &Path) -> Process {
    let args = [
        "--config".as_ref(),
        board.config.as_os_str(),
        "--state".as_ref(),
        board.state.as_os_str(),
    ];
    Process::spawn(ID, program, args, &bench.site.log(ID)).unwrap()
}

/// SHA-256 of the bytes, as the gateway shows it.
fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_of(file: &Path) -> String {
    hex(&fs::read(file).unwrap())
}

fn children(parent: u32) -> Vec<u32> {
    let list = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(list).unwrap();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

#[tokio::test]
async fn it_replaces_its_own_executable_and_comes_back() {
    let mut linkit = Linkit::start().await;
    let second = linkit.agent("2.0").await;
    linkit.bench.push(ID, &second.name, &[]).await.confirmed();
    linkit.runs(&second.digest).await;
    let third = linkit.agent("3.0").await;
    linkit.bench.push(ID, &third.name, &[]).await.confirmed();
    linkit.runs(&third.digest).await;

    // What was confirmed runs after an end in order, and after one as by a power cut.
    for (signal, code) in [(Signal::TERM, Some(0)), (Signal::KILL, None)] {
        let before = linkit.bench.online(ID).await["peer"].clone();
        assert_eq!(linkit.end(signal).await, code);
        let another = |device: &Value| device["online"] == true && device["peer"] != before;
        linkit.bench.until(&["device", "show", ID], another).await;
        linkit.runs(&third.digest).await;
    }
    assert_eq!(digest_of(&linkit.board.current().unwrap()), third.digest);
}

#[tokio::test]
async fn whatever_does_not_come_up_leaves_the_old_one() {
    let linkit = Linkit::start().await;
    let script = |rest: &str| {
        format!("#!/bin/sh\n[ \"$1\" = --version ] && echo dialhome-agent 9 && exit\n{rest}\n")
    };
    let dies = linkit
        .image("dies", script("echo out of memory >&2; exit 3").as_bytes())
        .await;
    let detail = linkit.goes_back(&dies, "crashed").await;
    assert_eq!(
        detail,
        "the new agent ended by itself, exit status: 3, in start 2 of 2"
    );

    let second = linkit.agent("2.0").await;
    linkit.bench.push(ID, &second.name, &[]).await.confirmed();
    let hangs = linkit
        .image("hangs", script("sleep 1000 & wait").as_bytes())
        .await;
    let detail = linkit.goes_back(&hangs, "crashed").await;
    assert_eq!(
        detail,
        "the new agent gave no sign of life for 2 s, in start 2 of 2"
    );

    // These are not even started in the place of the old one.
    let mut foreign = fs::read(&linkit.installed).unwrap();
    // The machine's number: one that nobody has (EM_ALTERA_NIOS2 is emulated by few).
    foreign[18..20].copy_from_slice(&[0xfe, 0x01]);
    let foreign = linkit.image("foreign", &foreign).await;
    let detail = linkit.goes_back(&foreign, "install_failed").await;
    assert!(
        detail.starts_with("the new agent could not be started: Exec format error"),
        "{detail}"
    );
    let other = linkit.image("other", b"#!/bin/sh\necho a lamp\n").await;
    let detail = linkit.goes_back(&other, "install_failed").await;
    assert!(
        detail.ends_with("not an agent; to --version it says: a lamp"),
        "{detail}"
    );

    // One that comes up and is not well goes back by itself.
    let sick = linkit.bench.path().join("boards").join(ID).join("sick");
    fs::write(&sick, "no sensor\n").unwrap();
    let third = linkit.agent("3.0").await;
    let detail = linkit.goes_back(&third, "self_test").await;
    assert_eq!(detail, "self_test ended with code 1: no sensor");
    fs::remove_file(&sick).unwrap();
    linkit.bench.push(ID, &third.name, &[]).await.confirmed();
    linkit.runs(&third.digest).await;
}

/// The power is cut wherever something changes hands; the launcher takes the agent with it.
#[tokio::test]
async fn a_power_cut_at_any_step_loses_nothing() {
    let mut linkit = Linkit::start().await;
    let mut from = 0;
    for (number, step) in [
        "update state=\"Staged\"",
        "command starts role=\"the new agent\"",
        "update state=\"Restarting\"",
        "ends, to be started again why=update",
        "on_trial=true",
        "update state=\"Trial\"",
    ]
    .into_iter()
    .enumerate()
    {
        let image = linkit.agent(&format!("{}.0", number + 2)).await;
        let update = linkit.bench.push_no_wait(ID, &image.name, &[]).await;
        linkit.says(&mut from, step).await;
        assert_eq!(linkit.end(Signal::KILL).await, None, "{step}");
        linkit.bench.reaches(&update, "confirmed").await;
        linkit.runs(&image.digest).await;
        from = linkit.log().len();
    }
    // And on the way back.
    let before = digest_of(&linkit.board.current().unwrap());
    let sick = linkit.bench.path().join("boards").join(ID).join("sick");
    fs::write(&sick, "no sensor\n").unwrap();
    for (number, step) in [
        "update state=\"Reverting\"",
        "ends, to be started again why=revert",
    ]
    .into_iter()
    .enumerate()
    {
        let image = linkit.agent(&format!("{}.0", number + 20)).await;
        let update = linkit.bench.push_no_wait(ID, &image.name, &[]).await;
        linkit.says(&mut from, step).await;
        assert_eq!(linkit.end(Signal::KILL).await, None, "{step}");
        let update = linkit.bench.reaches(&update, "reverted").await;
        assert_eq!(update["reason"], "self_test", "{step}: {update}");
        linkit.runs(&before).await;
        from = linkit.log().len();
    }
}
