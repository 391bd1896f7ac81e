//! Dialing home, again and again: which gateway, which key, after what wait
//! (spec/states.md section 1.1). Times in milliseconds.

use crate::code::{CloseCode, Refusal};
use crate::limits::{RECONNECT_S_MAX, SUPERSEDED_MS};
use crate::time::{Millis, divide};

/// Which of the board's keys a dial uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyUse {
    /// The one in force: the journal's, or else the provisioned one.
    Current,
    /// The one that NewKey brought.
    Pending,
    /// The provisioned one, although a rotation has replaced it: a gateway may have been
    /// restored from before the rotation.
    Provisioned,
}

/// Which list a gateway's place counts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GatewayList {
    /// The gateways statement in the journal.
    Stored,
    /// The provisioning file.
    Provisioned,
}

/// Why a dial gave no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialFault {
    /// The board has no network.
    NoLink,
    /// There is a network, and no answer; or the answer was no handshake.
    NoAnswer,
    /// The gateway refused before the handshake.
    Refused {
        /// Its code.
        code: Refusal,
        /// Its hint, in seconds.
        retry_after_s: u16,
    },
    /// The answer was not made with this board's key.
    WrongKey,
}

/// Where the link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// No connection; the next dial is due then.
    Down {
        /// When.
        retry_at: Millis,
    },
    /// The shell connects and shakes hands.
    Dialing,
    /// Hello is to be sent, or was; Welcome is due then.
    Greeting {
        /// When.
        due: Millis,
    },
    /// The gateway has welcomed the board.
    Online,
    /// Bye is to be sent, then the connection is closed.
    Leaving {
        /// The wait before the next dial, in milliseconds.
        retry_ms: u64,
    },
}

/// Waits between dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Backoff {
    first_ms: u32,
    max_ms: u32,
    attempts: u8,
    superseded: u8,
    random: u32,
}

/// Both halves of the seed in one.
#[expect(clippy::cast_possible_truncation, reason = "the other half is in it")]
const fn halves(seed: u64) -> u32 {
    (seed ^ seed >> 32) as u32
}

impl Backoff {
    /// No wait is above 49 days.
    pub(super) fn new(first_ms: u64, max_ms: u64, seed: u64) -> Self {
        Self {
            first_ms: u32::try_from(first_ms).unwrap_or(u32::MAX).max(1),
            max_ms: u32::try_from(max_ms).unwrap_or(u32::MAX),
            attempts: 0,
            superseded: 0,
            random: halves(seed),
        }
    }

    pub(super) const fn reset(&mut self) {
        self.attempts = 0;
        self.superseded = 0;
    }

    pub(super) const fn wait_longest(&mut self) {
        self.attempts = u8::MAX;
    }

    /// Full jitter: anywhere from 0 to the wait that this attempt allows.
    pub(super) fn next_ms(&mut self) -> u64 {
        let mut most = self.first_ms.min(self.max_ms);
        for _ in 0..self.attempts {
            most = most.saturating_add(most).min(self.max_ms);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.draw(most).into()
    }

    /// The wait after a Close.
    pub(super) fn after_close(&mut self, code: CloseCode, reconnect_after_s: u32) -> u64 {
        // A day at most.
        let told = reconnect_after_s.min(RECONNECT_S_MAX) * 1000;
        let wait = if code == CloseCode::SUPERSEDED {
            let least = SUPERSEDED_MS << self.superseded.min(6);
            self.superseded = self.superseded.saturating_add(1);
            return u64::from(told.max(least)) + u64::from(self.draw(least / 4));
        } else if code == CloseCode::REKEY {
            self.draw(self.first_ms).into()
        } else {
            self.next_ms()
        };
        u64::from(told) + wait
    }

    /// The wait after a refusal, which is only a hint.
    pub(super) fn after_refusal(&mut self, retry_after_s: u16) -> u64 {
        // Nobody has signed it: it counts for no more than the board's own longest wait.
        let told = u32::from(retry_after_s) * 1000;
        u64::from(told.min(self.max_ms)) + self.next_ms()
    }

    /// A number up to `most`.
    fn draw(&mut self, most: u32) -> u32 {
        // A counter, mixed as MurmurHash3 ends: spreads boards that dial at the same moment;
        // nothing secret depends on it.
        self.random = self.random.wrapping_add(0x9E37_79B9);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85EB_CA6B);
        mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xC2B2_AE35);
        mixed ^= mixed >> 16;
        divide(mixed, most.saturating_add(1)).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_cap_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(1000, 900_000, 7);
        for attempt in 0..200_u32 {
            let most = 1000_u64.saturating_mul(1 << attempt.min(30)).min(900_000);
            let wait = backoff.next_ms();
            assert!(wait <= most, "attempt {attempt}: {wait} above {most}");
        }
        backoff.reset();
        assert!(backoff.next_ms() <= 1000);
        backoff.wait_longest();
        let longest = (0..64).map(|_| backoff.next_ms()).max().unwrap();
        assert!(longest > 450_000 && longest <= 900_000, "{longest}");
    }

    #[test]
    fn superseded_waits_ten_minutes_and_doubles() {
        let mut backoff = Backoff::new(20, 1000, 1);
        let first = backoff.after_close(CloseCode::SUPERSEDED, 0);
        let second = backoff.after_close(CloseCode::SUPERSEDED, 0);
        assert!((600_000..=750_000).contains(&first), "{first}");
        assert!((1_200_000..=1_500_000).contains(&second), "{second}");
    }

    #[test]
    fn boards_that_are_told_the_same_add_a_wait_of_their_own() {
        let mut waits = [0; 100];
        for (seed, wait) in (0..).zip(&mut waits) {
            *wait = Backoff::new(1000, 900_000, seed).after_close(CloseCode::STOPPING, 30);
        }
        waits.sort_unstable();
        assert!(waits.iter().all(|wait| (30_000..=31_000).contains(wait)));
        let different = waits.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(different > 80, "{different}");
    }

    #[test]
    fn what_a_gateway_tells_is_clamped_to_a_day() {
        let mut backoff = Backoff::new(20, 1000, 1);
        assert!(backoff.after_close(CloseCode::STOPPING, u32::MAX) <= 86_400_000 + 1000);
    }
}
