//! The report as one HTML file: no script, nothing from elsewhere, every text escaped by `maud`.

use super::Report;
use super::plot::{self, Line, Plot};
use crate::Error;
use crate::run::metrics::METRICS;
use crate::run::record::Point;
use crate::run::verdict::shown;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Values of a plotted rate.
const RATES_MAX: usize = 160;
const MIB: f64 = 1024.0 * 1024.0;
/// The lines of plots in the dark, in the order of [`plot::LINES`].
const LINES_IN_THE_DARK: [&str; 4] = ["#6FB7F2", "#F2A65E", "#7FD6A0", "#CF9BEA"];

/// The whole page.
pub(super) fn page(report: &Report) -> Result<String, Error> {
    let run = &report.run;
    let title = format!(
        "{} {}",
        report.scenario,
        if report.passed { "passed" } else { "failed" }
    );
    let plots = plots(report)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // A page that could ask for anything would be refused it.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) (PreEscaped(colours())) }
            }
            body {
                main {
                    header {
                        h1 { (report.scenario) }
                        p.soft { (report.about) }
                        (verdict(report))
                        (facts(report))
                    }
                    (limits(report))
                    h2 { "Over time" }
                    div.plots { (plots) }
                    h2 { "What happened" }
                    ol.events {
                        @for (number, event) in run.events.iter().enumerate() {
                            li { b { (number + 1) } span { (format!("{:.1} s", event.t_s)) } div { (event.what) } }
                        }
                    }
                    (figures(report))
                    (reasons(report))
                    h2 { "The scenario" }
                    details {
                        summary { (report.scenario) ".toml" }
                        pre { (report.scenario_text) }
                    }
                }
            }
        }
    };
    Ok(page.into_string())
}

/// Other colours for the plots in the dark.
fn colours() -> String {
    let mut css = String::from("@media (prefers-color-scheme: dark) {\n");
    let pairs = plot::LINES.into_iter().zip(LINES_IN_THE_DARK).chain([
        (plot::INK, "#A3A9B4"),
        (plot::GRID, "#31353D"),
        (plot::MARK, "#6B717D"),
    ]);
    for (light, dark) in pairs {
        let light = plot::name(light);
        // Writing to a String does not fail.
        let _ = writeln!(
            css,
            "svg [stroke=\"{light}\"] {{ stroke: {dark} }} svg [fill=\"{light}\"] {{ fill: {dark} }}"
        );
    }
    css.push_str("}\n");
    for (number, (light, dark)) in plot::LINES.into_iter().zip(LINES_IN_THE_DARK).enumerate() {
        let light = plot::name(light);
        let _ = writeln!(
            css,
            ".line{number} {{ background: {light} }} @media (prefers-color-scheme: dark) {{ .line{number} {{ background: {dark} }} }}"
        );
    }
    css
}

fn verdict(report: &Report) -> Markup {
    let complaints = report.complaints();
    let class = if report.passed { "passed" } else { "failed" };
    html! {
        div class={ "verdict " (class) } {
            strong { @if report.passed { "Passed" } @else { "Failed" } }
            @if report.passed {
                p { (format!("Every one of {} limits was held.", report.limits.len())) }
            } @else {
                ul { @for complaint in &complaints { li { (complaint) } } }
            }
            @if !report.run.broken.is_empty() {
                p { "Promises that boards saw broken:" }
                ul { @for broken in &report.run.broken { li { (broken) } } }
            }
        }
    }
}

fn facts(report: &Report) -> Markup {
    html! {
        dl.facts {
            dt { "Boards" } dd { (shown(report.run.boards as f64, "")) }
            dt { "Took" } dd { (format!("{:.1} s", report.run.seconds)) }
            dt { "Machine" } dd { (report.machine) }
            dt { "Seed" } dd { (report.seed) }
            dt { "Ended" } dd { (report.ended) }
            dt { "Version" } dd { "dialhome-loadtest " (report.version) }
        }
    }
}

fn limits(report: &Report) -> Markup {
    html! {
        h2 { "Limits" }
        @if report.limits.is_empty() {
            p.soft { "The scenario has none." }
        } @else {
            table.stack {
                thead { tr { th { "Metric" } th { "" } th.number { "Measured" } th { "Limit" } th { "What it is" } } }
                tbody {
                    @for judged in &report.limits {
                        tr {
                            td { code { (judged.metric) } }
                            td {
                                @if judged.held { span.held { "held" } } @else { span.violated { "violated" } }
                            }
                            td.number data-name="measured" { (judged.measured()) }
                            td { (judged.limit()) }
                            td.wide.soft { (judged.meaning) }
                        }
                    }
                }
            }
        }
    }
}

fn figures(report: &Report) -> Markup {
    html! {
        h2 { "All figures" }
        table.stack {
            thead { tr { th { "Metric" } th.number { "Measured" } th { "What it is" } } }
            tbody {
                @for metric in METRICS {
                    @if let Some(value) = report.metrics.get(metric.name).copied().flatten() {
                        tr {
                            td { code { (metric.name) } }
                            td.number { (shown(value, metric.unit)) }
                            td.wide.soft { (metric.meaning) }
                        }
                    }
                }
            }
        }
    }
}

fn reasons(report: &Report) -> Markup {
    let last = &report.run.last;
    let tables = [
        ("Updates at the end, by state", &report.run.updates),
        ("Dials that came to nothing", &last.failed_dials),
        ("Sessions that ended, by the board's word", &last.ended),
        ("Updates that ended otherwise", &last.not_confirmed),
    ];
    let shown_table = |title: &str, counts: &BTreeMap<String, u64>| {
        html! {
            div {
                h2 { (title) }
                @if counts.is_empty() { p.soft { "None." } }
                @else {
                    table {
                        tbody {
                            @for (reason, count) in counts {
                                tr { td { (reason) } td.number { (shown(*count as f64, "")) } }
                            }
                        }
                    }
                }
            }
        }
    };
    html! { div.columns { @for (title, counts) in tables { (shown_table(title, counts)) } } }
}

fn plots(report: &Report) -> Result<Markup, Error> {
    let run = &report.run;
    let mut figures = Vec::new();
    for plot in all(&run.points) {
        let svg = if plot.has_values() {
            Some(plot.svg(run.seconds, &run.events)?)
        } else {
            None
        };
        figures.push((plot, svg));
    }
    Ok(html! {
        @for (plot, svg) in &figures {
            figure {
                figcaption {
                    b { (plot.title) ", " (plot.unit) }
                    (plot.about)
                    ul.legend {
                        @for (number, line) in plot.lines.iter().enumerate() {
                            li { i class=(format!("line{number}")) {} (line.name) }
                        }
                    }
                }
                @match svg {
                    // Made by the plotting library from numbers and from words of this program.
                    Some(svg) => div role="img" aria-label=(plot.title) { (PreEscaped(svg)) },
                    None => p.none { "Nothing of this kind happened." },
                }
            }
        }
    })
}

fn all(points: &[Point]) -> Vec<Plot> {
    let of = |name, value: fn(&Point) -> Option<f64>| Line {
        name,
        values: points
            .iter()
            .map(|point| (point.t_s, value(point)))
            .collect(),
    };
    let rate = |name, scale: f64, count: fn(&Point) -> f64| Line {
        name,
        values: rates(points, scale, count),
    };
    vec![
        Plot {
            title: "Goodput",
            unit: "MiB/s",
            about: "Bytes of images that came to be on flash and were acknowledged.",
            lines: vec![rate("all boards", MIB, |point| point.committed as f64)],
        },
        Plot {
            title: "Wait for an acknowledgement",
            unit: "ms",
            about: "From the moment a chunk left until its acknowledgement came.",
            lines: vec![
                of("half were shorter", |point| {
                    point.ack_ms.map(|[p50, ..]| p50)
                }),
                of("90 of 100", |point| point.ack_ms.map(|[_, p90, _]| p90)),
                of("99 of 100", |point| point.ack_ms.map(|[.., p99]| p99)),
            ],
        },
        Plot {
            title: "Boards and updates",
            unit: "count",
            about: "Boards with a session, as the boards and as the gateway see it; updates.",
            lines: vec![
                of("boards online", |point| Some(point.online as f64)),
                of("sessions of the gateway", |point| {
                    point.sessions.map(|sessions| sessions as f64)
                }),
                of("updates confirmed", |point| Some(point.confirmed as f64)),
                of("deliveries under way", |point| Some(point.transfers as f64)),
            ],
        },
        Plot {
            title: "Dials",
            unit: "1/s",
            about: "Dials begun, those that came to nothing, and sessions that ended.",
            lines: vec![
                rate("dials", 1.0, |point| point.dials as f64),
                rate("failed", 1.0, |point| point.failed_dials as f64),
                rate("sessions ended", 1.0, |point| point.ended as f64),
                rate("refused by the gateway", 1.0, |point| point.refused as f64),
            ],
        },
        Plot {
            title: "Sent again",
            unit: "MiB",
            about: "Bytes of chunks that came to a board for a second time, since the begin.",
            lines: vec![of("all boards", |point| Some(point.again as f64 / MIB))],
        },
        Plot {
            title: "Over the air",
            unit: "MiB/s",
            about: "Bytes of TCP payload, with handshakes, pings and acknowledgements.",
            lines: vec![
                rate("to the boards", MIB, |point| point.bytes_down as f64),
                rate("from the boards", MIB, |point| point.bytes_up as f64),
            ],
        },
        Plot {
            title: "Memory of the gateway",
            unit: "MiB",
            about: "Anonymous memory of the process (RssAnon); the kernel's sockets are not in it.",
            lines: vec![of("RssAnon", |point| point.rss.map(|rss| rss as f64 / MIB))],
        },
        Plot {
            title: "Processor of the gateway",
            unit: "% of a core",
            about: "Time that its threads ran, from the scheduler's own count.",
            lines: vec![rate("all threads", 0.01, |point| point.cpu_s)],
        },
    ]
}

/// What a count gains each second, over `scale`.
fn rates(points: &[Point], scale: f64, count: fn(&Point) -> f64) -> Vec<(f64, Option<f64>)> {
    // Over longer times where there are many points: a line of a thousand teeth says nothing.
    let apart = points.len().div_ceil(RATES_MAX).max(1);
    let kept: Vec<&Point> = points.iter().step_by(apart).collect();
    kept.windows(2)
        .filter_map(|pair| match pair {
            [before, after] => {
                let seconds = (after.t_s - before.t_s).max(0.001);
                // A gateway that is down has no count for a while: no rate, rather than one below 0.
                let gain = (count(after) - count(before)).max(0.0);
                Some((after.t_s, Some(gain / scale / seconds)))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::{Event, Record};

    fn report() -> Report {
        let points = (0..5)
            .map(|n| Point {
                t_s: f64::from(n),
                committed: 1_048_576 * n as u64,
                ack_ms: Some([1.0, 2.0, 3.0]),
                ..Point::default()
            })
            .collect();
        Report {
            scenario: "<script>alert(1)</script>".into(),
            about: "a & b".into(),
            passed: false,
            seed: 1,
            machine: "a machine".into(),
            version: "0",
            ended: "now".into(),
            limits: Vec::new(),
            metrics: BTreeMap::new(),
            scenario_text: "</pre><img src=x>".into(),
            run: Record {
                seconds: 4.0,
                points,
                unfinished: Some("It <b>stopped</b>.".into()),
                events: vec![Event {
                    t_s: 1.0,
                    what: "a <i>push</i>".into(),
                }],
                ..Record::default()
            },
        }
    }

    #[test]
    fn every_text_is_escaped_and_nothing_comes_from_elsewhere() {
        let page = page(&report()).unwrap();
        for bad in [
            "<script",
            "<img",
            "<b>stopped",
            "<i>push",
            "src=",
            "href=",
            "url(",
            "@import",
        ] {
            let escaped = page.replace("&lt;img src=x", "");
            assert!(!escaped.contains(bad), "{bad}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(page.contains("a &amp; b"));
    }

    #[test]
    fn the_page_has_each_plot() {
        let page = page(&report()).unwrap();
        assert_eq!(page.matches("<figure>").count(), 8);
        assert!(page.matches("<svg").count() >= 2);
    }

    #[test]
    fn a_rate_is_a_gain_over_its_time() {
        let report = report();
        let rates = rates(&report.run.points, MIB, |point| point.committed as f64);
        assert_eq!(rates.len(), 4);
        assert!(rates.iter().all(|(_, rate)| *rate == Some(1.0)));
    }
}
