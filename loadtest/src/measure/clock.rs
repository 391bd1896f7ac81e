//! A clock that all processes of one machine share, so that an instant noted in one can be
//! compared with an instant noted in another.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_does_not_go_back() {
        let first = super::now_ns();
        assert!(super::now_ns() >= first && first > 0);
    }
}
