//! Sealed segments read whole, several at once: the long part of `wal verify`.
//!
//! Never here: judgement ([`crate::inspect`] has it), a lock, a log. The threads live inside the
//! call and share nothing but the number of the next segment, so they are the standard library's
//! and not [`crate::sync`]'s. Invariant: the answer, error included, is that of one thread that
//! reads segment after segment. Next rooms: [`crate::survey`], [`crate::inspect`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::error::Result;
use crate::format::{self, SegmentHeader};
use crate::fs::{Access, Dir};
use crate::ids::Sequence;
use crate::recover::facts::reading;
use crate::survey::Survey;
use crate::window::Window;

/// A segment to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) sequence: Sequence,
    pub(crate) header: SegmentHeader,
    pub(crate) file_len: u64,
}

impl Body {
    fn survey(&self, dir: &dyn Dir) -> Result<Survey> {
        let name = format::segment_name(self.sequence);
        let file = dir.open(&name, Access::Read).map_err(|e| reading(dir, &name, e))?;
        // What lies beyond the capacity is a finding by its being there.
        let window = Window::limited(file, self.header.capacity.min(self.file_len));
        Survey::of_sealed(window, &self.header).map_err(|e| reading(dir, &name, e))
    }
}

/// As many threads as are worth it here: more than four are seldom fed by a disk.
pub(crate) fn threads() -> usize {
    const MOST: usize = 4;
    thread::available_parallelism().map_or(1, usize::from).min(MOST)
}

/// A survey of each, in their order, or the error of the first that has one.
pub(crate) fn surveys(
    dir: &Arc<dyn Dir>,
    bodies: &[Body],
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Survey>> {
    let mut surveys: Vec<_> = bodies.iter().map(|_| None).collect();
    if threads.min(bodies.len()) > 1 {
        side_by_side(dir, bodies, threads, &mut |index, survey| {
            progress(bodies[index].file_len);
            surveys[index] = Some(survey);
        });
    }
    // What no thread took, because none or too few could be started, is read here.
    let here = |(survey, body): (Option<Result<Survey>>, &Body)| {
        survey.unwrap_or_else(|| {
            let survey = body.survey(&**dir);
            progress(body.file_len);
            survey
        })
    };
    surveys.into_iter().zip(bodies).map(here).collect()
}

/// Segments are taken lowest first. After an error no more are taken, but every one below it has
/// been, so the lowest error is found however the threads ran.
fn side_by_side(
    dir: &Arc<dyn Dir>,
    bodies: &[Body],
    threads: usize,
    done: &mut dyn FnMut(usize, Result<Survey>),
) {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (next, failed) = (&next, &failed);
    let work = move |answers: Sender<(usize, Result<Survey>)>| {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(body) = bodies.get(index) else { return };
            let survey = body.survey(&**dir);
            failed.fetch_or(survey.is_err(), Ordering::Relaxed);
            if answers.send((index, survey)).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let (sender, answers) = channel();
        for _ in 0..threads.min(bodies.len()) {
            let sender = sender.clone();
            let thread = thread::Builder::new().name("annals-verify".to_owned());
            if thread.spawn_scoped(scope, move || work(sender)).is_err() {
                break;
            }
        }
        drop(sender);
        for (index, survey) in answers {
            done(index, survey);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Body, surveys};
    use crate::format::{HeaderVerdict, SegmentHeader, segment_name};
    use crate::fs::mem::MemDir;
    use crate::ids::Sequence;
    use crate::options::Options;

    /// Two files are gone: the error is the lower one's, whichever thread met which first.
    #[test]
    fn the_lowest_error_is_told_however_many_threads_there_are() {
        let disk = MemDir::new(1);
        let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
        while log.stats().rotations < 9 {
            log.append(vec![7; 20_000]).unwrap();
        }
        let bodies: Vec<_> = (1..=9)
            .map(|number| {
                let sequence = Sequence::new(number).unwrap();
                let bytes = disk.bytes(&segment_name(sequence)).unwrap();
                let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!() };
                Body { sequence, header, file_len: bytes.len() as u64 }
            })
            .collect();
        let gone = [4, 6].map(|number| segment_name(Sequence::new(number).unwrap()));
        gone.iter().for_each(|name| disk.lose(name));
        for threads in [1, 2, 3, 9].into_iter().cycle().take(80) {
            let error = surveys(&disk.dir(), &bodies, threads, &mut |_| ()).unwrap_err();
            assert!(error.to_string().contains(&gone[0]), "{threads} threads: {error}");
        }
        let sound = surveys(&disk.dir(), &bodies[..3], 3, &mut |_| ()).unwrap();
        let ends: Vec<_> = sound.iter().map(|survey| survey.kept.last_lsn).collect();
        assert!(ends.is_sorted() && ends.len() == 3, "in order: {ends:?}");
    }
}
