//! The writer: a process that does with two logs what programs do, and marks every call.
//!
//! The log `plain` takes batches of three threads, holds, trims and backups; the log `shared` has a
//! registry, an observer and plain records on it. Sessions end with a close or by dropped handles.
//! A mark *begun* is written before the call, a mark *done* after it returned.
//! Never here: a check of what is written. Next room: [`super::house`].

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use annals_observer::{CallId, Observer};
use annals_registry::{Key, Outcome, Registry, TxResult};
use annals_wal::fs::Dir;
use annals_wal::{Batch, Log, Lsn, Options};

use super::mark::{Mark, SECTOR, What};
use super::skip;
use super::story;

pub(super) type Done = Result<(), String>;

pub(crate) struct Orders {
    /// The mounted file system.
    pub(crate) root: PathBuf,
    /// The exported file: marks go to it from `marks_at` on.
    pub(crate) device: PathBuf,
    pub(crate) marks_at: u64,
    pub(crate) seed: u64,
    /// None: only open the logs that are there.
    pub(crate) sessions: u64,
    pub(crate) rounds: u64,
    /// A sync to leave out, by name; none if empty.
    pub(crate) skip: String,
}

impl Orders {
    pub(crate) fn to_args(&self) -> Vec<String> {
        let Orders { marks_at, seed, sessions, rounds, .. } = self;
        let mut args = vec![self.root.display().to_string(), self.device.display().to_string()];
        args.extend([marks_at, seed, sessions, rounds].map(u64::to_string));
        args.push(self.skip.clone());
        args
    }

    pub(crate) fn from_args(args: &[String]) -> Option<Orders> {
        let [root, device, rest @ .., skip] = args else { return None };
        let numbers: Vec<u64> = rest.iter().map_while(|word| word.parse().ok()).collect();
        let [marks_at, seed, sessions, rounds] = numbers[..] else { return None };
        let (root, device, skip) = (root.into(), device.into(), skip.clone());
        Some(Orders { root, device, marks_at, seed, sessions, rounds, skip })
    }
}

/// Where marks go. Each thread has a sector of its own.
pub(super) struct Marks {
    file: File,
    at: u64,
}

impl Marks {
    pub(super) fn put(&self, mark: Mark) -> Done {
        let at = self.at + (mark.thread % 32) * SECTOR as u64;
        self.file.write_all_at(&mark.sector(), at).map_err(text)
    }

    pub(super) fn around<T>(
        &self,
        what: What,
        (thread, b, c): (u64, u64, u64),
        call: impl FnOnce() -> Result<T, String>,
        done: impl FnOnce(&T) -> (u64, u64),
    ) -> Result<T, String> {
        self.put(Mark::begun(what, thread, b, c))?;
        let value = call()?;
        let (b, c) = done(&value);
        self.put(Mark::done(what, thread, b, c))?;
        Ok(value)
    }
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(crate) fn write(orders: &Orders) -> Done {
    let file = OpenOptions::new().write(true).open(&orders.device).map_err(text)?;
    let marks = Marks { file, at: orders.marks_at };
    if orders.sessions == 0 {
        return recover(orders, &marks);
    }
    probe(&orders.root, &marks)?;
    marks.put(Mark::begun(What::Work, 0, 0, 0))?;
    let mut state = State::default();
    for session in 1..=orders.sessions {
        Session { orders, marks: &marks, session }.run(&mut state)?;
    }
    marks.put(Mark::done(What::Work, 0, 0, 0))
}

/// Opens both logs after a cut, tells what they show, and lets go of them.
fn recover(orders: &Orders, marks: &Marks) -> Done {
    marks.put(Mark::begun(What::Work, 0, 0, 0))?;
    let session = Session { orders, marks, session: 0 };
    for (thread, name) in [(0, story::PLAIN_DIR), (1, story::SHARED_DIR)] {
        let log = session.open(name)?;
        let last = log.recovery().last_lsn.map_or(log.head_lsn().get() - 1, Lsn::get);
        marks.put(Mark::done(What::Shown, thread, 0, last))?;
    }
    marks.put(Mark::done(What::Work, 0, 0, 0))
}

/// Sixteen times a write and an fdatasync with nothing else going on, each between its marks.
fn probe(root: &Path, marks: &Marks) -> Done {
    let file = File::create(root.join("probe")).map_err(text)?;
    file.write_all_at(&[0; 4096], 0).and_then(|()| file.sync_all()).map_err(text)?;
    for n in 0..16 {
        let write = || {
            file.write_all_at(&[n as u8 + 1; 512], 0).map_err(text)?;
            file.sync_data().map_err(text)
        };
        marks.around(What::Probe, (0, n, 0), write, |()| (n, 0))?;
    }
    Ok(())
}

/// What goes on from session to session: each line's next number.
#[derive(Default)]
struct State {
    next: [u64; 32],
    backups: u64,
}

pub(super) struct Session<'a> {
    pub(super) orders: &'a Orders,
    pub(super) marks: &'a Marks,
    pub(super) session: u64,
}

impl Session<'_> {
    fn run(&self, state: &mut State) -> Done {
        let n = self.session;
        let open = || Ok((self.open(story::PLAIN_DIR)?, self.open(story::SHARED_DIR)?));
        let (plain, shared) = self.marks.around(What::Session, (0, n, 0), open, |_| (n, 0))?;
        let registry = Registry::on(shared.clone()).map_err(text)?;
        let observer = Observer::on(shared.clone()).map_err(text)?;
        self.work(&plain, &shared, &registry, &observer, state)?;
        if n % 2 == 1 {
            drop(observer);
            drop(registry);
            shared.close().map_err(text)?;
            plain.close().map_err(text)?;
        }
        Ok(())
    }

    pub(super) fn dir(&self, name: &str) -> Arc<dyn Dir> {
        skip::dir(&self.orders.root.join(name), skip::point(&self.orders.skip))
    }

    fn open(&self, name: &str) -> Result<Log, String> {
        options().open_in(self.dir(name)).map_err(|e| format!("{name}: {e}"))
    }

    fn work(
        &self,
        plain: &Log,
        shared: &Log,
        registry: &Registry,
        observer: &Observer,
        state: &mut State,
    ) -> Done {
        let failed = Mutex::new(Ok(()));
        let note = |done: Done| {
            if let (Err(e), Ok(mut failed)) = (done, failed.lock()) {
                *failed = Err(e);
            }
        };
        let note = &note;
        let State { next, backups } = state;
        thread::scope(|scope| {
            for (thread, next) in (0..).zip(next.iter_mut()) {
                scope.spawn(move || {
                    note(match thread {
                        story::PIPELINE => self.pipeline(plain, thread, next),
                        _ if story::PLAIN.contains(&thread) => self.append(plain, thread, next),
                        story::RAW => self.append(shared, thread, next),
                        story::OBSERVER => self.observe(observer, thread, next),
                        _ if story::REGISTRY.contains(&thread) => {
                            self.change(registry, thread, next)
                        }
                        _ => Ok(()),
                    });
                });
            }
            scope.spawn(move || note(self.keep_house(plain, backups)));
        });
        failed.into_inner().map_err(text)?
    }

    fn batch(&self, thread: u64, n: u64) -> Batch<'static> {
        let seed = self.orders.seed;
        let records = 0..story::batch_len(seed, thread, n);
        records.map(|i| story::record(seed, thread, n, i)).collect()
    }

    fn append(&self, log: &Log, thread: u64, next: &mut u64) -> Done {
        for _ in 0..self.orders.rounds {
            let n = *next;
            *next += 1;
            let batch = self.batch(thread, n);
            let append = || log.append_batch(batch).map_err(text);
            self.marks
                .around(What::Append, (thread, n, 0), append, |lsns| (n, lsns.start().get()))?;
        }
        Ok(())
    }

    /// Orders a few batches before it waits for the first. The last ones of a session that ends
    /// without a close are never waited for.
    fn pipeline(&self, log: &Log, thread: u64, next: &mut u64) -> Done {
        for round in 0..self.orders.rounds / 3 {
            let mut ordered = Vec::new();
            for _ in 0..3 {
                let n = *next;
                *next += 1;
                self.marks.put(Mark::begun(What::Append, thread, n, 0))?;
                ordered.push((n, log.submit(self.batch(thread, n)).map_err(text)?));
            }
            if self.session.is_multiple_of(2) && round + 1 == self.orders.rounds / 3 {
                break;
            }
            for (n, pending) in ordered {
                let lsns = pending.wait().map_err(text)?;
                self.marks.put(Mark::done(What::Append, thread, n, lsns.start().get()))?;
            }
        }
        Ok(())
    }

    /// The thread's own count and the sum of all, both or neither.
    fn change(&self, registry: &Registry, thread: u64, next: &mut u64) -> Done {
        let own = Key::new(story::agent_key(thread)).map_err(text)?;
        let total = Key::new(story::TOTAL).map_err(text)?;
        for _ in 0..self.orders.rounds {
            *next += 1;
            let n = *next;
            let change = || loop {
                let outcome = registry.transact(|tx| -> TxResult<()> {
                    let sum: u64 = tx.get_json(&total)?.unwrap_or(0);
                    tx.put_json(&own, &n)?;
                    tx.put_json(&total, &(sum + 1))?;
                    Ok(())
                });
                if let Outcome::Done { revision, .. } = outcome.map_err(text)? {
                    return Ok(revision.map_or(0, |revision| revision.lsn().get()));
                }
            };
            self.marks.around(What::Change, (thread, n, 0), change, |lsn| (n, *lsn))?;
        }
        Ok(())
    }

    fn observe(&self, observer: &Observer, thread: u64, next: &mut u64) -> Done {
        let session = observer.session(story::session(thread)).map_err(text)?;
        let lsn = |receipt: &annals_observer::Receipt| receipt.lsn.map_or(0, Lsn::get);
        for _ in 0..self.orders.rounds / 2 {
            let n = *next;
            *next += 2;
            let input = story::entry_text(self.orders.seed, thread, n);
            let call_id = CallId::new(story::call_id(thread, n)).map_err(text)?;
            let start = session.tool("tool").call_id(call_id).input(input);
            let start = || start.start().map_err(text);
            let mut call = self.marks.around(What::Entry, (thread, n, 0), start, |call| {
                (n, lsn(&call.start_receipt()))
            })?;
            let output = story::entry_text(self.orders.seed, thread, n + 1);
            let end = || call.end_ok(output).map_err(text);
            self.marks
                .around(What::Entry, (thread, n + 1, 0), end, |receipt| (n + 1, lsn(receipt)))?;
        }
        Ok(())
    }
}

pub(crate) fn options() -> Options {
    Options::new().segment_bytes(story::SEGMENT_BYTES)
}
