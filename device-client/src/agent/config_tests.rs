use super::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SIGNER: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf";

/// A provisioning file as `device add` writes it, with `rest` behind it.
fn provisioned(rest: &str) -> String {
    format!(
        "id = \"board-7\"\nproduct = \"sensor\"\nkey = \"{KEY}\"\n\
         gateways = [\"gw.example:7040\", \"[2001:db8::1]:7040\"]\npins = []\n\n\
         [trust]\nepoch = 1\nthreshold = 1\nkeys = [\"{SIGNER}\"]\n{rest}"
    )
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/dialhome.toml")).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    let message = parse(text).unwrap_err();
    assert!(
        message.starts_with("configuration /etc/dialhome.toml"),
        "{message}"
    );
    assert!(!message.contains(&KEY[..16]), "shows the key: {message}");
    message
}

#[test]
fn a_provisioning_file_is_taken_as_it_is() {
    let config = parse(&provisioned("")).unwrap();
    assert_eq!(config.id, "board-7");
    assert_eq!(config.key.0[31], 0x1f);
    assert_eq!(config.gateways.len(), 2);
    let trust = config.trust.unwrap();
    assert_eq!((trust.epoch, trust.keys[0][0]), (1, 0xa0));
    assert_eq!(config.agent.window, 256 * 1024);
    assert_eq!(config.agent.claim_bytes, 128 * 1024);
    assert_eq!(
        (config.reconnect.first_ms, config.reconnect.max_ms),
        (1000, 900_000)
    );
    assert_eq!(config.commands.install, None);
}

#[test]
fn settings_of_the_agent_stand_in_tables_behind_it() {
    let config = parse(&provisioned(
        "[[trust.minimums]]\ncomponent = 0\ncounter = 9\n\
         [agent]\nhardware = 3\nlink = \"lte_m\"\nwindow = 8192\nnetwork = \"Telia\"\n\
         [reconnect]\nfirst_ms = 20\nmax_ms = 200\n\
         [install]\ncommand = [\"/bin/true\", \"x\"]\ntimeout_s = 5\n",
    ))
    .unwrap();
    assert_eq!(config.trust.unwrap().minimums[0], (0, 9));
    assert_eq!(config.agent.link, Link::LTE_M);
    let install = config.commands.install.unwrap();
    assert_eq!(install.command, ["/bin/true", "x"]);
    assert_eq!(install.timeout, Duration::from_secs(5));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let message = refusal(&provisioned("[agent]\nwindwo = 1\n"));
    assert!(
        message.contains("`windwo`") && message.contains("line 12"),
        "{message}"
    );
    assert!(message.contains("Correct its spelling"), "{message}");
    let message = refusal(&format!("colour = 1\n{}", provisioned("")));
    assert!(
        message.contains("`colour`") && message.contains("line 1"),
        "{message}"
    );
}

#[test]
fn a_missing_key_is_named() {
    let message = refusal(&provisioned("").replace("product = \"sensor\"\n", ""));
    assert!(
        message.contains("`product`") && message.contains("Add it"),
        "{message}"
    );
}

#[test]
fn wrong_values_are_named_with_what_to_do() {
    for (from, to, key, word) in [
        ("board-7", "board 7", "`id`", "is not a name"),
        ("sensor", "", "`product`", "is not a name"),
        (KEY, "abc", "`key`", "64 hexadecimal digits"),
        (
            KEY,
            &format!("{}zz", &KEY[..62]),
            "`key`",
            "64 hexadecimal digits",
        ),
        ("gw.example:7040", "gw.example", "`gateways`", "HOST:PORT"),
        (SIGNER, "12", "`trust.keys`", "64 hexadecimal digits"),
        ("epoch = 1", "epoch = 0", "`trust.epoch`", "epoch is 0"),
        (
            "threshold = 1",
            "threshold = 2",
            "`trust.threshold`",
            "threshold",
        ),
    ] {
        let message = refusal(&provisioned("").replace(from, to));
        assert!(message.contains(key) && message.contains(word), "{message}");
    }
    for (rest, key) in [
        ("[agent]\nlink = \"carrier pigeon\"", "`agent.link`"),
        ("[agent]\nreceive_buffer = 100", "`agent.receive_buffer`"),
        ("[agent]\nwindow = 100", "`agent.window`"),
        ("[agent]\nclaim_bytes = 999999999", "`agent.claim_bytes`"),
        ("[agent]\nping_s = 0", "`agent.ping_s`"),
        (
            "[agent]\nquic_keepalive_s = 21601",
            "`agent.quic_keepalive_s`",
        ),
        ("[agent]\nslot_size = 0", "`agent.slot_size`"),
        ("[agent]\nquic = \"maybe\"", "`agent.quic`"),
        // Nobody is pinned.
        ("[agent]\nquic = \"only\"", "`agent.quic`"),
        ("[reconnect]\nfirst_ms = 0", "`reconnect.first_ms`"),
        ("[reconnect]\nmax_ms = 1", "`reconnect.max_ms`"),
        ("[install]\ncommand = []", "`install`"),
        (
            "[self_test]\ncommand = [\"x\"]\ntimeout_s = 0",
            "`self_test`",
        ),
    ] {
        let message = refusal(&provisioned(rest));
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn quic_is_preferred_unless_it_is_said_otherwise() {
    let quic = |text: &str| parse(text).map(|config| config.agent.quic);
    assert_eq!(quic(&provisioned("")), Ok(Quic::Prefer));
    assert_eq!(quic(&provisioned("[agent]\nquic = \"off\"")), Ok(Quic::Off));
    let pinned = provisioned("[agent]\nquic = \"only\"")
        .replace("pins = []", &format!("pins = [\"{SIGNER}\"]"));
    if cfg!(feature = "quic") {
        assert_eq!(quic(&pinned), Ok(Quic::Only));
    } else {
        assert!(refusal(&pinned).contains("built without QUIC"));
    }
}

#[test]
fn a_key_of_the_wrong_type_is_not_shown() {
    let text = provisioned("").replace(&format!("key = \"{KEY}\""), &format!("key = [\"{KEY}\"]"));
    let message = refusal(&text);
    assert!(message.contains("line 3"), "{message}");
    let text = provisioned("").replace(
        "id = \"board-7\"",
        &format!("id = \"{KEY}\"\nid = \"{KEY}\""),
    );
    refusal(&text);
    let text = provisioned("").replace("pins = []", &format!("pins = \"{KEY}\""));
    refusal(&text);
}

#[test]
fn the_command_line_replaces_the_list_of_gateways() {
    let mut config = parse(&provisioned("")).unwrap();
    config.set_gateway("127.0.0.1:9").unwrap();
    assert_eq!(config.gateways, ["127.0.0.1:9"]);
    assert!(
        config
            .set_gateway("nowhere")
            .unwrap_err()
            .contains("HOST:PORT")
    );
}

#[test]
fn a_file_that_is_missing_or_open_to_others_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("board.toml");
    let message = Config::load(&path).unwrap_err().to_string();
    assert!(
        message.contains("board.toml") && message.contains("device add"),
        "{message}"
    );
    std::fs::write(&path, provisioned("")).unwrap();
    for (mode, noticed) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Config::load(&path).unwrap().readable_by_others, noticed);
    }
}
