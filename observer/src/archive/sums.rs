//! SHA-256 of segments that are sound, each file read once for all targets of a log that link it.
//!
//! A hard link is the same file under one more name, and a sealed segment does not change: its bytes
//! need not be read once for each target. A copy is another file and is hashed as it lies there.
//!
//! A segment that has rotted has no sum: the log is to let go of what an archive has, so nothing may be
//! handed over that nobody can read there.
//!
//! Never here: a sum kept past the open log; verification, which always reads. Invariant: a sum is
//! given for that very file only, by device, inode and birth time: a number may be used again. Next room:
//! [`crate::archive`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use annals_wal::Window;
use annals_wal::format::{HeaderVerdict, Identity, KIND_SEAL, SEGMENT_HEADER_LEN, SegmentHeader};
use annals_wal::fs::{Access, Dir, read_full};
use annals_wal::scan::{Step, Walker};

use super::bring::{failed, hash};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ContentHash;

/// So many are kept: one target may be as many segments behind another and still find its sums.
const KEPT: usize = 256;

/// The last sums taken, newest last.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<VecDeque<(File, ContentHash)>>);

/// One file of one device.
type File = (u64, Identity);

impl Sums {
    /// The sum of a file in a directory.
    pub(super) fn of(&self, dir: &dyn Dir, name: &str) -> Result<ContentHash> {
        let looked = dir.status(name).and_then(|status| Ok((status.device, dir.identity(name)?)));
        let file = looked.map_err(|e| failed("look at", dir, name, e))?;
        // Of a file system that tells no birth a number may be another file's by now.
        if file.1.born_ns == 0 {
            return sound(dir, name);
        }
        let known = |sums: &VecDeque<(File, ContentHash)>| {
            sums.iter().find(|(of, _)| *of == file).map(|(_, sum)| *sum)
        };
        if let Some(sum) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(sum);
        }
        let sum = sound(dir, name)?;
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.len() == KEPT {
            sums.pop_front();
        }
        sums.push_back((file, sum));
        Ok(sum)
    }
}

/// The sum of a segment whose every frame checks out, to its seal.
fn sound(dir: &dyn Dir, name: &str) -> Result<ContentHash> {
    let failed = |e| failed("read", dir, name, e);
    let file = dir.open(name, Access::Read).map_err(failed)?;
    let mut head = [0; SEGMENT_HEADER_LEN];
    let read = read_full(&*file, &mut head, 0).map_err(failed)?;
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&head[..read]) else {
        return Err(rotten(dir, name, 0));
    };
    let mut walker = Walker::new(Window::limited(file, header.capacity), &header);
    loop {
        let at = walker.offset();
        match walker.step().map_err(failed)? {
            Some(Step::Frame(frame)) if frame.trouble.is_none() => {
                if frame.header.is_own() && frame.header.kind == KIND_SEAL {
                    return hash(dir, name);
                }
            }
            _ => return Err(rotten(dir, name, at)),
        }
    }
}

fn rotten(dir: &dyn Dir, name: &str, at: u64) -> Error {
    let path = dir.path().join(name);
    let why = format!(
        "{} is damaged at byte {at}, so it was not handed over and the log keeps it: `wal verify` \
         shows what is lost; after a `wal repair`, use a new directory under a new name",
        path.display()
    );
    Error::new(ErrorKind::Corrupt, why)
}
