//! SHA-256 of segments, each file hashed once for all targets of a log that link it.
//!
//! A hard link is the same file under one more name, and a sealed segment does not change: its bytes
//! need not be read once for each target. A copy is another file and is hashed as it lies there.
//!
//! Never here: a sum kept past the open log; verification, which always reads. Invariant: a sum is
//! given for that very file only, by inode and birth time: a number may be used again. Next room:
//! [`crate::archive`].

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use annals_wal::format::Identity;
use annals_wal::fs::{Dir, os::OsDir};

use super::hash;
use crate::error::{Error, Result};
use crate::ids::ContentHash;

/// So many are kept: one target may be as many segments behind another and still find its sums.
const KEPT: usize = 256;

/// The last sums taken, newest last.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<VecDeque<(Identity, ContentHash)>>);

impl Sums {
    /// The sum of a file in a directory.
    pub(super) fn of(&self, dir: &Path, name: &str) -> Result<ContentHash> {
        let path = dir.join(name);
        let identity =
            OsDir::new(dir).identity(name).map_err(|e| Error::file("look at", &path, e))?;
        // Of a file system that tells no birth a number may be another file's by now.
        if identity.born_ns == 0 {
            return hash(&path);
        }
        let known = |sums: &VecDeque<(Identity, ContentHash)>| {
            sums.iter().find(|(of, _)| *of == identity).map(|(_, sum)| *sum)
        };
        if let Some(sum) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(sum);
        }
        let sum = hash(&path)?;
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.len() == KEPT {
            sums.pop_front();
        }
        sums.push_back((identity, sum));
        Ok(sum)
    }
}
