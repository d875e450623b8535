//! One process of the storm: threads that write, and say each step on stdout, in one write a line.
//!
//! `b THREAD N` before, then `d THREAD N RESULT` (the counter's value or the LSN), `u THREAD N`
//! where the outcome is unknown, `n THREAD N` where it certainly was not made. N is the counter, or
//! the thread's how-many-eth record. It ends when its stdin does. Next room: [`super::ledger`].

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_registry::{Key, Outcome, Registry, TxResult};
use annals_wal::{ErrorKind, Log, Options, Sharing};

/// Shared by all of them.
pub(crate) const COUNTERS: u64 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writes {
    Registry,
    Entries,
}

impl Writes {
    pub(crate) fn parse(text: &str) -> Result<Writes, String> {
        match text {
            "registry" => Ok(Writes::Registry),
            "entries" => Ok(Writes::Entries),
            other => Err(format!("--writers {other}: registry or entries")),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Writes::Registry => "registry",
            Writes::Entries => "entries",
        }
    }
}

pub(crate) fn counter(n: u64) -> String {
    format!("counters/c{n}")
}

pub(crate) fn command(args: &[String]) -> ExitCode {
    let [writes, log, slot, start, threads] = args else { return ExitCode::from(2) };
    match run(writes, Path::new(log), [slot, start], threads.parse().unwrap_or(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&format!("slot {slot}, start {start}: {why}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the parent's terminal is the place for it")]
fn complain(why: &str) {
    eprintln!("{why}");
}

fn run(writes: &str, log: &Path, [slot, start]: [&String; 2], threads: u64) -> Result<(), String> {
    let writes = Writes::parse(writes)?;
    let options = Options::new().sharing(Sharing::Processes).segment_bytes(256 << 10);
    let log = options.open(log).map_err(|e| format!("opening: {e}"))?;
    let registry = match writes {
        Writes::Registry => {
            let options = annals_registry::Options::new().snapshot_bytes(4 << 20);
            Some(options.on(log.clone()).map_err(|e| format!("building: {e}"))?)
        }
        Writes::Entries => None,
    };
    let over = Arc::new(AtomicBool::new(false));
    // It waits for the parent, and nobody waits for it.
    let parent_is_gone = over.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        parent_is_gone.store(true, Ordering::Relaxed);
    });
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (log, registry, over) = (&log, registry.as_ref(), &*over);
                let name = format!("{slot} {start} {thread}");
                scope.spawn(move || {
                    let ended = match registry {
                        Some(registry) => count(registry, thread, over),
                        None => record(log, &name, thread, over),
                    };
                    over.fetch_or(ended.is_err(), Ordering::Relaxed);
                    ended
                })
            })
            .collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        ended.fold(Ok(()), Result::and)
    });
    failed?;
    drop(registry);
    log.close().map_err(|e| format!("closing: {e}"))
}

/// One line, in one write: a kill cuts it or does not.
fn line(text: &str) {
    let _ = std::io::stdout().write_all(format!("{text}\n").as_bytes());
    let _ = std::io::stdout().flush();
}

fn count(registry: &Registry, thread: u64, over: &AtomicBool) -> Result<(), String> {
    let mut n = thread;
    while !over.load(Ordering::Relaxed) {
        n = (n + 1) % COUNTERS;
        let key = Key::new(counter(n)).map_err(|e| e.to_string())?;
        line(&format!("b {thread} {n}"));
        let made = registry.transact(|tx| -> TxResult<u64> {
            let next = tx.get_json::<u64>(&key)?.unwrap_or(0) + 1;
            tx.put_json(&key, &next)?;
            Ok(next)
        });
        match made {
            Ok(Outcome::Done { value, .. }) => line(&format!("d {thread} {n} {value}")),
            Ok(_) => line(&format!("n {thread} {n}")),
            Err(error) => {
                let told = if error.outcome_unknown() { "u" } else { "n" };
                line(&format!("{told} {thread} {n}"));
                // Whoever was kept waiting may come again; whose log is poisoned may not.
                if registry.log().poisoned().is_some() {
                    return Err(error.to_string());
                }
            }
        }
    }
    Ok(())
}

fn record(log: &Log, name: &str, thread: u64, over: &AtomicBool) -> Result<(), String> {
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        line(&format!("b {thread} {n}"));
        match log.append(format!("{name} {n}").as_str()) {
            Ok(lsn) => line(&format!("d {thread} {n} {lsn}")),
            Err(error) => {
                let told = if error.outcome_unknown() { "u" } else { "n" };
                line(&format!("{told} {thread} {n}"));
                if error.kind() != ErrorKind::Locked {
                    return Err(error.to_string());
                }
            }
        }
    }
    Ok(())
}
