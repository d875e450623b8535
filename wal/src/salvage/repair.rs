//! Repair in two steps: a plan that anybody can read, then exactly that plan or nothing.
//!
//! Never here: a byte of the damaged files changed or deleted. A torn tail is left to an ordinary
//! opening, which keeps what it cuts beside the log. Anything worse is salvaged into a new directory
//! that changes names with the old one in one step; the old one stays, whole. Invariants: a plan fits
//! one state of the files only, by size and checksum of each; applying holds the log's lock. Next
//! rooms: [`super`], [`crate::open`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{SalvageOptions, SalvageReport, copy, in_use};
use crate::diagnose::{Class, Scope, diagnose_in};
use crate::error::{Error, ErrorKind, Result};
use crate::format;
use crate::fs::{
    Access, Dir, LockMode, os::OsDir, os::exchange, os::rename_directory, os::resolved,
    os::take_mode, read_full,
};
use crate::inspect::{Depth, Report, State, refuse_marked};
use crate::lock::is_live;
use crate::options::{Options, Sharing};
use crate::recover::Facts;
use crate::recover::facts::{list, reading};

/// How a log is repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// It needs none.
    Nothing,
    /// An opening for writing cuts the torn tail and keeps the cut bytes in a file of the log.
    Recover,
    /// A salvage takes its place.
    Rebuild,
}

/// A file as it was when the plan was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileMark {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 of all of it.
    pub crc32: u32,
}

/// What would be done.
#[derive(Clone, PartialEq, Debug)]
pub struct RepairPlan {
    /// How.
    pub method: Method,
    /// The files that it was made for, by name. `LOCK` is not one.
    pub files: Vec<FileMark>,
    /// Classes of the damages found.
    pub classes: Vec<Class>,
    /// What a rebuilt log would hold; `None` for the other methods.
    pub salvage: Option<SalvageReport>,
}

/// What was done.
#[derive(Clone, PartialEq, Debug)]
pub enum Repaired {
    /// Nothing was wrong.
    Nothing,
    /// The tail was cut; the file in the log's directory that keeps the cut bytes, if any were.
    Recovered(Option<String>),
    /// The log was rebuilt; the damaged directory, whole, has this name now.
    Rebuilt(Box<SalvageReport>, PathBuf),
}

/// Makes a plan; nothing is written.
///
/// # Errors
/// `Locked` while a process has the log open, `Unsupported` for a newer version's, `Archived` for an
/// archive and for a copy that was broken off, or may have been, `NotALog`, `Io`.
pub fn plan(path: impl AsRef<Path>, options: SalvageOptions) -> Result<RepairPlan> {
    let dir = Arc::new(OsDir::new(path.as_ref())) as Arc<dyn Dir>;
    if is_live(&*dir)? {
        return Err(in_use(&*dir));
    }
    refuse_archive(&*dir)?;
    let files = marks(&*dir)?;
    let scope = Scope { depth: Depth::Everything, maps: false, threads: 1 };
    let diagnosis = diagnose_in(&dir, scope, &mut |_| ())?;
    let method = match diagnosis.report.state {
        State::Unsupported => {
            let why = "a newer version wrote this log: repair it with that version";
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        State::Unfinished => {
            refuse_marked(&*dir, &Facts::read(&*dir)?)?;
            Method::Nothing
        }
        State::Corrupt => {
            // A copy may have been begun here since.
            refuse_archive(&*dir)?;
            Method::Rebuild
        }
        State::TornTail => Method::Recover,
        _ => Method::Nothing,
    };
    let salvage = match method {
        Method::Rebuild => Some(copy(&*dir, None, options, &mut |_| ())?),
        _ => None,
    };
    let mut classes: Vec<Class> = diagnosis.damages.iter().map(|damage| damage.class).collect();
    classes.sort_unstable();
    classes.dedup();
    Ok(RepairPlan { method, files, classes, salvage })
}

/// Applies a plan. The damaged directory is kept beside the log under the name with `.damaged`, and
/// a number if that is taken.
///
/// # Errors
/// `Invalid` if the files are not those that the plan was made for, `Locked` if a process has the log
/// open, `Archived` for an archive, and what [`super::salvage`] and an opening say. The log is then
/// as it was, but for
/// a new directory beside it whose name ends in `.repaired`.
pub fn apply(
    path: impl AsRef<Path>,
    plan: &RepairPlan,
    options: SalvageOptions,
) -> Result<Repaired> {
    // Names are exchanged: those of the directory itself and not of a link to it, or of `.`.
    let real = resolved(path.as_ref());
    let path = real.as_deref().unwrap_or(path.as_ref());
    let dir = Arc::new(OsDir::new(path)) as Arc<dyn Dir>;
    // Before the lock file is made there; a plan that was made by hand may list the manifest.
    refuse_archive(&*dir)?;
    let lock = dir.try_lock(format::LOCK_NAME, LockMode::Exclusive, true);
    let lock = lock.map_err(|e| Error::io(format!("locking {}", path.display()), e))?;
    let Some(lock) = lock else { return Err(in_use(&*dir)) };
    if let Some(name) = first_difference(&plan.files, &marks(&*dir)?) {
        return Err(Error::invalid(format!(
            "{name} is not what it was when the plan was made: make a new plan with `wal repair {} \
             --plan FILE`",
            path.display()
        )));
    }
    match plan.method {
        Method::Nothing => Ok(Repaired::Nothing),
        Method::Recover => {
            drop(lock);
            recover(path)
        }
        Method::Rebuild => rebuild(&*dir, path, options),
    }
}

/// An archive is no log: a salvage in its place would be open for writing, and without its manifest the
/// next hand-over would not know it.
fn refuse_archive(dir: &dyn Dir) -> Result<()> {
    let archive = format::parse_name(format::ARCHIVE_NAME);
    if list(dir)?.iter().all(|entry| format::parse_name(&entry.name) != archive) {
        return Ok(());
    }
    refuse_marked(dir, &Facts::read(dir)?)?;
    let path = dir.path().display();
    let why = format!(
        "{path} is an archive and is not repaired in place. Salvage what can be read with `wal salvage \
         {path} --to NEW`, or hand over anew to a new directory under a new name"
    );
    Err(Error::new(ErrorKind::Archived, why))
}

fn recover(path: &Path) -> Result<Repaired> {
    let log = Options::new().create(false).sharing(Sharing::AsMade).open(path)?;
    let kept = log.recovery().cut.map(|cut| format::cut_name(cut.segment, cut.from, 0));
    log.close()?;
    // Keeping it is best effort: it is named only if it is there.
    let there = |name: &String| OsDir::new(path).status(name).is_ok();
    Ok(Repaired::Recovered(kept.filter(there)))
}

fn rebuild(dir: &dyn Dir, path: &Path, options: SalvageOptions) -> Result<Repaired> {
    let new = beside(path, "repaired");
    let to = Arc::new(OsDir::new(&new)) as Arc<dyn Dir>;
    let report = copy(dir, Some(&*to), options, &mut |_| ())?;
    let scope = Scope { depth: Depth::Everything, maps: false, threads: 1 };
    let check: Report = diagnose_in(&to, scope, &mut |_| ())?.report;
    if check.state != State::Clean {
        return Err(Error::invalid(format!(
            "{} is not whole after it was written; nothing was exchanged",
            new.display()
        )));
    }
    let same_mode = take_mode(path, &new);
    same_mode.map_err(|e| Error::io(format!("giving {} the same mode", new.display()), e))?;
    exchange(path, &new).map_err(|e| {
        Error::io(format!("exchanging {} and {}", path.display(), new.display()), e)
    })?;
    let damaged = (0..).map(|n: u32| match n {
        0 => beside(path, "damaged"),
        n => beside(path, &format!("damaged.{n}")),
    });
    for name in damaged.take(1000) {
        match rename_directory(&new, &name) {
            Ok(()) => return Ok(Repaired::Rebuilt(Box::new(report), name)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(_) => break,
        }
    }
    // The log is repaired; only the damaged one's new name was not to be had.
    Ok(Repaired::Rebuilt(Box::new(report), new))
}

/// The same name with a suffix, in the same parent.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut name = absolute.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    absolute.with_file_name(name)
}

/// Every file of the format but the lock, with its checksum.
fn marks(dir: &dyn Dir) -> Result<Vec<FileMark>> {
    let mut marks = Vec::new();
    for entry in list(dir)? {
        let known = format::parse_name(&entry.name);
        if entry.regular && known.is_some_and(|name| name != format::Name::Lock) {
            marks.push(mark(dir, entry.name)?);
        }
    }
    marks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(marks)
}

fn mark(dir: &dyn Dir, name: String) -> Result<FileMark> {
    let failed = |e| reading(dir, &name, e);
    let file = dir.open(&name, Access::Read).map_err(failed)?;
    let mut crc = crc32fast::Hasher::new();
    let (mut bytes, mut chunk) = (0, vec![0; 256 << 10]);
    loop {
        let read = read_full(&*file, &mut chunk, bytes).map_err(failed)?;
        if read == 0 {
            return Ok(FileMark { name, bytes, crc32: crc.finalize() });
        }
        crc.update(&chunk[..read]);
        bytes += read as u64;
    }
}

/// The size and CRC-32 of every file of the format in a directory, for a report.
///
/// # Errors
/// `NotALog`, `Io`.
pub fn file_marks(path: impl AsRef<Path>) -> Result<Vec<FileMark>> {
    marks(&OsDir::new(path.as_ref()))
}

fn first_difference<'a>(planned: &'a [FileMark], now: &'a [FileMark]) -> Option<&'a str> {
    let gone = planned.iter().find(|mark| !now.contains(mark));
    let new = now.iter().find(|mark| !planned.contains(mark));
    gone.or(new).map(|mark| mark.name.as_str())
}
