//! The queue: who comes when, and where. A batch gets its place and its LSNs here, under the one
//! short lock of an append.
//!
//! Never here: I/O, waiting, checksums. Invariants: an LSN is given together with a place (a full
//! disk is met before, in preparation); a batch never spans segments; a refused push has changed
//! nothing. Next room: [`crate::commit`].

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::cohort::Cohort;
use crate::error::Error;
use crate::format::{self, FRAME_HEADER_LEN, FRAMES_START, Hold, OwnBody, SealReference};
use crate::ids::{Generation, Lsn, Sequence};
use crate::mutant;
use crate::prepare::Prepared;
use crate::record::EncodedBatch;
use crate::writer::{SealState, Writer, open_body};

/// Batches covered by one sync, all in one segment.
#[derive(Debug)]
pub(crate) struct Group {
    /// Set where this group is the first of a new segment.
    pub(crate) rotation: Option<Rotation>,
    pub(crate) batches: Vec<Placed>,
    pub(crate) bytes: u64,
    pub(crate) last_lsn: u64,
    pub(crate) cohort: Arc<Cohort>,
}

/// The change to a prepared segment.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) prepared: Prepared,
    /// Head and holds at this point of the order: what seal and open record say.
    pub(crate) state: SealState,
}

/// A batch in its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) offset: u64,
    /// LSN of its first record; for one of the log's own records, of the last record before.
    pub(crate) first_lsn: u64,
    pub(crate) frames: Vec<u8>,
}

/// Whether the log takes writes.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Open,
    /// A close record is on its way, or was written.
    Closed,
    Poisoned(Error),
}

/// Everything the queue lock guards.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) mode: Mode,
    /// Waiting groups, first to be written first.
    pub(crate) groups: VecDeque<Group>,
    /// The group being written: its last LSN and its waiters.
    pub(crate) in_flight: Option<(u64, Arc<Cohort>)>,
    /// The waiters of the last trim record: who changes nothing waits for what is there.
    pub(crate) last_change: Option<Arc<Cohort>>,
    /// Bytes in them and in the group being written.
    pub(crate) queued_bytes: u64,
    /// Where the next batch goes.
    pub(crate) tail: Tail,
    /// LSN of the last record given out, 0 if none.
    pub(crate) last_lsn: u64,
    pub(crate) generation: Generation,
    pub(crate) head: Lsn,
    pub(crate) holds: Vec<Hold>,
    /// The segment after the tail's, if one is ready.
    pub(crate) spare: Option<Prepared>,
    /// Whether somebody prepares one.
    pub(crate) preparing: bool,
    /// Counts preparations that failed on a full disk, so that everybody who waits for one
    /// learns of its failure and nobody of an older one's.
    pub(crate) preparations_failed: u64,
    pub(crate) preparation_error: Option<Error>,
    /// The leader's tools: gone while somebody leads.
    pub(crate) writer: Option<Writer>,
    /// Whether the committer was started.
    pub(crate) committer: bool,
    /// No write handle is left: the committer writes what was admitted and goes.
    pub(crate) handles_gone: bool,
    pub(crate) counters: Counters,
}

/// Counted since this opening.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counters {
    pub(crate) groups: u64,
    pub(crate) syncs: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) rotations: u64,
}

/// The end of what was admitted; it runs ahead of what is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) sequence: Sequence,
    pub(crate) offset: u64,
    /// Where the reserve begins.
    pub(crate) records_end: u64,
    /// Where the seal's half of it begins.
    pub(crate) own_records_end: u64,
    pub(crate) salt: u32,
}

/// Why there is no place.
#[derive(Debug)]
pub(crate) enum NoPlace {
    /// A segment that holds this many bytes of frames must be prepared first.
    Prepare {
        frame_bytes: u64,
    },
    Failed(Error),
}

impl Queue {
    /// Admits a batch: a place and LSNs, or nothing changed.
    pub(crate) fn admit(
        &mut self,
        batch: &mut EncodedBatch,
    ) -> Result<RangeInclusive<Lsn>, NoPlace> {
        self.check_mode().map_err(NoPlace::Failed)?;
        let first = Lsn::new(self.last_lsn.saturating_add(1));
        // The very last number is never given out, so that every record has a next one.
        let last = self.last_lsn.checked_add(batch.count).filter(|last| *last < u64::MAX);
        let last = last.and_then(Lsn::new);
        let (Some(first), Some(last)) = (first, last) else {
            return Err(NoPlace::Failed(Error::invalid("the log has given out its last LSN")));
        };
        if batch.count == 0 {
            let why = "the batch is empty: encode one with at least one record and push it once";
            return Err(NoPlace::Failed(Error::invalid(why)));
        }
        if mutant::is("order:place-before-lsn") {
            self.last_lsn = last.get();
        }
        let limit = self.tail.records_end;
        let limit =
            if mutant::is("reserve:for-records-too") { self.tail.own_records_end } else { limit };
        self.make_place(batch.len_bytes(), limit)?;
        let frames = std::mem::take(&mut batch.frames);
        let count = std::mem::take(&mut batch.count);
        self.place(frames, first.get());
        self.last_lsn = last.get();
        self.counters.records += count;
        if let Some(group) = self.groups.back_mut() {
            group.last_lsn = last.get();
        }
        Ok(first..=last)
    }

    /// Admits one of the log's own records, which may use the reserve's first half.
    pub(crate) fn admit_own(&mut self, kind: u16, body: &OwnBody) -> Result<(), NoPlace> {
        let payload = body.encode();
        let mut frames = Vec::new();
        let header = crate::writer::own_header(kind, 0, 0, &payload);
        format::push_frame(&mut frames, &header, &payload);
        // A close record must still fit after any other.
        let spared = if kind == format::KIND_CLOSE { 0 } else { CLOSE_FRAME_MAX };
        let limit = self.tail.own_records_end - spared;
        self.make_place(frames.len() as u64, limit)?;
        self.place(frames, self.last_lsn);
        Ok(())
    }

    pub(crate) fn check_mode(&self) -> Result<(), Error> {
        match &self.mode {
            Mode::Open => Ok(()),
            Mode::Closed => Err(Error::closed()),
            Mode::Poisoned(cause) => Err(poisoned(cause)),
        }
    }

    /// Sees to it that `bytes` fit below `limit` of the tail's segment, changing to the spare if
    /// they do not.
    fn make_place(&mut self, bytes: u64, limit: u64) -> Result<(), NoPlace> {
        if self.tail.offset + bytes <= limit {
            return Ok(());
        }
        let state = SealState { head: self.head, holds: self.holds.clone() };
        let open_bytes = self.open_frame_bytes(&state);
        let Some(prepared) = self.spare.take_if(|spare| spare.holds(open_bytes + bytes)) else {
            return Err(NoPlace::Prepare { frame_bytes: open_bytes + bytes });
        };
        self.tail = Tail::of(&prepared, FRAMES_START + open_bytes);
        self.groups.push_back(Group {
            rotation: Some(Rotation { prepared, state }),
            batches: Vec::new(),
            bytes: 0,
            last_lsn: self.last_lsn,
            cohort: Arc::default(),
        });
        self.counters.rotations += 1;
        Ok(())
    }

    /// The size of the open record that a new segment begins with. Its predecessor's offset and
    /// digest are not known yet, but their lengths are.
    fn open_frame_bytes(&self, state: &SealState) -> u64 {
        let placeholder = SealReference {
            sequence: self.tail.sequence,
            offset: 0,
            digest: format::Digest::crc32(0),
        };
        let body = open_body(self.generation, state, Some(placeholder));
        (FRAME_HEADER_LEN + body.encode().len()).next_multiple_of(8) as u64
    }

    fn place(&mut self, frames: Vec<u8>, first_lsn: u64) {
        let bytes = frames.len() as u64;
        let offset = self.tail.offset;
        self.tail.offset += bytes;
        self.queued_bytes += bytes;
        let last_lsn = self.last_lsn;
        if self.groups.is_empty() {
            self.groups.push_back(Group {
                rotation: None,
                batches: Vec::new(),
                bytes: 0,
                last_lsn,
                cohort: Arc::default(),
            });
        }
        if let Some(group) = self.groups.back_mut() {
            group.batches.push(Placed { offset, first_lsn, frames });
            group.bytes += bytes;
        }
    }

    /// The cohort that the last admitted batch belongs to.
    pub(crate) fn last_cohort(&self) -> Option<Arc<Cohort>> {
        self.groups.back().map(|group| group.cohort.clone())
    }

    /// The cohort that waits for this LSN: of the group being written or else of one that waits.
    pub(crate) fn cohort_of(&self, lsn: Lsn) -> Option<Arc<Cohort>> {
        let in_flight = self.in_flight.iter().map(|(last, cohort)| (*last, cohort));
        let waiting = self.groups.iter().map(|group| (group.last_lsn, &group.cohort));
        let mut all = in_flight.chain(waiting);
        all.find(|(last, _)| *last >= lsn.get()).map(|(_, cohort)| cohort.clone())
    }

    /// Head and holds for a seal that rides in the group before a rotation.
    pub(crate) fn seal_after_front(&self) -> Option<SealState> {
        self.groups.front()?.rotation.as_ref().map(|rotation| rotation.state.clone())
    }
}

/// Bytes of a close record's frame at most.
const CLOSE_FRAME_MAX: u64 = 96;

impl Tail {
    pub(crate) fn of(segment: &Prepared, offset: u64) -> Tail {
        Tail {
            sequence: segment.header.sequence,
            offset,
            records_end: segment.header.records_end(),
            own_records_end: segment.header.own_records_end(),
            salt: segment.header.salt,
        }
    }
}

/// What a call on a poisoned log gets: its own records were certainly not written.
pub(crate) fn poisoned(cause: &Error) -> Error {
    Error::new(
        crate::error::ErrorKind::Poisoned,
        format!(
            "the log is poisoned since an earlier failure ({cause}): drop its handles and open it \
             again"
        ),
    )
}
