//! The new log: segments written in order, sealed, closed, published under their names at the end.
//!
//! Never here: what to keep. Every frame says that all before it was durable, which is true when the
//! names are published: every file has been synced by then, and until then a mark forbids opening.
//! Invariant: a payload is checked once more as it is copied; a source that changed meanwhile ends
//! the salvage. Next room: [`crate::backup`], whose marks and syncs these are.

use std::sync::Arc;

use super::harvest::{Harvest, Run, Source};
use super::{SalvageOptions, SalvageReport};
use crate::backup;
use crate::error::{Error, Location, Result};
use crate::format::{
    self, Digest, FLAG_BATCH_FIRST, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, KIND_CLOSE,
    KIND_OPEN, KIND_SEAL, OwnBody, SealBody, SealReference, SegmentHeader,
};
use crate::fs::{Dir, File, SyncPoint, write_once, write_zeros};
use crate::ids::{LogId, Lsn, Sequence};
use crate::record::Kind;
use crate::recover::facts::reading;
use crate::scan::Source as _;
use crate::window::Window;

/// The first segment's size; each further one is twice as large, up to [`CAPACITY_MAX`].
const CAPACITY_FIRST: u64 = 1 << 20;
const CAPACITY_MAX: u64 = 64 << 20;
/// Frames are written so many bytes at a time.
const BUFFER: usize = 1 << 20;

pub(super) fn write(
    from: &dyn Dir,
    to: &dyn Dir,
    harvest: Harvest,
    options: SalvageOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport> {
    let mut report = harvest.report.clone();
    report.lost.clear();
    report.kept = 0;
    let next = harvest.head.get();
    let log = NewLog::new(to, &harvest);
    let mut copy = Copy { from, log, options, report, next, batch: Batch::default() };
    for run in &harvest.runs {
        copy.run(run, &harvest.sources[run.source])?;
        progress(run.to - run.from);
    }
    // Nothing that can be read follows these; that they were there is told all the same.
    copy.lose_up_to(harvest.next)?;
    let Copy { log, mut report, next, .. } = copy;
    report.last_lsn = Lsn::new(next - 1).filter(|last| *last >= harvest.head);
    let sequences = log.finish(next - 1)?;
    for lsn in &harvest.snapshots {
        copy_snapshot(from, to, *lsn)?;
        report.snapshots += 1;
    }
    backup::publish(to, &sequences)?;
    report.segments = sequences.len();
    Ok(report)
}

fn copy_snapshot(from: &dyn Dir, to: &dyn Dir, lsn: Lsn) -> Result<()> {
    for entry in crate::recover::facts::list(from)? {
        if format::parse_name(&entry.name) == Some(format::Name::Snapshot(lsn.get())) {
            return backup::copy_whole(from, to, &entry.name);
        }
    }
    Ok(())
}

/// Frames of one batch, not placed yet.
#[derive(Debug, Default)]
struct Batch {
    frames: Vec<(FrameHeader, Vec<u8>)>,
    bytes: u64,
}

struct Copy<'a> {
    from: &'a dyn Dir,
    log: NewLog<'a>,
    options: SalvageOptions,
    report: SalvageReport,
    /// The LSN that is written next.
    next: u64,
    batch: Batch,
}

impl Copy<'_> {
    fn run(&mut self, run: &Run, source: &Source) -> Result<()> {
        if run.last < self.next {
            return Ok(());
        }
        self.lose_up_to(run.first)?;
        let failed = |e| reading(self.from, &source.name, e);
        let mut window = Window::limited(source.file.clone(), source.len);
        let mut at = run.from;
        while at < run.to {
            let bytes = window.bytes(at, FRAME_HEADER_LEN).map_err(failed)?;
            let header = bytes
                .first_chunk()
                .and_then(|bytes| FrameHeader::decode(bytes, source.header.salt, at));
            let Some(header) = header else { return Err(changed(source, at)) };
            let start = at + FRAME_HEADER_LEN as u64;
            let payload = window.bytes(start, header.len as usize).map_err(failed)?;
            if format::crc32(payload) != header.payload_crc {
                return Err(changed(source, at));
            }
            at += header.frame_size();
            if header.lsn < self.next + self.batch.frames.len() as u64 {
                continue;
            }
            let payload = payload.to_vec();
            self.batch.bytes += header.frame_size();
            self.batch.frames.push((header, payload));
            if !header.goes_on() {
                self.put_batch()?;
            }
        }
        self.put_batch()
    }

    /// The batch so far: whole, or what is left of one.
    fn put_batch(&mut self) -> Result<()> {
        let Batch { frames, bytes } = std::mem::take(&mut self.batch);
        let (Some((first, _)), Some((last, _))) = (frames.first(), frames.last()) else {
            return Ok(());
        };
        let lsns = Lsn::new(first.lsn).zip(Lsn::new(last.lsn));
        if first.is_batch_first() && !last.goes_on() {
            return self.put(&frames, bytes);
        }
        if self.options.whole_batches {
            return self.lose_up_to(last.lsn + 1);
        }
        self.report.broken_batches.extend(lsns);
        for (header, payload) in frames {
            let header = FrameHeader { flags: FLAG_BATCH_FIRST, ..header };
            self.put(&[(header, payload)], header.frame_size())?;
        }
        Ok(())
    }

    fn put(&mut self, frames: &[(FrameHeader, Vec<u8>)], bytes: u64) -> Result<()> {
        self.log.make_room(bytes, self.next - 1)?;
        for (header, payload) in frames {
            self.log.frame(header, payload)?;
            self.next = header.lsn + 1;
            self.report.kept += 1;
            self.report.payload_bytes += payload.len() as u64;
        }
        Ok(())
    }

    /// An empty record for each LSN up to this one.
    fn lose_up_to(&mut self, lsn: u64) -> Result<()> {
        if self.next >= lsn {
            return Ok(());
        }
        let range = Lsn::new(self.next).zip(Lsn::new(lsn - 1));
        match (self.report.lost.last_mut(), range) {
            (Some(last), Some((low, high))) if last.1.next() == Some(low) => last.1 = high,
            (_, range) => self.report.lost.extend(range),
        }
        while self.next < lsn {
            let header = FrameHeader {
                payload_crc: format::crc32(&[]),
                lsn: self.next,
                len: 0,
                durable_lag: 0,
                stream: 0,
                kind: Kind::LOST.get(),
                flags: FLAG_BATCH_FIRST,
                codec: 0,
            };
            self.log.make_room(header.frame_size(), self.next - 1)?;
            self.log.frame(&header, &[])?;
            self.next += 1;
        }
        Ok(())
    }
}

fn changed(source: &Source, offset: u64) -> Error {
    let location = Location {
        segment: Some(source.header.sequence),
        offset: Some(offset),
        ..Location::default()
    };
    Error::corrupt(
        "the source changed while it was read: end who writes there, try again",
        location,
    )
}

/// The log that is written.
struct NewLog<'a> {
    dir: &'a dyn Dir,
    log_id: LogId,
    generation: crate::ids::Generation,
    shared: bool,
    head: Lsn,
    holds: Vec<format::Hold>,
    now_ms: u64,
    segment: Option<Segment>,
    done: Vec<Sequence>,
    previous: Option<SealReference>,
    capacity: u64,
}

struct Segment {
    file: Arc<dyn File>,
    name: String,
    header: SegmentHeader,
    /// Where the next frame goes.
    at: u64,
    /// Written up to here; the rest is in `buffer`.
    written: u64,
    buffer: Vec<u8>,
    digest: crc32fast::Hasher,
    count: u64,
    lsns: Option<(Lsn, Lsn)>,
}

impl<'a> NewLog<'a> {
    fn new(dir: &'a dyn Dir, harvest: &Harvest) -> NewLog<'a> {
        NewLog {
            dir,
            log_id: harvest.report.log_id,
            generation: harvest.generation,
            shared: harvest.shared,
            head: harvest.head,
            holds: harvest.holds.clone(),
            now_ms: dir.now_ms(),
            segment: None,
            done: Vec::new(),
            previous: None,
            capacity: CAPACITY_FIRST,
        }
    }

    fn failed(&self, name: &str, e: std::io::Error) -> Error {
        Error::io(format!("writing {}", self.dir.path().join(name).display()), e)
    }

    /// A segment with so many bytes free for records; `last` is the LSN before them.
    fn make_room(&mut self, bytes: u64, last: u64) -> Result<()> {
        let fits = |segment: &Segment| segment.at + bytes <= segment.header.records_end();
        if self.segment.as_ref().is_some_and(fits) {
            return Ok(());
        }
        self.seal(last)?;
        let mut capacity = self.capacity;
        let body = self.open_body();
        let open = FRAMES_START + format::frame_size(body.encode().len() as u32);
        while open + bytes > capacity - format::reserve_bytes(capacity) {
            capacity = capacity.saturating_mul(2).min(format::CAPACITY_MAX);
            if capacity == format::CAPACITY_MAX {
                break;
            }
        }
        self.begin(capacity, last, &body)
    }

    fn open_body(&self) -> OwnBody {
        OwnBody {
            generation: Some(self.generation),
            head: Some(self.head),
            holds: self.holds.clone(),
            previous: self.previous.clone(),
            ..OwnBody::default()
        }
    }

    fn begin(&mut self, capacity: u64, last: u64, body: &OwnBody) -> Result<()> {
        let sequence = self.done.last().map_or(Some(Sequence::FIRST), |last| last.next());
        let sequence = sequence.unwrap_or(Sequence::FIRST);
        let name = format::segment_tmp_name(sequence);
        let mut salt = [0; 4];
        self.dir.random(&mut salt).map_err(|e| self.failed(&name, e))?;
        let header = SegmentHeader {
            shared: self.shared,
            compatible: 0,
            log_id: self.log_id,
            sequence,
            capacity,
            salt: u32::from_le_bytes(salt),
            created_ms: self.now_ms,
        };
        let file = self.dir.create(&name).map_err(|e| self.failed(&name, e))?;
        self.segment = Some(Segment {
            file,
            name,
            header,
            at: FRAMES_START,
            written: 0,
            buffer: header.encode().to_vec(),
            digest: crc32fast::Hasher::new(),
            count: 0,
            lsns: None,
        });
        self.done.push(sequence);
        self.capacity = (self.capacity * 2).min(CAPACITY_MAX);
        self.own(KIND_OPEN, last, body)
    }

    fn own(&mut self, kind: u16, lsn: u64, body: &OwnBody) -> Result<()> {
        let payload = body.encode();
        let header = FrameHeader {
            payload_crc: format::crc32(&payload),
            lsn,
            len: payload.len() as u32,
            durable_lag: 0,
            stream: 0,
            kind,
            flags: 0,
            codec: 0,
        };
        self.frame(&header, &payload)
    }

    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let header = FrameHeader { durable_lag: 0, ..*header };
        let frame = format::encode_frame(&header, payload, segment.header.salt, segment.at);
        segment.digest.update(&frame[..FRAME_HEADER_LEN]);
        segment.buffer.extend_from_slice(&frame);
        segment.at += frame.len() as u64;
        if !header.is_own() {
            segment.count += 1;
            let lsn = Lsn::new(header.lsn).unwrap_or(Lsn::FIRST);
            segment.lsns = Some((segment.lsns.map_or(lsn, |(first, _)| first), lsn));
        }
        if segment.buffer.len() >= BUFFER {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let result = write_once(&*segment.file, &segment.buffer, segment.written);
        segment.written += segment.buffer.len() as u64;
        segment.buffer.clear();
        let name = segment.name.clone();
        result.map_err(|e| self.failed(&name, e))
    }

    /// Ends the segment, if there is one, with a seal.
    fn seal(&mut self, last: u64) -> Result<()> {
        let Some(segment) = &self.segment else { return Ok(()) };
        let crc = segment.digest.clone().finalize();
        let digest = Digest { algorithm: format::DIGEST_CRC32, bytes: crc.to_le_bytes().to_vec() };
        let previous = SealReference {
            sequence: segment.header.sequence,
            offset: segment.at,
            digest: digest.clone(),
        };
        let body = OwnBody {
            generation: Some(self.generation),
            head: Some(self.head),
            holds: self.holds.clone(),
            seal: Some(SealBody {
                count: segment.count,
                lsns: segment.lsns,
                log_id: segment.header.log_id,
                salt: segment.header.salt,
                digest,
            }),
            ..OwnBody::default()
        };
        self.own(KIND_SEAL, last, &body)?;
        self.previous = Some(previous);
        self.end_file()
    }

    /// Zeros to the end, and the sync that all the frames of this file promise.
    fn end_file(&mut self) -> Result<()> {
        self.flush()?;
        let Some(segment) = self.segment.take() else { return Ok(()) };
        write_zeros(&*segment.file, segment.written, segment.header.capacity)
            .and_then(|()| segment.file.sync_data(SyncPoint::BackupFile))
            .map_err(|e| self.failed(&segment.name, e))
    }

    /// Closes the log; the files still have their temporary names.
    fn finish(mut self, last: u64) -> Result<Vec<Sequence>> {
        if self.segment.is_none() {
            let body = self.open_body();
            self.begin(CAPACITY_FIRST, last, &body)?;
        }
        let body = OwnBody { generation: Some(self.generation), ..OwnBody::default() };
        self.own(KIND_CLOSE, last, &body)?;
        self.end_file()?;
        Ok(self.done)
    }
}
