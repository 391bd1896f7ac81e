//! Medians, their intervals, and percentiles.

use serde::Serialize;

/// The median of rounds, with the interval that holds it in 95 of 100 runs (by the order of
/// the values, without an assumption about how they are spread).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Median {
    /// The middle value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Values that it was taken from.
    pub rounds: usize,
}

impl Median {
    /// The median of `values`; None where there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rounds = sorted.len();
        let upper = *sorted.get(rounds / 2)?;
        let lower = *sorted.get((rounds - 1) / 2)?;
        // The median lies outside of the k-th values from both ends with the chance that at
        // most k - 1 of n tosses of a coin fall on one side, twice.
        let mut outside = 2.0 * 0.5_f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX));
        let mut chance = outside;
        let mut k = 0;
        while k + 1 < rounds.div_ceil(2) {
            chance *= (rounds - k) as f64 / (k + 1) as f64;
            if outside + chance > 0.05 {
                break;
            }
            outside += chance;
            k += 1;
        }
        Some(Self {
            value: f64::midpoint(lower, upper),
            low: *sorted.get(k)?,
            high: *sorted.get(rounds - 1 - k)?,
            rounds,
        })
    }
}

/// The value below which `share` (0 to 1) of the sorted values lie; None of none.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place within the slice"
    )]
    let place = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_and_its_interval_are_values_of_the_rounds() {
        let median = Median::of(&[7.0, 1.0, 3.0, 2.0, 6.0, 5.0, 4.0]).unwrap();
        // Of seven values the least and the greatest hold the median in 98 of 100 runs; the
        // next ones within would in 87 only.
        assert_eq!((median.low, median.value, median.high), (1.0, 4.0, 7.0));
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        let median = Median::of(&nine).unwrap();
        // 9 values: 96 of 100 within the second and the eighth.
        assert_eq!((median.low, median.value, median.high), (2.0, 5.0, 8.0));
        assert_eq!(Median::of(&[2.0, 1.0]).unwrap().value, 1.5);
        assert_eq!(Median::of(&[]), None);
    }

    #[test]
    fn percentiles_are_among_the_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), Some(99.0));
        assert_eq!(percentile(&values, 1.0), Some(100.0));
        assert_eq!(percentile(&values[..1], 0.5), Some(0.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
