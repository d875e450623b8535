//! The disk itself: `pwrite` and `fdatasync` of each record, behind a mutex, in three forms.
//!
//! *append*: the file grows with each write. *fallocate*: its size and blocks are there, unwritten.
//! *overwrite*: they were written with zeros and synced before, so a sync has no metadata to write.
//! Nothing here can be recovered from (no checksum, no frame): it is what a sync costs, and no
//! engine. It has one writer at a time; with more threads they wait for each other.
//! Next room: [`crate::engine`].

use std::fs::{File, OpenOptions};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use crate::engine::{Each, Engine, Outcome, Setup};
use crate::workload::Workload;

pub(crate) trait Form: Send + Sync + 'static {
    const NAME: &'static str;
    const SETTINGS: &'static str;
    fn prepare(file: &File, bytes: u64) -> Outcome<()>;
}

pub(crate) struct Append;
pub(crate) struct Fallocate;
pub(crate) struct Overwrite;

impl Form for Append {
    const NAME: &'static str = "floor-append";
    const SETTINGS: &'static str = "pwrite and fdatasync, the file grows";
    fn prepare(_file: &File, _bytes: u64) -> Outcome<()> {
        Ok(())
    }
}

impl Form for Fallocate {
    const NAME: &'static str = "floor-fallocate";
    const SETTINGS: &'static str = "pwrite and fdatasync into fallocated blocks";
    fn prepare(file: &File, bytes: u64) -> Outcome<()> {
        Ok(fallocate(file, FallocateFlags::empty(), 0, bytes)?)
    }
}

impl Form for Overwrite {
    const NAME: &'static str = "floor-overwrite";
    const SETTINGS: &'static str = "pwrite and fdatasync over written blocks";
    fn prepare(file: &File, bytes: u64) -> Outcome<()> {
        let zeros = vec![0; 1 << 20];
        for offset in (0..bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        Ok(())
    }
}

pub(crate) struct Floor<F: Form> {
    file: File,
    /// Where the next record goes.
    end: Mutex<u64>,
    capacity: u64,
    form: PhantomData<F>,
}

impl<F: Form> Engine for Floor<F> {
    const NAME: &'static str = F::NAME;
    const SETTINGS: &'static str = F::SETTINGS;
    const BATCHES: bool = true;

    fn open(setup: &Setup) -> Outcome<Floor<F>> {
        let path = setup.dir.join("floor");
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
        // Room for 100,000 records of 128 bytes and more in each second, or for as many batches of
        // a hundred as a fast disk takes; past it is an error.
        let a_second = if setup.workload == Workload::Batch { 256 } else { 16 };
        let mebibytes = (setup.seconds.ceil().max(1.0) as u64) * a_second;
        let capacity = (mebibytes << 20) * (setup.size as u64).div_ceil(128);
        F::prepare(&file, capacity)?;
        file.sync_all()?;
        File::open(&setup.dir)?.sync_all()?;
        Ok(Floor { file, end: Mutex::new(0), capacity, form: PhantomData })
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        self.write(record)
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        self.write(&records.concat())
    }

    fn reopen(dir: &Path, size: usize, each: Each<'_>) -> Outcome<()> {
        let bytes = std::fs::read(dir.join("floor"))?;
        // Zeros are the part that was never written.
        bytes.chunks_exact(size).take_while(|record| record[0] != 0).try_for_each(each)
    }
}

impl<F: Form> Floor<F> {
    fn write(&self, bytes: &[u8]) -> Outcome<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let after = *end + bytes.len() as u64;
        if after > self.capacity {
            return Err("the floor's file is full: shorten the window".into());
        }
        self.file.write_all_at(bytes, *end)?;
        self.file.sync_data()?;
        *end = after;
        Ok(())
    }
}
