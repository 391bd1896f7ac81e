//! The scenarios that are built in.

/// Their names.
pub const NAMES: [&str; 8] = [
    "smoke",
    "idle",
    "connect_storm",
    "mass_update",
    "slow_links",
    "nat_expiry",
    "gateway_restart",
    "abusive_peers",
];

/// The text of the one of this name.
pub(super) fn text(name: &str) -> Option<&'static str> {
    let text = match name {
        "smoke" => include_str!("../../../scenarios/smoke.toml"),
        "idle" => include_str!("../../../scenarios/idle.toml"),
        "connect_storm" => include_str!("../../../scenarios/connect_storm.toml"),
        "mass_update" => include_str!("../../../scenarios/mass_update.toml"),
        "slow_links" => include_str!("../../../scenarios/slow_links.toml"),
        "nat_expiry" => include_str!("../../../scenarios/nat_expiry.toml"),
        "gateway_restart" => include_str!("../../../scenarios/gateway_restart.toml"),
        "abusive_peers" => include_str!("../../../scenarios/abusive_peers.toml"),
        _ => return None,
    };
    Some(text)
}
