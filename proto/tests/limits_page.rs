//! spec/limits.md gives every constant of `limits.rs`, with its value.

use dialhome_proto::limits;

const PAGE: &str = include_str!("../../spec/limits.md");
const SOURCE: &str = include_str!("../src/limits.rs");

macro_rules! values {
    ($($name:ident),+ $(,)?) => {
        [$((stringify!($name), limits::$name.to_string())),+]
    };
}

/// Name and value of every constant, as text without separators.
fn constants() -> Vec<(&'static str, String)> {
    let mut all = values![
        BOARD_RECORD_MAX,
        RECEIVE_BUFFER_MIN,
        RECEIVE_BUFFER_MAX,
        WRITE_UNIT_MAX,
        RECORD_WINDOW_MIN,
        RECORD_HEADER,
        TAG,
        CHUNK_OVERHEAD,
        CHUNK_COST,
        TEXT_PART_MAX,
        TEXT_PARTS_MAX,
        LOG_MS,
        MANIFEST_MAX,
        STATEMENT_MAX,
        COMPONENTS_MAX,
        GATEWAYS_MAX,
        TRUST_KEYS_MAX,
        PINS_MAX,
        SIGNATURES_MAX,
        VERSION_MAX,
        NAME_MAX,
        NETWORK_MAX,
        DETAIL_MAX,
        REPLAY_EPHEMERALS,
        HANDSHAKE_MS,
        HELLO_MS,
        RECORDS_MAX,
        SESSION_MS_MAX,
        RECONNECT_S_MAX,
        TRUST_MINIMUMS_MAX,
        TRUST_SET_LEN,
        MANIFEST_DEVICES_MAX,
        REQUIRES_MAX,
        REMEMBERED_LEN,
        GATEWAY_MIN,
        GATEWAY_MAX,
        ENCODING_RAW,
        TRIAL_BOOTS,
        TRIAL_DIALS,
        TRIAL_AWAKE_S,
        ACK_MS_MIN,
        WINDOW_BYTES_PER_S,
        ANSWER_MS,
        CONFIRM_MS,
        RESTART_MS,
        DEFER_S_MAX,
        ACK_EVERY_MS,
        WELCOME_MS,
        PONG_MS_MIN,
        PING_TRANSFER_S,
        BAD_READ_BACKS_MAX,
        OUTBOX_MAX,
        OUTBOX_DETAIL_MAX,
        BOOT_ATTEMPTS_MAX,
        SUPERSEDED_MS,
        CHUNK_MS,
        STORE_AGAIN_MS,
    ]
    .to_vec();
    let ping = limits::PING_S;
    all.push(("PING_S", format!("{}..{}", ping.start(), ping.end())));
    all
}

/// The cells of the row that begins with the constant's name.
fn row(name: &str) -> Vec<&'static str> {
    let rows: Vec<_> = PAGE
        .lines()
        .filter(|line| line.starts_with(&format!("| `{name}` |")))
        .collect();
    assert_eq!(rows.len(), 1, "{name} has {} rows in limits.md", rows.len());
    rows[0]
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect()
}

#[test]
fn the_page_gives_every_constant_with_its_value() {
    for (name, value) in constants() {
        let row = row(name);
        assert_eq!(row[1].replace(',', ""), value, "{name} in limits.md");
        assert_eq!(row.len(), 5, "{name}: name, value, unit, who, beyond");
        assert!(!row[2].is_empty(), "{name} has no unit");
        assert!(!row[3].is_empty(), "{name}: who enforces it?");
    }
}

#[test]
fn the_test_knows_every_constant_of_the_source() {
    let known: Vec<_> = constants().into_iter().map(|(name, _)| name).collect();
    let declared: Vec<_> = SOURCE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter_map(|rest| rest.split(':').next())
        .collect();
    assert!(declared.len() > 40, "only {} found", declared.len());
    for name in declared {
        assert!(known.contains(&name), "{name} is missing from this test");
    }
}
