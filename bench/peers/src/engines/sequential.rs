//! The disk in sequence: large writes over written blocks, an `fdatasync` after each; and the same
//! into a file that grows, which is what a log that keeps its records cannot avoid.
//!
//! What the disk gives to whoever writes 1 or 4 MiB at a time and does nothing else: the records
//! are made before the window, one `pwrite` and one sync a call, round and round in one file of
//! 256 MiB. It has no other window. A record has the same place and bytes in each round of the
//! file, so the check finds each of them once. Next room: [`crate::engine`].

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Each, Engine, Outcome, Setup};
use crate::payload::Payload;
use crate::window::{Measured, Window, histogram, nanos_since};
use crate::workload::Workload;

const FILE: usize = 256 << 20;
/// Of the workload's records.
const RECORD: usize = 1024;

pub(crate) trait Form: Send + Sync + 'static {
    const NAME: &'static str;
    const SETTINGS: &'static str;
    const CALL: usize;
    /// Whether every call goes to blocks that were never written.
    const FRESH: bool = false;
}

pub(crate) struct Fresh;
pub(crate) struct Mebibyte;
pub(crate) struct FourMebibytes;

impl Form for Fresh {
    const NAME: &'static str = "floor-fresh-4m";
    const SETTINGS: &'static str = "pwrite of 4 MiB and fdatasync, the file grows";
    const CALL: usize = 4 << 20;
    const FRESH: bool = true;
}

impl Form for Mebibyte {
    const NAME: &'static str = "floor-sequential-1m";
    const SETTINGS: &'static str = "pwrite of 1 MiB and fdatasync over written blocks";
    const CALL: usize = 1 << 20;
}

impl Form for FourMebibytes {
    const NAME: &'static str = "floor-sequential-4m";
    const SETTINGS: &'static str = "pwrite of 4 MiB and fdatasync over written blocks";
    const CALL: usize = 4 << 20;
}

pub(crate) struct Sequential<F: Form>(File, PhantomData<F>);

impl<F: Form> Engine for Sequential<F> {
    const NAME: &'static str = F::NAME;
    const SETTINGS: &'static str = F::SETTINGS;
    const RECORDS_PER_CALL: u64 = (F::CALL / RECORD) as u64;

    fn open(setup: &Setup) -> Outcome<Sequential<F>> {
        let path = setup.dir.join("floor");
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE).step_by(zeros.len()).filter(|_| !F::FRESH) {
            file.write_all_at(&zeros, offset as u64)?;
        }
        file.sync_all()?;
        File::open(&setup.dir)?.sync_all()?;
        Ok(Sequential(file, PhantomData))
    }

    fn append(&self, _writer: usize, _record: &[u8]) -> Outcome<()> {
        Err("it writes in large calls only".into())
    }

    fn window(workload: Workload) -> Option<Window<Sequential<F>>> {
        (workload == Workload::InFlight1k).then_some(write::<F>)
    }

    fn reopen(dir: &Path, size: usize, each: Each<'_>) -> Outcome<()> {
        let mut bytes = Vec::new();
        // What a file that grows has behind this is the same again.
        File::open(dir.join("floor"))?.take(FILE as u64).read_to_end(&mut bytes)?;
        // Zeros are the part that was never written.
        bytes.chunks_exact(size).take_while(|record| record[0] != 0).try_for_each(each)
    }
}

fn write<F: Form>(
    engine: &Arc<Sequential<F>>,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<Measured> {
    if payload.size != RECORD {
        return Err("it writes records of 1 KiB only".into());
    }
    let (mut all, mut record) = (Vec::with_capacity(FILE), Vec::with_capacity(RECORD));
    for sequence in 0..(FILE / RECORD) as u64 {
        payload.write(&mut record, 0, sequence);
        all.extend_from_slice(&record);
    }
    let mut latency = histogram()?;
    let mut calls = 0;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < setup.seconds {
        let from = calls * F::CALL % FILE;
        let call = Instant::now();
        let to = if F::FRESH { calls * F::CALL } else { from };
        engine.0.write_all_at(&all[from..from + F::CALL], to as u64)?;
        engine.0.sync_data()?;
        latency.saturating_record(nanos_since(call)?);
        calls += 1;
    }
    let elapsed = begin.elapsed();
    let acknowledged = vec![((calls * F::CALL).min(FILE) / RECORD) as u64];
    let operations = (calls * F::CALL / RECORD) as u64;
    Ok(Measured { acknowledged, operations, elapsed, latency, rotations: None })
}
