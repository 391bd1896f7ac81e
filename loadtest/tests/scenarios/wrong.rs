//! What is told wrong is answered with what to do, and code 2.

use super::{Files, Running, SHORT, command};

#[test]
fn a_wrong_scenario_is_answered_with_its_line() {
    let files = Files::new(&SHORT.replace("kib = 8", "kibs = 8"));
    files.start().end().expect(
        2,
        &["mine.toml, line 5: unknown field `kibs`", "expected `kib`"],
    );
    let files = Files::new(&SHORT.replace("broken", "brocken"));
    files.start().end().expect(
        2,
        &["mine.toml, line 14: [limits] there is no metric `brocken`"],
    );
}

#[test]
fn a_scenario_that_is_not_there_is_answered_with_those_that_are() {
    let mut command = command();
    command.arg("no-such");
    Running::start(command)
        .end()
        .expect(2, &["no-such", "smoke, idle, connect_storm"]);
}

#[test]
fn a_gateway_that_is_not_there_is_answered_with_how_to_build_it() {
    let mut command = command();
    command.args(["smoke", "--gateway", "/nonexistent/dialhome"]);
    Running::start(command)
        .end()
        .expect(2, &["/nonexistent/dialhome", "cargo build --bins"]);
}

#[test]
fn a_setting_that_the_gateway_does_not_know_is_answered_in_its_words() {
    let files = Files::new(&format!("{SHORT}[gateway]\nweather = \"good\"\n"));
    files.start().end().expect(2, &["--weather"]);
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_the_run() {
    let mut command = command();
    command.args(["smoke", "--json", "/nonexistent/report.json"]);
    let ended = Running::start(command).end();
    ended.expect(2, &["/nonexistent/report.json cannot be written"]);
    assert!(!ended.output.contains("switched on"), "{}", ended.output);
}

#[test]
fn a_fleet_of_none_is_refused() {
    let mut command = command();
    command.args(["smoke", "--boards", "0"]);
    Running::start(command).end().expect(2, &["--boards is 0"]);
}
