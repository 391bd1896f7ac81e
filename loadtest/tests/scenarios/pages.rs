//! SCENARIOS.md says what is there, and nothing else.

use dialhome_loadtest::run::metrics::METRICS;
use dialhome_loadtest::run::scenario::{NAMES, Scenario};
use std::path::Path;

const PAGE: &str = include_str!("../../SCENARIOS.md");

fn section(heading: &str) -> &'static str {
    let start = PAGE.find(&format!("## {heading}")).expect(heading);
    let text = &PAGE[start + 3..];
    text.find("\n## ").map_or(text, |end| &text[..end])
}

/// Rows of the tables in a section: their cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let lines = section(heading).lines();
    lines
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_metric_is_on_the_page_as_it_is_in_the_code() {
    let page: Vec<(String, &str, &str)> = rows("Metrics")
        .iter()
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[1], cells[2]))
        .collect();
    let code: Vec<(String, &str, &str)> = METRICS
        .iter()
        .map(|metric| (metric.name.to_owned(), metric.unit, metric.meaning))
        .collect();
    assert_eq!(page, code);
}

#[test]
fn every_scenario_that_is_built_in_is_on_the_page_with_its_boards() {
    let page: Vec<(&str, String)> = rows("Those that are built in")
        .iter()
        .map(|cells| (cells[0].trim_matches('`'), cells[2].replace(',', "")))
        .collect();
    let code: Vec<(&str, String)> = NAMES
        .iter()
        .map(|name| {
            let scenario = Scenario::load(Path::new(name)).unwrap();
            (*name, scenario.fleet().boards.to_string())
        })
        .collect();
    assert_eq!(page, code);
}

#[test]
fn the_file_that_the_page_shows_is_a_scenario() {
    let shown = section("The file");
    let start = shown.find("```toml\n").expect("an example") + "```toml\n".len();
    let text = &shown[start..];
    let text = &text[..text.find("```").expect("its end")];
    let scenario = Scenario::parse("page.toml", text).unwrap();
    assert_eq!(scenario.links.len(), 2);
}

#[test]
fn the_steps_that_the_page_shows_are_steps() {
    let steps: Vec<&str> = rows("The file")
        .iter()
        .filter(|cells| cells[0].contains(" = {"))
        .map(|cells| cells[0].trim_matches('`'))
        .collect();
    assert_eq!(steps.len(), 5, "{steps:?}");
    for step in steps {
        let text = format!(
            "about = \"a step\"\n[fleet]\nboards = 1\n[end]\nwithin_s = 1\n[[step]]\n{step}\n"
        );
        let scenario = Scenario::parse("page.toml", &text).unwrap();
        assert_eq!(scenario.steps().len(), 1, "{step}");
    }
}

#[test]
fn every_key_of_the_report_that_the_page_names_is_there() {
    let files = super::Files::new(super::SHORT);
    files.start().end().expect(0, &["PASSED"]);
    let report = files.json();
    for metric in METRICS {
        assert!(report.get(metric.name).is_some(), "{}", metric.name);
    }
    for cells in rows("The report as JSON") {
        for key in cells[0].split(", ") {
            let pointer = format!("/{}", key.trim_matches('`').replace('.', "/"));
            assert!(report.pointer(&pointer).is_some(), "{key}");
        }
    }
    let point = report["run"]["points"][0].as_object().unwrap();
    for key in point.keys() {
        assert!(
            PAGE.contains(&format!("`{key}`")),
            "{key} is not on the page"
        );
    }
}
