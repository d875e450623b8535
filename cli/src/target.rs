//! Where a verb writes what it makes of a log: never into that log's directory, never over a file, and
//! under its name only when it is whole.
//!
//! Never here: what is written. Next room: [`crate::exit`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_wal::fs::{Access, Dir, SyncPoint, os::OsDir};

use crate::damage::shown;
use crate::exit::{Exit, Failure};

/// Refuses a target inside the directory that is read: a foreign file in a log is one too many, and a
/// log in a log is found by nobody.
pub(crate) fn outside(source: &Path, to: &Path) -> Result<(), Failure> {
    let (Ok(source), Some(real)) = (fs::canonicalize(source), real(to)) else { return Ok(()) };
    if !real.starts_with(&source) {
        return Ok(());
    }
    let (to, source) = (shown(to), shown(&source));
    let why = format!("{to} lies in {source} itself: name a place outside. Nothing was written");
    Err(Failure::new(Exit::Usage, why))
}

/// A path with its links resolved, as far as it is there.
fn real(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find_map(|up| Some((up, fs::canonicalize(up).ok()?)));
    let (up, real) = there?;
    Some(real.join(absolute.strip_prefix(up).ok()?))
}

/// [`outside`], for a directory that is to be made: absent, or empty.
pub(crate) fn new_directory(source: &Path, to: &Path) -> Result<(), Failure> {
    outside(source, to)?;
    let there = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_some().then_some("is not empty"),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Some("is no directory"),
        // What else is wrong there is said by who makes it.
        Err(_) => None,
    };
    let Some(what) = there else { return Ok(()) };
    let to = shown(to);
    let why = format!("{to} {what}: name a directory that does not exist yet. Nothing was written");
    Err(Failure::new(Exit::Failed, why))
}

fn not_made(file: &Path, error: &io::Error) -> Failure {
    let shown = file.display();
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{shown} exists: name a file that does not exist yet, or remove it")
        }
        _ => format!("{shown} cannot be written: {error}"),
    };
    Failure::new(Exit::Failed, why)
}

/// A file of the caller's, made anew: nothing that exists is overwritten.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    Part::begin(file)?.fill(|mut made| made.write_all(text.as_bytes()).map_err(Failure::from))
}

/// A file that is not whole yet: beside its name, and removed unless it gets it.
pub(crate) struct Part {
    file: PathBuf,
    part: PathBuf,
}

impl Part {
    pub(crate) fn begin(file: &Path) -> Result<Part, Failure> {
        if file.symlink_metadata().is_ok() {
            return Err(not_made(file, &io::ErrorKind::AlreadyExists.into()));
        }
        // A name in UTF-8, whatever the file's is: the log's library opens no others.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let part = format!("{name}.{}.part", std::process::id());
        Ok(Part { part: file.with_file_name(part), file: file.to_owned() })
    }

    /// Where it is written.
    #[cfg(feature = "sqlite")]
    pub(crate) fn path(&self) -> &Path {
        &self.part
    }

    /// Makes the file, has it filled, and gives it its name when it is whole and synced.
    pub(crate) fn fill<T>(
        self,
        fill: impl FnOnce(&File) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let made = File::create_new(&self.part).map_err(|e| not_made(&self.file, &e))?;
        // Before a byte is written, so that no failure of writing it back is older than this handle;
        // and by the log's own way, for the standard library's asks again after a signal, and a second
        // sync may say that all is well where the first one lost the bytes.
        let synced = self.for_sync().map_err(|e| self.broken_off(e.into()))?;
        let filled = fill(&made).map_err(|failure| self.broken_off(failure))?;
        synced.sync_data(SyncPoint::BackupFile).map_err(|e| self.broken_off(e.into()))?;
        self.done()?;
        Ok(filled)
    }

    fn for_sync(&self) -> io::Result<Arc<dyn annals_wal::fs::File>> {
        let parent = self.part.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = self.part.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        OsDir::new(parent.unwrap_or(Path::new("."))).open(name, Access::Write)
    }

    fn broken_off(&self, failure: Failure) -> Failure {
        failure.during(&format!("{} was not made", self.file.display()))
    }

    /// It is whole: its name, unless somebody made a file of that name meanwhile.
    pub(crate) fn done(self) -> Result<(), Failure> {
        match fs::hard_link(&self.part, &self.file) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(not_made(&self.file, &e)),
            // A file system without links.
            Err(_) => fs::rename(&self.part, &self.file).map_err(|e| not_made(&self.file, &e)),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After `done` it is the second name of a whole file; before, half a file under no name.
        let _ = fs::remove_file(&self.part);
    }
}
