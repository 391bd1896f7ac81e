//! Links as operators' networks are: the usual numbers of each kind.

use super::words::{Link, NatThen};

impl Link {
    /// Names of the presets.
    pub const PRESETS: [&str; 5] = ["loopback", "2g", "3g", "lte_m", "nb_iot"];

    /// The preset of this name. Rates, round trips and time-outs are what operators' networks
    /// show in ordinary coverage; a network at its worst is written out in the scenario.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let bare = Self {
            name: name.to_owned(),
            ..Link::default()
        };
        let link = match name {
            "loopback" => bare,
            // GPRS/EDGE, two to four slots down.
            "2g" => Self {
                down_bits_per_s: 100_000,
                up_bits_per_s: 40_000,
                round_trip_ms: 700,
                jitter_ms: 150,
                stall_every_s: 60,
                stall_ms: [500, 4_000],
                blackout_every_s: 900,
                blackout_ms: [5_000, 30_000],
                nat_idle_s: 300,
                nat_then: NatThen::Drop,
                ..bare
            },
            "3g" => Self {
                down_bits_per_s: 2_000_000,
                up_bits_per_s: 400_000,
                round_trip_ms: 150,
                jitter_ms: 50,
                stall_every_s: 120,
                stall_ms: [200, 2_000],
                blackout_every_s: 1_800,
                blackout_ms: [2_000, 15_000],
                nat_idle_s: 300,
                nat_then: NatThen::Drop,
                ..bare
            },
            "lte_m" => Self {
                down_bits_per_s: 300_000,
                up_bits_per_s: 300_000,
                round_trip_ms: 120,
                jitter_ms: 40,
                stall_every_s: 120,
                stall_ms: [200, 1_500],
                blackout_every_s: 3_600,
                blackout_ms: [2_000, 10_000],
                nat_idle_s: 600,
                nat_then: NatThen::Drop,
                ..bare
            },
            "nb_iot" => Self {
                down_bits_per_s: 25_000,
                up_bits_per_s: 20_000,
                round_trip_ms: 1_600,
                jitter_ms: 400,
                stall_every_s: 120,
                stall_ms: [1_000, 8_000],
                blackout_every_s: 3_600,
                blackout_ms: [5_000, 30_000],
                nat_idle_s: 600,
                nat_then: NatThen::Drop,
                ..bare
            },
            _ => return None,
        };
        Some(link)
    }
}
