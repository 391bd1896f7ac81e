//! What a scenario's file may not say, and what is made of what it does say.

use super::*;

const GOOD: &str = r#"about = "a test"

[fleet]
boards = 10

[[link]]
preset = "2g"
share = 0.5
nat_idle_s = 7

[[link]]
name = "own"
share = 0.5

[[step]]
push = { share = 0.5 }

[end]
within_s = 10

[limits]
broken = { at_most = 0 }
"#;

fn refused(text: &str) -> String {
    Scenario::parse("my.toml", text).unwrap_err().to_string()
}

#[test]
fn a_good_one_is_understood() {
    let scenario = Scenario::parse("some/where/my.toml", GOOD).unwrap();
    assert_eq!(scenario.name, "my");
    assert_eq!(scenario.fleet().boards, 10);
    assert_eq!(scenario.image_len(), 64 * 1_024);
    let [(slow, half), (own, _)] = &scenario.links[..] else {
        panic!("{:?}", scenario.links);
    };
    assert_eq!((slow.nat_idle_s, slow.round_trip_ms, *half), (7, 700, 0.5));
    assert_eq!((own.name.as_str(), own.round_trip_ms), ("own", 0));
    assert_eq!(scenario.pushes(), 1);
    assert_eq!(scenario.limits()["broken"].at_most, Some(0.0));
}

#[test]
fn settings_of_the_gateway_become_arguments() {
    let text =
        format!("{GOOD}\n[gateway]\ntransfers = 100\nsome_name = \"x\"\non = true\noff = false\n");
    let scenario = Scenario::parse("my.toml", &text).unwrap();
    assert_eq!(
        scenario.gateway_args(),
        ["--on", "--some-name", "x", "--transfers", "100"]
    );
}

#[test]
fn those_that_are_built_in_are_good_and_say_what_they_limit() {
    for name in NAMES {
        let scenario = Scenario::load(Path::new(name)).unwrap();
        assert_eq!(scenario.name, name);
        assert!(scenario.limits().contains_key("broken"), "{name}");
        assert!(scenario.limits().len() >= 3, "{name}");
    }
}

/// What is put in place of what, the line that the message names, and words of it.
const WRONG: &[(&str, &str, usize, &[&str])] = &[
    (
        "boards = 10",
        "boards = 10\nbords = 1",
        5,
        &["unknown field `bords`", "`boards`", "SCENARIOS.md"],
    ),
    ("boards = 10", "boards = 0", 3, &["[fleet] `boards` is 0"]),
    (
        "boards = 10",
        "boards = \"ten\"",
        4,
        &["invalid type", "SCENARIOS.md"],
    ),
    (
        "boards = 10",
        "boards = 10\nnetworks = 0",
        3,
        &["`networks` must be"],
    ),
    (
        "boards = 10",
        "boards = 10\ncrews = 0",
        3,
        &["`crews` is 0"],
    ),
    (
        "boards = 10",
        "boards = 10\narrive = \"evenly\"",
        3,
        &["`arrive` and `over_s` do not fit"],
    ),
    ("boards = 10", "boards = 10\nover_s = 5", 3, &["do not fit"]),
    (
        "boards = 10",
        "boards = 10\narrive = \"slowly\"",
        5,
        &["unknown variant `slowly`", "at_once"],
    ),
    ("about = \"a test\"", "", 1, &["missing field `about`"]),
    (
        "about = \"a test\"",
        "about = a test",
        1,
        &["my.toml, line 1"],
    ),
    (
        "preset = \"2g\"",
        "preset = \"5g\"",
        6,
        &["no preset \"5g\"", "nb_iot", "`name`"],
    ),
    (
        "name = \"own\"",
        "",
        11,
        &["neither a `preset` nor a `name`"],
    ),
    (
        "nat_idle_s = 7",
        "nat_idle_s = 7\nstall_ms = [5, 1]",
        6,
        &["`stall_ms`", "[shortest, longest]"],
    ),
    (
        "nat_idle_s = 7",
        "nat_then = \"maybe\"",
        9,
        &["unknown variant `maybe`"],
    ),
    (
        "share = 0.5\nnat",
        "share = 0.6\nnat",
        6,
        &["add up to 1.1", "make it 1"],
    ),
    (
        "share = 0.5\nnat",
        "share = 1.5\nnat",
        6,
        &["`share` of this link"],
    ),
    ("share = 0.5\nnat", "nat", 6, &["needs a `share`"]),
    (
        "push = { share = 0.5 }",
        "wait_s = 1",
        15,
        &["exactly one thing", "power_cut"],
    ),
    (
        "push = { share = 0.5 }",
        "push = {}\nabuse = {}",
        15,
        &["exactly one thing"],
    ),
    (
        "push = { share = 0.5 }",
        "push = { share = 0 }",
        15,
        &["`share` of this step"],
    ),
    (
        "push = { share = 0.5 }",
        "push = { shares = 1 }",
        16,
        &["unknown field `shares`"],
    ),
    (
        "push = { share = 0.5 }",
        "wait_s = -1\npush = {}",
        15,
        &["`wait_s` of this step"],
    ),
    (
        "push = { share = 0.5 }",
        "restart = {}",
        16,
        &["missing field `how`"],
    ),
    (
        "push = { share = 0.5 }",
        "blackout = { for_s = 1e9 }",
        15,
        &["seconds of this step"],
    ),
    ("within_s = 10", "within_s = 0", 18, &["`within_s` above 0"]),
    (
        "within_s = 10",
        "within_s = 10\nafter = \"begin\"\nwait_s = 11",
        18,
        &["more time"],
    ),
    (
        "within_s = 10",
        "within_s = 10\nafter = \"lunch\"",
        20,
        &["unknown variant `lunch`", "settled"],
    ),
    (
        "broken = { at_most = 0 }",
        "weather = { at_most = 0 }",
        22,
        &["no metric `weather`", "SCENARIOS.md"],
    ),
    (
        "broken = { at_most = 0 }",
        "ack_p99_ms = { at_most = 0 }",
        22,
        &["do you mean `ack_ms_p99`"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = {}",
        22,
        &["neither `at_most` nor `at_least`"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = { at_most = 0, at_least = 1 }",
        22,
        &["can never hold"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = { at_most = inf }",
        22,
        &["`at_most` of `broken` is no number", "leave it out"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = { at_most = nan }",
        22,
        &["`at_most` of `broken` is no number"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = { at_least = -inf }",
        22,
        &["`at_least` of `broken` is no number"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = { at_most = 0, from_boards = -1 }",
        22,
        &["invalid value", "SCENARIOS.md"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = { most = 0 }",
        22,
        &["unknown field `most`", "at_most"],
    ),
    (
        "broken = { at_most = 0 }",
        "broken = 0",
        22,
        &["my.toml, line 22"],
    ),
    (
        "[limits]",
        "[gateway]\nlisten = \"x\"\n[limits]",
        22,
        &["`listen`", "the run chooses it"],
    ),
    (
        "[[link]]\npreset",
        "[client]\nreceive_buffer = 100\n[[link]]\npreset",
        6,
        &["`receive_buffer` must be"],
    ),
    (
        "[[link]]\npreset",
        "[client]\nwindow = 100\n[[link]]\npreset",
        6,
        &["`window` must be"],
    ),
    (
        "[[link]]\npreset",
        "[client]\nredial_ms = [9, 1]\n[[link]]\npreset",
        6,
        &["`redial_ms`"],
    ),
    (
        "[[link]]\npreset",
        "[image]\nkib = 0\n[[link]]\npreset",
        6,
        &["`kib` must be"],
    ),
];

#[test]
fn abuse_without_peers_is_refused() {
    let said = refused(&GOOD.replace("push = { share = 0.5 }", "abuse = { per_s = 3 }"));
    assert!(
        said.starts_with("my.toml, line 15: ") && said.contains("needs peers"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_to_do() {
    for (good, wrong, line, words) in WRONG {
        assert!(GOOD.contains(good), "{good}");
        let said = refused(&GOOD.replacen(good, wrong, 1));
        assert!(
            said.starts_with(&format!("my.toml, line {line}: ")),
            "{wrong}: {said}"
        );
        for word in *words {
            assert!(said.contains(word), "{wrong}: {word}: {said}");
        }
        assert!(
            said.lines().count() == 1 && !said.ends_with(['\n', ' ']),
            "{said}"
        );
    }
}

#[test]
fn a_scenario_that_is_not_there_is_answered_with_those_that_are() {
    let said = Scenario::load(Path::new("no/such.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("no/such.toml") && said.contains("mass_update"),
        "{said}"
    );
}
