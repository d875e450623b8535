//! `wal inspect` and `wal verify`: the libraries' diagnosis, printed.
//!
//! Never here: judgement. Next rooms: [`crate::damage`], [`crate::hexdump`], [`crate::map`],
//! [`crate::picture`].

use std::path::Path;

use annals_observer::archive::manifest::Manifest;
use annals_wal::diagnose::{DAMAGES_MAX, Diagnosis, Scope};
use annals_wal::inspect::{Depth, Report, Role, SegmentReport, State};
use annals_wal::recover::Row;
use annals_wal::{ErrorKind, Lsn};
use serde_json::{Value, json};

use crate::args::{Format, InspectArgs, VerifyArgs};
use crate::damage::{self, shown, state_name};
use crate::escape::{escape, escape_json};
use crate::exit::{Exit, Failure};
use crate::out::{Out, Tone, bytes_progress};
use crate::{archived, hexdump, map, picture, place, target};

/// Segments listed before the middle is left out.
const SEGMENTS_SHOWN: usize = 20;
/// Damages explained one by one; JSON has them all.
const DAMAGES_SHOWN: usize = 50;

pub(crate) fn inspect(args: &InspectArgs, out: &mut Out) -> Result<Exit, Failure> {
    for file in args.svg.iter().chain(&args.html) {
        target::outside(&args.dir, file)?;
    }
    let depth = if args.deep { Depth::Everything } else { Depth::Seals };
    let pictures = args.map || args.svg.is_some() || args.html.is_some();
    let scope = Scope { depth, maps: pictures, threads: threads() };
    let diagnosis = if args.deep {
        with_progress(&args.dir, scope)?
    } else {
        or_new_archive(&args.dir, place::diagnose(&args.dir, scope, &mut |_| ()), false)?
    };
    show("inspect", &args.dir, &diagnosis, args.format, args.hex, out)?;
    let unread = !args.deep && args.format == Format::Text && unread(&diagnosis.report, out)?;
    if args.map && args.format == Format::Text {
        map::print(&diagnosis.maps, out)?;
    }
    if let Some(file) = &args.svg {
        target::write(file, &picture::svg(&args.dir, &diagnosis))?;
    }
    if let Some(file) = &args.html {
        target::write(file, &picture::html(&args.dir, &diagnosis))?;
    }
    if unread {
        out.line("")?;
        out.line(&format!("  next: wal verify {}", shown(&args.dir)))?;
    } else if args.format == Format::Text {
        print_next(&args.dir, &diagnosis, out)?;
    }
    Ok(exit(&diagnosis))
}

/// Whether all seems well, and most of it was not read. That is said.
fn unread(report: &Report, out: &mut Out) -> Result<bool, Failure> {
    let sealed = report.segments.iter().filter(|s| s.role == Role::Sealed).count();
    // Of an archive the last one is read whole in any case.
    let sealed = sealed.saturating_sub(usize::from(is_archive(report)));
    if sealed == 0 || report.state >= State::TornTail || report.live {
        return Ok(false);
    }
    out.line("")?;
    out.line(&format!(
        "  the records of {sealed} sealed segment{} were not read, only their seals: wal verify reads \
         every byte",
        if sealed == 1 { "" } else { "s" }
    ))?;
    Ok(true)
}

pub(crate) fn verify(args: &VerifyArgs, out: &mut Out) -> Result<Exit, Failure> {
    let depth = match args.sample {
        Some(percent) => {
            let mut offset = [0; 8];
            getrandom::fill(&mut offset).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
            Depth::Sample { percent, offset: u64::from_le_bytes(offset) }
        }
        None => Depth::Everything,
    };
    let threads = args.jobs.map_or_else(threads, usize::from);
    let diagnosis = with_progress(&args.dir, Scope { depth, maps: false, threads })?;
    if let (Some(percent), Format::Text) = (args.sample, args.format) {
        out.line(&format!("a sample: the bodies of {percent} % of the sealed segments were read"))?;
    }
    show("verify", &args.dir, &diagnosis, args.format, false, out)?;
    if args.format == Format::Text {
        print_next(&args.dir, &diagnosis, out)?;
    }
    Ok(exit(&diagnosis))
}

/// As many as are worth it: more than four are seldom fed by a disk.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

fn with_progress(dir: &Path, scope: Scope) -> Result<Diagnosis, Failure> {
    let bar = bytes_progress(directory_bytes(dir));
    let diagnosis = place::diagnose(dir, scope, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    or_new_archive(dir, diagnosis, scope.depth == Depth::Everything)
}

/// An archive to which nothing was handed over yet has a manifest and no segment. The log's library
/// knows no manifests.
fn or_new_archive(
    dir: &Path,
    diagnosis: annals_wal::Result<Diagnosis>,
    read: bool,
) -> Result<Diagnosis, Failure> {
    let error = match diagnosis {
        Err(error) if error.kind() == ErrorKind::Corrupt => error,
        diagnosis => {
            let mut diagnosis = diagnosis?;
            archived::complete(dir, &mut diagnosis, read)?;
            return Ok(diagnosis);
        }
    };
    if let Some(failure) = archived::unsupported(dir) {
        return Err(failure);
    }
    let Ok(Some(manifest)) = Manifest::read(dir) else { return Err(error.into()) };
    archived::tell_of_those_above(dir, &manifest);
    if !manifest.segments.is_empty() {
        let why = format!(
            "{} is an archive that lists {} segments, and none is there: restore them, or remove it and \
             hand over anew",
            dir.display(),
            manifest.segments.len()
        );
        return Err(Failure::new(Exit::Corrupt, why));
    }
    Ok(Diagnosis::of(Report {
        state: State::Clean,
        live: false,
        shared: None,
        row: Row::F,
        log_id: None,
        generation: None,
        head: manifest.next(),
        holds: Vec::new(),
        last_lsn: None,
        proven_lsn: None,
        copied_lsn: None,
        records: Some(0),
        segments: Vec::new(),
        findings: Vec::new(),
        findings_cut: 0,
        leftovers: Vec::new(),
    }))
}

fn exit(diagnosis: &Diagnosis) -> Exit {
    diagnosis.report.state.into()
}

/// What `wal inspect` or `wal verify` prints of a report off a terminal.
pub fn print_report(verb: &str, dir: &Path, report: &Report, format: Format) -> Vec<u8> {
    let mut out = Out::memory();
    // Memory does not fail.
    let _ = show(verb, dir, &Diagnosis::of(report.clone()), format, false, &mut out);
    out.into_memory()
}

fn show(
    verb: &str,
    dir: &Path,
    diagnosis: &Diagnosis,
    format: Format,
    hex: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let report = &diagnosis.report;
    match (format, verb) {
        (Format::Json, _) => {
            let value = as_json(dir, diagnosis, &format!("wal.{verb}/2"));
            return Ok(out.line(&escape_json(&value.to_string()))?);
        }
        (Format::Text, "verify") => print_verdict(dir, report, out)?,
        (Format::Text, _) => print_text(dir, report, out)?,
    }
    if let Some(what) = &diagnosis.unfinished {
        out.line("")?;
        out.line(&format!("  its mark says: {}", escape(what)))?;
    }
    print_damages(dir, diagnosis, hex, out)
}

fn print_damages(
    dir: &Path,
    diagnosis: &Diagnosis,
    hex: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let count = diagnosis.damages.len();
    for (index, damage) in diagnosis.damages.iter().take(DAMAGES_SHOWN).enumerate() {
        damage::print(dir, damage, (index + 1, count), out)?;
        if hex {
            hexdump::print(dir, damage, out)?;
        }
    }
    if diagnosis.report.state == State::Corrupt {
        out.line("")?;
        let dir = shown(dir);
        out.line(&format!(
            "  what can still be read, behind the damage too: wal salvage {dir} --dry-run"
        ))?;
    }
    if count > DAMAGES_SHOWN {
        out.line("")?;
        let more = count - DAMAGES_SHOWN;
        out.line(&format!("  ... and {more} more; --format json lists them"))?;
    }
    if diagnosis.damages_cut > 0 {
        out.line("")?;
        out.line(&format!(
            "  {} more damages were counted and are not explained: of a segment at most {}, of a log \
             at most {DAMAGES_MAX} are. A salvage does not depend on that",
            diagnosis.damages_cut,
            DAMAGES_MAX / 10
        ))?;
    }
    Ok(())
}

/// For the progress bar alone.
pub(crate) fn directory_bytes(dir: &Path) -> u64 {
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
    let shared = if report.shared == Some(true) { ", shared by processes" } else { "" };
    let row = if is_archive(report) {
        "an archive: it is read, and never opened for writing".to_owned()
    } else {
        format!("row {}", report.row.letter())
    };
    out.line(&format!("  log id {log_id}, generation {generation}, {row}{shared}"))?;
    out.line(&format!(
        "  LSNs {} to {}, proven durable up to {}, {}",
        report.head,
        lsn_text(report.last_lsn),
        lsn_text(report.proven_lsn),
        records_text(report),
    ))?;
    print_copied(report, out)?;
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
    Ok(())
}

fn print_verdict(dir: &Path, report: &Report, out: &mut Out) -> Result<(), Failure> {
    out.line(&headline(dir, report, out))?;
    let segments = counted(report.segments.len() as u64, "segment");
    out.line(&format!(
        "  {segments}, {}, LSNs {} to {}",
        records_text(report),
        report.head,
        lsn_text(report.last_lsn)
    ))?;
    print_copied(report, out)
}

/// Whether it is a whole archive: of one the table says no more than that it is not written to, in the
/// row of what it cannot open.
pub(crate) fn is_archive(report: &Report) -> bool {
    report.row == Row::F && report.state == State::Clean
}

/// How many records there are, and of a trimmed log how many of them lie below its head: their segment
/// is there for the sake of later ones.
fn records_text(report: &Report) -> String {
    let Some(held) = report.records else { return "it is not known how many records".to_owned() };
    let kept = report.last_lsn.and_then(|last| last.get().checked_sub(report.head.get()));
    let kept = kept.map_or(0, |steps| steps.saturating_add(1));
    match held.checked_sub(kept) {
        Some(below @ 1..) if report.state < State::Corrupt => {
            format!("{} and {below} below the head", counted(kept, "record"))
        }
        _ => counted(held, "record"),
    }
}

/// A number with its noun.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A copy's control block proves nothing, and may be the only one who tells that the end is missing.
fn print_copied(report: &Report, out: &mut Out) -> Result<(), Failure> {
    let Some(said) = report.copied_lsn else { return Ok(()) };
    let from = report.last_lsn.and_then(Lsn::next).unwrap_or(report.head);
    Ok(out.line(&format!(
        "  {}: its control block was written for other files and proves nothing, but it says that LSN \
         {said} was durable there: if this is a copy, LSNs {from} to {said} are not in it; copy the \
         original anew if you can",
        out.toned(Tone::Notice, "perhaps not whole")
    ))?)
}

fn headline(dir: &Path, report: &Report, out: &Out) -> String {
    let dir = escape(&dir.display().to_string());
    if report.state == State::Clean && report.segments.is_empty() {
        return format!("{dir}: {}", out.toned(Tone::Good, "an archive that holds no segment yet"));
    }
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
        State::Unfinished => (Tone::Bad, "UNFINISHED: a copy that was broken off, no log"),
        State::Unsupported => (Tone::Bad, "unsupported: a newer version wrote it"),
    }
}

fn print_next(dir: &Path, diagnosis: &Diagnosis, out: &mut Out) -> Result<(), Failure> {
    let dir = shown(dir);
    let next = match diagnosis.report.state {
        State::Clean if diagnosis.report.segments.is_empty() => {
            format!("wal archive LOG --to {dir}, when the log has a sealed segment")
        }
        State::Clean | State::Unclean | State::Live => format!("wal cat {dir}"),
        State::TornTail => format!("wal repair {dir} --plan plan.json"),
        State::Unfinished => {
            format!("rm -r {dir}, and run the command that was making it once more")
        }
        State::Corrupt if diagnosis.doubtful => {
            format!("wal salvage {dir} --to {dir}.salvaged --dry-run  (remove nothing before)")
        }
        State::Corrupt => format!(
            "wal salvage {dir} --to {dir}.salvaged  (writes a new log, changes nothing here; \
             --hex shows the bytes, --map where they are)"
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

pub(crate) fn as_json(dir: &Path, diagnosis: &Diagnosis, schema: &str) -> Value {
    let report = &diagnosis.report;
    let number = |lsn: Option<Lsn>| lsn.map(Lsn::get);
    json!({
        "schema": schema,
        "dir": dir.display().to_string(),
        "state": state_name(report.state),
        "live": report.live,
        "shared": report.shared,
        "unfinished": diagnosis.unfinished,
        "row": report.row.letter(),
        "log_id": report.log_id.map(|id| id.to_string()),
        "generation": report.generation.map(|generation| generation.0),
        "head_lsn": report.head.get(),
        "last_lsn": number(report.last_lsn),
        "proven_lsn": number(report.proven_lsn),
        "copied_lsn": number(report.copied_lsn),
        "records": report.records,
        "holds": report.holds.iter()
            .map(|(name, lsn)| json!({ "name": name, "lsn": lsn.get() }))
            .collect::<Vec<_>>(),
        "segments": report.segments.iter().map(segment_json).collect::<Vec<_>>(),
        "findings": diagnosis.damages.iter()
            .map(|damage| damage::as_json(dir, damage))
            .collect::<Vec<_>>(),
        "findings_cut": diagnosis.damages_cut,
        "leftovers": report.leftovers,
    })
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
