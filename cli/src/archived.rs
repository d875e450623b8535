//! What an archive's manifest adds to a diagnosis: files that should be there and are not what it says,
//! and a word on files that lie there and are not in the archive.
//!
//! Never here: what stands in a segment (the log's library judges that, and knows no manifests).
//! Invariants: a damage that was explained already is not told twice; work and memory follow the files
//! that are there and not the numbers in a manifest. Next room: [`crate::inspect`].

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;

use annals_observer::ErrorKind;
use annals_observer::archive::manifest::{Archived, Manifest};
use annals_observer::archive::verify::differences;
use annals_wal::diagnose::{Class, DAMAGES_MAX, Damaged, Diagnosis, Loss};
use annals_wal::fs::os::OsDir;
use annals_wal::inspect::State;
use annals_wal::{Lsn, Sequence};

use crate::exit::{Exit, Failure};
use crate::out::message;
use crate::place;

/// Adds what the manifest of an archive accuses; `read` asks for the
/// SHA-256 of each file.
pub(crate) fn complete(dir: &Path, diagnosis: &mut Diagnosis, read: bool) -> Result<(), Failure> {
    if matches!(diagnosis.report.state, State::Unfinished | State::Unsupported) {
        return Ok(());
    }
    // What is no file, and what may be a mark that lost its bytes, is in the report.
    let told = diagnosis.damages.iter().any(|damage| damage.segment.is_none());
    let manifest = match Manifest::read(dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let mut damage = unread(Class::Unsupported, error.to_string());
            damage.state = State::Unsupported;
            add(diagnosis, vec![damage]);
            return Ok(());
        }
        Err(_) if told => return Ok(()),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            add(diagnosis, vec![unread(Class::BrokenRules, error.to_string())]);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    tell_of_those_above(dir, &manifest);
    // Numbers between two files may be left out; which files are missing there the manifest knows, and
    // the log's library can only guess.
    let listed: BTreeSet<Sequence> =
        manifest.segments.iter().filter_map(Archived::sequence).collect();
    for damage in &mut diagnosis.damages {
        if damage.class != Class::Gap && damage.segment.is_some_and(|s| !listed.contains(&s)) {
            damage.decided.push_str("; the manifest does not list this file");
        }
    }
    let wrong = differences(&OsDir::new(dir), &manifest, read)?;
    let gone: BTreeSet<Option<Sequence>> =
        wrong.iter().filter(|(_, why)| is_gone(why)).map(|(gone, _)| gone.sequence()).collect();
    let there = || listed.iter().filter(|listed| !gone.contains(&Some(**listed)));
    diagnosis.damages.retain(|damage| {
        let Some(first) = damage.segment.filter(|_| damage.class == Class::Gap) else {
            return true;
        };
        let end =
            there().find(|there| **there > first).map_or(Bound::Unbounded, |n| Bound::Excluded(*n));
        let range = (Bound::Included(first), end);
        listed.range::<Sequence, _>(range).next().is_none()
    });
    let explained: BTreeSet<Option<Sequence>> =
        diagnosis.damages.iter().map(|damage| damage.segment).collect();
    let mut found = Vec::new();
    for (segment, why) in wrong {
        if !explained.contains(&segment.sequence()) {
            found.push(different(segment, why));
        }
    }
    add(diagnosis, found);
    Ok(())
}

/// As [`differences`] says it of a file that is not there.
const MISSING: &str = "is missing";

/// What stands in its place is no segment either.
fn is_gone(why: &str) -> bool {
    why == MISSING || why == "is no regular file"
}

fn different(segment: &Archived, why: &str) -> Damaged {
    let class = if why == MISSING { Class::Gap } else { Class::ForeignBytes };
    let expected = format!("{}, {} bytes, as it was handed over", segment.name, segment.bytes);
    let found = format!("{} {why}", segment.name);
    let mut damage = damaged(class, &expected, found, "the archive's manifest lists the file");
    damage.segment = segment.sequence();
    damage.lsns = Lsn::new(segment.first_lsn).zip(Lsn::new(segment.last_lsn));
    if class == Class::Gap {
        damage.loss.records = Some(segment.records());
    }
    damage
}

/// What is not as the manifest says, without reading a segment: the state that this means, and sentences.
pub(crate) fn complaints(dir: &Path) -> Result<(State, Vec<String>), Failure> {
    let manifest = match Manifest::read(dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok((State::Clean, Vec::new())),
        Err(error) => {
            let state = match error.kind() {
                ErrorKind::Unsupported => State::Unsupported,
                ErrorKind::Corrupt => State::Corrupt,
                _ => return Err(error.into()),
            };
            return Ok((state, vec![error.to_string()]));
        }
    };
    let wrong = differences(&OsDir::new(dir), &manifest, false)?;
    let wrong: Vec<String> =
        wrong.iter().map(|(segment, why)| format!("{} {why}", segment.name)).collect();
    Ok((if wrong.is_empty() { State::Clean } else { State::Corrupt }, wrong))
}

/// Whether this is an archive to which nothing was handed over yet.
pub(crate) fn is_new(dir: &Path) -> bool {
    matches!(Manifest::read(dir), Ok(Some(manifest)) if manifest.segments.is_empty())
}

/// The first and the last LSN of an archive that has any, by its manifest.
pub(crate) fn listed(dir: &Path) -> Option<(Lsn, Lsn)> {
    let manifest = Manifest::read(dir).ok()??;
    let (first, last) = (manifest.segments.first()?, manifest.segments.last()?);
    Lsn::new(first.first_lsn).zip(Lsn::new(last.last_lsn))
}

/// Says of what lies above the last segment of the manifest that it is there. Nothing reads or judges it:
/// nothing of the archive is damaged or missing there ([`crate::place`]).
pub(crate) fn tell_of_those_above(dir: &Path, manifest: &Manifest) {
    let (between, above) = place::strays(dir, manifest);
    if between > 0 {
        let what = if between == 1 {
            "1 segment file".to_owned()
        } else {
            format!("{between} segment files")
        };
        message(&format!(
            "wal: the manifest does not list {what} below the last segment of the archive: not in it, \
             and neither read nor judged. No hand-over puts any there"
        ));
    }
    let what = match above {
        0 => return,
        1 => "1 file lies".to_owned(),
        above => format!("{above} files lie"),
    };
    message(&format!(
        "wal: {what} above the last segment of the archive, and the manifest does not list it: a \
         hand-over was broken off here or is at work, the next one replaces it"
    ));
}

fn unread(class: Class, found: String) -> Damaged {
    let expected = "an archive's manifest, which says which segments are in it";
    let decided = "a directory with a file ARCHIVE is an archive or an unfinished copy";
    damaged(class, expected, found, decided)
}

fn damaged(class: Class, expected: &str, found: String, decided: &str) -> Damaged {
    Damaged {
        class,
        state: State::Corrupt,
        segment: None,
        bytes: None,
        lsns: None,
        expected: expected.to_owned(),
        found,
        decided: decided.to_owned(),
        loss: Loss { records: None, promised: Some(true) },
        flip: None,
    }
}

/// As many as there is room for; the others are counted.
fn add(diagnosis: &mut Diagnosis, mut more: Vec<Damaged>) {
    let state = more.iter().map(|damage| damage.state).max();
    diagnosis.report.state = state.unwrap_or(State::Clean).max(diagnosis.report.state);
    let room = DAMAGES_MAX.saturating_sub(diagnosis.damages.len());
    diagnosis.damages_cut += more.len().saturating_sub(room) as u64;
    more.truncate(room);
    diagnosis.damages.append(&mut more);
    diagnosis.damages.sort_by_key(|damage| (damage.segment, damage.bytes));
}

/// How a verb ends that cannot go on without the manifest.
pub(crate) fn unsupported(dir: &Path) -> Option<Failure> {
    let error = Manifest::read(dir).err()?;
    (error.kind() == ErrorKind::Unsupported)
        .then(|| Failure::new(Exit::Unsupported, error.to_string()))
}
