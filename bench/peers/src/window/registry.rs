//! Closed loops over a registry: changes of counters, and reads of random keys.
//!
//! Never here: a registry's name. A read costs less than a look at the clock, so the clock is asked
//! once for [`READS`] reads in a row, and the latency is that of all of them. A thread's keys are
//! random and the same for every registry. Next room: [`crate::window`].

use std::time::Instant;

use super::closed::threads;
use super::{Measured, end, nanos_since};
use crate::engine::{Outcome, Setup};
use crate::store::{Start, Store};

/// Reads that are timed together.
pub(crate) const READS: u64 = 100;

/// W threads, one change of one counter a call.
pub(crate) fn increments<S: Store>(store: &S, setup: &Setup, start: &Start) -> Outcome<Measured> {
    threads(setup, |thread, histogram| {
        let (mut count, end) = (0, end(setup));
        loop {
            let key = start.key_of(thread, count);
            let begin = Instant::now();
            if begin >= end {
                return Ok(count);
            }
            store.increment(key)?;
            histogram.saturating_record(nanos_since(begin)?);
            count += 1;
        }
    })
}

/// W threads that read random keys. Nothing is acknowledged: the check asks for every key.
pub(crate) fn gets<S: Store>(store: &S, setup: &Setup, start: &Start) -> Outcome<Measured> {
    let size = start.value(0).len();
    let mut measured = threads(setup, |thread, histogram| {
        let (mut count, end) = (0, end(setup));
        loop {
            let begin = Instant::now();
            if begin >= end {
                return Ok(count);
            }
            for call in count..count + READS {
                if store.get(thread, start.key_of(thread, call))? != size {
                    return Err("a value has another size".into());
                }
            }
            histogram.saturating_record(nanos_since(begin)?);
            count += READS;
        }
    })?;
    measured.acknowledged = vec![0; setup.writers];
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::annals::AnnalsRegistry;
    use crate::stores::json_file::JsonFile;
    use crate::stores::lmdb::LmdbRegistry;
    use crate::stores::map::Map;
    use crate::stores::redb::RedbRegistry;
    use crate::stores::sled::SledRegistry;
    use crate::stores::sqlite::SqliteRegistry;
    use crate::workload::Workload;

    /// Runs each of its workloads shortly and holds what is left against what was told.
    fn run<S: Store>() {
        for workload in Workload::ALL.into_iter().filter(|workload| S::has(*workload)) {
            let dir = tempfile::tempdir().unwrap();
            let (dir, start) = (dir.path(), Start::of(workload, 4));
            let setup =
                Setup { dir: dir.to_owned(), workload, writers: 4, size: 64, seconds: 0.05 };
            let store = S::open(&setup, &start).unwrap();
            let measured = if workload == Workload::RegistryGet {
                gets(&store, &setup, &start).unwrap()
            } else {
                increments(&store, &setup, &start).unwrap()
            };
            drop(store);
            assert!(measured.operations > 0);
            if S::KEPT {
                start.check(&measured.acknowledged, |each| S::reopen(dir, each)).unwrap();
                if workload != Workload::RegistryGet {
                    let more: Vec<u64> = measured.acknowledged.iter().map(|n| n + 1).collect();
                    let lost = start.check(&more, |each| S::reopen(dir, each));
                    assert!(lost.is_err(), "{} {workload:?}: a lost update was not seen", S::NAME);
                }
            }
        }
    }

    #[test]
    fn every_registry_keeps_what_it_acknowledged() {
        run::<AnnalsRegistry>();
        run::<SqliteRegistry>();
        run::<RedbRegistry>();
        run::<LmdbRegistry>();
        run::<SledRegistry>();
        run::<JsonFile>();
        run::<Map>();
    }
}
