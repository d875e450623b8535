//! `wal salvage`, `wal diff`, `wal repair`: the library's reports, printed.
//!
//! Never here: a decision what is kept. Next room: [`crate::damage`].

use std::path::{Path, PathBuf};

use annals_wal::Lsn;
use annals_wal::diagnose::Scope;
use annals_wal::format::{HeaderVerdict, Name, SegmentHeader, parse_name};
use annals_wal::fs::{Access, Dir, os::OsDir, read_full};
use annals_wal::inspect::{Depth, State};
use annals_wal::salvage::compare::{Sort, compare_in};
use annals_wal::salvage::repair::{self, FileMark, Method, RepairPlan, Repaired};
use annals_wal::salvage::{SalvageOptions, SalvageReport, salvage_in};
use annals_wal::scan::{Step, Walker};
use serde_json::{Value, json};

use crate::absent::{Absent, Known, absent, causes, in_words, unexplained, why};
use crate::args::Format;
use crate::damage::{class_word, place, shown};
use crate::escape::{escape, escape_json, escape_pretty};
use crate::exit::{Exit, Failure};
use crate::map::size;
use crate::out::{Out, bytes_progress, message};
use crate::target::new_directory;
use crate::{archived, place, target};

/// Bytes of a segment in which a registry's transactions are looked for.
const SEARCHED: u64 = 256 << 20;
/// Ranges listed before the rest is counted.
const RANGES_SHOWN: usize = 30;

#[derive(clap::Args, Debug)]
pub(crate) struct SalvageArgs {
    /// The damaged log's directory; it is only read.
    dir: PathBuf,
    /// The new directory, which must not exist or be empty.
    #[arg(long, value_name = "NEW", required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// Say what would be kept and lost; write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Drop what is left of a batch that is not whole; without this its records are kept one by one.
    #[arg(long)]
    whole_batches: bool,
    /// At most so many lost records are filled with placeholders.
    #[arg(long, default_value_t = 10_000_000)]
    fill_max: u64,
    /// Text for people or one JSON object for programs.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DiffArgs {
    /// One log.
    a: PathBuf,
    /// The other.
    b: PathBuf,
    /// Text for people or one JSON object for programs.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("step").required(true))]
pub(crate) struct RepairArgs {
    /// The log's directory.
    dir: PathBuf,
    /// Look, and write what would be done into this file, which must not exist. Changes nothing else.
    #[arg(long, value_name = "FILE", group = "step")]
    plan: Option<PathBuf>,
    /// Do what this file says, if the log is still what it was when the file was written.
    #[arg(long, value_name = "FILE", group = "step")]
    apply: Option<PathBuf>,
}

pub(crate) fn salvage(args: &SalvageArgs, out: &mut Out) -> Result<Exit, Failure> {
    let options = SalvageOptions { whole_batches: args.whole_batches, fill_max: args.fill_max };
    if let Some(to) = args.to.as_ref().filter(|_| !args.dry_run) {
        new_directory(&args.dir, to)?;
    }
    let bar = bytes_progress(crate::inspect::directory_bytes(&args.dir) * 2);
    let from = place::at(&args.dir);
    let report = match &args.to {
        Some(to) if !args.dry_run => {
            salvage_in(&*from, Some(&OsDir::new(to)), options, &mut |bytes| bar.inc(bytes))
        }
        _ => salvage_in(&*from, None, options, &mut |bytes| bar.inc(bytes)),
    };
    bar.finish_and_clear();
    let report = report?;
    let known = diagnosed(&args.dir);
    if args.format == Format::Json {
        let value = report_json(&report, &known, "wal.salvage/1");
        out.line(&escape_json(&value.to_string()))?;
        return Ok(Exit::Clean);
    }
    let to = args.to.as_deref().filter(|_| !args.dry_run);
    let dir = shown(&args.dir);
    out.line(&match to {
        Some(to) => {
            let bytes = size(report.payload_bytes);
            format!("{dir} -> {}: kept {} records ({bytes})", shown(to), report.kept)
        }
        None => format!("{dir}: a salvage would keep {} records", report.kept),
    })?;
    print_report(&report, &known, out)?;
    print_registry(&args.dir, &report, out)?;
    if let Some(said) = known.copied.filter(|said| report.last_lsn < Some(*said)) {
        out.line(&format!(
            "  perhaps not all: a control block that was written for other files says that LSN {said} \
             was durable there, and nothing above LSN {} is here",
            report.last_lsn.map_or("0".to_owned(), |last| last.to_string())
        ))?;
    }
    let (dir, next) = (shown(&args.dir), to.map(shown));
    out.line("")?;
    Ok(match next {
        Some(to) => {
            out.line(&format!("  next: wal diff {dir} {to}    what the copy has and has not"))?;
            out.line(&format!("        wal cat {to}    its records"))?;
            Exit::Clean
        }
        None => {
            out.line(&format!("  next: wal salvage {dir} --to {dir}.salvaged"))?;
            Exit::Clean
        }
    })
}

/// What the source's diagnosis and an archive's manifest say; salvage goes without.
fn diagnosed(dir: &Path) -> Known {
    let listed = archived::listed(dir);
    let scope = Scope { depth: Depth::Everything, maps: false, threads: 2 };
    let Ok(mut diagnosis) = place::diagnose(dir, scope, &mut |_| ()) else {
        return Known { listed, ..Known::default() };
    };
    // Of an archive that lost its last file only the manifest tells; what it cannot tell is left out.
    let _ = archived::complete(dir, &mut diagnosis, false);
    Known { damages: diagnosis.damages, copied: diagnosis.report.copied_lsn, listed }
}

fn print_report(report: &SalvageReport, known: &Known, out: &mut Out) -> Result<(), Failure> {
    out.line(&match report.last_lsn {
        Some(last) => format!("  LSNs {} to {last} under their own numbers", report.first_lsn),
        None => format!("  no record; it goes on with LSN {}", report.first_lsn),
    })?;
    let absent = absent(report, known);
    for Absent { first, last, why } in absent.iter().take(RANGES_SHOWN) {
        out.line(&format!("  not in it: {} ({})", range(*first, *last), escape(why)))?;
    }
    if absent.len() > RANGES_SHOWN {
        out.line(&format!("  not in it: {} more runs", absent.len() - RANGES_SHOWN))?;
    }
    print_lost(report, known, &absent, out)?;
    for (first, last) in report.broken_batches.iter().take(RANGES_SHOWN) {
        out.line(&format!("  kept of a batch that is not whole: {}", range(*first, *last)))?;
    }
    for source in report.sources.iter().filter(|source| source.header_from_frames) {
        let name = escape(&source.name);
        out.line(&format!(
            "  {name}: header lost, {} records read by what its frames say of it",
            source.records
        ))?;
    }
    for (name, why) in &report.left_out {
        out.line(&format!("  {} left out: {}", escape(name), escape(why)))?;
    }
    for (name, said) in &report.claims {
        let name = escape(name);
        out.line(&format!(
            "  {name} says that LSN {said} was durable: not followed, for more than --fill-max records \
             would be missing up to there. If it is true, raise --fill-max; if not, move {name} away"
        ))?;
    }
    Ok(())
}

fn print_lost(
    report: &SalvageReport,
    known: &Known,
    absent: &[Absent],
    out: &mut Out,
) -> Result<(), Failure> {
    let lost = report.lost_records();
    if lost == 0 {
        let open = in_words(unexplained(report, known, absent).into_iter());
        let said = match report.last_lsn {
            _ if open.is_some() => format!(
                "  lost: unknown, nothing tells what this cost: {}",
                escape(&open.unwrap_or_default())
            ),
            _ if absent.is_empty() && report.claims.is_empty() => "  lost: none".to_owned(),
            Some(last) => format!("  lost among {}: none", range(report.first_lsn, last)),
            None => return Ok(()),
        };
        return Ok(out.line(&said)?);
    }
    out.line(&format!("  lost: {lost} records; an empty record of kind `lost` stands for each"))?;
    for (first, last) in report.lost.iter().take(RANGES_SHOWN) {
        let causes =
            why(&known.damages, *first, *last).unwrap_or_else(|| "no sound frame".to_owned());
        out.line(&format!("    {:<24} {}", range(*first, *last), escape(&causes)))?;
    }
    if report.lost.len() > RANGES_SHOWN {
        out.line(&format!("    ... {} more runs", report.lost.len() - RANGES_SHOWN))?;
    }
    Ok(())
}

/// A registry is what its transactions make of it from the first one on, or from a snapshot on. Without
/// both it is lost, and its first caller would learn it.
fn print_registry(dir: &Path, report: &SalvageReport, out: &mut Out) -> Result<(), Failure> {
    let first = report.first_lsn;
    if first == Lsn::FIRST || snapshots(dir) > 0 || !holds_transactions(dir, report)? {
        return Ok(());
    }
    Ok(out.line(&format!(
        "  the registry in it is lost: its transactions before LSN {first} are gone, and there is no \
         snapshot of it. A new log without them cannot be opened as a registry; what is left of them \
         is read with `wal cat --kind registry`"
    ))?)
}

fn snapshots(dir: &Path) -> usize {
    let entries = OsDir::new(dir).list().unwrap_or_default();
    let is_one = |name: &str| matches!(parse_name(name), Some(Name::Snapshot(_)));
    entries.iter().filter(|entry| is_one(&entry.name)).count()
}

/// Whether one of the files that were read holds a transaction; their payloads are not looked at.
fn holds_transactions(dir: &Path, report: &SalvageReport) -> Result<bool, Failure> {
    for source in &report.sources {
        let file = OsDir::new(dir).open(&source.name, Access::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?.min(SEARCHED)).unwrap_or(0)];
        let read = read_full(&*file, &mut bytes, 0)?;
        bytes.truncate(read);
        let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { continue };
        let mut walker = Walker::new(&bytes[..], &header);
        while let Some(step) = walker.step_where(|_| false)? {
            let kind = match step {
                Step::Frame(frame) if frame.trouble.is_none() => frame.header.kind,
                _ => continue,
            };
            if kind == annals_registry::TRANSACTION.get() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn range(first: Lsn, last: Lsn) -> String {
    if first == last { format!("LSN {first}") } else { format!("LSNs {first} to {last}") }
}

fn pairs(ranges: &[(Lsn, Lsn)]) -> Vec<Value> {
    ranges.iter().map(|(a, b)| json!({ "first_lsn": a.get(), "last_lsn": b.get() })).collect()
}

fn report_json(report: &SalvageReport, known: &Known, schema: &str) -> Value {
    let lost: Vec<Value> = report
        .lost
        .iter()
        .map(|(first, last)| {
            let causes: Vec<Value> = causes(&known.damages, *first, *last)
                .map(|d| json!({ "class": d.class.name(), "place": place(d) }))
                .collect();
            json!({ "first_lsn": first.get(), "last_lsn": last.get(), "causes": causes })
        })
        .collect();
    json!({
        "schema": schema,
        "log_id": report.log_id.to_string(),
        "first_lsn": report.first_lsn.get(),
        "last_lsn": report.last_lsn.map(Lsn::get),
        "kept": report.kept,
        "not_in_it": absent(report, known).iter()
            .map(|absent| json!({ "first_lsn": absent.first.get(), "last_lsn": absent.last.get() }))
            .collect::<Vec<_>>(),
        "lost_records": report.lost_records(),
        "lost": lost,
        "broken_batches": pairs(&report.broken_batches),
        "sources": report.sources.iter().map(|source| json!({
            "file": source.name,
            "segment": source.sequence.get(),
            "records": source.records,
            "header_from_frames": source.header_from_frames,
        })).collect::<Vec<_>>(),
        "left_out": report.left_out.iter()
            .map(|(name, why)| json!({ "file": name, "why": why }))
            .collect::<Vec<_>>(),
        "not_followed": report.claims.iter()
            .map(|(name, lsn)| json!({ "file": name, "lsn": lsn.get() }))
            .collect::<Vec<_>>(),
        "segments": report.segments,
        "snapshots": report.snapshots,
    })
}

pub(crate) fn diff(args: &DiffArgs, out: &mut Out) -> Result<Exit, Failure> {
    let comparison = compare_in(&*place::at(&args.a), &*place::at(&args.b))?;
    let sort = |sort: Sort| match sort {
        Sort::OnlyFirst => "only in A",
        Sort::OnlySecond => "only in B",
        Sort::LostInBoth => "unreadable in A, placeholder in B",
        Sort::LostInSecond => "in A, placeholder in B",
        Sort::LostInFirst => "placeholder in A, in B",
        Sort::Different => "different",
    };
    let count = |d: &annals_wal::salvage::compare::Difference| d.last.get() - d.first.get() + 1;
    if args.format == Format::Json {
        let value = json!({
            "schema": "wal.diff/1",
            "a": { "dir": args.a.display().to_string(), "log_id": comparison.log_ids.0.to_string() },
            "b": { "dir": args.b.display().to_string(), "log_id": comparison.log_ids.1.to_string() },
            "same": comparison.same,
            "differences": comparison.differences.iter().map(|d| json!({
                "first_lsn": d.first.get(),
                "last_lsn": d.last.get(),
                "records": count(d),
                "what": sort(d.sort),
            })).collect::<Vec<_>>(),
        });
        out.line(&escape_json(&value.to_string()))?;
    } else {
        let text =
            |lsns: Option<(Lsn, Lsn)>| lsns.map_or("no records".to_owned(), |(a, b)| range(a, b));
        out.line(&format!("A {}: {}", shown(&args.a), text(comparison.lsns.0)))?;
        out.line(&format!("B {}: {}", shown(&args.b), text(comparison.lsns.1)))?;
        if comparison.log_ids.0 != comparison.log_ids.1 {
            out.line("  two different logs: their ids differ")?;
        }
        out.line(&format!("  {} records are the same in both", comparison.same))?;
        for d in comparison.differences.iter().take(RANGES_SHOWN) {
            out.line(&format!(
                "  {:<24} {:>8}  {}",
                range(d.first, d.last),
                count(d),
                sort(d.sort)
            ))?;
        }
        if comparison.differences.len() > RANGES_SHOWN {
            let more = comparison.differences.len() - RANGES_SHOWN;
            out.line(&format!("  ... {more} more runs; --format json lists all"))?;
        }
    }
    out.flush()?;
    let mut exit = if comparison.differences.is_empty() { Exit::Clean } else { Exit::Failed };
    let (in_a, in_b) = comparison.unreadable;
    for (dir, unreadable) in [(&args.a, in_a), (&args.b, in_b)] {
        // Compared as far as it can be read: that is not the same as whole. Seals say nothing of a
        // body, so what the comparison itself could not read counts as well.
        if unreadable > 0 || is_damaged(dir)? {
            let dir = shown(dir);
            message(&format!("wal: {dir} is damaged, what cannot be read is not compared"));
            message(&format!("wal: next: wal inspect {dir} --deep"));
            exit = Exit::Corrupt;
        }
    }
    Ok(exit)
}

/// Whether anything that was promised is damaged or missing, as seals and, of an archive, its manifest
/// tell.
fn is_damaged(dir: &Path) -> Result<bool, Failure> {
    let report = match place::inspect(dir) {
        Ok(report) => report,
        // Without a segment it is a new archive, or everything is missing.
        Err(error) if error.kind() == annals_wal::ErrorKind::Corrupt => {
            return Ok(!archived::is_new(dir));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(report.state >= State::Corrupt || archived::complaints(dir)?.0 >= State::Corrupt)
}

pub(crate) fn repair(args: &RepairArgs, out: &mut Out) -> Result<Exit, Failure> {
    let options = SalvageOptions::default();
    let dir = shown(&args.dir);
    if let Some(file) = &args.plan {
        target::outside(&args.dir, file)?;
        let plan = repair::plan(&args.dir, options)?;
        let text = serde_json::to_string_pretty(&plan_json(&args.dir, &plan)).unwrap_or_default();
        target::write(file, &escape_pretty(&text))?;
        print_plan(&args.dir, &plan, out)?;
        out.line("")?;
        out.line(&match plan.method {
            Method::Nothing => format!("  next: wal cat {dir}"),
            _ => format!("  next: read {0}, then wal repair {dir} --apply {0}", shown(file)),
        })?;
        return Ok(Exit::Clean);
    }
    let Some(file) = &args.apply else { return Ok(Exit::Usage) };
    let plan = read_plan(file)?;
    match repair::apply(&args.dir, &plan, options)? {
        Repaired::Nothing => out.line(&format!("{dir}: nothing was wrong, nothing was done"))?,
        Repaired::Recovered(kept) => {
            out.line(&match kept {
                Some(name) => format!(
                    "{dir}: the torn tail was cut; the cut bytes are kept in {}",
                    escape(&name)
                ),
                None => {
                    format!("{dir}: it was opened and closed; there were no bytes to keep aside")
                }
            })?;
        }
        Repaired::Rebuilt(report, damaged_dir) => {
            let damaged = shown(&damaged_dir);
            out.line(&format!(
                "{dir}: rebuilt with {} records; the damaged log, every byte of it, is {damaged}",
                report.kept
            ))?;
            print_report(&report, &diagnosed(&damaged_dir), out)?;
            print_registry(&damaged_dir, &report, out)?;
        }
    }
    out.line("")?;
    out.line(&format!("  next: wal verify {dir}"))?;
    Ok(Exit::Clean)
}

fn print_plan(dir: &Path, plan: &RepairPlan, out: &mut Out) -> Result<(), Failure> {
    let dir_text = shown(dir);
    let classes: Vec<&str> = plan.classes.iter().map(|class| class_word(*class)).collect();
    if !classes.is_empty() {
        out.line(&format!("{dir_text}: {}", classes.join(", ")))?;
    }
    match (&plan.salvage, plan.method) {
        (Some(report), _) => {
            out.line(&format!("  a rebuilt log would keep {} records", report.kept))?;
            print_report(report, &diagnosed(dir), out)?;
            print_registry(dir, report, out)?;
            out.line(&format!(
                "  it would take the name {dir_text}; the damaged one stays, whole, as \
                 {dir_text}.damaged"
            ))?;
        }
        (None, Method::Recover) => {
            out.line(
                "  an opening would cut the torn tail and keep the cut bytes in a file beside it",
            )?;
        }
        _ => out.line(&format!("{dir_text}: nothing is wrong"))?,
    }
    Ok(())
}

fn plan_json(dir: &Path, plan: &RepairPlan) -> Value {
    let method = match plan.method {
        Method::Nothing => "nothing",
        Method::Recover => "recover",
        Method::Rebuild => "rebuild",
    };
    json!({
        "schema": "wal.repair-plan/1",
        "dir": dir.display().to_string(),
        "method": method,
        "classes": plan.classes.iter().map(|class| class.name()).collect::<Vec<_>>(),
        "files": plan.files.iter()
            .map(|f| json!({ "name": f.name, "bytes": f.bytes, "crc32": f.crc32 }))
            .collect::<Vec<_>>(),
        "would": plan.salvage.as_ref().map(|report| report_json(report, &Known::default(), "wal.salvage/1")),
    })
}

fn read_plan(file: &Path) -> Result<RepairPlan, Failure> {
    let bad = |why: String| {
        let file = file.display();
        Failure::new(
            Exit::Usage,
            format!("{file} is no plan: {why}. `wal repair DIR --plan FILE` makes one"),
        )
    };
    let text = std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    if value["schema"] != "wal.repair-plan/1" {
        return Err(bad("its schema is not wal.repair-plan/1".to_owned()));
    }
    let method = match value["method"].as_str() {
        Some("nothing") => Method::Nothing,
        Some("recover") => Method::Recover,
        Some("rebuild") => Method::Rebuild,
        _ => return Err(bad("its method is not known".to_owned())),
    };
    let mark = |value: &Value| {
        Some(FileMark {
            name: value["name"].as_str()?.to_owned(),
            bytes: value["bytes"].as_u64()?,
            crc32: u32::try_from(value["crc32"].as_u64()?).ok()?,
        })
    };
    let files = value["files"].as_array().into_iter().flatten().map(mark);
    let files = files.collect::<Option<Vec<_>>>().ok_or_else(|| bad("its files".to_owned()))?;
    Ok(RepairPlan { method, files, classes: Vec::new(), salvage: None })
}
