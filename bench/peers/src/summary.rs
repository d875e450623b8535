//! A sentence for each workload: what was asked of it, with the figures that answer.
//!
//! Never here: a verdict, a figure that is not in the table. Next room: [`crate::table`].

use std::fmt::Write as _;

use crate::engines::{FLOOR, OURS};
use crate::row::Figures;
use crate::table::{self, Cell};
use crate::workload::Workload;

/// What the medians say; nothing for what was not run.
pub(crate) fn text(cells: &[Cell]) -> String {
    let mut out = String::new();
    for workload in Workload::ALL {
        let writers = cells.iter().filter(|cell| cell.workload == workload);
        let mut writers: Vec<usize> = writers.map(|cell| cell.writers).collect();
        writers.sort_unstable();
        writers.dedup();
        for writers in writers {
            let ours = table::best(cells, |cell| {
                (cell.engine, cell.workload, cell.writers) == (workload.ours(), workload, writers)
            });
            match ours {
                Some((cell, figures)) if workload.of_registry() => {
                    registry(&mut out, cells, cell, figures);
                }
                Some((cell, figures)) => line(&mut out, cells, cell, figures),
                None => {}
            }
        }
    }
    out
}

fn line(out: &mut String, cells: &[Cell], cell: &Cell, ours: &Figures) {
    let (workload, writers) = (cell.workload, cell.writers);
    let rate = |figures: &Figures| {
        let bytes = figures.ops_per_s * cell.size as f64 / 1e6;
        format!("{:.0} records/s ({bytes:.1} MB/s)", figures.ops_per_s)
    };
    let _ = write!(out, "{}, {writers} {}: {}", workload.name(), workload.counts(), rate(ours));
    let mut beside = |name: &str, theirs: Option<(&Cell, &Figures)>| {
        if let Some((cell, figures)) = theirs {
            let times = ours.ops_per_s / figures.ops_per_s;
            let who = format!("{name} {} with {}", cell.engine, cell.writers);
            let _ = write!(out, "; {times:.2} x {who}: {}", rate(figures));
        }
    };
    beside("best peer", table::best_peer(cells, workload, writers));
    beside("floor", table::floor(cells, workload));
    if workload == Workload::Shared1 {
        let alone = table::best(cells, |cell| (cell.engine, cell.workload) == (OURS, workload));
        beside("a log of one process,", alone);
    }
    if workload == Workload::InFlight && writers > 1 {
        beside(
            "itself,",
            table::best(cells, |cell| {
                (cell.engine, cell.workload, cell.writers) == (OURS, workload, 1)
            }),
        );
        let sync = table::best(cells, |cell| {
            (cell.engine, cell.workload, cell.writers) == (FLOOR, workload, 1)
        });
        if let Some((_, figures)) = sync {
            let _ = write!(out, "; a raw sync took {:.0} us (median)", figures.p50_us);
        }
    }
    out.push('\n');
}

/// Ours over each of the others, one by one: they are asked for one by one, and *annals* is the log
/// under the registry.
fn registry(out: &mut String, cells: &[Cell], cell: &Cell, ours: &Figures) {
    let (workload, writers) = (cell.workload, cell.writers);
    let (name, counts) = (workload.name(), workload.counts());
    let _ = write!(out, "{name}, {writers} {counts}: {}", change(workload, ours));
    let beside = |other: &&Cell| {
        (other.workload, other.writers) == (workload, writers) && other.engine != cell.engine
    };
    for other in cells.iter().filter(beside).filter(|other| other.counts) {
        if let Ok(figures) = &other.result {
            let times = ours.ops_per_s / figures.ops_per_s;
            let theirs = change(workload, figures);
            let _ = write!(out, "; {times:.2} x {}: {theirs}", other.engine);
        }
    }
    out.push('\n');
}

/// A rate of changes; of several processes with what else they are asked for.
fn change(workload: Workload, figures: &Figures) -> String {
    let rate = format!("{:.0}/s", figures.ops_per_s);
    match figures.slowest_over_mean {
        Some(share) if workload == Workload::Processes4 => format!(
            "{rate} (p99 {:.0} us, slowest process {share:.2} of the mean in its worst round)",
            figures.p99_us
        ),
        _ => rate,
    }
}
