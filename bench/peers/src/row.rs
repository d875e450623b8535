//! One run as a row: what the table, the plots and the JSON are made of.
//!
//! Never here: a median (`table.rs`). Next room: [`crate::table`].

use serde_json::{Value, json};

use crate::engine::Outcome;
use crate::workload::Workload;

/// One engine, one setting, one round.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) engine: &'static str,
    pub(crate) workload: Workload,
    pub(crate) writers: usize,
    pub(crate) size: usize,
    pub(crate) round: usize,
    /// Whether its acknowledgements are synced; one that is not stands in no ratio.
    pub(crate) durable: bool,
    /// Whether it compares a checksum of whatever it reads; asked of scans only.
    pub(crate) verified: Option<bool>,
    /// The machine's load when the run began.
    pub(crate) load: Option<f64>,
    /// The figures, or why there are none.
    pub(crate) result: Result<Figures, String>,
}

/// What was measured, and how many records the check found.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) syncs_per_op: Option<f64>,
    /// Which calls these were.
    pub(crate) sync_calls: String,
    pub(crate) rotations: Option<u64>,
    pub(crate) records: u64,
    /// Of each process, where there are several.
    pub(crate) each_ops_per_s: Vec<f64>,
    /// The slowest process over the mean of all.
    pub(crate) slowest_over_mean: Option<f64>,
}

impl Figures {
    /// Splits the rate by what each process was told.
    pub(crate) fn split(&mut self, acknowledged: &[u64]) {
        let total: u64 = acknowledged.iter().sum();
        let share = |count: &u64| *count as f64 / total.max(1) as f64;
        self.each_ops_per_s =
            acknowledged.iter().map(|count| share(count) * self.ops_per_s).collect();
        let least = acknowledged.iter().min().map(share);
        self.slowest_over_mean = least.map(|least| least * acknowledged.len() as f64);
    }

    /// From the child's answer and the check's count.
    pub(crate) fn of(answer: &Value, records: u64) -> Outcome<Figures> {
        let figure = |name: &str| answer[name].as_f64().ok_or_else(|| format!("no {name}"));
        Ok(Figures {
            ops_per_s: figure("ops_per_s")?,
            p50_us: figure("p50_us")?,
            p99_us: figure("p99_us")?,
            p999_us: figure("p999_us")?,
            max_us: figure("max_us")?,
            syncs_per_op: None,
            sync_calls: String::new(),
            rotations: answer["rotations"].as_u64(),
            records,
            each_ops_per_s: Vec::new(),
            slowest_over_mean: None,
        })
    }
}

impl Row {
    pub(crate) fn json(&self) -> Value {
        let mut row = json!({
            "engine": self.engine,
            "workload": self.workload.name(),
            "writers": self.writers,
            "size": self.size,
            "round": self.round,
            "durable": self.durable,
            "verified": self.verified,
            "load": self.load,
        });
        let figures = self.result.as_ref().ok();
        let of = |figure: fn(&Figures) -> f64| figures.map(figure);
        row["ops_per_s"] = json!(of(|figures| figures.ops_per_s));
        row["bytes_per_s"] =
            json!(of(|figures| figures.ops_per_s).map(|ops| ops * self.size as f64));
        row["p50_us"] = json!(of(|figures| figures.p50_us));
        row["p99_us"] = json!(of(|figures| figures.p99_us));
        row["p999_us"] = json!(of(|figures| figures.p999_us));
        row["max_us"] = json!(of(|figures| figures.max_us));
        row["syncs_per_op"] = json!(figures.and_then(|figures| figures.syncs_per_op));
        row["sync_calls"] = json!(figures.map(|figures| &figures.sync_calls));
        row["rotations"] = json!(figures.and_then(|figures| figures.rotations));
        row["records"] = json!(figures.map(|figures| figures.records));
        row["each_ops_per_s"] = json!(figures.map(|figures| &figures.each_ops_per_s));
        row["slowest_over_mean"] = json!(figures.and_then(|figures| figures.slowest_over_mean));
        row["error"] = json!(self.result.as_ref().err());
        row
    }
}
