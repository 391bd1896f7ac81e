//! What was measured, the goals that it is held against, and both as a table and as JSON.

use crate::measure::stats::Median;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Dialhome's name in the tables.
pub(super) const DIALHOME: &str = "Dialhome";

/// One thing that was measured of one contender, in every round.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// Of whom.
    pub(super) who: &'static str,
    /// What, as a key.
    pub(super) key: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// The rounds.
    pub(super) values: Vec<f64>,
}

/// A goal, and what was reached.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    /// What is asked, in words.
    pub(super) what: &'static str,
    /// The value that counts.
    pub(super) value: f64,
    /// It is reached up to here.
    pub(super) at_most: Option<f64>,
    /// And from here.
    pub(super) at_least: Option<f64>,
}

impl Goal {
    /// A value that must not be above a bound.
    pub(super) const fn at_most(what: &'static str, value: f64, bound: f64) -> Self {
        Self {
            what,
            value,
            at_most: Some(bound),
            at_least: None,
        }
    }

    /// A value that must not be below a bound.
    pub(super) const fn at_least(what: &'static str, value: f64, bound: f64) -> Self {
        Self {
            what,
            value,
            at_most: None,
            at_least: Some(bound),
        }
    }

    /// A value that must lie between two bounds.
    pub(super) const fn between(what: &'static str, value: f64, least: f64, most: f64) -> Self {
        Self {
            what,
            value,
            at_most: Some(most),
            at_least: Some(least),
        }
    }

    /// Whether it is reached; what is not a number reaches nothing.
    pub(super) fn is_reached(&self) -> bool {
        !self.value.is_nan()
            && self.at_most.is_none_or(|most| self.value <= most)
            && self.at_least.is_none_or(|least| self.value >= least)
    }

    /// It and what was reached, in a line.
    fn line(&self) -> String {
        let reached = match (self.value.is_nan(), self.is_reached()) {
            (true, _) => "NOT MEASURED",
            (false, true) => "reached",
            (false, false) => "NOT REACHED",
        };
        let digits = digits(self.at_most.or(self.at_least).unwrap_or(self.value));
        let bound = match (self.at_least, self.at_most) {
            (Some(least), Some(most)) => format!("from {least:.digits$} to {most:.digits$}"),
            (Some(least), None) => format!(">= {least:.digits$}"),
            (None, Some(most)) => format!("<= {most:.digits$}"),
            (None, None) => String::new(),
        };
        format!("{} {bound}: {:.digits$}, {reached}", self.what, self.value)
    }
}

/// Everything that a row measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    figures: Vec<Figure>,
    /// Goals, once all rounds are over.
    pub(super) goals: Vec<Goal>,
    /// What a reader must know to understand the figures.
    pub(super) notes: Vec<String>,
}

impl Figures {
    /// Adds a round's value.
    pub(super) fn add(
        &mut self,
        who: &'static str,
        key: &'static str,
        unit: &'static str,
        value: f64,
    ) {
        let found = self
            .figures
            .iter_mut()
            .find(|figure| figure.who == who && figure.key == key);
        match found {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure {
                who,
                key,
                unit,
                values: vec![value],
            }),
        }
    }

    /// The median of a figure; not a number where there is none.
    pub(super) fn median(&self, who: &str, key: &str) -> f64 {
        self.figures
            .iter()
            .find(|figure| figure.who == who && figure.key == key)
            .and_then(|figure| Median::of(&figure.values))
            .map_or(f64::NAN, |median| median.value)
    }

    /// Dialhome's figure of this key over another's.
    fn ratio(&self, figure: &Figure) -> Option<f64> {
        if figure.who.starts_with(DIALHOME) {
            return None;
        }
        let own = self
            .figures
            .iter()
            .find(|own| own.who.starts_with(DIALHOME) && own.key == figure.key)?;
        let (own, other) = (Median::of(&own.values)?, Median::of(&figure.values)?);
        (other.value != 0.0).then(|| own.value / other.value)
    }

    /// As lines of a table.
    pub(super) fn table(&self) -> String {
        let mut keys: Vec<&str> = Vec::new();
        for figure in &self.figures {
            if !keys.contains(&figure.key) {
                keys.push(figure.key);
            }
        }
        let mut text = String::new();
        for key in keys {
            let of_key = || self.figures.iter().filter(|figure| figure.key == key);
            let unit = of_key().next().map_or("", |figure| figure.unit);
            let _ = writeln!(
                text,
                "  {:<46}  {:>36}  {:>13}",
                format!("{key}, {unit}"),
                "median (95 % of runs)",
                "Dialhome over"
            );
            for figure in of_key() {
                let Some(median) = Median::of(&figure.values) else {
                    continue;
                };
                let digits = digits(median.value);
                let value = format!(
                    "{:.digits$} ({:.digits$} to {:.digits$})",
                    median.value, median.low, median.high
                );
                let ratio = self
                    .ratio(figure)
                    .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
                let _ = writeln!(text, "    {:<44}  {value:>36}  {ratio:>13}", figure.who);
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        for goal in &self.goals {
            let _ = writeln!(text, "  goal: {}", goal.line());
        }
        text
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                json!({
                    "who": figure.who,
                    "key": figure.key,
                    "unit": figure.unit,
                    "median": Median::of(&figure.values),
                    "values": figure.values,
                    "dialhome_over_it": self.ratio(figure),
                })
            })
            .collect();
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|goal| {
                json!({
                    "what": goal.what,
                    "value": goal.value,
                    "at_most": goal.at_most,
                    "at_least": goal.at_least,
                    "reached": goal.is_reached(),
                })
            })
            .collect();
        json!({ "figures": figures, "goals": goals, "notes": self.notes })
    }
}

/// Digits behind the point that a figure of this size deserves.
fn digits(value: f64) -> usize {
    match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_who_wins_and_what_is_not_reached() {
        let mut figures = Figures::default();
        for value in [1.0, 2.0, 3.0] {
            figures.add(DIALHOME, "cost", "s", value);
            figures.add("another", "cost", "s", value * 2.0);
        }
        figures.goals.push(Goal::at_most("cost", 2.0, 1.5));
        figures.goals.push(Goal::at_least("speed", 2.0, 1.5));
        figures.goals.push(Goal::at_most("size", f64::NAN, 1.0));
        let table = figures.table();
        assert!(
            table.contains("4.00 (2.00 to 6.00)           0.50"),
            "{table}"
        );
        assert!(table.contains("cost <= 1.50: 2.00, NOT REACHED"), "{table}");
        assert!(table.contains("speed >= 1.50: 2.00, reached"), "{table}");
        assert!(table.contains("NOT MEASURED"), "{table}");
        let flat = |value| Goal::between("flat", value, 0.9, 1.1);
        assert_eq!(flat(1.05).line(), "flat from 0.90 to 1.10: 1.05, reached");
        assert!(!flat(0.6).is_reached() && !flat(1.2).is_reached() && !flat(f64::NAN).is_reached());
        let json = figures.json();
        assert_eq!(json["figures"][1]["dialhome_over_it"], 0.5);
        assert_eq!(json["goals"][0]["reached"], false);
    }
}
