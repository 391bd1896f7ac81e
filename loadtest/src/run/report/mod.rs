//! Reports: as JSON for programs, as one HTML file for people.

mod html;
mod plot;

use super::metrics::METRICS;
use super::play::Setup;
use super::record::Record;
use super::verdict::{Judged, judge};
use crate::Error;
use crate::measure::process::machine;
use serde::Serialize;
use std::collections::BTreeMap;

/// How a run went. As JSON its fields are the document's keys, and so is each metric's name.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What it is for.
    pub about: String,
    /// The run kept to its limits and reached its end.
    pub passed: bool,
    /// Begins the random numbers.
    pub seed: u64,
    /// The machine, with its congestion control.
    pub machine: String,
    /// The version of this program.
    pub version: &'static str,
    /// When it ended, RFC 3339.
    pub ended: String,
    /// Each limit and whether it was held.
    pub limits: Vec<Judged>,
    /// Every metric by its name; null where the run could not tell.
    #[serde(flatten)]
    pub metrics: BTreeMap<&'static str, Option<f64>>,
    /// The scenario's text.
    pub scenario_text: String,
    /// Everything that was seen.
    pub run: Record,
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub fn new(setup: &Setup, run: Record) -> Self {
        let scenario = &setup.scenario;
        let limits = judge(&scenario.limits(), &run);
        Self {
            scenario: scenario.name.clone(),
            about: scenario.plan.about.clone(),
            passed: run.unfinished.is_none() && limits.iter().all(|judged| judged.held),
            seed: setup.seed,
            machine: machine(),
            version: env!("CARGO_PKG_VERSION"),
            ended: dialhome_gateway::store::now().to_string(),
            limits,
            metrics: METRICS
                .iter()
                .map(|metric| (metric.name, (metric.of)(&run)))
                .collect(),
            scenario_text: scenario.text.clone(),
            run,
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// Never, as far as anyone knows: every value has a form in JSON.
    pub fn json(&self) -> Result<String, Error> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Error::of("the report cannot be written", &error))
    }

    /// As one HTML file that needs nothing else.
    ///
    /// # Errors
    /// A plot cannot be drawn.
    pub fn html(&self) -> Result<String, Error> {
        html::page(self)
    }

    /// Why it did not pass, a sentence each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let unfinished = self.run.unfinished.iter().cloned();
        let violated = self.limits.iter().filter(|judged| !judged.held);
        unfinished.chain(violated.map(Judged::sentence)).collect()
    }
}
