//! `annals-peers`: the same workloads against many engines, interleaved; a table, JSON, two plots.
//!
//! Never here: a figure that no check stands behind. Every run is reopened after a kill and its
//! records are counted; every engine's syncs are counted too. Exits with non-zero if any run
//! failed, lost a record, or acknowledged what it had not synced.
//!
//! Rooms: [`args`], [`workload`] -> [`rounds`] (who runs when) -> [`job`] -> [`child`] (a process
//! for each run) -> [`window`] (threads and tasks) over [`engines`], or over [`stores`] where the
//! workload is a registry's, in [`processes`] where it is several of them; then [`trace`], [`table`], [`summary`], [`svg`]. A new engine is a
//! file in `engines/` or `stores/` and a line in the table of `engines`; a new workload begins in
//! [`workload`].

mod args;
mod child;
mod engine;
mod engines;
mod job;
mod machine;
mod payload;
mod processes;
mod rounds;
mod row;
mod store;
mod stores;
mod summary;
mod svg;
mod table;
mod trace;
mod window;
mod workload;

use std::process::ExitCode;

use args::Args;
use engine::Outcome;
use row::Row;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some(child::VERB) => child::command(&args[1..]).map(|()| true),
        Some("--list") => {
            list();
            Ok(true)
        }
        Some("--help" | "-h") => {
            say(args::USAGE);
            Ok(true)
        }
        _ => match Args::parse(&args) {
            Ok(args) => measure(&args),
            Err(error) => {
                complain(&format!("{error}\n\n{}", args::USAGE));
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Runs all rounds, prints and writes what came of them; tells whether all was well.
fn measure(args: &Args) -> Outcome<bool> {
    machine::refuse_memory(&args.dir)?;
    say(&machine::facts(&args.dir));
    let rows = rounds::all(args, progress)?;
    let cells = table::medians(&rows);
    say(&table::text(&cells));
    say(&summary::text(&cells));
    if let Some(file) = &args.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        std::fs::write(file, format!("{:#}\n", serde_json::Value::from(rows)))?;
    }
    if let Some(dir) = &args.svg {
        std::fs::create_dir_all(dir)?;
        for &workload in &args.workloads {
            let mine: Vec<_> = cells.iter().filter(|cell| cell.workload == workload).collect();
            let file = |what: &str| dir.join(format!("{}-{what}.svg", workload.name()));
            std::fs::write(file("throughput"), svg::throughput(&mine))?;
            std::fs::write(file("latency"), svg::latency(&mine))?;
        }
    }
    let failed = rows.iter().filter(|row| row.result.is_err()).count();
    say(&format!("{} passed, {failed} failed", rows.len() - failed));
    Ok(failed == 0)
}

fn progress(row: &Row) {
    let (round, engine, writers) = (row.round, row.engine, row.writers);
    let (workload, counts) = (row.workload.name(), row.workload.counts());
    let result = match &row.result {
        Ok(figures) => format!("{:.0} ops/s, {} records", figures.ops_per_s, figures.records),
        Err(error) => format!("ERROR {error}"),
    };
    complain(&format!("{workload}, round {round}, {writers} {counts}, {engine}: {result}"));
}

fn list() {
    for entry in engines::ALL {
        let has = |workload: &workload::Workload| (entry.has)(*workload);
        let names = workload::Workload::ALL.into_iter().filter(has).map(|workload| workload.name());
        let names: Vec<_> = names.collect();
        say(&format!("{:<20} {}\n{:<20} {}", entry.name, entry.settings, "", names.join(",")));
    }
}

/// Results. Nothing else writes to standard output.
#[expect(clippy::print_stdout, reason = "a binary talks to the person who called it")]
fn say(text: &str) {
    println!("{text}");
}

/// Progress and errors, beside the results.
#[expect(clippy::print_stderr, reason = "a binary talks to the person who called it")]
fn complain(text: &str) {
    eprintln!("{text}");
}

/// One unbuffered write, so that it stands in a trace as one call.
#[expect(clippy::print_stderr, reason = "the mark is for strace, not for people")]
fn mark(text: &str) {
    eprint!("{text}");
}
