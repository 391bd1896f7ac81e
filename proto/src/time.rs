//! The machines' time: a count of milliseconds that only the caller advances.

/// Milliseconds since an instant that the caller chooses; it never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The end of the count: what is due then is never due.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant, unless it is [`Self::NEVER`].
    #[must_use]
    pub const fn some(self) -> Option<Self> {
        if self.0 == u64::MAX { None } else { Some(self) }
    }

    /// This instant and `ms` milliseconds more, at most the end of the count.
    #[must_use]
    #[inline(never)]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole seconds from `earlier` to this instant, at most 49 days.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> u32 {
        seconds(self.since(earlier))
    }

    /// Milliseconds from `earlier` to this instant; 0 where `earlier` is later.
    #[must_use]
    #[inline(never)]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whole seconds of so many milliseconds, at most 49 days: a small machine has no 64-bit
/// division, and a routine for it costs a kilobyte.
#[must_use]
pub(crate) const fn seconds(ms: u64) -> u32 {
    // Lossless: clamped below.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 32 bits")]
    let ms = if ms > u32::MAX as u64 {
        u32::MAX
    } else {
        ms as u32
    };
    divide(ms, 1000).0
}

/// Quotient and remainder, bit by bit: a Cortex-M0 has no instruction for it either, and
/// the compiler's routine takes half a kilobyte to be fast at what a board does seldom.
/// By 0 it gives the largest quotient.
#[inline(never)]
#[must_use]
pub(crate) const fn divide(dividend: u32, divisor: u32) -> (u32, u32) {
    let (mut quotient, mut rest) = (0_u32, 0_u32);
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        let overflows = rest >> 31 == 1;
        rest = rest << 1 | (dividend >> bit & 1);
        quotient <<= 1;
        if overflows || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    (quotient, rest)
}

/// The next multiple of `unit` from `value` on, at most the largest number.
#[must_use]
pub(crate) const fn round_up(value: u32, unit: u32) -> u32 {
    let (_, rest) = divide(value, unit);
    if rest == 0 {
        value
    } else {
        value.saturating_add(unit - rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn divides_as_the_language_does(dividend: u32, divisor in 1_u32.., small in 1..1000_u32) {
            for divisor in [divisor, small] {
                assert_eq!(divide(dividend, divisor), (dividend / divisor, dividend % divisor));
                let next = dividend.checked_next_multiple_of(divisor);
                assert_eq!(round_up(dividend, divisor), next.unwrap_or(u32::MAX));
            }
        }
    }
}
