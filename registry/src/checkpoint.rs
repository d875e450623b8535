//! A checkpoint: a snapshot of the durable state, and what may go of the log after it.
//!
//! Never here: a wait of any writer. The order: entries into a temporary file, synced; its name,
//! and the directory synced; the checkpoint record durable; both snapshots that stay read back and
//! their checksums checked; the hold moved, durable; the older ones deleted; the log trimmed.
//! Invariants: the hold stands after the *older* of two snapshots that were read back whole, so
//! that a damaged newest one leaves everything that the older one needs; with fewer than two it
//! does not move. A snapshot that fails leaves everything as it was, its own files removed. No file
//! is made or removed without the log's tenure. Next room: [`crate::snapshot`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use annals_wal::format::{self, SnapshotHeader};
use annals_wal::fs::Dir;
use annals_wal::{Codec, Lsn, Record, Tenure};

use crate::codec::{self, CHECKPOINT};
use crate::error::{Error, Result};
use crate::mutant;
use crate::nesting;
use crate::options::Trim;
use crate::pace::Pace;
use crate::rebuild::HOLD;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::snapshot::{self, Sink, Unusable};
use crate::source::{OURS, Source};
use crate::value::Revision;

/// Keys that are looked at while a promotion may wait.
const CHUNK_KEYS: usize = 256;

/// Records that are read between two looks whether to go on.
const LOOKS: u64 = 1024;

/// What a checkpoint did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The last transaction in the newest snapshot; `None` if there is none in the log.
    pub revision: Option<Revision>,
    /// The size of its file in bytes; 0 if the newest snapshot was as new as could be and nothing
    /// was written.
    pub bytes: u64,
    /// From here on the log is kept for the registry.
    pub hold: Lsn,
    /// The first LSN kept.
    pub head: Lsn,
}

impl Registry {
    /// Writes a snapshot of the durable state while others go on, moves the registry's hold to
    /// what the older of the two newest snapshots needs, and trims the log as
    /// [`crate::Options::trim`] says. All of it is durable on return.
    ///
    /// Two snapshots are kept, so the first one moves nothing.
    ///
    /// # Errors
    /// `Io` or the log's own; the older snapshots and the hold are then as they were. `Nested`
    /// inside a closure.
    ///
    /// ```
    /// use annals_registry::{Key, Registry, Value};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let revision = registry.put(&Key::new("k")?, Value::json(&1)?)?;
    /// assert_eq!(registry.checkpoint()?.revision, Some(revision));
    /// # Ok(())
    /// # }
    /// ```
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        nesting::refuse_inside()?;
        let shared = self.shared();
        shared.log.check_process().map_err(Error::of_log)?;
        run(shared)
    }
}

/// One at a time on one open log: a checkpoint of the registry before this one on the same log ends
/// first, as its files may have the same names.
pub(crate) fn run(shared: &Shared) -> Result<Checkpoint> {
    let _one = shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = shared.options.clock.now();
    shared.grown_bytes.store(0, Ordering::Relaxed);
    let made = make(shared);
    let took = shared.options.clock.now().saturating_sub(begun);
    match &made {
        Ok(made) if made.bytes > 0 => {
            shared.meter.snapshot_made(took);
            tracing::info!(bytes = made.bytes, head = %made.head, ?took, "a registry snapshot");
        }
        Ok(_) => {}
        Err(error) => {
            shared.meter.snapshot_failed();
            tracing::error!(%error, "a registry snapshot failed");
        }
    }
    made
}

/// A checkpoint under way.
struct Work<'r> {
    shared: &'r Shared,
    /// `None` in a mutant only.
    tenure: Option<Tenure>,
}

impl Work<'_> {
    fn of(shared: &Shared) -> Result<Work<'_>> {
        let tenure = shared.log.tenure().map_err(Error::of_log)?;
        let tenure = (!mutant::is("snapshot:anybodys-directory")).then_some(tenure);
        Ok(Work { shared, tenure })
    }

    /// Asked before each step: whoever drops or closes the registry is not kept waiting, and no name
    /// is made or removed in a directory that is another owner's by now.
    fn go_on(&self) -> Result<()> {
        if self.shared.bell.is_closed() {
            return Err(Error::invalid("the registry was dropped while its snapshot was written"));
        }
        self.tenure.as_ref().map_or(Ok(()), Tenure::check).map_err(Error::of_log)
    }

    fn dir(&self) -> &dyn Dir {
        &**self.shared.log.dir()
    }

    /// A snapshot's own bytes, read back.
    fn verify(&self, lsn: Lsn) -> Result<std::result::Result<(), Unusable>> {
        let pace = Pace::of(&self.shared.log);
        snapshot::verify(self.dir(), lsn, &|| {
            pace.breathe();
            self.go_on()
        })
    }

    fn remove(&self, lsn: Lsn) -> Result<()> {
        self.go_on()?;
        removed(self.dir().remove(&format::snapshot_name(lsn)))
    }

    /// Takes back what a snapshot that failed has left, in a directory that is still the log's; also
    /// where that is about to be closed. What cannot be removed goes with the next snapshot. On a
    /// shared log nothing is: the file may be another process's snapshot of the same LSN.
    fn take_back(&self, lsn: Lsn) {
        let stands = self.tenure.as_ref().is_none_or(|tenure| tenure.stands().is_ok());
        if !stands || self.shared.log.is_shared() || mutant::is("snapshot:failed-ones-stay") {
            return;
        }
        for name in [format::snapshot_tmp_name(lsn), format::snapshot_name(lsn)] {
            if let Err(error) = removed(self.dir().remove(&name)) {
                tracing::warn!(%error, name, "what a failed registry snapshot left");
            }
        }
    }
}

fn removed(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("removing a snapshot of the registry", e))
        }
        _ => Ok(()),
    }
}

fn make(shared: &Shared) -> Result<Checkpoint> {
    shared.refuse_poisoned()?;
    let work = Work::of(shared)?;
    work.go_on()?; // it may have waited for its turn until its registry was dropped
    let newest = shared.durable_now().applied();
    let known = snapshot::list(work.dir())?;
    let Some(newest) = newest else { return done(shared, None, 0) };
    // One that is as new and whole is not written again; a damaged one is replaced.
    let again = known.contains(&newest);
    if again && work.verify(newest)?.is_ok() {
        advance(&work, newest)?;
        return done(shared, Some(newest), 0);
    }
    if again {
        work.remove(newest)?;
    }
    let begun = Begun::of(shared)?;
    let lsn = begun.lsn;
    let written = write(&work, begun).and_then(|bytes| match bytes {
        Some(bytes) => record(&work, lsn, bytes).map(Some),
        None => Ok(None),
    });
    // It must not stay: each further one would take its space beside it.
    let Some(bytes) = written.inspect_err(|_| work.take_back(lsn))? else {
        return done(shared, known.first().copied(), 0);
    };
    advance(&work, lsn)?;
    done(shared, Some(lsn), bytes)
}

/// Says in the log that there is a snapshot, and reads it back. Its size.
fn record(work: &Work<'_>, lsn: Lsn, bytes: u64) -> Result<u64> {
    work.go_on()?;
    let payload = codec::encode_checkpoint(lsn, bytes)?;
    let record = Record::new(payload).kind(CHECKPOINT).codec(Codec::BINCODE);
    work.shared.log.append(record).map_err(Error::of_log)?;
    match work.verify(lsn)? {
        Ok(()) => Ok(bytes),
        Err(why) => {
            work.shared.meter.corrupt();
            Err(Error::corrupt_file(&format::snapshot_name(lsn), why.0))
        }
    }
}

fn done(shared: &Shared, lsn: Option<Lsn>, bytes: u64) -> Result<Checkpoint> {
    let hold = shared.log.holds().into_iter().find(|(name, _)| name == HOLD);
    let hold = hold.map_or(Lsn::FIRST, |(_, lsn)| lsn);
    let head = shared.log.head_lsn();
    Ok(Checkpoint { revision: lsn.map(Revision::new), bytes, hold, head })
}

/// The temporary file, or `None` while another process writes a snapshot. On a shared log in one turn:
/// nobody else looks, tidies or begins between these steps, so nobody's half-written file is unlinked,
/// or gets its final name from somebody else.
fn begin_file(work: &Work<'_>, header: &SnapshotHeader) -> Result<Option<Sink>> {
    let (log, dir) = (&work.shared.log, work.dir());
    let failed = |e| Error::io("writing a snapshot of the registry", e);
    let _turn = log.turn().map_err(Error::of_log)?;
    if log.is_shared() && snapshot::is_being_written(dir).map_err(failed)? {
        return Ok(None);
    }
    snapshot::remove_leftovers(dir).map_err(failed)?;
    let sink = Sink::create(dir, header).map_err(failed)?;
    Ok(Some(sink).filter(|sink| sink.is_locked() || !log.is_shared()))
}

/// Writes and names the snapshot; its size, or `None` while another process writes one.
fn write(work: &Work<'_>, begun: Begun<'_>) -> Result<Option<u64>> {
    let (shared, dir, lsn) = (work.shared, work.dir(), begun.lsn);
    let failed = |e| Error::io("writing a snapshot of the registry", e);
    work.go_on()?;
    let header =
        SnapshotHeader { log_id: shared.log.log_id(), lsn, generation: shared.log.generation() };
    let record = shared.log.get(lsn).map_err(Error::of_log)?;
    let Some(mut sink) = begin_file(work, &header)? else { return Ok(None) };
    let wall_ms = shared.options.clock.wall_ms();
    sink.begin(crc32fast::hash(&record.payload), wall_ms).map_err(failed)?;
    let pace = Pace::of(&shared.log);
    loop {
        pace.breathe();
        work.go_on()?;
        let entries = shared.durable().next_of_shot(CHUNK_KEYS);
        if entries.is_empty() {
            break;
        }
        sink.entries(entries).map_err(failed)?;
    }
    drop(begun);
    let (bytes, _lock) = sink.end().map_err(failed)?;
    work.go_on()?;
    snapshot::publish(dir, lsn).map_err(failed)?;
    Ok(Some(bytes))
}

/// A snapshot under way in the map; over when this is dropped.
struct Begun<'r> {
    shared: &'r Shared,
    lsn: Lsn,
}

impl Begun<'_> {
    fn of(shared: &Shared) -> Result<Begun<'_>> {
        let lsn = shared.durable_now().begin_shot();
        let lsn = lsn.ok_or_else(|| Error::invalid("there is nothing to make a snapshot of"))?;
        Ok(Begun { shared, lsn })
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.shared.durable().end_shot();
    }
}

/// Moves the hold if there are two whole snapshots, removes the others, and trims.
fn advance(work: &Work<'_>, newest: Lsn) -> Result<()> {
    let shared = work.shared;
    let (mut older, mut damaged) = (None, Vec::new());
    for lsn in snapshot::list(work.dir())?.into_iter().filter(|lsn| *lsn < newest) {
        match work.verify(lsn)? {
            Ok(()) => {
                older = Some(lsn);
                break;
            }
            Err(_) => {
                shared.meter.corrupt();
                damaged.push(lsn);
            }
        }
    }
    let one_will_do = mutant::is("snapshot:hold-after-the-newest").then_some(newest);
    let Some(kept) = one_will_do.or(older) else { return Ok(()) };
    let after = kept.next().unwrap_or(kept);
    let trim_to = trim_to(work, after)?;
    // On a shared log nobody else may tidy between the look at the two and the removals.
    let _turn = shared.log.turn().map_err(Error::of_log)?;
    let there = snapshot::list(work.dir())?;
    if !there.contains(&newest) || !there.contains(&kept) {
        return Ok(());
    }
    let hold = shared.log.holds().into_iter().find(|(name, _)| name == HOLD);
    if hold.is_none_or(|(_, lsn)| lsn < after) {
        work.go_on()?;
        shared.log.set_hold(HOLD, after).map_err(Error::of_log)?;
    }
    for lsn in there.into_iter().filter(|lsn| *lsn < kept || damaged.contains(lsn)) {
        work.remove(lsn)?;
    }
    if let Some(to) = trim_to.filter(|to| *to > shared.log.head_lsn()) {
        work.go_on()?;
        shared.log.trim(to).map_err(Error::of_log)?;
    }
    Ok(())
}

/// The head that the options ask for.
fn trim_to(work: &Work<'_>, below: Lsn) -> Result<Option<Lsn>> {
    Ok(match work.shared.options.trim {
        Trim::Never => None,
        Trim::ToHolds => Some(below),
        Trim::OwnRecords => Some(first_of_others(work, below)?.map_or(below, |lsn| lsn.min(below))),
    })
}

/// The first record below `below` that is another room's.
fn first_of_others(work: &Work<'_>, below: Lsn) -> Result<Option<Lsn>> {
    let shared = work.shared;
    let known = shared.others.load(Ordering::Relaxed);
    if known >= shared.log.head_lsn().get() {
        return Ok(Lsn::new(known));
    }
    let mut due = shared.log.head_lsn();
    let mut ours = Source::Own(&shared.log).all_records(due)?.only(OURS);
    // LSNs are dense: the first that is missing among ours is another room's.
    while due < below {
        if due.get().is_multiple_of(LOOKS) {
            work.go_on()?;
        }
        match ours.next_ref().transpose().map_err(Error::of_log)? {
            Some(record) if record.lsn == due => {}
            _ => {
                shared.others.store(due.get(), Ordering::Relaxed);
                return Ok(Some(due));
            }
        }
        let Some(next) = due.next() else { break };
        due = next;
    }
    Ok(None)
}

/// Called after a commit: begins a checkpoint if the log has grown enough. On a thread of its own
/// where there may be one, else here. The thread is one of those who own the directory's lock: it
/// stops at its next step once the last handle is dropped, nobody waits for it then but who closes
/// the log, and there is never a second one.
pub(crate) fn after_growth(shared: &Arc<Shared>) {
    let max = shared.options.snapshot_bytes;
    if max == 0 || shared.grown_bytes.load(Ordering::Relaxed) < max {
        return;
    }
    if shared.behind.swap(true, Ordering::AcqRel) {
        return; // one is under way; the commit after its end sees what has grown meanwhile
    }
    let turn = Turn { shared: shared.clone() };
    // Whoever sets it to 0 makes the snapshot.
    if shared.grown_bytes.swap(0, Ordering::Relaxed) < max {
        return;
    }
    if !shared.log.dir().has_background() {
        // Its failure is counted and told; the commit before it is durable all the same.
        let _ = run(shared);
        return;
    }
    let thread = std::thread::Builder::new().name("annals-snapshot".to_owned());
    let started = thread.spawn(move || {
        let _ = run(&turn.shared);
    });
    if let Err(error) = started {
        shared.meter.snapshot_failed();
        tracing::error!(%error, "no thread for a registry snapshot");
    }
}

/// The turn of one checkpoint that comes by itself.
struct Turn {
    shared: Arc<Shared>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.behind.store(false, Ordering::Release);
    }
}
