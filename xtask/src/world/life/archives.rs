//! Hand-overs to archives on the same disk, and what must be true of an archive at every moment.
//!
//! Never here: a second opinion on what may be handed over. Invariants: what a manifest lists is there,
//! whole, and what was written; what the log lets go of through an archive's hold, the archive has; a
//! hand-over that came to its end stays one, whatever comes after. Next room: [`crate::world::model`].

use std::sync::Arc;

use annals_observer::ErrorKind;
use annals_observer::archive::manifest::Manifest;
use annals_observer::archive::verify::verify_in;
use annals_observer::archive::{MANIFEST, Target};
use annals_wal::fs::{Access, Dir, read_full};
use annals_wal::inspect::{Depth, inspect_in};
use annals_wal::{Log, LogReader, Lsn};

use super::{Rooms, World, unless_io};
use crate::world::act::Act;
use crate::world::model::{Archive, Holds};

/// What the names of archives' holds begin with, the one of a target that has no directory yet included.
pub(crate) const HOLDS: &str = "archive";

fn hold_of(log: &Log, name: &str) -> Option<u64> {
    log.holds().into_iter().find(|(hold, _)| hold == name).map(|(_, lsn)| lsn.get())
}

/// The lowest hold, the archives' as the log has them.
pub(super) fn lowest_hold(log: &Log, holds: &Holds) -> u64 {
    let archives = log.holds().into_iter().filter(|(name, _)| name.starts_with(HOLDS));
    let archives = archives.map(|(_, lsn)| lsn.get());
    holds.values().copied().chain(archives).min().unwrap_or(u64::MAX)
}

/// In words, among them *Io* where a read was made to fail.
fn told(error: &annals_observer::Error) -> String {
    let of_log = error.log_error().map(annals_wal::Error::kind);
    let read = error.kind() == ErrorKind::Io || of_log == Some(annals_wal::ErrorKind::Io);
    format!("{}{error}", if read { "Io: " } else { "" })
}

fn whole(dir: &dyn Dir, name: &str) -> Result<Vec<u8>, String> {
    let file = dir.open(name, Access::Read).map_err(|e| format!("{e:?}"))?;
    let mut bytes = vec![0; file.len().map_err(|e| format!("{e:?}"))? as usize];
    let read = read_full(&*file, &mut bytes, 0).map_err(|e| format!("Io: {e:?}"))?;
    bytes.truncate(read);
    Ok(bytes)
}

impl World {
    fn archive_dir(&self, name: u8) -> Arc<dyn Dir> {
        self.disk.beside(&format!("archive-{name}")).dir()
    }

    /// A hand-over, by a target that is kept as long as the log is open.
    pub(super) fn archive(&mut self, rooms: &Rooms, name: u8, copy: bool) -> Result<(), String> {
        let log = &rooms.log;
        let head = log.head_lsn().get();
        let archive = self.model.archives.entry(name).or_default();
        if archive.base.is_none() {
            archive.base_maybe = head;
        }
        let dir = self.archive_dir(name);
        // What a call has listed that failed later counts too.
        let listed = Manifest::read_in(&*dir).ok().map(|m| m.map_or(0, |m| m.next_lsn));
        let mut targets = rooms.targets.borrow_mut();
        let target = match targets.remove(&name) {
            Some(target) => target.copy(copy),
            None => Target::in_dir(format!("a{name}"), dir).map_err(|e| e.to_string())?.copy(copy),
        };
        let handed = target.hand_over(log);
        targets.insert(name, target);
        drop(targets);
        match handed {
            Ok(handed) => {
                let next = handed.next_lsn.get();
                self.tally.archived += handed.segments;
                let archive = self.model.archives.entry(name).or_default();
                archive.base = archive.base.or(Some(archive.base_maybe));
                archive.next = archive.next.max(next);
                if hold_of(log, &format!("archive:a{name}")) != Some(next) {
                    return Err(format!("handed over to LSN {next}, and the holds say otherwise"));
                }
                self.check_archive(log, name)
                    .and_then(|()| {
                        listed.map_or(Ok(()), |from| self.check_shared(name, from, copy))
                    })
                    .or_else(unless_io)
            }
            // Nothing was damaged: only what failed may stop it.
            Err(e) if e.kind() == ErrorKind::Corrupt => Err(format!("a hand-over: {}", told(&e))),
            Err(e) => {
                self.refused = true;
                let is_held = |hold: &str| hold_of(log, &format!("{hold}a{name}")).is_some();
                // A file failed: by then the log waits for this target.
                if e.kind() == ErrorKind::Io && !is_held("archive:") && !is_held("archive?") {
                    return Err(format!("a first hand-over left no hold: {e:?}"));
                }
                Ok(())
            }
        }
    }

    /// Each of them, after an opening.
    pub(super) fn check_archives(&mut self, log: &Log) -> Result<(), String> {
        let names: Vec<u8> = self.model.archives.keys().copied().collect();
        names.into_iter().try_for_each(|name| self.check_archive(log, name))
    }

    fn check_archive(&mut self, log: &Log, name: u8) -> Result<(), String> {
        let dir = self.archive_dir(name);
        let held = hold_of(log, &format!("archive:a{name}"));
        let waiting = hold_of(log, &format!("archive?a{name}"));
        let archive = self.model.archives.entry(name).or_default();
        // Before anything is made for it, the log waits for it.
        let is_there = dir.list().is_ok() || archive.base.is_some();
        if is_there && held.is_none() && waiting.is_none() {
            return Err(format!("archive {name} is there, and the log waits for nobody"));
        }
        if archive.base.is_none() && (held.is_some() || waiting.is_some()) {
            archive.base = Some(archive.base_maybe);
        }
        let Archive { base, next, .. } = *archive;
        if next > 0 && held.is_none_or(|held| held < next) {
            return Err(format!("archive {name} was handed LSN {next}, and its hold is {held:?}"));
        }
        let manifest = match Manifest::read_in(&*dir) {
            Ok(manifest) => manifest,
            Err(e) => return Err(format!("archive {name}: {}", told(&e))),
        };
        let has = manifest.as_ref().map_or(0, |manifest| manifest.next_lsn);
        if held.is_some_and(|held| has < held) {
            return Err(format!(
                "the log lets go of what is below {held:?}, archive {name} has {has}"
            ));
        }
        self.check_unlisted(&*dir, manifest.as_ref())?;
        let Some(manifest) = manifest else { return Ok(()) };
        verify_in(&dir).map_err(|e| format!("archive {name}: {}", told(&e)))?;
        let Some(first) = manifest.segments.first().map(|segment| segment.first_lsn) else {
            return Ok(());
        };
        if base.is_some_and(|base| first > base) {
            return Err(format!("archive {name} begins at {first}, and was promised {base:?}"));
        }
        let range = Lsn::new(first).zip(Lsn::new(has - 1));
        let Some((first, last)) = range else {
            return Err(format!("archive {name} ends at {has}"));
        };
        let reader = LogReader::open_in(dir).map_err(|e| format!("archive {name}: {e:?}"))?;
        let records = reader.unproven(true).range(first..=last);
        let records = records.map_err(|e| format!("archive {name}: {e:?}"))?;
        let archived = self.model.archived(first.get(), records);
        archived.map_err(|why| format!("archive {name}: {why}"))
    }

    /// A copy shares no file with the log; where links work and nothing fails, a link does.
    fn check_shared(&self, name: u8, from: u64, copy: bool) -> Result<(), String> {
        let dir = self.archive_dir(name);
        let manifest = Manifest::read_in(&*dir).map_err(|e| told(&e))?;
        let listed = manifest.map(|manifest| manifest.segments).unwrap_or_default();
        for segment in listed.iter().filter(|segment| segment.first_lsn >= from.max(1)) {
            let log = self.disk.identity(&segment.name).ok();
            let same = log.is_some() && log == dir.identity(&segment.name).ok();
            if same && copy || !same && !copy && log.is_some() && self.is_quiet() {
                return Err(format!("{}: one file in log and archive: {same}", segment.name));
            }
        }
        Ok(())
    }

    /// Every sealed segment behind which a record is durable.
    fn check_all_handed_over(&self, name: u8) -> Result<(), String> {
        let report = inspect_in(&self.disk.dir(), Depth::Seals, &mut |_| ());
        let report = report.map_err(|e| e.to_string())?;
        let lsns: Vec<_> = report.segments.iter().filter_map(|segment| segment.lsns).collect();
        let due = lsns.windows(2).map(|pair| pair[0].1.get() + 1).max().unwrap_or(0);
        let next = self.model.archives.get(&name).map_or(0, |archive| archive.next);
        if due > next {
            return Err(format!("archive {name} ends before {next}, and {due} was due"));
        }
        Ok(())
    }

    /// Who reads an archive while a hand-over works, or after it was broken off, meets no half segment.
    fn check_unlisted(&self, dir: &dyn Dir, manifest: Option<&Manifest>) -> Result<(), String> {
        let listed = manifest.map_or(&[][..], |manifest| &manifest.segments);
        for entry in dir.list().unwrap_or_default() {
            let Some(original) = self.disk.bytes(&entry.name) else { continue };
            let is_listed = listed.iter().any(|segment| segment.name == entry.name);
            if !is_listed && entry.name.ends_with(".wal") && whole(dir, &entry.name)? != original {
                return Err(format!("{} in an archive is half a segment", entry.name));
            }
        }
        Ok(())
    }

    /// At the end: the archives take what is sealed by now, and nothing that a crash left stays there.
    pub(super) fn finish_archives(&mut self) -> Result<(), String> {
        let names: Vec<u8> = self.model.archives.keys().copied().collect();
        for name in names {
            self.refused = false;
            self.call(&Act::Archive { name, copy: false })?;
            if self.refused {
                return Err(format!("archive {name} cannot be gone on with at the end"));
            }
            self.check_all_handed_over(name)?;
            let dir = self.archive_dir(name);
            let manifest = Manifest::read_in(&*dir).map_err(|e| told(&e))?;
            let listed = manifest.map(|manifest| manifest.segments).unwrap_or_default();
            let is_known = |name: &str| {
                let own = [MANIFEST, "ARCHIVE.lock"].contains(&name);
                own || listed.iter().any(|segment| segment.name == name)
            };
            let names = dir.list().map_err(|e| e.to_string())?;
            if let Some(left) = names.iter().find(|entry| !is_known(&entry.name)) {
                return Err(format!("archive {name}: {} is left over", left.name));
            }
        }
        Ok(())
    }
}
