use super::*;
use crate::agent::config::Config;
use std::{borrow::ToOwned as _, path::Path, string::ToString as _};

/// A whole configuration with these tables behind it.
fn parse(tables: &str) -> Result<Config, String> {
    let key = "00".repeat(32);
    let text = format!(
        "id = \"board-7\"\nproduct = \"sensor\"\nkey = \"{key}\"\n\
         gateways = [\"gw.example:7040\"]\n{tables}"
    );
    Config::parse(&text, Path::new("board.toml")).map_err(|error| error.to_string())
}

/// A child with these lines in its table, and its commands behind them.
fn child(number: u8, lines: &str) -> String {
    format!(
        "[[component]]\nnumber = {number}\nname = \"child-{number}\"\nslot_size = 32256\n\
         {lines}\n[component.install]\ncommand = [\"flash\"]\n"
    )
}

#[test]
fn children_stand_beside_component_0() {
    let config = parse(&format!(
        "[agent]\nself_update = true\nwindow = 65536\n{}{}",
        child(2, "window = 8192\nrollback = \"none\""),
        child(1, "")
            + "timeout_s = 90\n[component.check]\ncommand = [\"check\", \"x\"]\n\
               [component.running]\ncommand = [\"running\"]\n"
    ))
    .unwrap();
    assert!(config.agent.self_update);
    let [one, two] = &config.components[..] else {
        panic!("{:?}", config.components);
    };
    assert_eq!((one.number, &*one.name, one.window), (1, "child-1", 65536));
    assert_eq!(one.rollback, Rollback::RestoreCopy);
    let commands = &one.commands;
    assert_eq!(commands.install.as_ref().unwrap().timeout.as_secs(), 90);
    assert_eq!(commands.self_test.as_ref().unwrap().command, ["check", "x"]);
    assert!(commands.running.is_some() && commands.revert.is_none());
    assert_eq!((two.number, two.window, two.slot_size), (2, 8192, 32256));
    assert_eq!(two.rollback, Rollback::None);
}

#[test]
fn a_wrong_table_is_refused_with_its_place() {
    let three = [1, 2, 3].map(|number| child(number, "")).concat();
    for (tables, place, says) in [
        (child(0, ""), "`component.number, table 1`", "Give 1 to 3"),
        (child(4, ""), "`component.number, table 1`", "Give 1 to 3"),
        (
            child(1, "") + &child(2, "") + &child(1, ""),
            "`component, table 3`",
            "component 1 `child-1` has its number",
        ),
        (
            child(1, "") + &child(2, "").replace("child-2", "child-1"),
            "`component, table 2`",
            "or its name already",
        ),
        (three.clone() + &child(3, ""), "`component`", "at most 3"),
        (
            child(1, "").replace("child-1", "a child"),
            "`component.name, table 1`",
            "is not a name",
        ),
        (
            child(1, "").replace("32256", "0"),
            "`component.slot_size, table 1`",
            "would refuse every image",
        ),
        (
            child(1, "") + &child(2, "window = 100"),
            "`component.window, table 2`",
            "at least agent.receive_buffer, 4126",
        ),
        (
            child(1, "rollback = \"swap\""),
            "`component.revert, table 1`",
            "needs it",
        ),
        (
            child(1, "") + "[component.revert]\ncommand = [\"back\"]\n",
            "`component.revert, table 1`",
            "Remove it",
        ),
        (
            child(1, "").replace("[\"flash\"]", "[]"),
            "`component.install, table 1`",
            "`command` is empty",
        ),
        (
            child(1, "") + "[component.check]\ncommand = [\"x\"]\ntimeout_s = 0\n",
            "`component.check, table 1`",
            "from 1 to 86400",
        ),
        (child(1, "rolback = \"none\""), "line 9", "`rolback`"),
        (child(1, "rollback = \"no\""), "line 9", "`restore_copy`"),
        (
            "[[component]]\nnumber = 1\nname = \"x\"\nslot_size = 5\n".to_owned(),
            "line 5",
            "missing field `install`",
        ),
        (
            "[agent]\nself_update = true\n[install]\ncommand = [\"x\"]\n".to_owned(),
            "`install`",
            "component 0 is the agent itself",
        ),
        (
            "[agent]\nself_update = true\n[running]\ncommand = [\"x\"]\n".to_owned(),
            "`running`",
            "component 0 is the agent itself",
        ),
        (
            "[agent]\nheartbeat_s = 0\n".to_owned(),
            "`agent.heartbeat_s`",
            "from 1 to 3600",
        ),
    ] {
        let message = parse(&tables).unwrap_err();
        assert!(
            message.contains(place) && message.contains(says),
            "{message}"
        );
    }
    assert_eq!(parse(&three).unwrap().components.len(), 3);
}
