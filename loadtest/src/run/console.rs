//! What a person sees of a run: how it stands while it is played, and how it went.
#![expect(clippy::print_stdout, reason = "a command prints its results")]

use super::metrics::METRICS;
use super::play::Setup;
use super::record::{Point, Record};
use super::report::Report;
use super::verdict::shown;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two lines about a run that has no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How a run stands: a bar where standard output is a terminal, lines elsewhere.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    said: Instant,
    before: Option<(f64, u64)>,
}

impl Progress {
    pub(super) fn new(setup: &Setup, crews: usize) -> Self {
        let scenario = &setup.scenario;
        println!("{}: {}", scenario.name, scenario.plan.about);
        println!(
            "{} boards in {crews} {}, seed {}",
            setup.boards,
            if crews == 1 { "crew" } else { "crews" },
            setup.seed
        );
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(
                Some(setup.boards as u64),
                ProgressDrawTarget::stdout(),
            );
            if let Ok(style) =
                ProgressStyle::with_template("{elapsed:>5} [{bar:30}] {pos}/{len} {msg}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self {
            bar,
            said: Instant::now(),
            before: None,
        }
    }

    /// Something about the preparations or the end.
    pub(super) fn say(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => println!("{what}"),
        }
    }

    /// Something happened.
    pub(super) fn event(&self, t_s: f64, what: &str) {
        let line = format!("{t_s:>7.1} s  {what}");
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{line}"),
        }
    }

    /// How it stands now.
    pub(super) fn point(&mut self, record: &Record, point: &Point, waiting_for: &str) {
        let rate = self.before.map_or(0.0, |(t_s, committed)| {
            let more = point.committed.saturating_sub(committed) as f64;
            more / 1_048_576.0 / (point.t_s - t_s).max(0.001)
        });
        self.before = Some((point.t_s, point.committed));
        // Until something is pushed the bar is about sessions, then about updates.
        let (position, length, what) = if record.pushed > 0 {
            (point.confirmed, record.pushed, "confirmed")
        } else {
            (point.online, record.boards, "online")
        };
        match &self.bar {
            Some(bar) => {
                bar.set_length(length);
                bar.set_position(position);
                bar.set_message(format!(
                    "{what}; {} online, {rate:.1} MiB/s, waiting for {waiting_for}",
                    point.online
                ));
            }
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                println!(
                    "{:>7.1} s  {position} of {length} {what}, {} online, {rate:.1} MiB/s, waiting for {waiting_for}",
                    point.t_s, point.online
                );
            }
            None => {}
        }
    }

    /// Nothing more is shown.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The figures that everybody asks for first.
const FIRST: [&str; 10] = [
    "confirmed_share",
    "online_at_end",
    "time_to_online_s",
    "time_to_settled_s",
    "goodput_mib_per_s",
    "ack_ms_p99",
    "push_ms_p99",
    "resent_ratio",
    "gateway_rss_mib",
    "gateway_cpu_s",
];

/// How the run went.
pub(super) fn show(report: &Report, html: Option<&Path>) {
    println!();
    for name in FIRST {
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let value = report.metrics.get(name).copied().flatten();
        if let (Some(metric), Some(value)) = (metric, value) {
            println!(
                "{name:<22} {:>14}  {}",
                shown(value, metric.unit),
                metric.meaning
            );
        }
    }
    if !report.limits.is_empty() {
        println!("\nLimits");
    }
    for judged in &report.limits {
        println!(
            "{:<8} {:<28} {:>14}   {}",
            if judged.held { "held" } else { "VIOLATED" },
            judged.metric,
            judged.measured(),
            judged.limit()
        );
    }
    println!();
    for sentence in report.complaints() {
        println!("{sentence}");
    }
    for broken in &report.run.broken {
        println!("broken promise: {broken}");
    }
    println!(
        "{} in {:.1} s (seed {})",
        if report.passed { "PASSED" } else { "FAILED" },
        report.run.seconds,
        report.seed
    );
    if let Some(html) = html {
        println!("The report is in {}.", html.display());
    }
}
