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
use crate::format::{
    self, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, Hold, OwnBody, SealReference,
};
use crate::gather::Gather;
use crate::ids::{Generation, Lsn, Sequence};
use crate::mutant;
use crate::prepare::Prepared;
use crate::record::EncodedBatch;
use crate::room::Wakers;
use crate::share::turn::TurnState;
use crate::writer::{SealState, Writer, open_body};

/// Batches covered by one sync, all in one segment, one after the other.
#[derive(Debug)]
pub(crate) struct Group {
    /// Set where this group is the first of a new segment.
    pub(crate) rotation: Option<Rotation>,
    /// Where it stands in the segment.
    pub(crate) offset: u64,
    /// Its frames as they will be written, headers still blank where the leader stamps them. A group
    /// that begins a segment leaves room in front for the open record.
    pub(crate) frames: Vec<u8>,
    /// Bytes left in front for the open record.
    pub(crate) open_bytes: usize,
    /// Whether the buffer is a batch's own: nobody joins, because it would have to move to grow.
    linked: bool,
    /// LSN of its first record; one's own records consume none.
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    /// Admitted bytes: what counts against the queue's bound.
    pub(crate) bytes: u64,
    /// How many batches, and so how many may wait.
    pub(crate) batches: u32,
    pub(crate) cohort: Arc<Cohort>,
}

/// A batch from this size on gets a group of its own, whose buffer it brings: copying it under the
/// lock would keep everybody waiting for longer than another sync does. (The first one of a segment
/// is copied behind the open record all the same.)
pub(crate) const LINKED_BYTES: usize = 256 << 10;
/// A group that holds more takes no further batch: the buffer stays small enough to be kept, and
/// nobody waits for a write of unbounded length.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Buffers kept for the next groups: one is written while the next fills.
const BUFFERS_KEPT: usize = 2;
/// Larger ones are given back.
const BUFFER_BYTES_KEPT: usize = 2 * GROUP_BYTES_MAX;
/// Cohorts kept; each is free again when the last of its waiters has gone.
const COHORTS_KEPT: usize = 4;

/// What groups leave behind for later ones, so that an append in a steady state allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    buffers: Vec<Vec<u8>>,
    cohorts: Vec<Arc<Cohort>>,
}

impl Leftovers {
    /// Keeps what a written group leaves.
    pub(crate) fn keep(&mut self, mut frames: Vec<u8>, cohort: Arc<Cohort>) {
        if self.buffers.len() < BUFFERS_KEPT && frames.capacity() <= BUFFER_BYTES_KEPT {
            frames.clear();
            self.buffers.push(frames);
        }
        if self.cohorts.len() == COHORTS_KEPT {
            self.cohorts.remove(0);
        }
        self.cohorts.push(cohort);
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// One that nobody looks at any more, or a new one.
    fn cohort(&mut self) -> Arc<Cohort> {
        let free = self.cohorts.iter_mut().position(|cohort| match Arc::get_mut(cohort) {
            Some(cohort) => {
                *cohort = Cohort::default();
                true
            }
            None => false,
        });
        free.map(|index| self.cohorts.swap_remove(index)).unwrap_or_default()
    }
}

impl Group {
    fn takes(&self, bytes: usize) -> bool {
        let empty = self.frames.len() == self.open_bytes;
        !self.linked && (empty || (bytes < LINKED_BYTES && self.is_open()))
    }

    /// Whether small batches may join.
    pub(crate) fn is_open(&self) -> bool {
        !self.linked && self.frames.len() < GROUP_BYTES_MAX
    }
}

/// The change to a prepared segment.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) prepared: Prepared,
    /// Head and holds at this point of the order: what seal and open record say.
    pub(crate) state: SealState,
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
    pub(crate) leftovers: Leftovers,
    pub(crate) gather: Gather,
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
    /// Rooms that make files of their own: a close waits for them.
    pub(crate) tenures: u32,
    /// Counts preparations that failed, so that everybody who waits for one
    /// learns of its failure and nobody of an older one's.
    pub(crate) preparations_failed: u64,
    pub(crate) preparation_error: Option<Error>,
    /// The leader's tools: gone while somebody leads.
    pub(crate) writer: Option<Writer>,
    /// Whether the committer was started.
    pub(crate) committer: bool,
    /// Whether it sleeps and nobody has called it since: waking nobody is a call to the kernel too.
    pub(crate) committer_sleeps: bool,
    /// Whether the preparer was started, whether it is to prepare, and for which segment it was last
    /// asked to.
    pub(crate) preparer: bool,
    pub(crate) spare_wanted: bool,
    pub(crate) spare_asked: Option<Sequence>,
    /// Bytes of frames that the spare asked for must hold, where somebody who may not prepare it
    /// asked.
    pub(crate) spare_bytes: u64,
    /// Set by a `try_submit` that was told to come again for want of a segment: how many
    /// preparations had failed by then.
    pub(crate) tried: Option<u64>,
    /// Threads that wait for room or for a preparation, and the futures that do.
    pub(crate) waiting_for_room: usize,
    pub(crate) room_wakers: Wakers,
    /// No write handle is left: the committer writes what was admitted and goes.
    pub(crate) handles_gone: bool,
    /// Of a shared log: whose turn it is.
    pub(crate) turn: TurnState,
    pub(crate) counters: Counters,
}

/// Counted since this opening.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counters {
    pub(crate) groups: u64,
    pub(crate) gathered: u64,
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
    pub(crate) capacity: u64,
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
    /// Admits a batch: a place and LSNs, or nothing changed. The batch is empty afterwards.
    pub(crate) fn admit(
        &mut self,
        batch: &mut EncodedBatch,
    ) -> Result<RangeInclusive<Lsn>, NoPlace> {
        let lsns = self.admit_frames(batch.count, batch.frames.len(), |group| {
            if batch.frames.len() >= LINKED_BYTES && group.frames.is_empty() {
                group.linked = true;
                std::mem::swap(&mut group.frames, &mut batch.frames);
            } else {
                group.frames.extend_from_slice(&batch.frames);
            }
        })?;
        batch.frames.clear();
        batch.count = 0;
        Ok(lsns)
    }

    /// Admits a single record: one copy of its payload, into the group.
    pub(crate) fn admit_record(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<RangeInclusive<Lsn>, NoPlace> {
        let bytes = format::frame_size_usize(payload.len());
        self.admit_frames(1, bytes, |group| format::push_frame(&mut group.frames, header, payload))
    }

    fn admit_frames(
        &mut self,
        count: u64,
        bytes: usize,
        put: impl FnOnce(&mut Group),
    ) -> Result<RangeInclusive<Lsn>, NoPlace> {
        self.check_mode().map_err(NoPlace::Failed)?;
        let first = Lsn::new(self.last_lsn.saturating_add(1));
        // The very last number is never given out, so that every record has a next one.
        let last = self.last_lsn.checked_add(count).filter(|last| *last < u64::MAX);
        let last = last.and_then(Lsn::new);
        let (Some(first), Some(last)) = (first, last) else {
            return Err(NoPlace::Failed(Error::invalid("the log has given out its last LSN")));
        };
        if count == 0 {
            let why = "the batch is empty: encode one with at least one record and push it once";
            return Err(NoPlace::Failed(Error::invalid(why)));
        }
        if mutant::is("order:place-before-lsn") {
            self.last_lsn = last.get();
        }
        let limit = self.tail.records_end;
        let limit =
            if mutant::is("reserve:for-records-too") { self.tail.own_records_end } else { limit };
        self.make_place(bytes as u64, limit)?;
        self.place(bytes, last.get(), put);
        self.last_lsn = last.get();
        self.counters.records += count;
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
        let put = |group: &mut Group| group.frames.extend_from_slice(&frames);
        self.place(frames.len(), self.last_lsn, put);
        Ok(())
    }

    /// Whether nothing is admitted any more.
    pub(crate) fn is_over(&self) -> bool {
        self.handles_gone || !matches!(self.mode, Mode::Open)
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
        self.begin_group(Some(Rotation { prepared, state }), open_bytes as usize);
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

    /// Puts so many bytes of frames at the tail, which has room for them.
    fn place(&mut self, bytes: usize, last_lsn: u64, put: impl FnOnce(&mut Group)) {
        if !self.groups.back().is_some_and(|group| group.takes(bytes)) {
            self.begin_group(None, 0);
        }
        let bytes = bytes as u64;
        self.tail.offset += bytes;
        self.queued_bytes += bytes;
        if let Some(group) = self.groups.back_mut() {
            put(group);
            group.bytes += bytes;
            group.batches = group.batches.saturating_add(1);
            group.last_lsn = last_lsn;
        }
    }

    fn begin_group(&mut self, rotation: Option<Rotation>, open_bytes: usize) {
        let mut frames = self.leftovers.buffer();
        frames.resize(open_bytes, 0);
        let group = Group {
            rotation,
            offset: self.tail.offset,
            frames,
            open_bytes,
            linked: false,
            first_lsn: self.last_lsn.saturating_add(1),
            last_lsn: self.last_lsn,
            bytes: 0,
            batches: 0,
            cohort: self.leftovers.cohort(),
        };
        self.groups.push_back(group);
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
            capacity: segment.header.capacity,
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
