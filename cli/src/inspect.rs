//! `wal inspect` and `wal verify`: the libraries' report, printed.

use std::path::Path;

use annals_wal::Lsn;
use annals_wal::inspect::{Depth, Finding, Report, Role, SegmentReport, State, inspect as report};
use serde_json::{Value, json};

use crate::args::{Format, InspectArgs, VerifyArgs};
use crate::escape::{escape, escape_json};
use crate::exit::{Exit, Failure};
use crate::out::{Out, Tone, bytes_progress};

/// Segments listed before the middle is left out.
const SEGMENTS_SHOWN: usize = 20;

pub(crate) fn inspect(args: &InspectArgs, out: &mut Out) -> Result<Exit, Failure> {
    let report = report(&args.dir, Depth::Seals, &mut |_| ())?;
    show("inspect", &args.dir, &report, args.format, out)?;
    Ok(report.state.into())
}

pub(crate) fn verify(args: &VerifyArgs, out: &mut Out) -> Result<Exit, Failure> {
    let total = directory_bytes(&args.dir);
    let bar = bytes_progress(total);
    let report = report(&args.dir, Depth::Everything, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let report = report?;
    show("verify", &args.dir, &report, args.format, out)?;
    Ok(report.state.into())
}

/// What `wal inspect` or `wal verify` prints of a report off a terminal.
pub fn print_report(verb: &str, dir: &Path, report: &Report, format: Format) -> Vec<u8> {
    let mut out = Out::memory();
    // Memory does not fail.
    let _ = show(verb, dir, report, format, &mut out);
    out.into_memory()
}

fn show(
    verb: &str,
    dir: &Path,
    report: &Report,
    format: Format,
    out: &mut Out,
) -> Result<(), Failure> {
    match (format, verb) {
        (Format::Json, _) => print_json(dir, report, &format!("wal.{verb}/1"), out),
        (Format::Text, "verify") => print_verdict(dir, report, out),
        (Format::Text, _) => print_text(dir, report, out),
    }
}

/// For the progress bar alone.
fn directory_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "wal"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn print_text(dir: &Path, report: &Report, out: &mut Out) -> Result<(), Failure> {
    out.line(&headline(dir, report, out))?;
    let log_id = report.log_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let generation = report.generation.map_or(0, |generation| generation.0);
    out.line(&format!("  log id {log_id}, generation {generation}, row {}", report.row.letter()))?;
    out.line(&format!(
        "  LSNs {} to {}, proven durable up to {}, {} records",
        report.head,
        lsn_text(report.last_lsn),
        lsn_text(report.proven_lsn),
        report.records.map_or_else(|| "unknown".to_owned(), |records| records.to_string()),
    ))?;
    for (name, lsn) in &report.holds {
        out.line(&format!("  hold `{}` keeps LSN {lsn} and later", escape(name)))?;
    }
    out.line("")?;
    out.line("  segment  role          records  LSNs                       used / file bytes")?;
    let count = report.segments.len();
    for (index, segment) in report.segments.iter().enumerate() {
        let middle = count > SEGMENTS_SHOWN
            && (SEGMENTS_SHOWN / 2..count - SEGMENTS_SHOWN / 2).contains(&index);
        if middle && index == SEGMENTS_SHOWN / 2 {
            let hidden = count - SEGMENTS_SHOWN;
            out.line(&format!("  ... {hidden} more; --format json lists all"))?;
        } else if !middle {
            out.line(&segment_text(segment))?;
        }
    }
    for name in &report.leftovers {
        out.line(&format!("  leftover {}: the next opening removes it", escape(name)))?;
    }
    print_findings(report, out)?;
    print_next(dir, report, out)
}

fn print_verdict(dir: &Path, report: &Report, out: &mut Out) -> Result<(), Failure> {
    out.line(&headline(dir, report, out))?;
    let records = report.records.map_or_else(|| "?".to_owned(), |records| records.to_string());
    out.line(&format!(
        "  {} segments, {records} records, LSNs {} to {}",
        report.segments.len(),
        report.head,
        lsn_text(report.last_lsn)
    ))?;
    print_findings(report, out)?;
    print_next(dir, report, out)
}

fn headline(dir: &Path, report: &Report, out: &Out) -> String {
    let dir = escape(&dir.display().to_string());
    let (tone, word) = state_word(report.state);
    let live = if report.live && report.state != State::Live { " (in use)" } else { "" };
    format!("{dir}: {}{live}", out.toned(tone, word))
}

fn state_word(state: State) -> (Tone, &'static str) {
    match state {
        State::Clean => (Tone::Good, "clean"),
        State::Live => (Tone::Good, "live: a process has it open for writing"),
        State::Unclean => {
            (Tone::Good, "whole: it ended without a close record, every batch is complete")
        }
        State::TornTail => (Tone::Notice, "torn tail: it ended inside a write"),
        State::Corrupt => (Tone::Bad, "CORRUPT"),
        State::Unsupported => (Tone::Bad, "unsupported: a newer version wrote it"),
    }
}

fn print_findings(report: &Report, out: &mut Out) -> Result<(), Failure> {
    let count = report.findings.len();
    for (index, finding) in report.findings.iter().enumerate() {
        let tone = if finding.state == State::TornTail { Tone::Notice } else { Tone::Bad };
        let word = out.toned(tone, state_name(finding.state));
        out.line("")?;
        out.line(&format!("  {word} {}/{count}: {}", index + 1, escape(&finding.why)))?;
        out.line(&format!("    {}", place(finding)))?;
    }
    Ok(())
}

fn place(finding: &Finding) -> String {
    let mut parts = Vec::new();
    if let Some(segment) = finding.segment {
        parts.push(format!("segment {segment}"));
    }
    if let Some((from, to)) = finding.bytes {
        parts.push(format!("bytes {from}..{to}"));
    }
    match finding.lsns {
        Some((first, last)) if first == last => parts.push(format!("LSN {first}")),
        Some((first, last)) => parts.push(format!("LSNs {first} to {last}")),
        None => {}
    }
    parts.join(", ")
}

fn print_next(dir: &Path, report: &Report, out: &mut Out) -> Result<(), Failure> {
    let dir = escape(&dir.display().to_string());
    let next = match report.state {
        State::Clean | State::Unclean | State::Live => format!("wal cat {dir}"),
        State::TornTail => {
            format!("open it for writing: the torn bytes are kept aside; or wal cat {dir}")
        }
        State::Corrupt => format!(
            "copy the directory away, then wal verify {dir} shows every damaged place; wal cat \
             {dir} --to LSN reads what lies before"
        ),
        State::Unsupported => "use the version of wal that wrote it".to_owned(),
    };
    out.line("")?;
    Ok(out.line(&format!("  next: {next}"))?)
}

fn segment_text(segment: &SegmentReport) -> String {
    let lsns = segment.lsns.map_or_else(|| "-".to_owned(), |(a, b)| format!("{a} to {b}"));
    let count = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |n| n.to_string());
    format!(
        "  {:>7}  {:<8}  {:>11}  {lsns:<25}  {} / {}",
        segment.sequence.get(),
        role_name(segment.role),
        count(segment.records),
        count(segment.used_bytes),
        segment.file_bytes
    )
}

fn lsn_text(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(|| "none".to_owned(), |lsn| lsn.to_string())
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Sealed => "sealed",
        Role::Prepared => "prepared",
        Role::Bad => "bad",
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Clean => "clean",
        State::Live => "live",
        State::Unclean => "unclean",
        State::TornTail => "torn_tail",
        State::Corrupt => "corrupt",
        State::Unsupported => "unsupported",
    }
}

fn print_json(dir: &Path, report: &Report, schema: &str, out: &mut Out) -> Result<(), Failure> {
    let number = |lsn: Option<Lsn>| lsn.map(Lsn::get);
    let value = json!({
        "schema": schema,
        "dir": dir.display().to_string(),
        "state": state_name(report.state),
        "live": report.live,
        "row": report.row.letter(),
        "log_id": report.log_id.map(|id| id.to_string()),
        "generation": report.generation.map(|generation| generation.0),
        "head_lsn": report.head.get(),
        "last_lsn": number(report.last_lsn),
        "proven_lsn": number(report.proven_lsn),
        "records": report.records,
        "holds": report.holds.iter()
            .map(|(name, lsn)| json!({ "name": name, "lsn": lsn.get() }))
            .collect::<Vec<_>>(),
        "segments": report.segments.iter().map(segment_json).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "leftovers": report.leftovers,
    });
    Ok(out.line(&escape_json(&value.to_string()))?)
}

fn segment_json(segment: &SegmentReport) -> Value {
    json!({
        "sequence": segment.sequence.get(),
        "role": role_name(segment.role),
        "file_bytes": segment.file_bytes,
        "used_bytes": segment.used_bytes,
        "records": segment.records,
        "first_lsn": segment.lsns.map(|(first, _)| first.get()),
        "last_lsn": segment.lsns.map(|(_, last)| last.get()),
        "generation": segment.generation.map(|generation| generation.0),
        "created_ms": segment.created_ms,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "class": state_name(finding.state),
        "segment": finding.segment.map(annals_wal::Sequence::get),
        "from_byte": finding.bytes.map(|(from, _)| from),
        "to_byte": finding.bytes.map(|(_, to)| to),
        "first_lsn": finding.lsns.map(|(first, _)| first.get()),
        "last_lsn": finding.lsns.map(|(_, last)| last.get()),
        "why": finding.why,
    })
}
