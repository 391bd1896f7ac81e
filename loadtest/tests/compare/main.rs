//! `dialhome-loadtest compare` over every row, small: that each thing that is measured
//! happens, and that what is printed and written is whole. The figures mean nothing here.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const ROWS: [&str; 8] = [
    "idle",
    "deliver",
    "connect",
    "air",
    "push",
    "slow",
    "transports",
    "transport-costs",
];

fn compare(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dialhome-loadtest"))
        .arg("compare")
        .args(arguments)
        .output()
        .expect("the harness starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Whether this user may make network namespaces: root may, where no container forbids it.
fn has_namespaces() -> bool {
    let name = format!("dialhome-probe-{}", std::process::id());
    let ip = |what| {
        let done = Command::new("ip").args(["netns", what, &name]).output();
        done.is_ok_and(|output| output.status.success())
    };
    ip("add") && ip("delete")
}

#[expect(clippy::print_stdout, reason = "what a test leaves out is said")]
fn leave_out(row: &str) {
    println!("{row} is left out: no network namespaces can be made here");
}

#[test]
fn every_row_can_be_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("figures.json");
    let mut rows = ROWS.to_vec();
    // It has a test of its own, beside this one.
    rows.retain(|row| *row != "transports");
    if !has_namespaces() {
        leave_out("air");
        rows.retain(|row| *row != "air");
    }
    let path = json.display().to_string();
    let mut arguments = rows.clone();
    arguments.extend(["--rounds", "1", "--sessions", "50", "--image-kib", "32"]);
    arguments.extend(["--json", &path]);
    let (code, printed, said) = compare(&arguments);
    assert_eq!(code, Some(0), "{printed}\n{said}");
    assert!(printed.contains("congestion control"), "{printed}");
    let written = read(&json);
    assert_eq!(written["sessions"], 50);
    assert!(
        written["user_bytes_per_idle_session"].is_number(),
        "{written:#}"
    );
    for row in rows {
        let row = &written["rows"][row];
        let figures = row["figures"].as_array().expect("figures");
        assert!(!figures.is_empty(), "{written:#}");
        for figure in figures {
            assert!(figure["median"]["value"].is_number(), "{figure:#}");
        }
        let goals = row["goals"].as_array().expect("goals");
        assert!(!goals.is_empty(), "{written:#}");
        for goal in goals {
            let what = goal["what"].as_str().expect("what a goal asks");
            assert!(printed.contains(what), "{what} is not in {printed}");
        }
    }
}

#[test]
fn an_update_passes_slow_links_over_quic_and_over_tcp() {
    if !has_namespaces() {
        return leave_out("transports");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("figures.json");
    let path = json.display().to_string();
    let mut arguments = vec!["transports", "--rounds", "1", "--sessions", "50"];
    arguments.extend(["--image-kib", "32", "--json", &path]);
    let (code, printed, said) = compare(&arguments);
    // All were confirmed, or there would be no figures.
    assert_eq!(code, Some(0), "{printed}\n{said}");
    let row = &read(&json)["rows"]["transports"];
    let figures = row["figures"].as_array().expect("figures");
    let of = |ending: &str| {
        let found: Vec<(String, f64)> = figures
            .iter()
            .filter(|figure| figure["key"].as_str().expect("a key").ends_with(ending))
            .map(|figure| {
                let value = figure["median"]["value"].as_f64().expect("a median");
                (figure["who"].as_str().expect("who").to_owned(), value)
            })
            .collect();
        assert!(found.iter().any(|(who, _)| who.contains("QUIC")), "{row:#}");
        assert!(found.iter().any(|(who, _)| who.contains("TCP")), "{row:#}");
        found
    };
    for (who, beyond) in of(": air beyond the image") {
        // Whatever crosses has headers.
        assert!(beyond > 1.0, "{who}: {beyond} % in {row:#}");
    }
    for (who, redials) in of(": sessions more than one") {
        assert!(!who.contains("QUIC") || redials == 0.0, "{row:#}");
    }
    for (_, seconds) in of(": from its end to the next ack") {
        assert!(seconds >= 0.0, "{row:#}");
    }
    assert_eq!(row["goals"][0]["reached"], true, "{row:#}");
    assert!(printed.contains("redials of all boards"), "{printed}");
}

#[test]
fn an_interrupt_removes_the_namespaces() {
    if !has_namespaces() {
        return leave_out("transports");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_dialhome-loadtest"))
        .args(["compare", "transports", "--rounds", "1"])
        .args(["--sessions", "50", "--image-kib", "32"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the harness starts");
    let errors = BufReader::new(child.stderr.take().expect("its errors"));
    let mut lines = errors.lines().map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("clean over")),
        "no board began"
    );
    let left = || {
        let listed = Command::new("ip").args(["netns", "list"]).output();
        let listed = listed.expect("ip was there before").stdout;
        let ending = format!("-{}", child.id());
        String::from_utf8_lossy(&listed)
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| name.ends_with(&ending))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(left().len() > 2, "a gateway and boards: {:?}", left());
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let rest: Vec<String> = lines.collect();
    let ended = left();
    let code = child.wait().expect("its end").code();
    assert_eq!(code, Some(2), "{rest:?}");
    assert!(ended.is_empty(), "{ended:?}");
}

#[test]
fn a_row_that_is_not_there_is_refused_with_those_that_are() {
    let (code, _, said) = compare(&["speed"]);
    assert_eq!(code, Some(2), "{said}");
    for row in ROWS {
        assert!(said.contains(row), "{said}");
    }
}

#[test]
fn an_interrupt_ends_everything() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dialhome-loadtest"))
        .args(["compare", "idle", "--rounds", "1000", "--sessions", "20"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the harness starts");
    let errors = BufReader::new(child.stderr.take().expect("its errors"));
    let mut lines = errors.lines().map_while(Result::ok);
    // A gateway, clients and a broker run by then, or have run.
    assert!(
        lines.any(|line| line.contains("round 1: nginx")),
        "no round began"
    );
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("it runs");
    let rest: Vec<String> = lines.collect();
    let code = child.wait().expect("its end").code();
    assert_eq!(code, Some(2), "{rest:?}");
    assert!(
        rest.iter()
            .any(|line| line.contains("interrupted (SIGINT)")),
        "{rest:?}"
    );
    let made = format!("-{}-", child.id());
    let left: Vec<_> = std::fs::read_dir("/dev/shm")
        .expect("tmpfs")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains(&made))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("the figures were written");
    serde_json::from_str(&text).expect("they are JSON")
}
