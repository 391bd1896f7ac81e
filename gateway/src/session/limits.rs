//! Limits on delivery, overall and per network (spec/limits.md section 6).

/// Bytes of the largest chunk as a record: below this no share of a rate may be for long.
pub(super) const CHUNK_MOST: u64 = 16 * 1024 + 2;
/// Time within which a low rate still lets each transfer send a chunk, in seconds: a tenth of
/// what a board waits for one (`CHUNK_MS`).
const CHUNK_EVERY_S: u64 = 60;

/// How much is delivered at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Transfers that run at a time.
    pub transfers: u32,
    /// Transfers of one /24 or /48 that run at a time.
    pub network_transfers: u32,
    /// Bytes per second of all transfers, records included, TCP and IP not; none: no limit.
    pub rate: Option<u64>,
    /// The same of each /24 or /48.
    pub network_rate: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Self::TRANSFERS, None, None, None)
    }
}

impl Limits {
    /// Transfers at a time where nothing else is asked for.
    pub const TRANSFERS: u32 = 1_000;

    /// Limits as they are in force: a network's transfers are three quarters of all where nothing
    /// is said, and a rate so low that a board would wait in vain for its next chunk is shared by fewer.
    #[must_use]
    pub fn new(
        transfers: u32,
        network_transfers: Option<u32>,
        rate: Option<u64>,
        network_rate: Option<u64>,
    ) -> Self {
        let fed = |transfers: u32, rate: Option<u64>| {
            let most = rate.map_or(u64::MAX, |rate| rate * CHUNK_EVERY_S / CHUNK_MOST);
            transfers
                .min(u32::try_from(most).unwrap_or(u32::MAX))
                .max(1)
        };
        let transfers = fed(transfers, rate);
        let share = network_transfers.unwrap_or(transfers - transfers / 4);
        Self {
            transfers,
            network_transfers: fed(share.min(transfers), network_rate),
            rate,
            network_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialhome_proto::limits::{CHUNK_MS, RECEIVE_BUFFER_MAX, RECORD_HEADER};

    #[test]
    fn a_low_rate_is_shared_by_so_few_that_no_board_waits_in_vain_for_a_chunk() {
        assert_eq!(
            CHUNK_MOST,
            u64::try_from(RECEIVE_BUFFER_MAX + RECORD_HEADER).unwrap()
        );
        for rate in [1_000, 20_000, 100_000, 273_099, 300_000, 10_000_000] {
            let limits = Limits::new(1_000, None, Some(rate), None);
            let turn_ms = u64::from(limits.transfers) * CHUNK_MOST * 1_000 / rate;
            assert!(turn_ms <= CHUNK_MS / 10, "{rate}: {turn_ms} ms");
        }
        assert_eq!(Limits::new(1_000, None, Some(100_000), None).transfers, 366);
        let few = Limits::new(1_000, None, None, Some(10_000));
        assert_eq!((few.transfers, few.network_transfers), (1_000, 36));
    }

    #[test]
    fn a_network_leaves_a_quarter_to_others_where_nothing_is_said() {
        assert_eq!(Limits::default().network_transfers, 750);
        assert_eq!(Limits::new(1, None, None, None).network_transfers, 1);
        assert_eq!(Limits::new(4, Some(9), None, None).network_transfers, 4);
    }
}
