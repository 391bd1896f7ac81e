//! The scenarios that are built in, each with a fleet that a build machine can carry beside
//! its other work. At full size they are for `make load`.

use super::{Files, Running, command};
use dialhome_loadtest::run::scenario::NAMES;

/// Boards of each.
const FLEETS: [(&str, usize); 8] = [
    ("smoke", 40),
    ("idle", 200),
    ("connect_storm", 400),
    ("mass_update", 10),
    ("slow_links", 30),
    ("nat_expiry", 40),
    ("gateway_restart", 40),
    ("abusive_peers", 40),
];

/// All at once: most of their time is waiting, and no run may disturb another.
#[test]
fn every_one_keeps_its_limits_with_a_small_fleet() {
    assert_eq!(FLEETS.map(|(name, _)| name), NAMES);
    let runs: Vec<_> = FLEETS
        .iter()
        .map(|(name, boards)| {
            let files = Files::new("");
            let mut command = command();
            command.arg(name).args(["--seed", "7", "--boards"]);
            command.arg(boards.to_string());
            command.arg("--json").arg(files.path("report.json"));
            (name, boards, files, Running::start(command))
        })
        .collect();
    let mut failed = Vec::new();
    for (name, boards, files, run) in runs {
        let ended = run.end();
        if ended.code != Some(0) {
            failed.push(format!("{name}\n{}{}", ended.output, ended.errors));
            continue;
        }
        let report = files.json();
        assert_eq!(report["run"]["boards"], *boards as u64, "{name}");
        assert_eq!(report["seed"], 7, "{name}");
        let machine = report["machine"].as_str().unwrap_or_default();
        assert!(machine.contains("congestion control "), "{machine}");
        if *name == "idle" {
            let bytes = report["user_bytes_per_idle_session"].as_f64();
            assert!(bytes.is_some_and(|bytes| bytes > 0.0), "{report}");
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
