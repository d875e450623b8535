//! What earlier runs found with the same programs, so that a run that was ended goes on where it was.
//!
//! Never here: a survivor; it is tried anew each time. Invariant: a program that was built from
//! anything else has another mark, and then nothing is known.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::hunt::Fate;

/// Stands for the code as it is, which every proof passed.
const NO_MUTANT: &str = "";

/// The deaths known so far, and where the next is written.
pub(crate) struct Kept {
    known: BTreeMap<String, Fate>,
    file: Option<Mutex<File>>,
}

impl Kept {
    /// Of these programs. Whatever fails on the way costs time and nothing else: nothing is known.
    pub(crate) fn of(dir: &Path, programs: &[&PathBuf]) -> Kept {
        let mut mark = DefaultHasher::new();
        for program in programs {
            mark.write(&std::fs::read(program).unwrap_or_default());
        }
        let path = dir.join(format!("killed-{:016x}.jsonl", mark.finish()));
        let lines = std::fs::read_to_string(&path).unwrap_or_default();
        let known = lines.lines().filter_map(|line| {
            let [name, by, saw]: [String; 3] = serde_json::from_str(line).ok()?;
            Some((name, Fate::Killed { by, saw }))
        });
        let file = OpenOptions::new().create(true).append(true).open(&path).ok();
        Kept { known: known.collect(), file: file.map(Mutex::new) }
    }

    /// How this mutant died, if it did.
    pub(crate) fn fate(&self, name: &str) -> Option<Fate> {
        self.known.get(name).cloned()
    }

    /// Whether every proof passed without a mutant.
    pub(crate) fn passed(&self) -> bool {
        self.known.contains_key(NO_MUTANT)
    }

    /// Keeps that they did.
    pub(crate) fn keep_passed(&self) {
        self.write(NO_MUTANT, "", "");
    }

    /// Keeps a death.
    pub(crate) fn keep(&self, name: &str, fate: &Fate) {
        if let Fate::Killed { by, saw } = fate {
            self.write(name, by, saw);
        }
    }

    fn write(&self, name: &str, by: &str, saw: &str) {
        let Some(file) = &self.file else { return };
        let Ok(line) = serde_json::to_string(&[name, by, saw]) else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write: a run that is ended leaves whole lines, and half a one is passed over.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_kept_for_the_same_programs_alone() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "one").unwrap();
        let kept = Kept::of(dir.path(), &[&program]);
        let (by, saw) = ("a sweep".to_owned(), "lost\n\"all\"".to_owned());
        kept.keep("a:b", &Fate::Killed { by, saw });
        kept.keep("a:c", &Fate::Survived("every proof passed".to_owned()));
        let again = Kept::of(dir.path(), &[&program]);
        assert!(matches!(again.fate("a:b"), Some(Fate::Killed { saw, .. }) if saw.contains('"')));
        assert!(again.fate("a:c").is_none() && !again.passed());
        again.keep_passed();
        assert!(Kept::of(dir.path(), &[&program]).passed());
        std::fs::write(&program, "two").unwrap();
        assert!(Kept::of(dir.path(), &[&program]).fate("a:b").is_none());
    }
}
