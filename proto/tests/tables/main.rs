//! The state x event tables of `spec/states.md`, made by driving the real machines into
//! each state and giving them each event. `UPDATE=1` writes them into the page.

mod board;
mod delivery;
mod device;
mod ends;
mod journal;
mod parts;
mod session;
#[cfg(feature = "several-components")]
mod several;
mod texts;

use std::fmt::Write as _;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/states.md");

/// A table: a row for each event, a column for each state.
fn table(states: &[&str], events: &[(&str, Vec<String>)]) -> String {
    let mut out = String::from("| |");
    for state in states {
        let _ = write!(out, " {state} |");
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(states.len()));
    out.push('\n');
    for (event, cells) in events {
        assert_eq!(cells.len(), states.len(), "every pair has its cell");
        let _ = writeln!(out, "| **{event}** | {} |", cells.join(" | "));
    }
    out
}

fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("board-link", device::link_table()),
        ("board-frames", device::frame_table()),
        ("board-work", device::work_table()),
        ("board-boot", device::boot_table()),
        #[cfg(feature = "several-components")]
        ("board-walk", several::table()),
        ("session", session::table()),
        ("delivery-frames", delivery::frame_table()),
        ("delivery-start", delivery::start_table()),
    ]
}

#[test]
fn the_page_shows_exactly_what_the_machines_do() {
    let mut page = std::fs::read_to_string(PAGE).expect("spec/states.md is there");
    let mut differ = Vec::new();
    for (name, table) in tables() {
        let begin = format!("<!-- table {name} -->\n");
        let start = page
            .find(&begin)
            .unwrap_or_else(|| panic!("spec/states.md has no {begin}"))
            + begin.len();
        let len = page[start..]
            .find("<!-- end -->")
            .expect("a table has an end");
        if page[start..start + len] != table {
            differ.push(name);
            page.replace_range(start..start + len, &table);
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, page).expect("the page can be written");
    } else {
        assert!(
            differ.is_empty(),
            "the machines no longer do what spec/states.md says in {differ:?}: if that is meant, \
             run this test with UPDATE=1 and read the difference"
        );
    }
}
