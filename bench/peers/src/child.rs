//! The child's side: every window and every check runs in a process of its own.
//!
//! A process, because a run must not inherit memory or threads of the one before, because two
//! engines keep settings for the whole process, because strace counts a process, and because the
//! check is worth more after a kill: the parent kills the child that wrote, without a close, and
//! another child opens what is left.
//!
//! What a child has to say is one line that begins with [`ROW`]; engines may print other lines.
//! Next rooms: [`crate::rounds`], [`crate::processes`] where a run is several processes.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use crate::args::{engine, number};
use crate::engine::{Engine, Outcome, Setup};
use crate::payload::{Payload, Seen};
use crate::processes::{self, Member, Members};
use crate::store::{Start, Store};
use crate::window::{Measured, registry};
use crate::workload::Workload;

/// The verb that makes this program a child.
pub(crate) const VERB: &str = "--child";
/// Begins the line that the parent reads.
pub(crate) const ROW: &str = "annals-peers-row ";
/// Written to standard error around the window, for the parent to find in a trace.
pub(crate) const BEGIN: &str = "annals-peers-begin\n";
pub(crate) const END: &str = "annals-peers-end\n";

/// A window, as the parent ordered it.
#[derive(Debug)]
pub(crate) struct Run {
    setup: Setup,
    payload: Payload,
}

/// A check.
#[derive(Debug)]
pub(crate) struct Verify {
    dir: PathBuf,
    workload: Workload,
    payload: Payload,
    acknowledged: Vec<u64>,
}

/// `run ENGINE DIR SIZE SEED WORKLOAD WRITERS SECONDS`,
/// `verify ENGINE DIR SIZE SEED WORKLOAD COUNT,COUNT,...`, or as [`processes`] has it.
pub(crate) fn command(args: &[String]) -> Outcome<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["run", name, dir, size, seed, workload, writers, seconds] => {
            let payload = payload(size, seed)?;
            let setup = Setup {
                dir: PathBuf::from(dir),
                workload: self::workload(workload)?,
                writers: number("WRITERS", writers)?,
                size: payload.size,
                seconds: number("SECONDS", seconds)?,
            };
            (engine(name)?.run)(&Run { setup, payload })
        }
        ["verify", name, dir, size, seed, workload, counts] => {
            let acknowledged =
                counts.split(',').map(|count| number("COUNT", count)).collect::<Outcome<_>>()?;
            let (dir, payload) = (PathBuf::from(dir), payload(size, seed)?);
            let workload = self::workload(workload)?;
            (engine(name)?.verify)(&Verify { dir, workload, payload, acknowledged })
        }
        [processes::VERB, name, dir, workload, writers, seconds, number] => {
            let setup = Setup {
                dir: PathBuf::from(dir),
                workload: self::workload(workload)?,
                writers: self::number("WRITERS", writers)?,
                size: 0,
                seconds: self::number("SECONDS", seconds)?,
            };
            let number = self::number("NUMBER", number)?;
            (engine(name)?.member)(&Member { setup, number })
        }
        _ => Err("the child's arguments are the parent's to give".into()),
    }
}

fn workload(name: &str) -> Outcome<Workload> {
    Ok(Workload::of(name).ok_or("no such workload")?)
}

fn payload(size: &str, seed: &str) -> Outcome<Payload> {
    Ok(Payload::new(number("SEED", seed)?, number("SIZE", size)?))
}

/// Opens, runs the window, says what it gave, and waits to be killed or, if the parent closes the
/// pipe instead, ends.
pub(crate) fn run<E: Engine>(run: &Run) -> Outcome<()> {
    let workload = run.setup.workload;
    let window =
        E::window(workload).ok_or_else(|| format!("{} has no {}", E::NAME, workload.name()))?;
    let engine = Arc::new(E::open(&run.setup)?);
    tell(|| window(&engine, &run.setup, &run.payload))
}

/// The same of a registry.
pub(crate) fn run_store<S: Store>(run: &Run) -> Outcome<()> {
    let setup = &run.setup;
    let start = Start::of(setup.workload, setup.writers);
    let store = S::open(setup, &start)?;
    if setup.workload == Workload::Processes4 {
        drop(store);
        let members = Members::start::<S>(setup)?;
        return tell(|| members.measure());
    }
    tell(|| match setup.workload {
        Workload::RegistryGet => registry::gets(&store, setup, &start),
        _ => registry::increments(&store, setup, &start),
    })
}

fn tell(window: impl FnOnce() -> Outcome<Measured>) -> Outcome<()> {
    crate::mark(BEGIN);
    let measured = window();
    crate::mark(END);
    let measured = measured?;
    let latency = &measured.latency;
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    crate::say(&format!(
        "{ROW}{}",
        json!({
            "acknowledged": measured.acknowledged,
            "operations": measured.operations,
            "ops_per_s": measured.operations as f64 / measured.elapsed.as_secs_f64(),
            "p50_us": micros(latency.value_at_quantile(0.5)),
            "p99_us": micros(latency.value_at_quantile(0.99)),
            "p999_us": micros(latency.value_at_quantile(0.999)),
            "max_us": micros(latency.max()),
            "rotations": measured.rotations,
        })
    ));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Opens what a killed child left, and holds it against what that child was told.
pub(crate) fn verify<E: Engine>(verify: &Verify) -> Outcome<()> {
    let mut seen = Seen::new(verify.payload.clone(), verify.acknowledged.len());
    E::reopen(&verify.dir, verify.payload.size, &mut |record| seen.take(record))?;
    let records = seen.check(&verify.acknowledged)?;
    crate::say(&format!("{ROW}{}", json!({ "records": records })));
    Ok(())
}

/// The same of a registry; one that keeps nothing is asked for nothing.
pub(crate) fn verify_store<S: Store>(verify: &Verify) -> Outcome<()> {
    let start = Start::of(verify.workload, verify.acknowledged.len());
    let records = if S::KEPT {
        start.check(&verify.acknowledged, |each| S::reopen(&verify.dir, each))?
    } else {
        0
    };
    crate::say(&format!("{ROW}{}", json!({ "records": records })));
    Ok(())
}
