// SPDX-License-Identifier: GPL-2.0

//! Two kinds of plots, as SVG and as PNG.

use crate::stats::Interval;
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::element::{DashedPathElement, PathElement, Rectangle};
use plotters::prelude::*;
use plotters::style::{FontStyle, RGBColor, register_font};
use std::path::Path;

const SIZE: (u32, u32) = (1100, 480);
/// Right of a chart, for the legend.
const LEGEND: u32 = 180;
/// Left of it, for the numbers.
const LEFT: u32 = 70;
/// Below it, for names.
const BELOW: u32 = 76;
/// Around it elsewhere.
const MARGIN: u32 = 12;

/// Told apart by those who do not see all colours, too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(120, 120, 120),
    RGBColor(213, 94, 0),
];

/// Bars in groups, each with what is known of it; a line is where the baseline is.
pub struct Bars {
    /// Above
    pub title: String,
    /// With the unit
    pub axis: String,
    /// What 1 is
    pub baseline: String,
    /// Groups
    pub groups: Vec<String>,
    /// In each group a bar of each; None: not known
    pub series: Vec<(String, Vec<Option<Interval>>)>,
}

/// Lines over a number.
pub struct Lines {
    /// Above
    pub title: String,
    /// Below, with the unit
    pub x: String,
    /// Left, with the unit
    pub y: String,
    /// All of them
    pub series: Vec<Line>,
}

/// One line.
pub struct Line {
    /// In the legend
    pub name: String,
    /// From left to right
    pub points: Vec<(f64, f64)>,
    /// Whether others are compared with it
    pub baseline: bool,
}

/// What can be drawn.
pub trait Plot {
    /// Draws it.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static;
}

/// Without the system's fonts, plots look the same everywhere.
fn font() -> Result<()> {
    let font = epaint_default_fonts::UBUNTU_LIGHT;
    register_font("sans-serif", FontStyle::Normal, font)
        .map_err(|_| anyhow!("the font cannot be read"))
}

/// Writes NAME.svg and NAME.png into the folder.
pub fn write(plot: &impl Plot, folder: &Path, name: &str) -> Result<()> {
    font()?;
    let file = |end| folder.join(format!("{name}.{end}"));
    let error = || format!("cannot draw {}", file("svg").display());
    plot.draw(&SVGBackend::new(&file("svg"), SIZE).into_drawing_area())
        .with_context(error)?;
    plot.draw(&BitMapBackend::new(&file("png"), SIZE).into_drawing_area())
        .with_context(error)
}

/// A drawing that has failed, as an error of ours.
fn ok<T, E: std::error::Error + Send + Sync>(
    result: Result<T, DrawingAreaErrorKind<E>>,
) -> Result<T> {
    result.map_err(|e| anyhow!("{e}"))
}

impl Plot for Bars {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        ok(area.fill(&WHITE))?;
        let known = self
            .series
            .iter()
            .flat_map(|(_, bars)| bars.iter().flatten());
        let top = known.map(|i| i.high).fold(1.0, f64::max) * 1.1;
        // CAST: a few groups.
        let groups = self.groups.len() as f64;
        let mut chart = ok(ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 24))
            .margin(MARGIN)
            .margin_right(LEGEND)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..groups, 0.0..top))?;
        ok(chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .y_desc(&self.axis)
            .y_label_formatter(&|v| format!("{v:.1}"))
            .label_style(("sans-serif", 16))
            .draw())?;
        let width = 0.84 / self.series.len().max(1) as f64;
        let mut entries = Vec::new();
        for (s, (name, bars)) in self.series.iter().enumerate() {
            let style = COLOURS[s % COLOURS.len()].filled();
            let known = bars
                .iter()
                .enumerate()
                .filter_map(|(g, bar)| Some((g, (*bar)?)));
            let bar = |(g, bar): (usize, Interval)| {
                let left = g as f64 + 0.08 + width * s as f64;
                Rectangle::new([(left, 0.0), (left + width * 0.9, bar.middle)], style)
            };
            ok(chart.draw_series(known.clone().map(bar)))?;
            let error = |(g, bar): (usize, Interval)| {
                let middle = g as f64 + 0.08 + width * (s as f64 + 0.45);
                PathElement::new(
                    vec![(middle, bar.low), (middle, bar.high)],
                    BLACK.stroke_width(2),
                )
            };
            ok(chart.draw_series(known.map(error)))?;
            entries.push(Entry {
                name,
                style,
                dashed: false,
                filled: true,
            });
        }
        let style = BLACK.stroke_width(2);
        ok(chart.draw_series([DashedPathElement::new(
            [(0.0, 1.0), (groups, 1.0)],
            8,
            5,
            style,
        )]))?;
        entries.push(Entry {
            name: &self.baseline,
            style,
            dashed: true,
            filled: false,
        });
        let (left, right) = (f64::from(MARGIN + LEFT), f64::from(SIZE.0 - LEGEND));
        for (g, name) in self.groups.iter().enumerate() {
            let middle = left + (right - left) * (g as f64 + 0.5) / groups;
            for (n, line) in lines(name, 10).iter().enumerate() {
                let style = TextStyle::from(("sans-serif", 14)).color(&BLACK);
                let (w, _) = ok(area.estimate_text_size(line, &style))?;
                // CAST: places on a picture.
                let x = (middle - f64::from(w) / 2.0) as i32;
                ok(area.draw_text(
                    line,
                    &style,
                    (x, (SIZE.1 - MARGIN - BELOW + 6) as i32 + 17 * n as i32),
                ))?;
            }
        }
        legend(area, &entries)?;
        ok(area.present())
    }
}

impl Plot for Lines {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        ok(area.fill(&WHITE))?;
        let points = || self.series.iter().flat_map(|l| &l.points);
        let right = points().map(|p| p.0).fold(1.0, f64::max);
        let top = points().map(|p| p.1).fold(0.0, f64::max) * 1.1;
        let mut chart = ok(ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 24))
            .margin(MARGIN)
            .margin_right(LEGEND)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..right, 0.0..top.max(f64::MIN_POSITIVE)))?;
        ok(chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&|v| format!("{v:.0}"))
            .y_label_formatter(&|v| format!("{v:.0}"))
            .label_style(("sans-serif", 16))
            .light_line_style(WHITE)
            .draw())?;
        let mut entries = Vec::new();
        for (s, line) in self.series.iter().enumerate() {
            let (name, points) = (&line.name, &line.points);
            let colour = COLOURS[s % COLOURS.len()];
            let style = colour.stroke_width(3);
            if line.baseline {
                let line = DashedPathElement::new(points.clone(), 8, 5, style);
                ok(chart.draw_series([line]))?;
            } else {
                ok(chart.draw_series(LineSeries::new(points.clone(), style)))?;
            }
            let dots = points.iter().map(|p| Circle::new(*p, 4, colour.filled()));
            ok(chart.draw_series(dots))?;
            entries.push(Entry {
                name,
                style,
                dashed: line.baseline,
                filled: false,
            });
        }
        legend(area, &entries)?;
        ok(area.present())
    }
}

/// A name in the legend, with a sign before it: filled for bars, a line for others, dashed for a baseline.
struct Entry<'a> {
    name: &'a str,
    style: ShapeStyle,
    dashed: bool,
    filled: bool,
}

/// Right of the chart, from above.
fn legend<B: DrawingBackend>(area: &DrawingArea<B, Shift>, entries: &[Entry<'_>]) -> Result<()>
where
    B::ErrorType: 'static,
{
    // CAST: places on a picture.
    let left = (SIZE.0 - LEGEND + 10) as i32;
    for (n, entry) in entries.iter().enumerate() {
        let y = 60 + 24 * n as i32;
        let ends = [(left, y), (left + 24, y)];
        if entry.filled {
            ok(area.draw(&Rectangle::new(
                [(left, y - 6), (left + 24, y + 6)],
                entry.style,
            )))?;
        } else if entry.dashed {
            ok(area.draw(&DashedPathElement::new(ends, 6, 3, entry.style)))?;
        } else {
            ok(area.draw(&PathElement::new(ends, entry.style)))?;
        }
        let text = TextStyle::from(("sans-serif", 16)).color(&BLACK);
        ok(area.draw_text(entry.name, &text, (left + 32, y - 8)))?;
    }
    Ok(())
}

/// In lines of some length, cut between words.
fn lines(name: &str, length: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in name.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= length => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(middle: f64) -> Option<Interval> {
        Some(Interval {
            low: middle * 0.9,
            middle,
            high: middle * 1.1,
        })
    }

    #[test]
    fn bars_are_drawn_twice() {
        let dir = tempfile::tempdir().unwrap();
        let bars = Bars {
            title: "A title".into(),
            axis: "ratio".into(),
            baseline: "the other one".into(),
            groups: vec!["4k".into(), "list 32 x 4k scattered".into()],
            series: vec![
                ("strict".into(), vec![interval(1.0), None]),
                ("lazy".into(), vec![interval(0.3); 2]),
            ],
        };
        write(&bars, dir.path(), "bars").unwrap();
        let svg = std::fs::read_to_string(dir.path().join("bars.svg")).unwrap();
        for text in ["A title", "ratio", "the other one", "scattered", "lazy"] {
            assert!(svg.contains(text), "{text}");
        }
        let png = std::fs::read(dir.path().join("bars.png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
    }

    #[test]
    fn lines_are_drawn_too() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines {
            title: "A title".into(),
            x: "cost".into(),
            y: "reads".into(),
            series: vec![
                Line {
                    name: "strict".into(),
                    points: vec![(0.0, 1.0), (5.0, 2.0)],
                    baseline: true,
                },
                Line {
                    name: "none".into(),
                    points: vec![],
                    baseline: false,
                },
            ],
        };
        write(&lines, dir.path(), "lines").unwrap();
        assert!(
            std::fs::read_to_string(dir.path().join("lines.svg"))
                .unwrap()
                .contains("cost")
        );
    }

    #[test]
    fn names_are_cut_between_words() {
        assert_eq!(
            lines("list 32 x 4k scattered depth 32", 10),
            ["list 32 x", "4k", "scattered", "depth 32"]
        );
        assert_eq!(lines("4k", 10), ["4k"]);
    }

    #[test]
    fn a_place_that_is_not_there_is_an_error() {
        let lines = Lines {
            title: String::new(),
            x: String::new(),
            y: String::new(),
            series: vec![],
        };
        assert!(write(&lines, Path::new("/nowhere"), "x").is_err());
    }
}
