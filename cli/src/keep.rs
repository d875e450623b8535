//! `wal backup` and `wal trim`: the library's calls, with a dry run.
//!
//! Never here: what may be copied or dropped. Next room: [`crate::out`].

use std::path::PathBuf;

use annals_wal::Lsn;
use annals_wal::inspect::{Report, State};

use crate::damage::shown;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::inspect::{counted, is_archive};
use crate::map::size;
use crate::out::Out;
use crate::{opening, place, target};

#[derive(clap::Args, Debug)]
pub(crate) struct BackupArgs {
    /// The log's directory. It is opened for writing, so no other process may have it open, unless it
    /// is shared; a process that has it calls `Log::backup` itself.
    dir: PathBuf,
    /// The new directory, which must not exist or be empty.
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
    /// Say what would be copied; write nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct TrimArgs {
    /// The log's directory. It is opened for writing.
    dir: PathBuf,
    /// The first LSN to keep. Holds keep what they need in any case.
    #[arg(long, value_name = "LSN", value_parser = crate::args::lsn)]
    before: Lsn,
    /// Say what would be dropped; write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A dry run promises nothing that the real one, which opens the log for writing, would refuse.
fn check_writable(dir: &str, report: &Report) -> Result<(), Failure> {
    if is_archive(report) {
        let why = format!("{dir} is an archive and never opened for writing: wal cat {dir}");
        return Err(Failure::new(Exit::Failed, why));
    }
    if report.state >= State::Corrupt {
        let why = format!("{dir} is damaged: wal inspect {dir}");
        return Err(Failure::new(report.state.into(), why));
    }
    Ok(())
}

pub(crate) fn backup(args: &BackupArgs, out: &mut Out) -> Result<Exit, Failure> {
    let dir = shown(&args.dir);
    let to = shown(&args.to);
    if args.dry_run {
        let report = place::inspect(&args.dir)?;
        check_writable(&dir, &report)?;
        let bytes: u64 = report.segments.iter().map(|segment| segment.file_bytes).sum();
        let last = report.proven_lsn.map_or("none".to_owned(), |lsn| lsn.to_string());
        out.line(&format!(
            "would copy LSNs {} to {last} of {dir} to {to}: {}, {}",
            report.head,
            counted(report.segments.len() as u64, "segment"),
            size(bytes)
        ))?;
        return Ok(Exit::Clean);
    }
    target::new_directory(&args.dir, &args.to)?;
    let log = opening::existing(&args.dir)?;
    let report = opening::closing(log, |log| Ok(log.backup(&args.to)?))?;
    let last = report.last_lsn.map_or("none".to_owned(), |lsn| lsn.to_string());
    out.line(&format!(
        "{dir} -> {to}: LSNs {} to {last}, {}",
        report.first_lsn,
        counted(report.segments as u64, "segment")
    ))?;
    out.line(&format!("  next: wal verify {to}"))?;
    Ok(Exit::Clean)
}

pub(crate) fn trim(args: &TrimArgs, out: &mut Out) -> Result<Exit, Failure> {
    let dir = shown(&args.dir);
    let before = place::inspect(&args.dir)?;
    if args.dry_run {
        check_writable(&dir, &before)?;
    }
    let hold = before.holds.iter().min_by_key(|(_, lsn)| *lsn);
    let held = hold.filter(|(_, lsn)| *lsn < args.before);
    if let Some((name, lsn)) = held {
        let name = escape(name);
        out.line(&format!("  hold `{name}` keeps LSN {lsn} and later"))?;
    }
    let head = held.map_or(args.before, |(_, lsn)| *lsn);
    // The log's own numbers decide when it is done; this is what they come to.
    let dropped = |head: Lsn| {
        let whole = |segment: &&annals_wal::inspect::SegmentReport| {
            segment.lsns.is_some_and(|(_, last)| last < head)
                && segment.role == annals_wal::inspect::Role::Sealed
        };
        let gone = before.segments.iter().filter(whole);
        (gone.clone().count(), gone.map(|segment| segment.file_bytes).sum::<u64>())
    };
    if args.dry_run {
        let (count, bytes) = dropped(head);
        out.line(&format!(
            "would trim {dir} to LSN {head}: {count} segments go, {} become free",
            size(bytes)
        ))?;
        return Ok(Exit::Clean);
    }
    let log = opening::existing(&args.dir)?;
    let head = opening::closing(log, |log| Ok(log.trim(args.before)?))?;
    let (count, bytes) = dropped(head);
    out.line(&format!(
        "{dir}: LSN {head} is the first one now; {count} segments are gone, {} are free",
        size(bytes)
    ))?;
    Ok(Exit::Clean)
}
