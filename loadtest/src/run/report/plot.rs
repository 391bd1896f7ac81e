//! Plots over the time of a run, as SVG.

use crate::Error;
use crate::run::record::Event;
use plotters::prelude::*;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Size of a plot in its own units; the page scales it.
const SIZE: (u32, u32) = (520, 270);
const FONT: &str = "sans-serif";
const FONT_SIZE: u32 = 13;

/// Colours as they are in the light; the page's style gives others to the same names in the dark.
pub(super) const INK: RGBColor = RGBColor(0x55, 0x5B, 0x66);
pub(super) const GRID: RGBColor = RGBColor(0xE3, 0xE5, 0xEA);
pub(super) const MARK: RGBColor = RGBColor(0x9A, 0x9F, 0xAA);
/// Colours of the lines of a plot, in order.
pub(super) const LINES: [RGBColor; 4] = [
    RGBColor(0x1F, 0x6F, 0xB2),
    RGBColor(0xC7, 0x5B, 0x12),
    RGBColor(0x2E, 0x8B, 0x57),
    RGBColor(0x8E, 0x44, 0xAD),
];

/// A line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// In words, for the legend.
    pub(super) name: &'static str,
    /// Seconds and value; a gap where there is no value.
    pub(super) values: Vec<(f64, Option<f64>)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: &'static str,
    /// Unit of its values.
    pub(super) unit: &'static str,
    /// What it says, in a sentence.
    pub(super) about: &'static str,
    pub(super) lines: Vec<Line>,
}

impl Plot {
    /// There is something to see.
    pub(super) fn has_values(&self) -> bool {
        let values = self.lines.iter().flat_map(|line| &line.values);
        values.filter(|(_, value)| value.is_some()).count() > 1
    }

    /// As SVG, with a thin line for each event and its number.
    pub(super) fn svg(&self, seconds: f64, events: &[Event]) -> Result<String, Error> {
        let mut svg = String::new();
        self.draw(&mut svg, seconds, events)
            .map_err(|error| Error::of("a plot cannot be drawn", &error))?;
        Ok(svg)
    }

    fn draw(
        &self,
        svg: &mut String,
        seconds: f64,
        events: &[Event],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let font = (FONT, FONT_SIZE).into_font().color(&INK);
        let most = self
            .lines
            .iter()
            .flat_map(|line| &line.values)
            .filter_map(|(_, value)| *value)
            .fold(0.0, f64::max);
        let top = if most > 0.0 { most * 1.12 } else { 1.0 };
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(18)
            .margin_right(14)
            .margin_left(4)
            .x_label_area_size(40)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..seconds.max(0.1), 0.0..top)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(MARK)
            .label_style(font.clone())
            .axis_desc_style(font.clone())
            .x_labels(7)
            .y_labels(6)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .x_desc("seconds")
            .y_desc(self.unit)
            .draw()?;
        for (number, event) in events.iter().enumerate() {
            let line = [(event.t_s, 0.0), (event.t_s, top)];
            chart.draw_series(DashedLineSeries::new(line, 3, 4, MARK.into()))?;
            let place = (FONT, FONT_SIZE - 1)
                .into_font()
                .color(&INK)
                .transform(FontTransform::None)
                .pos(Pos::new(HPos::Center, VPos::Bottom));
            let label = (number + 1).to_string();
            chart.draw_series(std::iter::once(Text::new(label, (event.t_s, top), place)))?;
        }
        for (line, colour) in self.lines.iter().zip(LINES) {
            for part in parts(&line.values) {
                // A value between two gaps is no line, and must be seen all the same.
                if let [alone] = part[..] {
                    let dot = Circle::new(alone, 2, colour.filled());
                    chart.draw_series(std::iter::once(dot))?;
                }
                chart.draw_series(LineSeries::new(part, colour.stroke_width(2)))?;
            }
        }
        root.present()?;
        Ok(())
    }
}

/// The runs of values without a gap.
fn parts(values: &[(f64, Option<f64>)]) -> Vec<Vec<(f64, f64)>> {
    let mut parts = vec![Vec::new()];
    for (t_s, value) in values {
        match (value, parts.last_mut()) {
            (Some(value), Some(part)) => part.push((*t_s, *value)),
            (None, Some(part)) if !part.is_empty() => parts.push(Vec::new()),
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// A number beside an axis.
fn tick(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value.abs() < 1.0 {
        // As many digits as the step between two of them needs.
        let text = format!("{value:.3}");
        text.trim_end_matches('0').to_owned()
    } else if value == value.trunc() || value.abs() >= 100.0 {
        crate::run::verdict::shown(value.round(), "")
    } else {
        format!("{value:.1}")
    }
}

/// A colour as the SVG has it.
pub(super) fn name(colour: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: Vec<(f64, Option<f64>)>) -> Plot {
        Plot {
            title: "Something",
            unit: "MiB/s",
            about: "Nothing.",
            lines: vec![Line {
                name: "one",
                values,
            }],
        }
    }

    #[test]
    fn a_gap_parts_a_line() {
        let values = [(0.0, Some(1.0)), (1.0, None), (2.0, None), (3.0, Some(2.0))];
        assert_eq!(parts(&values), [vec![(0.0, 1.0)], vec![(3.0, 2.0)]]);
        assert!(parts(&[]).is_empty());
    }

    #[test]
    fn a_plot_has_axes_labels_and_lines() {
        let events = [Event {
            t_s: 0.5,
            what: "a push".into(),
        }];
        let svg = plot(vec![(0.0, Some(1.0)), (1.0, Some(2.0))])
            .svg(1.0, &events)
            .unwrap();
        for part in ["<svg", "seconds", "MiB/s", "<polyline", &name(LINES[0])] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }

    #[test]
    fn a_plot_of_zeros_or_of_nothing_is_drawn_all_the_same() {
        assert!(plot(vec![(0.0, Some(0.0))]).svg(0.0, &[]).is_ok());
        assert!(!plot(Vec::new()).has_values());
        assert!(plot(Vec::new()).svg(1.0, &[]).is_ok());
    }
}
