//! How a run may end, and that nothing is left of it.

use super::{Files, LONG, Running, SHORT, command, gone, send};
use rustix::process::Signal;
use std::process::Command;

#[test]
fn a_limit_that_cannot_hold_is_named_and_the_code_is_1() {
    let files = Files::new(&format!("{SHORT}gateway_rss_mib = {{ at_most = 0.001 }}\n"));
    let ended = files.start().end();
    ended.expect(
        1,
        &["VIOLATED gateway_rss_mib", "gateway_rss_mib is", "FAILED"],
    );
    let report = files.json();
    assert_eq!(report["passed"], false);
    let limits = report["limits"].as_array().unwrap();
    let held = |metric: &str| {
        let limit = limits.iter().find(|limit| limit["metric"] == metric);
        limit.unwrap()["held"].as_bool().unwrap()
    };
    assert!(held("confirmed_share") && held("broken") && !held("gateway_rss_mib"));
    // Every board was pushed to while it was watched, and the waits are in the report.
    assert_eq!(report["run"]["push_ms"].as_array().unwrap().len(), 5);
}

#[test]
fn what_was_not_measured_violates_its_limit() {
    let text = format!("{LONG}[limits]\nack_ms_p99 = {{ at_most = 1 }}\n");
    let files = Files::new(&text.replace("wait_s = 250", "after = \"online\""));
    files
        .start()
        .end()
        .expect(1, &["ack_ms_p99 could not be measured"]);
}

#[test]
fn a_run_that_does_not_reach_its_end_says_what_it_waited_for() {
    let files = Files::new(&LONG.replace("within_s = 270", "within_s = 2"));
    files.start().end().expect(
        1,
        &[
            "did not reach its end within 2 s",
            "waiting for 250 s to pass",
            "of 5 boards",
        ],
    );
}

#[test]
fn a_crew_that_is_killed_ends_the_run() {
    let files = Files::new(LONG);
    let mut run = files.start();
    run.line("the boards are switched on");
    let processes = run.children();
    assert_eq!(processes.len(), 3, "two crews and a gateway: {processes:?}");
    let crew = processes.iter().find(|(_, crew)| *crew).unwrap();
    send(crew.0, Signal::KILL);
    run.end().expect(2, &["ended before the run did"]);
    gone(&processes);
}

#[test]
fn a_gateway_that_dies_is_a_failure_with_a_report() {
    let files = Files::new(LONG);
    let mut run = files.start();
    run.line("the boards are switched on");
    let processes = run.children();
    let gateway = processes.iter().find(|(_, crew)| !crew).unwrap();
    send(gateway.0, Signal::KILL);
    run.end()
        .expect(1, &["The gateway ended by itself", "signal: 9"]);
    gone(&processes);
    let unfinished = files.json()["run"]["unfinished"].to_string();
    assert!(unfinished.contains("ended by itself"), "{unfinished}");
}

#[test]
fn an_interrupt_ends_everything_in_order() {
    for signal in [Signal::INT, Signal::TERM] {
        let files = Files::new(LONG);
        let mut run = files.start();
        run.line("the boards are switched on");
        let processes = run.children();
        run.signal(signal);
        run.end().expect(2, &["the run was interrupted (SIG"]);
        gone(&processes);
    }
}

#[test]
fn a_run_that_is_killed_leaves_no_process() {
    let files = Files::new(LONG);
    let mut run = files.start();
    run.line("the boards are switched on");
    let processes = run.children();
    assert_eq!(processes.len(), 3, "two crews and a gateway: {processes:?}");
    run.signal(Signal::KILL);
    gone(&processes);
}

#[test]
fn a_fleet_that_does_not_fit_is_refused_with_what_would() {
    let files = Files::new(&SHORT.replace("boards = 5", "boards = 100"));
    let program = command();
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 300 && exec \"$@\"", "sh"])
        .arg(program.get_program())
        .arg("run")
        .arg(files.path("mine.toml"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Running::start(limited)
        .end()
        .expect(2, &["a process may have 300", "--boards 44"]);
}
