//! What an archive's manifest adds to a diagnosis: files that should be there and are not what it says.
//!
//! Never here: what stands in a segment (the log's library judges that, and knows no manifests).
//! Invariant: a damage that was explained already is not told twice. Next room: [`crate::inspect`].

use std::path::Path;

use annals_observer::archive::manifest::{Archived, Manifest};
use annals_observer::archive::verify::differences;
use annals_wal::diagnose::{Class, Damaged, Diagnosis, Loss};
use annals_wal::format::{Name, parse_name};
use annals_wal::inspect::State;
use annals_wal::{Lsn, Sequence};

use crate::exit::Failure;

/// Adds what the manifest of an archive accuses; `read` asks for the SHA-256 of each file.
pub(crate) fn complete(dir: &Path, diagnosis: &mut Diagnosis, read: bool) -> Result<(), Failure> {
    if matches!(diagnosis.report.state, State::Unfinished | State::Unsupported) {
        return Ok(());
    }
    let manifest = match Manifest::read(dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(()),
        // What is no file, and what may be a mark that lost its bytes, is in the report.
        Err(_) if diagnosis.damages.iter().any(|damage| damage.segment.is_none()) => return Ok(()),
        Err(error) => {
            let expected = "an archive's manifest, which says which segments are in it";
            let found = error.to_string();
            let decided = "a directory with a file ARCHIVE is an archive or an unfinished copy";
            add(diagnosis, damaged(Class::BrokenRules, expected, found, decided));
            return Ok(());
        }
    };
    let listed = |segment: Sequence| manifest.segments.iter().any(|s| number(s) == Some(segment));
    for damage in &mut diagnosis.damages {
        if damage.segment.is_some_and(|segment| !listed(segment)) && damage.class != Class::Gap {
            damage.decided.push_str(
                "; the manifest does not list this file: a hand-over was broken off here, and the \
                 next one replaces it",
            );
        }
    }
    for (segment, why) in wrong(dir, &manifest, read)? {
        let sequence = number(segment);
        if diagnosis.damages.iter().any(|damage| damage.segment == sequence) {
            continue;
        }
        let class = if why == MISSING { Class::Gap } else { Class::ForeignBytes };
        let expected = format!("{}, {} bytes, as it was handed over", segment.name, segment.bytes);
        let found = format!("{} {why}", segment.name);
        let mut damage = damaged(class, &expected, found, "the archive's manifest lists the file");
        damage.segment = sequence;
        damage.lsns = Lsn::new(segment.first_lsn).zip(Lsn::new(segment.last_lsn));
        if class == Class::Gap {
            damage.loss.records = Some(segment.last_lsn - segment.first_lsn + 1);
        }
        add(diagnosis, damage);
    }
    Ok(())
}

/// As [`differences`] says it of a file that is not there.
const MISSING: &str = "is missing";

/// What is not as the manifest says, as sentences, without reading a segment.
pub(crate) fn complaints(dir: &Path) -> Result<Vec<String>, Failure> {
    match Manifest::read(dir) {
        Ok(Some(manifest)) => {
            let wrong = wrong(dir, &manifest, false)?;
            Ok(wrong.iter().map(|(segment, why)| format!("{} {why}", segment.name)).collect())
        }
        Ok(None) => Ok(Vec::new()),
        Err(error) => Ok(vec![error.to_string()]),
    }
}

fn wrong<'m>(
    dir: &Path,
    manifest: &'m Manifest,
    read: bool,
) -> Result<Vec<(&'m Archived, &'static str)>, Failure> {
    Ok(differences(dir, manifest, read)?)
}

fn number(segment: &Archived) -> Option<Sequence> {
    match parse_name(&segment.name) {
        Some(Name::Segment(sequence)) => Some(sequence),
        _ => None,
    }
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

fn add(diagnosis: &mut Diagnosis, damage: Damaged) {
    diagnosis.report.state = diagnosis.report.state.max(damage.state);
    diagnosis.damages.push(damage);
    diagnosis.damages.sort_by_key(|damage| (damage.segment, damage.bytes));
}
