//! Two plots a workload, written by hand: throughput against writers, and latency percentiles.
//!
//! Never here: a figure that is not in the table. Both axes of the first are logarithmic, because
//! the engines are far apart; the second has a panel for each number of writers. An engine with an
//! error is left out. Next room: [`crate::table`].

use std::fmt::Write as _;

use crate::row::Figures;
use crate::table::Cell;

const COLOURS: [&str; 18] = [
    "#d62728", "#1f77b4", "#6baed6", "#2ca02c", "#98df8a", "#9467bd", "#8c564b", "#e377c2",
    "#bcbd22", "#17becf", "#c7c7c7", "#ff7f0e", "#bbbbbb", "#888888", "#222222", "#aec7e8",
    "#ff9896", "#c5b0d5",
];
const PERCENTILES: [&str; 4] = ["p50", "p99", "p99.9", "max"];

/// A rectangle with a logarithmic vertical axis.
struct Panel {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    least: f64,
    most: f64,
}

impl Panel {
    /// From the power of ten below the smallest to the one above the largest.
    fn new(left: f64, width: f64, values: impl Iterator<Item = f64>) -> Panel {
        let (least, most) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 1.0), |(a, b), value| (f64::min(a, value), f64::max(b, value)));
        let least = if least.is_finite() { least.log10().floor() } else { 0.0 };
        let most = most.log10().ceil().max(least + 1.0);
        Panel { left, top: 40.0, width, height: 360.0, least, most }
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.max(1e-9).log10() - self.least) / (self.most - self.least);
        self.top + self.height * (1.0 - share)
    }

    fn x(&self, share: f64) -> f64 {
        self.left + self.width * share
    }

    fn axes(&self, out: &mut String, title: &str, ticks: &[(f64, String)]) {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        text(out, self.left, self.top - 14.0, "start", title);
        for power in self.least as i32..=self.most as i32 {
            let y = self.y(10f64.powi(power));
            let _ = writeln!(
                out,
                "<line x1='{:.1}' y1='{y:.1}' x2='{right:.1}' y2='{y:.1}' stroke='#ddd'/>",
                self.left
            );
            text(out, self.left - 6.0, y + 4.0, "end", &format!("{}", 10f64.powi(power)));
        }
        for (share, label) in ticks {
            text(out, self.x(*share), bottom + 18.0, "middle", label);
        }
    }

    fn line(&self, out: &mut String, points: &[(f64, f64)], colour: &str) {
        let places = points.iter().map(|(share, value)| (self.x(*share), self.y(*value)));
        let list: Vec<String> = places.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let list = list.join(" ");
        let _ = writeln!(
            out,
            "<polyline points='{list}' fill='none' stroke='{colour}' stroke-width='2'/>"
        );
        for (x, y) in places {
            let _ = writeln!(out, "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='{colour}'/>");
        }
    }
}

/// Throughput against writers.
pub(crate) fn throughput(cells: &[&Cell]) -> String {
    let cells = good(cells);
    let panel = Panel::new(80.0, 520.0, cells.iter().map(|(_, figures)| figures.ops_per_s));
    let writers = writers(&cells);
    let last = writers.last().map_or(1.0, |most| (*most as f64).log2()).max(1.0);
    let share = |writers: usize| (writers as f64).log2() / last;
    let mut body = String::new();
    let ticks: Vec<_> = writers.iter().map(|&w| (share(w), w.to_string())).collect();
    let title = cells.first().map_or("", |(cell, _)| cell.workload.name());
    let title = format!("{title}: records a second, by {} (logarithmic)", counts(&cells));
    panel.axes(&mut body, &title, &ticks);
    for (at, engine) in engines(&cells).into_iter().enumerate() {
        let mine = cells.iter().filter(|(cell, _)| cell.engine == engine);
        let mut points: Vec<_> =
            mine.map(|(cell, figures)| (share(cell.writers), figures.ops_per_s)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        panel.line(&mut body, &points, colour(at));
        legend(&mut body, 620.0, at, engine);
    }
    document(800.0, &body)
}

/// Latency percentiles, a panel for each number of writers.
pub(crate) fn latency(cells: &[&Cell]) -> String {
    let cells = good(cells);
    let percentiles = |f: &Figures| [f.p50_us, f.p99_us, f.p999_us, f.max_us];
    let mut body = String::new();
    let mut left = 80.0;
    let engines = engines(&cells);
    for writers in writers(&cells) {
        let mine: Vec<_> = cells.iter().filter(|(cell, _)| cell.writers == writers).collect();
        let all = mine.iter().flat_map(|(_, figures)| percentiles(figures));
        let panel = Panel::new(left, 200.0, all);
        let ticks: Vec<_> = (0..4).map(|at| (at as f64 / 3.0, PERCENTILES[at].into())).collect();
        panel.axes(&mut body, &format!("microseconds, {writers} {}", counts(&cells)), &ticks);
        for (cell, figures) in mine {
            let points: Vec<_> = percentiles(figures)
                .into_iter()
                .enumerate()
                .map(|(at, value)| (at as f64 / 3.0, value))
                .collect();
            let at = engines.iter().position(|engine| *engine == cell.engine).unwrap_or(0);
            panel.line(&mut body, &points, colour(at));
        }
        left += 280.0;
    }
    for (at, engine) in engines.into_iter().enumerate() {
        legend(&mut body, left - 50.0, at, engine);
    }
    document(left + 130.0, &body)
}

fn good<'a>(cells: &[&'a Cell]) -> Vec<(&'a Cell, &'a Figures)> {
    cells.iter().filter_map(|cell| Some((*cell, cell.result.as_ref().ok()?))).collect()
}

fn counts(cells: &[(&Cell, &Figures)]) -> &'static str {
    cells.first().map_or("", |(cell, _)| cell.workload.counts())
}

fn engines(cells: &[(&Cell, &Figures)]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for (cell, _) in cells {
        if !names.contains(&cell.engine) {
            names.push(cell.engine);
        }
    }
    names
}

fn writers(cells: &[(&Cell, &Figures)]) -> Vec<usize> {
    let mut writers: Vec<usize> = cells.iter().map(|(cell, _)| cell.writers).collect();
    writers.sort_unstable();
    writers.dedup();
    writers
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

fn legend(out: &mut String, x: f64, at: usize, engine: &str) {
    let y = 50.0 + 20.0 * at as f64;
    let colour = colour(at);
    let _ = writeln!(out, "<circle cx='{x:.1}' cy='{y:.1}' r='4' fill='{colour}'/>");
    text(out, x + 10.0, y + 4.0, "start", engine);
}

/// Names of engines and numbers: nothing that XML would take for markup.
fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(out, "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'>{words}</text>");
}

fn document(width: f64, body: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0}' height='440' \
         font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n{body}</svg>\n"
    )
}
