//! Medians over rounds, and the table that people read.
//!
//! Never here: a measurement. A median is taken for each figure alone, over the rounds that gave
//! one; a setting with an error in any round shows the error and no figure. Ratios are taken only
//! among durable engines. Next rooms: [`crate::svg`], [`crate::row`].

use crate::engines::{BEST_PEERS, FLOOR, FLOORS, OURS, OURS_REGISTRY, OURS_SHARED, SEQUENTIAL};
use crate::row::{Figures, Row};
use crate::workload::Workload;

/// One engine in one setting, over all rounds.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) engine: &'static str,
    pub(crate) workload: Workload,
    pub(crate) writers: usize,
    /// Bytes of a record.
    pub(crate) size: usize,
    /// Whether it stands in ratios: its appends are durable, its scans compare checksums.
    pub(crate) counts: bool,
    pub(crate) result: Result<Figures, String>,
    /// Smallest and largest throughput of a round.
    pub(crate) range: (f64, f64),
}

/// The cells, in the order in which their first rows came.
pub(crate) fn medians(rows: &[Row]) -> Vec<Cell> {
    let key = |row: &Row| (row.engine, row.workload.name(), row.writers);
    let mut cells: Vec<Cell> = Vec::new();
    for row in rows.iter().filter(|row| row.round == 1) {
        let same: Vec<&Row> = rows.iter().filter(|other| key(other) == key(row)).collect();
        let result = same.iter().map(|row| row.result.clone()).collect::<Result<Vec<_>, _>>();
        let ops = same.iter().filter_map(|row| row.result.as_ref().ok()).map(|f| f.ops_per_s);
        let range = ops.fold((f64::INFINITY, 0.0), |(least, most), ops| {
            (f64::min(least, ops), f64::max(most, ops))
        });
        cells.push(Cell {
            engine: row.engine,
            workload: row.workload,
            writers: row.writers,
            size: row.size,
            counts: row.verified.unwrap_or(row.durable || !row.workload.writes()),
            result: result.map(|figures| median_figures(&figures)),
            range,
        });
    }
    cells
}

fn median_figures(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
    Figures {
        ops_per_s: of(|figures| figures.ops_per_s),
        p50_us: of(|figures| figures.p50_us),
        p99_us: of(|figures| figures.p99_us),
        p999_us: of(|figures| figures.p999_us),
        max_us: of(|figures| figures.max_us),
        syncs_per_op: rounds[0].syncs_per_op,
        sync_calls: rounds[0].sync_calls.clone(),
        // The least, because the table warns of windows with too few.
        rotations: rounds.iter().filter_map(|figures| figures.rotations).min(),
        records: rounds.iter().map(|figures| figures.records).sum(),
        each_ops_per_s: Vec::new(),
        // The worst round, because the promise is of every process.
        slowest_over_mean: rounds
            .iter()
            .filter_map(|figures| figures.slowest_over_mean)
            .min_by(f64::total_cmp),
    }
}

/// The middle one, or the mean of the two.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[middle],
        _ => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}

/// The whole table as text.
pub(crate) fn text(cells: &[Cell]) -> String {
    let mut out = String::new();
    let mut settings: Vec<(Workload, usize)> = Vec::new();
    for cell in cells {
        if !settings.contains(&(cell.workload, cell.writers)) {
            settings.push((cell.workload, cell.writers));
        }
    }
    for (workload, writers) in settings {
        let of = |cell: &&Cell| cell.workload == workload && cell.writers == writers;
        let block: Vec<&Cell> = cells.iter().filter(of).collect();
        let best = best_peer(cells, workload, writers).map(|(_, figures)| figures.ops_per_s);
        let floor = floor(cells, workload).map(|(_, figures)| figures.ops_per_s);
        let title = format!("{}, {writers} {}", workload.name(), workload.counts());
        out.push_str(&format!("\n{title}\n{HEAD}\n"));
        for cell in block {
            out.push_str(&line(cell, best, floor));
            out.push('\n');
        }
    }
    out.push_str(FOOT);
    out
}

const HEAD: &str = "engine                records/s    MB/s      p50 us      p99 us    p99.9 us      \
     max us  syncs/op  x peer  x floor  rotations  range of records/s";
const FOOT: &str = "
x peer: records/s over the best peer's: in append and batch at as many writers, else at its own best
number; in append the better of okaywal and raft-engine, else any other durable engine.
x floor: over floor-overwrite with 1 writer, in in_flight_1k over the better floor-sequential.
Latencies: of a call; in batch of a whole batch, in scan of a whole pass, in registry_get of 100
reads. MB/s: of records; in the registry's workloads it means nothing but for annals, the log.
!: acknowledges what no sync covered. ?: reads without comparing checksums. Neither is in a ratio.
(<2): fewer than two rotations, so lengthen the window.
";

fn line(cell: &Cell, best: Option<f64>, floor: Option<f64>) -> String {
    let mark = match (cell.counts, cell.workload.writes()) {
        (true, _) => "",
        (false, true) => " !",
        (false, false) => " ?",
    };
    let name = format!("{}{mark}", cell.engine);
    let figures = match &cell.result {
        Ok(figures) => figures,
        Err(error) => return format!("{name:<20} ERROR {error}"),
    };
    let ratio = |to: Option<f64>| match to.filter(|_| cell.counts) {
        Some(to) => format!("{:.2}", figures.ops_per_s / to),
        None => "-".to_owned(),
    };
    let syncs = figures.syncs_per_op.map_or("-".to_owned(), |syncs| match syncs {
        few if few < 0.01 => format!("{few:.1e}"),
        syncs => format!("{syncs:.3}"),
    });
    let rotations = match figures.rotations {
        None => "-".to_owned(),
        Some(count) if count < 2 => format!("{count} (<2)"),
        Some(count) => count.to_string(),
    };
    format!(
        "{name:<20} {:>10.0} {:>7.1} {:>11.0} {:>11.0} {:>11.0} {:>11.0} {syncs:>9} {:>7} {:>8} \
         {rotations:>10}  {:.0}-{:.0}",
        figures.ops_per_s,
        figures.ops_per_s * cell.size as f64 / 1e6,
        figures.p50_us,
        figures.p99_us,
        figures.p999_us,
        figures.max_us,
        ratio(best),
        ratio(floor),
        cell.range.0,
        cell.range.1,
    )
}

/// The fastest of what we are held against.
pub(crate) fn best_peer(
    cells: &[Cell],
    workload: Workload,
    writers: usize,
) -> Option<(&Cell, &Figures)> {
    best(cells, |cell| {
        let peer = match workload {
            Workload::Append => BEST_PEERS.contains(&cell.engine),
            _ => {
                ![OURS, OURS_REGISTRY, OURS_SHARED].contains(&cell.engine)
                    && !cell.engine.starts_with(FLOORS)
                    && cell.counts
            }
        };
        peer && cell.workload == workload && (workload.numbers_differ() || cell.writers == writers)
    })
}

/// The disk itself, in this workload.
pub(crate) fn floor(cells: &[Cell], workload: Workload) -> Option<(&Cell, &Figures)> {
    best(cells, |cell| {
        let floor = match workload {
            Workload::InFlight1k => cell.engine.starts_with(SEQUENTIAL),
            _ => cell.engine == FLOOR,
        };
        floor && cell.writers == 1 && cell.workload == workload
    })
}

/// The fastest of these.
pub(crate) fn best(cells: &[Cell], of: impl Fn(&Cell) -> bool) -> Option<(&Cell, &Figures)> {
    let good = cells.iter().filter(|cell| of(cell));
    let good = good.filter_map(|cell| Some((cell, cell.result.as_ref().ok()?)));
    good.max_by(|(_, a), (_, b)| a.ops_per_s.total_cmp(&b.ops_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(engine: &'static str, round: usize, result: Result<f64, &str>) -> Row {
        let figures = |ops_per_s| Figures {
            ops_per_s,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            max_us: 4.0,
            syncs_per_op: Some(1.0),
            sync_calls: "fdatasync".to_owned(),
            rotations: None,
            records: 10,
            each_ops_per_s: Vec::new(),
            slowest_over_mean: None,
        };
        Row {
            engine,
            workload: Workload::Append,
            writers: 1,
            size: 128,
            round,
            durable: engine != "sled",
            verified: None,
            load: None,
            result: result.map(figures).map_err(str::to_owned),
        }
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn ratios_are_to_the_better_peer_and_the_floor() {
        let rows: Vec<Row> = [
            ("annals", 400.0),
            ("okaywal", 100.0),
            ("raft-engine", 200.0),
            ("floor-overwrite", 1600.0),
            ("sled", 9000.0),
        ]
        .into_iter()
        .map(|(engine, ops)| row(engine, 1, Ok(ops)))
        .collect();
        let text = text(&medians(&rows));
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("annals").contains(" 2.00 "), "{text}");
        assert!(line("annals").contains(" 0.25 "), "{text}");
        assert!(line("sled !").contains(" - "), "not durable, so in no ratio: {text}");
    }

    #[test]
    fn the_slowest_process_is_that_of_the_worst_round() {
        let rows: Vec<Row> = [(1, [3, 1, 4, 4]), (2, [5, 5, 5, 5])]
            .into_iter()
            .map(|(round, told)| {
                let mut row = row("annals", round, Ok(60.0));
                row.result.as_mut().unwrap().split(&told);
                row
            })
            .collect();
        assert_eq!(rows[0].result.as_ref().unwrap().each_ops_per_s, [15.0, 5.0, 20.0, 20.0]);
        let cells = medians(&rows);
        assert_eq!(cells[0].result.as_ref().unwrap().slowest_over_mean, Some(1.0 / 3.0));
    }

    #[test]
    fn one_bad_round_takes_the_figure_away() {
        let rows = [row("annals", 1, Ok(1.0)), row("annals", 2, Err("3 of 7 are lost"))];
        let text = text(&medians(&rows));
        assert!(text.contains("ERROR 3 of 7 are lost"), "{text}");
    }
}
