//! `wal stats`: records, bytes, errors, tokens and latencies, by session, agent, tool or kind.
//!
//! Never here: a mean; latencies are percentiles of measured durations, and what nobody measured
//! counts for none. Invariant: memory is by the number of different names. Next room:
//! [`crate::filter`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use annals_wal::ErrorKind;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::args::Format;
use crate::cat::width;
use crate::decode::{Shown, kind_name};
use crate::end::check_the_end;
use crate::escape::{cut, escape, escape_json};
use crate::exit::{Exit, Failure};
use crate::filter::Filters;
use crate::map::size;
use crate::out::Out;
use crate::place;
use crate::walk::Walk;

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Session,
    Agent,
    Tool,
    Kind,
}

#[derive(clap::Args, Debug)]
pub(crate) struct StatsArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// What to count by; without it all four.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// How many names of each, the ones with most records first.
    #[arg(long, default_value_t = 15)]
    top: usize,
    #[command(flatten)]
    filters: Filters,
    /// Text for people or one JSON object for programs.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Default)]
struct Group {
    records: u64,
    bytes: u64,
    errors: u64,
    tokens: (u64, u64),
    /// Microseconds.
    latency: Option<Histogram<u64>>,
}

impl Group {
    fn add(&mut self, bytes: u64, shown: &Shown) {
        self.records += 1;
        self.bytes += bytes;
        let Shown::Entry(entry) = shown else { return };
        self.errors += u64::from(entry.has_error());
        self.tokens.0 += entry.tokens_in.unwrap_or(0);
        self.tokens.1 += entry.tokens_out.unwrap_or(0);
        let Some(duration) = entry.duration else { return };
        if self.latency.is_none() {
            self.latency = Histogram::new(2).ok();
            self.latency.iter_mut().for_each(|latency| latency.auto(true));
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(latency) = &mut self.latency {
            let _ = latency.record(micros); // it grows; only memory could refuse
        }
    }

    fn percentile(&self, quantile: f64) -> Option<u64> {
        self.latency.as_ref().map(|latency| latency.value_at_quantile(quantile))
    }
}

const BY: [(By, &str); 4] =
    [(By::Kind, "kind"), (By::Session, "session"), (By::Agent, "agent"), (By::Tool, "tool")];

pub(crate) fn stats(args: &StatsArgs, out: &mut Out) -> Result<Exit, Failure> {
    let wanted = args.filters.checked()?;
    let mut groups: [BTreeMap<String, Group>; 4] = Default::default();
    let mut total = Group::default();
    let mut failure = None;
    for record in Walk::new(place::reader(&args.dir)?, args.filters.from, args.filters.to)? {
        let record = match record {
            Ok((record, _)) => record,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                failure = Some(error);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(shown) = wanted.shown(&record) else { continue };
        let bytes = record.payload.len() as u64;
        total.add(bytes, &shown);
        let mut names = [Some(kind_name(&record)), None, None, None];
        if let Shown::Entry(entry) = &shown {
            names[1] = entry.session.as_ref().map(|id| id.as_str().to_owned());
            names[2] = entry.agent.clone();
            names[3] = entry.tool.clone();
        }
        for (group, name) in groups.iter_mut().zip(names) {
            if let Some(name) = name {
                group.entry(name).or_default().add(bytes, &shown);
            }
        }
    }
    let chosen = |by: By| args.by.is_none_or(|wanted| wanted == by);
    match args.format {
        Format::Json => {
            let mut value = json!({ "schema": "wal.stats/1", "total": group_json(&total) });
            for ((by, name), groups) in BY.iter().zip(&groups).filter(|((by, _), _)| chosen(*by)) {
                let _ = by;
                let all = sorted(groups).into_iter().map(|(name, group)| {
                    let mut value = group_json(group);
                    value["name"] = json!(name);
                    value
                });
                value[format!("by_{name}")] = Value::Array(all.collect());
            }
            out.line(&escape_json(&value.to_string()))?;
        }
        Format::Text => {
            out.line(&format!(
                "{} records, {} of payload, {} errors, {}+{} tokens",
                total.records,
                size(total.bytes),
                total.errors,
                total.tokens.0,
                total.tokens.1
            ))?;
            for ((by, name), groups) in BY.iter().zip(&groups) {
                if chosen(*by) && !groups.is_empty() {
                    table(name, groups, args.top, out)?;
                }
            }
        }
    }
    if let Some(error) = failure {
        out.flush()?;
        return Err(error.into());
    }
    let mut exit = Exit::Clean;
    check_the_end(&args.dir, &mut exit)?;
    Ok(exit)
}

fn sorted(groups: &BTreeMap<String, Group>) -> Vec<(&String, &Group)> {
    let mut groups: Vec<_> = groups.iter().collect();
    groups.sort_by_key(|(name, group)| (std::cmp::Reverse(group.records), *name));
    groups
}

fn group_json(group: &Group) -> Value {
    let latency = group.latency.as_ref().map(|latency| {
        json!({
            "count": latency.len(),
            "p50_us": group.percentile(0.5),
            "p90_us": group.percentile(0.9),
            "p99_us": group.percentile(0.99),
            "max_us": latency.max(),
        })
    });
    json!({
        "records": group.records,
        "payload_bytes": group.bytes,
        "errors": group.errors,
        "tokens_in": group.tokens.0,
        "tokens_out": group.tokens.1,
        "latency": latency,
    })
}

fn table(
    title: &str,
    groups: &BTreeMap<String, Group>,
    top: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    let groups = sorted(groups);
    let most = groups.first().map_or(1, |(_, group)| group.records).max(1);
    let room = width(None, out).saturating_sub(110).clamp(10, 40);
    let latencies = groups.iter().any(|(_, group)| group.latency.is_some());
    out.line("")?;
    let heads = if latencies { "      p50      p90      p99      max" } else { "" };
    out.line(&format!(
        "  {:<36} {:>8} {:>11} {:>6}{heads}",
        format!("by {title}"),
        "records",
        "payload",
        "errors"
    ))?;
    for (name, group) in groups.iter().take(top) {
        let bar = "#".repeat((group.records * room as u64).div_ceil(most) as usize);
        let times = match (&group.latency, latencies) {
            (Some(latency), _) => {
                let at = |quantile| short_time(group.percentile(quantile).unwrap_or(0));
                format!(
                    " {:>8} {:>8} {:>8} {:>8}",
                    at(0.5),
                    at(0.9),
                    at(0.99),
                    short_time(latency.max())
                )
            }
            (None, true) => format!("{:>36}", ""),
            (None, false) => String::new(),
        };
        out.line(&format!(
            "  {:<36} {:>8} {:>11} {:>6}{times}  {bar}",
            cut(&escape(name), 33),
            group.records,
            size(group.bytes),
            group.errors
        ))?;
    }
    if groups.len() > top {
        out.line(&format!("  ... {} more; --top {} shows all", groups.len() - top, groups.len()))?;
    }
    Ok(())
}

/// Microseconds for people.
pub(crate) fn short_time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{:.1}ms", micros as f64 / 1e3),
        1_000_000..120_000_000 => format!("{:.1}s", micros as f64 / 1e6),
        _ => format!("{:.1}min", micros as f64 / 6e7),
    }
}
