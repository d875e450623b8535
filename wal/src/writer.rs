//! The active segment's writer: stamps headers, writes a group, syncs it. Whoever holds the one
//! [`Writer`] is the leader.
//!
//! Never here: a lock, a retry, a decision about who waits. Invariants: bytes go to the end of the
//! segment in order, each byte once; the durable end moves only after a sync returned success; no
//! byte after the header is written to a segment before its predecessor's seal is durable.
//! Next rooms: [`crate::fs`] below, [`crate::commit`] back up.

use std::io;
use std::sync::Arc;

use crate::control::ControlBlock;
use crate::format::{
    self, ALIGN, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, Hold, KIND_OPEN, KIND_SEAL, OwnBody,
    SealBody, SealReference,
};
use crate::fs::{Dir, File, SyncPoint, write_once};
use crate::ids::{Generation, Lsn};
use crate::index::{ActiveStarts, IndexBuilder};
use crate::mutant;
use crate::prepare::Prepared;
use crate::queue::{Group, Rotation};
use crate::survey::Kept;
use crate::watch::Watch;

/// The end of the log, owned by the leader.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: Arc<dyn Dir>,
    segment: Prepared,
    generation: Generation,
    /// What the segment holds up to its end, the digest running.
    kept: Kept,
    durable_end: u64,
    /// Where its records are.
    index: IndexBuilder,
    /// What of that readers know, and how much of it.
    starts: ActiveStarts,
    starts_known: usize,
    /// Unix ms of the first and the last append in this segment, 0 before the first.
    times_ms: (u64, u64),
    /// The seal, once it was written.
    sealed: Option<SealReference>,
    control: ControlBlock,
    watch: Watch,
    /// The segment's file name.
    name: String,
}

const LOOKING: &str = "making sure that the log's files are in their places";

/// What a commit made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) durable_lsn: u64,
    pub(crate) durable_end: u64,
    pub(crate) syncs: u64,
    pub(crate) bytes: u64,
}

/// Head and holds as they stand where a seal is written.
#[derive(Clone, Debug)]
pub(crate) struct SealState {
    pub(crate) head: Lsn,
    pub(crate) holds: Vec<Hold>,
}

impl Writer {
    /// Takes over a segment whose kept bytes are durable up to `kept.end`.
    pub(crate) fn new(
        dir: Arc<dyn Dir>,
        segment: Prepared,
        generation: Generation,
        (kept, mut index): (Kept, IndexBuilder),
        times_ms: (u64, u64),
        control: ControlBlock,
        watch: Watch,
    ) -> Writer {
        index.reserve();
        let durable_end = kept.end;
        let name = format::segment_name(segment.header.sequence);
        let mut writer = Writer {
            dir,
            segment,
            generation,
            kept,
            durable_end,
            index,
            starts: ActiveStarts::default(),
            starts_known: 0,
            times_ms,
            sealed: None,
            control,
            watch,
            name,
        };
        let _ = writer.publish();
        writer
    }

    pub(crate) fn segment(&self) -> &Prepared {
        &self.segment
    }

    /// Places that readers may begin at.
    pub(crate) fn starts(&self) -> &ActiveStarts {
        &self.starts
    }

    pub(crate) fn times_ms(&self) -> (u64, u64) {
        self.times_ms
    }

    pub(crate) fn end(&self) -> u64 {
        self.kept.end
    }

    /// Writes and syncs one group. `seal_after`: the next group begins a new segment, so the
    /// seal rides in this write. `written` is called between the write and the sync.
    ///
    /// # Errors
    /// The failed write or sync, with what was being done. The caller poisons the log: nothing
    /// here may be tried again.
    pub(crate) fn commit(
        &mut self,
        group: &mut Group,
        seal_after: Option<&SealState>,
        written: &dyn Fn(),
    ) -> Result<Committed, (&'static str, io::Error)> {
        // Whoever took the lock since then has this segment, too: not a byte into it.
        self.watch.lock_stands().map_err(|e| (LOOKING, e))?;
        let late = mutant::is("order:seal-before-next").then(|| self.segment.file.clone());
        let mut syncs = 1;
        let before = self.kept.end;
        let frames = &mut group.frames;
        if let Some(rotation) = group.rotation.take() {
            syncs += self.rotate(rotation, &mut frames[..group.open_bytes])?;
        }
        let start = self.kept.end - group.open_bytes as u64;
        if self.kept.end != group.offset {
            let why = "a group does not stand where the queue put it";
            return Err(("placing a group", io::Error::other(why)));
        }
        if self.stamp(&mut frames[group.open_bytes..], group.first_lsn) {
            self.touch_times();
        }
        if let Some(state) = seal_after
            && !mutant::is("rotation:no-seal")
        {
            self.push_seal(state, frames);
        }
        let early = mutant::is("written:before-the-write");
        if early {
            written();
        }
        let file: &dyn File = &*self.segment.file;
        write_once(file, frames, start).map_err(|e| ("writing a group", e))?;
        if !early && !mutant::is("written:only-when-durable") {
            written();
        }
        if mutant::is("control:before-the-sync") {
            let _ = self.control.publish(
                self.segment.header.sequence,
                self.segment.identity,
                self.kept.end,
                self.kept.last_lsn,
            );
        }
        let synced = match file.sync_data(SyncPoint::Group) {
            Err(_) if mutant::is("sync:retried-and-believed") => file.sync_data(SyncPoint::Group),
            synced => synced,
        };
        synced.map_err(|e| ("syncing a group", e))?;
        if let Some(late) = late {
            late.sync_data(SyncPoint::Seal).map_err(|e| ("syncing a seal", e))?;
        }
        self.names_stand()?;
        self.durable_end = self.kept.end;
        let told = self.publish();
        // Other processes see what is durable here and nowhere else. Who is told of a record and
        // dies may have told them: they must find it, and what follows it (a trim's unlinks) they
        // must know the reason of.
        if self.segment.header.shared && !mutant::is("share:others-are-not-told") {
            told.map_err(|e| ("telling other processes of a group", e))?;
        }
        Ok(Committed {
            durable_lsn: self.kept.last_lsn,
            durable_end: self.durable_end,
            syncs,
            bytes: self.kept.end.saturating_sub(before.min(start)),
        })
    }

    /// Seals the segment unless its last group already carried the seal, and starts the next one
    /// with its open record, for which the group has left this room. Returns how many syncs that
    /// took.
    fn rotate(
        &mut self,
        rotation: Rotation,
        open: &mut [u8],
    ) -> Result<u64, (&'static str, io::Error)> {
        let mut syncs = 0;
        if self.sealed.is_none() && !mutant::is("rotation:no-seal") {
            let start = self.kept.end;
            let mut seal = Vec::new();
            self.push_seal(&rotation.state, &mut seal);
            let file: &dyn File = &*self.segment.file;
            write_once(file, &seal, start).map_err(|e| ("writing a seal", e))?;
            if !mutant::is("order:seal-before-next") {
                file.sync_data(SyncPoint::Seal).map_err(|e| ("syncing a seal", e))?;
            }
            syncs = 1;
        }
        // The last look at this segment: later ones look at the next.
        self.names_stand()?;
        let previous = self.begin(rotation.prepared);
        let body = open_body(self.generation, &rotation.state, previous);
        let mut frame = Vec::new();
        self.push_own(KIND_OPEN, &body, &mut frame);
        if frame.len() != open.len() {
            let why = "an open record has not the size that the queue left for it";
            return Err(("beginning a segment", io::Error::other(why)));
        }
        if !mutant::is("rotation:open-record-left-out") {
            open.copy_from_slice(&frame);
        }
        Ok(syncs)
    }

    /// Goes over to the next segment, and says how the one before was sealed.
    pub(crate) fn begin(&mut self, segment: Prepared) -> Option<SealReference> {
        let last_lsn = self.kept.last_lsn;
        self.segment = segment;
        self.name = format::segment_name(self.segment.header.sequence);
        self.kept = Kept { last_lsn, ..Kept::empty() };
        self.durable_end = FRAMES_START;
        self.index.begin_to_write(self.segment.header.capacity);
        self.starts_known = 0;
        self.times_ms = (0, 0);
        self.sealed.take()
    }

    /// Goes past a frame at the end that another process wrote and a sync has covered.
    pub(crate) fn go_past(&mut self, header: &FrameHeader) {
        let offset = self.kept.end;
        if header.kind == KIND_SEAL {
            let (sequence, digest) = (self.segment.header.sequence, self.kept.digest());
            self.sealed = Some(SealReference { sequence, offset, digest });
        }
        let encoded = header.encode(self.segment.header.salt, offset);
        self.kept.add(header, &encoded, offset + header.frame_size());
        self.index.add(header, offset);
        self.durable_end = self.kept.end;
    }

    /// Tells readers of this process where the frames are that [`Writer::go_past`] went past.
    pub(crate) fn went_past(&mut self, generation: Generation) {
        self.generation = generation;
        let sequence = self.segment.header.sequence;
        self.starts.publish(sequence, &self.index, &mut self.starts_known);
    }

    /// How the segment was sealed, if it was.
    pub(crate) fn sealed(&self) -> Option<&SealReference> {
        self.sealed.as_ref()
    }

    /// What the segment holds.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn control(&mut self) -> &mut ControlBlock {
        &mut self.control
    }

    pub(crate) fn into_control(self) -> ControlBlock {
        self.control
    }

    /// After a sync, before it counts: bytes in a file that lost its name are durable for nobody.
    fn names_stand(&self) -> Result<(), (&'static str, io::Error)> {
        let segment = self.watch.stands(&self.name, &self.segment.status);
        let both = segment.and_then(|()| self.watch.lock_stands());
        both.map_err(|e| (LOOKING, e))
    }

    /// Gives every frame of a group its LSN, durable lag and header checksum. Own records have the
    /// LSN of the record before them. Tells whether there are others.
    fn stamp(&mut self, frames: &mut [u8], first_lsn: u64) -> bool {
        let mut rest = frames;
        let mut lsn = first_lsn;
        let mut appends = false;
        while let Some((head, _)) = rest.split_first_chunk_mut::<FRAME_HEADER_LEN>() {
            let mut header = FrameHeader::parse(head);
            let offset = self.kept.end;
            header.lsn = lsn - u64::from(header.is_own());
            header.durable_lag = self.lag(offset);
            *head = header.encode(self.segment.header.salt, offset);
            let size = header.frame_size() as usize;
            self.kept.add(&header, head, offset + size as u64);
            self.index.add(&header, offset);
            lsn += u64::from(!header.is_own() || mutant::is("stamp:own-records-count"));
            appends |= !header.is_own();
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(size);
            rest = tail;
        }
        appends
    }

    fn lag(&self, offset: u64) -> u32 {
        if mutant::is("lag:claims-too-much") {
            return 0;
        }
        // Capacity is at most 32 GiB, so the quotient fits.
        ((offset - self.durable_end) / ALIGN) as u32
    }

    fn push_own(&mut self, kind: u16, body: &OwnBody, out: &mut Vec<u8>) {
        let offset = self.kept.end;
        let payload = body.encode();
        let header = own_header(kind, self.kept.last_lsn, self.lag(offset), &payload);
        let frame = format::encode_frame(&header, &payload, self.segment.header.salt, offset);
        self.kept.add(&header, &frame[..FRAME_HEADER_LEN], offset + frame.len() as u64);
        out.extend_from_slice(&frame);
    }

    fn push_seal(&mut self, state: &SealState, out: &mut Vec<u8>) {
        let digest = self.kept.digest();
        let offset = self.kept.end;
        let mut body = seal_body(&self.segment, self.generation, state, &self.kept, self.times_ms);
        body.index = self.index.encode();
        if mutant::is("index:not-of-the-frames") {
            body.index = Some(format::encode_index(&[format::IndexBlock::new(FRAMES_START, 0)]));
        }
        self.push_own(KIND_SEAL, &body, out);
        let sequence = self.segment.header.sequence;
        self.sealed = Some(SealReference { sequence, offset, digest });
    }

    fn touch_times(&mut self) {
        let now = self.dir.now_ms();
        let first = if self.times_ms.0 == 0 { now } else { self.times_ms.0 };
        self.times_ms = (first, now);
    }

    fn publish(&mut self) -> io::Result<()> {
        let header = &self.segment.header;
        let (sequence, identity) = (header.sequence, self.segment.identity);
        let end = self.durable_end;
        let told = self.control.publish(sequence, identity, end, self.kept.last_lsn);
        self.starts.publish(sequence, &self.index, &mut self.starts_known);
        told
    }
}

/// The header of an own record.
pub(crate) fn own_header(kind: u16, lsn: u64, durable_lag: u32, payload: &[u8]) -> FrameHeader {
    FrameHeader {
        payload_crc: format::crc32(payload),
        lsn,
        // Own bodies are bounded by the number of holds and of an index's blocks.
        len: payload.len() as u32,
        durable_lag,
        stream: 0,
        kind,
        flags: 0,
        codec: 0,
    }
}

/// The body of an open record.
pub(crate) fn open_body(
    generation: Generation,
    state: &SealState,
    previous: Option<SealReference>,
) -> OwnBody {
    OwnBody {
        generation: Some(generation),
        head: Some(state.head),
        holds: state.holds.clone(),
        previous,
        ..OwnBody::default()
    }
}

/// The body of a seal over what the segment holds so far.
pub(crate) fn seal_body(
    segment: &Prepared,
    generation: Generation,
    state: &SealState,
    kept: &Kept,
    times_ms: (u64, u64),
) -> OwnBody {
    OwnBody {
        generation: Some(generation),
        head: Some(state.head),
        holds: state.holds.clone(),
        previous: None,
        index: None,
        times_ms: Some(times_ms),
        seal: Some(SealBody {
            count: kept.records,
            lsns: kept.first_lsn.zip(Lsn::new(kept.last_lsn)),
            log_id: segment.header.log_id,
            salt: segment.header.salt,
            digest: kept.digest(),
        }),
    }
}
