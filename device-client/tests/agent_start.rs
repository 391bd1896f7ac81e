//! How `dialhome-agent` starts, and refuses to.
#![cfg(feature = "agent")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use dialhome_device::agent::state::State;

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
