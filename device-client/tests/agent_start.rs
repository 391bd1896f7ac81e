//! How `dialhome-agent` starts, and refuses to.
#![cfg(feature = "agent")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Output},
};

use dialhome_device::agent::state::State;
use rustix::process::{Pid, Signal};

const PROVISIONED: &str = "id = \"board-1\"\nproduct = \"sensor\"\n\
    key = \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"\n\
    gateways = [\"127.0.0.1:1\"]\n";

fn agent(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dialhome-agent"))
        .args(arguments)
        .output()
        .unwrap()
}

fn refusal(config: &Path, state: &Path, more: &[&str]) -> String {
    let mut arguments = vec![Path::new("--config"), config, Path::new("--state"), state];
    arguments.extend(more.iter().map(Path::new));
    let output = agent(&arguments);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn its_version_is_told_and_wrong_use_is_2() {
    let output = agent(&[Path::new("--version")]);
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"dialhome-agent "));
    assert_eq!(agent(&[]).status.code(), Some(2));
}

#[test]
fn a_start_that_cannot_be_says_why_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("board.toml"), dir.path().join("state"));
    let message = refusal(&config, &state, &[]);
    assert!(message.contains("board.toml: cannot be read"), "{message}");

    fs::write(&config, format!("{PROVISIONED}colour = \"red\"\n")).unwrap();
    let message = refusal(&config, &state, &[]);
    assert!(
        message.contains("line 5") && message.contains("`colour`"),
        "{message}"
    );

    fs::write(&config, PROVISIONED).unwrap();
    let message = refusal(&config, &state, &["--gateway", "nowhere"]);
    assert!(message.contains("`nowhere` is not a gateway"), "{message}");

    fs::write(&config, format!("{PROVISIONED}[agent]\nlog = \"a=b=c\"\n")).unwrap();
    let message = refusal(&config, &state, &[]);
    assert!(message.contains("log filter `a=b=c`"), "{message}");
}

#[test]
fn a_second_agent_on_one_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("board.toml"), dir.path().join("state"));
    fs::write(&config, PROVISIONED).unwrap();
    let _first = State::open(&state).unwrap();
    let message = refusal(&config, &state, &[]);
    assert!(message.contains("another dialhome-agent"), "{message}");
}

/// An agent that runs, ended with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start(config: &Path, state: &Path, gateway: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dialhome-agent"));
        command
            .args([Path::new("--config"), config, Path::new("--state"), state])
            .args(["--gateway", gateway]);
        Self(command.spawn().unwrap())
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.0.wait().unwrap()
    }
}

/// Takes the next dial and its first flight.
fn dialed(gateway: &TcpListener) -> (TcpStream, [u8; 62]) {
    let (mut link, _) = gateway.accept().unwrap();
    let mut flight = [0; 62];
    link.read_exact(&mut flight).unwrap();
    (link, flight)
}

#[test]
fn it_dials_until_a_signal_ends_it_and_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("board.toml"), dir.path().join("state"));
    let text = format!("{PROVISIONED}[reconnect]\nfirst_ms = 5\nmax_ms = 20\n");
    fs::write(&config, text).unwrap();
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gateway.local_addr().unwrap().to_string();

    let mut agent = Agent::start(&config, &state, &address);
    let (first, flight) = dialed(&gateway);
    assert_eq!(flight[..6], [0xD1, 0x48, 0x4F, 0x4D, 1, 1]);
    drop(first);
    // A broken handshake is dialled again, with another ephemeral key.
    let (mut second, next) = dialed(&gateway);
    assert_eq!(next[..14], flight[..14]);
    assert_ne!(next[14..46], flight[14..46]);
    // So is a refusal, and one that a stranger cut short.
    second.write_all(&[0xD3, 1, 1]).unwrap();
    drop(second);
    let (mut third, _) = dialed(&gateway);
    third.write_all(&[0xD3, 1, 1, 0, 0]).unwrap();
    drop(third);
    let (_fourth, _) = dialed(&gateway);

    agent.end(Signal::KILL);
    let mut agent = Agent::start(&config, &state, &address);
    let (_fifth, after) = dialed(&gateway);
    assert_eq!(after[..14], flight[..14]);
    // In the middle of a handshake, which has no Bye.
    assert_eq!(agent.end(Signal::TERM).code(), Some(0));

    let mut agent = Agent::start(&config, &state, &address);
    let (_sixth, _) = dialed(&gateway);
    assert_eq!(agent.end(Signal::INT).code(), Some(0));
}
