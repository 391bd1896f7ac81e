//! Rules of the repository that no compiler checks. Each failure names the file
//! and the line, and says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// Every text file that belongs to the repository, by its path from the root.
fn files() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of it").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                // Build output has CACHEDIR.TAG, wherever it is; .git is not ours.
                if name != ".git" && name != "dialhome-data" && !path.join("CACHEDIR.TAG").exists()
                {
                    folders.push(path);
                }
            } else if name != ".git"
                && let Ok(text) = fs::read_to_string(&path)
            {
                let from_root = path.strip_prefix(&root).expect("below the root");
                found.insert(from_root.to_string_lossy().into_owned(), text);
            }
        }
    }
    assert!(found.contains_key("Cargo.toml") && found.contains_key("spec/protocol.md"));
    found
}

fn is_written_by_hand(path: &str) -> bool {
    path != "LICENSE"
        && !path.ends_with("Cargo.lock")
        && !path.ends_with(".json")
        && !path.ends_with(".snap")
}

fn fail_with(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_file_is_too_long_to_read() {
    let faults: Vec<_> = files()
        .iter()
        .filter(|(path, _)| is_written_by_hand(path))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| {
            format!("{path}: {lines} lines, at most {LINES_MAX}: split it by purpose")
        })
        .collect();
    fail_with(&faults);
}

#[test]
fn nothing_is_left_undone_or_tied_to_one_machine() {
    // Written in two pieces, so that this file passes its own rule.
    let banned = [
        (concat!("to", "do!("), "write it, or take it out"),
        (concat!("unim", "plemented!("), "write it, or take it out"),
        (
            concat!("#[ig", "nore"),
            "a test that does not run proves nothing",
        ),
        (
            concat!("FIX", "ME"),
            "mend it, or say in words what the limit is",
        ),
        (concat!("dbg", "!("), "use tracing"),
        (concat!("/ho", "me/"), "a path of one machine"),
        (concat!("/ro", "ot/"), "a path of one machine"),
        (concat!("/wo", "rk/"), "a path of one machine"),
    ];
    let mut faults = Vec::new();
    for (path, text) in files() {
        for (number, line) in text.lines().enumerate() {
            for (word, advice) in banned {
                if line.contains(word) && !path.ends_with("Cargo.lock") {
                    faults.push(format!("{path}:{}: `{word}`: {advice}", number + 1));
                }
            }
        }
    }
    fail_with(&faults);
}

/// The anchor that a heading gets when the page is shown: lower case, words joined by hyphens.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|letter| match letter {
            ' ' | '-' => Some('-'),
            '_' => Some('_'),
            letter if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// The headings of a page, without the hashes; code blocks have none.
fn headings(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code && line.starts_with('#') {
            found.push(line.trim_start_matches('#').trim());
        }
    }
    found
}

/// Targets of `[text](target)` in one line.
fn link_targets(line: &str) -> Vec<&str> {
    line.match_indices("](")
        .filter_map(|(at, _)| line[at + 2..].split_once(')').map(|(target, _)| target))
        .collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        for (number, line) in text.lines().enumerate() {
            for target in link_targets(line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (page, fragment) = target.split_once('#').unwrap_or((target, ""));
                let full = root().join(if page.is_empty() {
                    PathBuf::from(path)
                } else {
                    folder.join(page)
                });
                if !full.exists() {
                    faults.push(format!(
                        "{path}:{}: {target}: there is no such file",
                        number + 1
                    ));
                } else if !fragment.is_empty()
                    && fs::read_to_string(&full).is_ok_and(|text| {
                        !headings(&text)
                            .iter()
                            .any(|heading| anchor(heading) == fragment)
                    })
                {
                    faults.push(format!(
                        "{path}:{}: {target}: the page has no such heading",
                        number + 1
                    ));
                }
            }
        }
    }
    fail_with(&faults);
}

/// Pages of the spec that a line names (`frames.md`), each with the section that
/// it names with it ("section 5 of `limits.md`", "`protocol.md` section 6").
fn citations(line: &str) -> Vec<(String, Option<String>)> {
    let in_name =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '/' | '.');
    let number = |text: &str| {
        let end = text
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(text.len());
        let digits = text[..end].trim_end_matches('.');
        (!digits.is_empty()).then(|| digits.to_owned())
    };
    line.match_indices(".md")
        .map(|(dot, _)| {
            let end = dot + ".md".len();
            let start = line[..dot]
                .rfind(|letter| !in_name(letter))
                .map_or(0, |at| at + 1);
            let after = line[end..].trim_start_matches(['`', ',', ' ']);
            let before = line[..start]
                .trim_end_matches(['`', ' '])
                .strip_suffix(" of");
            let section = after.strip_prefix("section ").and_then(number).or_else(|| {
                before
                    .and_then(|lead| lead.rsplit_once("section "))
                    .and_then(|(_, last)| number(last))
            });
            (line[start..end].to_owned(), section)
        })
        .collect()
}

#[test]
fn every_citation_of_the_spec_names_a_section_that_exists() {
    let files = files();
    // Sections are numbered headings; what follows a dot is a numbered paragraph of one.
    let sections: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .filter_map(|(path, text)| {
            let page = path
                .strip_prefix("spec/")
                .filter(|page| page.ends_with(".md"))?;
            let numbers = headings(text)
                .into_iter()
                .filter_map(|heading| heading.split_once(". "));
            Some((page, numbers.map(|(number, _)| number).collect()))
        })
        .collect();
    let mut faults = Vec::new();
    for (path, text) in files
        .iter()
        .filter(|(path, _)| *path != "gateway/tests/tidy.rs")
    {
        for (number, line) in text.lines().enumerate() {
            for (page, section) in citations(line) {
                let name = page.strip_prefix("spec/").unwrap_or(&page);
                let Some(known) = sections.get(name) else {
                    if page.starts_with("spec/") {
                        faults.push(format!(
                            "{path}:{}: the spec has no page {page}",
                            number + 1
                        ));
                    }
                    continue;
                };
                let heading = section
                    .as_deref()
                    .and_then(|section| section.split('.').next());
                if heading.is_some_and(|heading| !known.contains(heading)) {
                    let section = section.unwrap_or_default();
                    faults.push(format!(
                        "{path}:{}: {page} has no section {section}",
                        number + 1
                    ));
                }
            }
        }
    }
    fail_with(&faults);
}

#[test]
fn citations_are_understood() {
    let one = |line| citations(line).remove(0);
    let cited = |page: &str, section: &str| (page.to_owned(), Some(section.to_owned()));
    assert_eq!(
        one("see section 5 of `limits.md`."),
        cited("limits.md", "5")
    );
    assert_eq!(
        one("(`spec/protocol.md` section 6.2)"),
        cited("spec/protocol.md", "6.2")
    );
    assert_eq!(
        one("spec/frames.md, section 3"),
        cited("spec/frames.md", "3")
    );
    assert_eq!(
        one("`states.md` shows both"),
        ("states.md".to_owned(), None)
    );
    assert_eq!(
        anchor("5. Key rotation & `gateways`"),
        "5-key-rotation--gateways"
    );
    assert_eq!(link_targets("a [b](c.md#d) and [e](f)"), ["c.md#d", "f"]);
}

#[test]
fn the_protocol_crate_takes_nothing_that_does_io() {
    let proto = fs::read_to_string(root().join("proto/Cargo.toml")).expect("proto/Cargo.toml");
    let shipped = proto.split("[dev-dependencies]").next().unwrap_or_default();
    for banned in ["tokio", "rand.", "getrandom", "rustix", "libc"] {
        assert!(
            !shipped.contains(banned),
            "proto/Cargo.toml: `{banned}`: the protocol does no I/O and draws nothing"
        );
    }
    let lib = fs::read_to_string(root().join("proto/src/lib.rs")).expect("proto/src/lib.rs");
    for needed in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(
            lib.contains(needed),
            "proto/src/lib.rs: `{needed}` is missing"
        );
    }
}
