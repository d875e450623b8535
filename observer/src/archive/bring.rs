//! The files of a hand-over: a segment under its own name, and the manifest in the place of the last one.
//!
//! Never here: an order of a hand-over ([`super`]), a hold, a judgement of what is in a segment
//! ([`super::sums`]). Invariants: a segment has a segment's name in the target only when it is whole
//! and durable but for that name; the manifest that is there is whole, at any moment. Next room:
//! [`super::sums`].

use std::io;

use annals_wal::Log;
use annals_wal::fs::{Access, Dir, File, Status, SyncPoint, read_full, write_once};
use sha2::{Digest, Sha256};

use super::turn::Turns;
use super::{LOCK, MANIFEST};
use crate::error::{Error, Result};
use crate::ids::ContentHash;
use crate::mutant;

/// Under this name a segment is copied. One that a crash left is removed by the next hand-over.
const HALF_COPY: &str = "ARCHIVE.segment";

/// Under this name a manifest is written.
const HALF_MANIFEST: &str = "ARCHIVE.tmp";

/// So much is read at once.
const CHUNK: usize = 256 << 10;

/// Brings one segment to the target under its own name; returns its length. A file that is there and
/// not in the manifest is what a crash left. A copy has another name until it is whole: who reads the
/// archive meanwhile, or after a crash, meets no half segment.
pub(super) fn segment(
    log: &Log,
    turns: &Turns,
    to: &dyn Dir,
    name: &str,
    copy: bool,
) -> Result<u64> {
    let half = if mutant::is("archive:copied-in-place") { name } else { HALF_COPY };
    for old in [name, HALF_COPY] {
        if mutant::is("archive:leftovers-stay") {
            break;
        }
        remove(to, old).map_err(|e| failed("replace", to, old, e))?;
    }
    let from = &**log.dir();
    let source = from.open(name, Access::Read).map_err(|e| failed("open", from, name, e))?;
    // Another file system, one without links, or bytes that the disk may not have.
    if copy || !is_durable(&*source, turns, name) || !is_linked(from, &*source, to, name) {
        remove(to, name).map_err(|e| failed("replace", to, name, e))?;
        copied(&*source, to, half).map_err(|e| failed("copy to", to, half, e))?;
        if half != name {
            to.rename(half, name).map_err(|e| failed("rename", to, half, e))?;
        }
    }
    let len = to.open(name, Access::Read).and_then(|file| file.len());
    len.map_err(|e| failed("look at", to, name, e))
}

/// Whether the disk has what the log's file shows. The log has synced what it wrote there, but a log that was
/// copied here and opened was never synced by anybody. Before the link: after it the sync would be one of
/// the inode's new link count, too, which the writers wait behind.
///
/// A sync that failed proves nothing, and a second one would prove nothing either, whatever it said: from
/// then on the file is copied, as its cache shows it, and the copy has a sync of its own.
fn is_durable(source: &dyn File, turns: &Turns, name: &str) -> bool {
    if turns.is_doubtful(name) {
        return false;
    }
    let synced = source.sync_data(SyncPoint::ArchivedSegment).is_ok();
    if !synced {
        turns.doubt(name);
    }
    synced
}

/// Whether the target has that very file by a link: a path alone does not say whose file it names.
fn is_linked(from: &dyn Dir, source: &dyn File, to: &dyn Dir, name: &str) -> bool {
    let linked = to.hard_link_from(from.absolute(), name, name);
    let same = |there: Status| source.status().is_ok_and(|status| status.is_same_file(&there));
    linked.and_then(|()| to.status(name)).is_ok_and(same)
}

fn copied(source: &dyn File, to: &dyn Dir, half: &str) -> io::Result<()> {
    let copy = to.create(half)?;
    let (mut buffer, mut at) = (vec![0; CHUNK], 0);
    loop {
        let read = read_full(source, &mut buffer, at)?;
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => write_once(&*copy, bytes, at)?,
            _ => return copy.sync_data(SyncPoint::ArchiveCopy),
        }
        at += read as u64;
    }
}

/// Puts a manifest in the place of the one before it: temporary name, sync, rename, directory sync.
pub(super) fn manifest(dir: &dyn Dir, content: &[u8]) -> Result<()> {
    let in_place = mutant::is("archive:manifest-in-place");
    let half = if in_place { MANIFEST } else { HALF_MANIFEST };
    let write = || -> io::Result<()> {
        remove(dir, half)?;
        let file = dir.create(half)?;
        write_once(&*file, content, 0)?;
        file.sync_data(SyncPoint::ArchiveManifest)?;
        if !in_place {
            dir.rename(half, MANIFEST)?;
        }
        dir.sync(SyncPoint::ArchiveListed)
    };
    write().map_err(|e| failed("write", dir, MANIFEST, e))
}

fn remove(dir: &dyn Dir, name: &str) -> io::Result<()> {
    match dir.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether a directory has no more than a hand-over leaves that stopped before its first manifest had
/// its name.
pub(super) fn is_empty(dir: &dyn Dir) -> Result<bool> {
    let entries = dir.list().map_err(|e| Error::file("list", dir.path(), e))?;
    Ok(entries.iter().all(|entry| entry.name == LOCK || entry.name == HALF_MANIFEST))
}

/// SHA-256 of a file, read as it lies there.
pub(super) fn hash(dir: &dyn Dir, name: &str) -> Result<ContentHash> {
    let bad = |e| failed("read", dir, name, e);
    let file = dir.open(name, Access::Read).map_err(bad)?;
    let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        let read = read_full(&*file, &mut buffer, at).map_err(bad)?;
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => hash.update(bytes),
            _ => return Ok(ContentHash(hash.finalize().into())),
        }
        at += read as u64;
    }
}

pub(super) fn failed(what: &'static str, dir: &dyn Dir, name: &str, error: io::Error) -> Error {
    Error::file(what, &dir.path().join(name), error)
}
