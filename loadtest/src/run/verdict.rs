//! Whether a run kept to its limits.

use super::metrics::{self, Metric};
use super::record::Record;
use super::scenario::Bound;
use serde::Serialize;
use std::collections::BTreeMap;

/// A limit, and what the run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The metric.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// What it may be.
    #[serde(flatten)]
    pub bound: Bound,
    /// What it was; none where the run could not tell, which is no better than beyond the limit.
    pub value: Option<f64>,
    /// It is within.
    pub held: bool,
}

/// Each limit, judged.
#[must_use]
pub fn judge(limits: &BTreeMap<&str, Bound>, run: &Record) -> Vec<Judged> {
    limits
        .iter()
        .filter(|(_, bound)| bound.from_boards.is_none_or(|from| from <= run.boards))
        .filter_map(|(name, bound)| Some(one(metrics::find(name)?, *bound, run)))
        .collect()
}

fn one(metric: &Metric, bound: Bound, run: &Record) -> Judged {
    let value = (metric.of)(run);
    let held = value.is_some_and(|value| {
        bound.at_most.is_none_or(|most| value <= most)
            && bound.at_least.is_none_or(|least| value >= least)
    });
    Judged {
        metric: metric.name,
        unit: metric.unit,
        meaning: metric.meaning,
        bound,
        value,
        held,
    }
}

impl Judged {
    /// The limit in words.
    #[must_use]
    pub fn limit(&self) -> String {
        let parts = [
            ("at most", self.bound.at_most),
            ("at least", self.bound.at_least),
        ];
        let words: Vec<String> = parts
            .into_iter()
            .filter_map(|(word, value)| Some(format!("{word} {}", shown(value?, self.unit))))
            .collect();
        words.join(", ")
    }

    /// What was measured, in words.
    #[must_use]
    pub fn measured(&self) -> String {
        self.value.map_or_else(
            || "not measured".to_owned(),
            |value| shown(value, self.unit),
        )
    }

    /// A sentence about it.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.value {
            None => format!(
                "{} could not be measured ({}); the limit is {}.",
                self.metric,
                self.meaning,
                self.limit()
            ),
            Some(_) => format!(
                "{} is {}, the limit is {} ({}).",
                self.metric,
                self.measured(),
                self.limit(),
                self.meaning
            ),
        }
    }
}

/// A value with as many digits as it deserves.
#[must_use]
pub fn shown(value: f64, unit: &str) -> String {
    let number = if value == value.trunc() || value.abs() >= 1_000.0 {
        grouped(&format!("{value:.0}"))
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    };
    if unit.is_empty() {
        number
    } else {
        format!("{number} {unit}")
    }
}

/// Digits in groups of three.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", digits), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(name: &'static str, bound: Bound) -> BTreeMap<&'static str, Bound> {
        BTreeMap::from([(name, bound)])
    }

    #[test]
    fn beyond_a_limit_and_not_measured_are_both_failures() {
        let run = Record {
            boards: 10,
            online_at_end: 9,
            ..Record::default()
        };
        let bound = Bound {
            at_least: Some(1.0),
            ..Bound::default()
        };
        let judged = judge(&limits("online_at_end", bound), &run).remove(0);
        assert!(!judged.held);
        assert!(
            judged.sentence().contains("online_at_end is 0.900"),
            "{}",
            judged.sentence()
        );
        let judged = judge(&limits("push_ms_p99", bound), &run).remove(0);
        assert!(!judged.held && judged.sentence().contains("could not be measured"));
    }

    #[test]
    fn a_limit_may_be_met_exactly() {
        let run = Record {
            boards: 10,
            online_at_end: 10,
            ..Record::default()
        };
        let bound = Bound {
            at_least: Some(1.0),
            at_most: Some(1.0),
            from_boards: None,
        };
        assert!(judge(&limits("online_at_end", bound), &run).remove(0).held);
    }

    #[test]
    fn a_limit_for_large_fleets_says_nothing_of_smaller_ones() {
        let bound = Bound {
            at_most: Some(0.0),
            from_boards: Some(10),
            ..Bound::default()
        };
        let judged = |boards| {
            let run = Record {
                boards,
                broken_count: 1,
                ..Record::default()
            };
            judge(&limits("broken", bound), &run)
        };
        assert!(judged(9).is_empty());
        assert!(!judged(10)[0].held);
    }

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!(shown(1_234_567.0, "bytes"), "1,234,567 bytes");
        assert_eq!(shown(-12_345.6, ""), "-12,346");
        assert_eq!(shown(0.12345, ""), "0.123");
        assert_eq!(shown(42.123, "s"), "42.1 s");
        assert_eq!(shown(0.0, ""), "0");
    }
}
