//! `wal tail`: the last records, and with `-f` those that come, across rotation and restart.
//!
//! Never here: silence about damage. Waiting and an unreadable record are told apart: whenever nothing
//! came for a while the log's end is inspected, and damage ends the following with its exit code.
//! Invariant: it never spins; between two looks it sleeps. Next room: [`crate::cat`], whose lines
//! these are.

use std::collections::VecDeque;
use std::ops::Bound;
use std::path::PathBuf;
use std::time::Duration;

use annals_wal::{ErrorKind, LogReader, Lsn, StoredRecord};

use crate::args::Format;
use crate::cat::{Lines, width};
use crate::decode::Shown;
use crate::end::check_the_end;
use crate::exit::{Exit, Failure};
use crate::filter::{Filters, Wanted};
use crate::out::{Out, message};
use crate::place;

/// How long nothing comes before the end is inspected.
const QUIET: Duration = Duration::from_secs(2);

#[derive(clap::Args, Debug)]
pub(crate) struct TailArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// How many of the last records that are wanted to show first.
    #[arg(short = 'n', long, default_value_t = 10)]
    last: usize,
    /// Go on with what comes, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// With -f: end when nothing came for so many seconds.
    #[arg(long, value_name = "SECONDS", requires = "follow")]
    idle: Option<u64>,
    #[command(flatten)]
    filters: Filters,
    /// Characters in a line of text; default: the terminal's, else 200.
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,
    /// Text for people or one JSON object a line for programs.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn tail(args: &TailArgs, out: &mut Out) -> Result<Exit, Failure> {
    let wanted = args.filters.checked()?;
    let lines = Lines { format: args.format, width: width(args.width, out) };
    let reader = place::reader(&args.dir)?;
    let mut exit = Exit::Clean;
    let next = last(args, &reader, &wanted, lines, &mut exit, out)?;
    if !args.follow {
        check_the_end(&args.dir, &mut exit)?;
        return Ok(exit);
    }
    follow(args, &reader, &wanted, (lines, next), exit, out)
}

/// Prints the last ones; returns the LSN after all that were read.
fn last(
    args: &TailArgs,
    reader: &LogReader,
    wanted: &Wanted,
    lines: Lines,
    exit: &mut Exit,
    out: &mut Out,
) -> Result<Lsn, Failure> {
    let head = reader.head_lsn();
    let from = args.filters.from.unwrap_or(head).max(head);
    let from = if args.filters.wants_all() { near_the_end(args, from)? } else { from };
    let end = args.filters.to.map_or(Bound::Unbounded, Bound::Included);
    let mut ring: VecDeque<(StoredRecord, Shown)> = VecDeque::new();
    let mut next = from;
    for record in reader.range((Bound::Included(from), end))? {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                print(&ring, lines, exit, out)?;
                return Err(error.into());
            }
        };
        next = record.lsn.next().unwrap_or(record.lsn);
        if let Some(shown) = wanted.shown(&record) {
            ring.push_back((record, shown));
            if ring.len() > args.last {
                ring.pop_front();
            }
        }
    }
    print(&ring, lines, exit, out)?;
    Ok(next)
}

/// Where to begin if every record is wanted: no need to read them all.
fn near_the_end(args: &TailArgs, from: Lsn) -> Result<Lsn, Failure> {
    let report = place::inspect(&args.dir)?;
    let last = args.filters.to.map_or(report.proven_lsn, Some).map_or(0, Lsn::get);
    let start = (last + 1).saturating_sub(args.last as u64);
    Ok(Lsn::new(start).map_or(from, |start| start.max(from)))
}

fn print(
    ring: &VecDeque<(StoredRecord, Shown)>,
    lines: Lines,
    exit: &mut Exit,
    out: &mut Out,
) -> Result<(), Failure> {
    for (record, shown) in ring {
        if lines.print(record, shown, out)? {
            *exit = Exit::Failed;
        }
    }
    Ok(out.flush()?)
}

fn follow(
    args: &TailArgs,
    reader: &LogReader,
    wanted: &Wanted,
    (lines, next): (Lines, Lsn),
    mut exit: Exit,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let mut follow = reader.follow(next)?;
    let (mut quiet, mut told) = (Duration::ZERO, false);
    loop {
        match follow.next_timeout(QUIET.min(args.idle.map_or(QUIET, Duration::from_secs))) {
            Ok(Some(record)) => {
                (quiet, told) = (Duration::ZERO, false);
                if args.filters.to.is_some_and(|to| record.lsn > to) {
                    return Ok(exit);
                }
                if let Some(shown) = wanted.shown(&record) {
                    if lines.print(&record, &shown, out)? {
                        exit = Exit::Failed;
                    }
                    out.flush()?;
                }
            }
            Ok(None) => {
                quiet += QUIET;
                let before = exit;
                check_the_end(&args.dir, &mut exit)?;
                if exit != before {
                    return Ok(exit);
                }
                if args.idle.is_some_and(|idle| quiet >= Duration::from_secs(idle)) {
                    return Ok(exit);
                }
                if !told {
                    told = true;
                    let at =
                        follow.position().map_or(String::new(), |lsn| format!(" for LSN {lsn}"));
                    let who =
                        if reader.is_live()? { "a writer is there" } else { "no writer is there" };
                    message(&format!("wal: waiting{at}; {who}, nothing is damaged"));
                }
            }
            Err(error) => {
                out.flush()?;
                if error.kind() == ErrorKind::Corrupt {
                    let position = follow.position().map_or(0, Lsn::get);
                    message(&format!(
                        "wal: the record at LSN {position} is there and cannot be read"
                    ));
                }
                return Err(error.into());
            }
        }
        if out.is_gone() {
            return Ok(exit);
        }
    }
}
