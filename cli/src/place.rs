//! A directory as the reading verbs see it: a log's whole, of an archive what its manifest names.
//!
//! What the manifest does not list is not in the archive (`docs/adr/0018`): above its last segment a
//! hand-over left it that was broken off or is at work, elsewhere somebody put it there. It is left out here, in the one listing
//! that every room of the log's library begins with, so that no verb can forget it. Never here: a
//! writing verb; a log that is opened for writing is refused where there is an archive. Invariant: the
//! manifest is asked at each listing, so that a reader that follows an archive sees it grow. Next
//! room: [`crate::archived`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_observer::archive::manifest::{Archived, Manifest};
use annals_registry::RegistryReader;
use annals_wal::LogReader;
use annals_wal::diagnose::{Diagnosis, Scope, diagnose_in};
use annals_wal::format::{ARCHIVE_NAME, Name, parse_name};
use annals_wal::fs::{Dir, DirEntry, DirLayer, os::OsDir};
use annals_wal::inspect::{Depth, Report, inspect_in};

use crate::exit::Failure;

/// The directory, for whoever only reads.
pub(crate) fn at(dir: &Path) -> Arc<dyn Dir> {
    Arc::new(Place { dir: OsDir::new(dir) })
}

pub(crate) fn reader(dir: &Path) -> annals_wal::Result<LogReader> {
    LogReader::open_in(at(dir))
}

pub(crate) fn registry(dir: &Path) -> Result<RegistryReader, Failure> {
    if OsDir::new(dir).status(ARCHIVE_NAME).is_ok() {
        return Ok(RegistryReader::on(reader(dir)?)?);
    }
    // Of a log: its owner may trim meanwhile, and then it is opened anew.
    Ok(RegistryReader::open(dir)?)
}

/// The report of headers and seals.
pub(crate) fn inspect(dir: &Path) -> annals_wal::Result<Report> {
    inspect_in(&at(dir), Depth::Seals, &mut |_| ())
}

pub(crate) fn diagnose(
    dir: &Path,
    scope: Scope,
    progress: &mut dyn FnMut(u64),
) -> annals_wal::Result<Diagnosis> {
    diagnose_in(&at(dir), scope, progress)
}

/// How many segment files the manifest does not list: between those that it lists or below them, and
/// above the last one.
pub(crate) fn strays(dir: &Path, manifest: &Manifest) -> (usize, usize) {
    let entries = OsDir::new(dir).list().unwrap_or_default();
    let strays = entries.iter().filter(|entry| !is_in(manifest, entry));
    let numbers = strays.filter_map(|entry| match parse_name(&entry.name) {
        Some(Name::Segment(sequence)) => Some(Some(sequence) > manifest.last_sequence()),
        _ => None,
    });
    let (above, between): (Vec<bool>, Vec<bool>) = numbers.partition(|above| *above);
    (between.len(), above.len())
}

fn is_in(manifest: &Manifest, entry: &DirEntry) -> bool {
    match parse_name(&entry.name) {
        // A manifest's numbers rise.
        Some(Name::Segment(sequence)) => {
            manifest.segments.binary_search_by_key(&Some(sequence), Archived::sequence).is_ok()
        }
        _ => true,
    }
}

#[derive(Debug)]
struct Place {
    dir: OsDir,
}

impl DirLayer for Place {
    fn below(&self) -> &dyn Dir {
        &self.dir
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = self.dir.list()?;
        // After the listing, never before: a segment that the manifest names was there already.
        if entries.iter().any(|entry| entry.name == ARCHIVE_NAME)
            && let Ok(Some(manifest)) = Manifest::read_in(&self.dir)
        {
            entries.retain(|entry| is_in(&manifest, entry));
        }
        Ok(entries)
    }
}
