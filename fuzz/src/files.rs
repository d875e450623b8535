//! Makes a directory out of an input: raw segments as the first version of this target had them,
//! or a program that writes files of every name of the grammar, sound, forged or raw.
//!
//! Never here: a judgement. What a program writes is durable, and some of it lies.

use annals_wal::format::{self, Control, Identity, SEGMENT_HEADER_LEN, SnapshotHeader};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::fs::{Dir, SyncPoint};
use annals_wal::{Batch, Generation, LogId, Lsn, Options, Record, Sequence};

use crate::forge::{Forge, State};
use crate::input::Input;
use crate::mend;

/// At most this many files in a program.
const FILES_MAX: usize = 8;

/// The first byte says how the rest is read: below 16 as raw segments, else as a program.
pub fn from(bytes: &[u8]) -> MemDir {
    let (mode, rest) = bytes.split_first().map_or((16, bytes), |(mode, rest)| (*mode, rest));
    if mode < 16 { raw(mode, rest) } else { Writer::new(mode).run(&mut Input::new(rest)) }
}

/// Up to three segments of equal parts of the input; bit 2 mends their headers, bit 3 their
/// frames.
fn raw(mode: u8, rest: &[u8]) -> MemDir {
    let disk = made(u64::from(mode));
    let count = 1 + usize::from(mode & 1) + usize::from(mode & 2 == 2);
    for (index, part) in rest.chunks(rest.len().div_ceil(count).max(1)).take(count).enumerate() {
        let sequence = Sequence::new(index as u64 + 1).expect("from 1");
        let mut file = part.to_vec();
        if mode & 4 == 4 {
            let header = mend::mend_header(&mut file, sequence.get());
            if mode & 8 == 8 {
                mend::mend_frames(&mut file, &header);
            }
        }
        put(&disk, &format::segment_name(sequence), file);
    }
    disk
}

fn made(seed: u64) -> MemDir {
    let disk = MemDir::new(seed);
    disk.make().expect("memory does not fail");
    disk.sync_parent(SyncPoint::Parent).expect("memory does not fail");
    disk
}

/// A file, durable with its name.
fn put(disk: &MemDir, name: &str, bytes: Vec<u8>) {
    if !disk.names().iter().any(|known| known == name) {
        disk.create(name).expect("memory does not fail");
        disk.sync(SyncPoint::Parent).expect("memory does not fail");
    }
    disk.set_bytes(name, bytes);
}

struct Writer {
    disk: MemDir,
    state: State,
}

impl Writer {
    /// The mode's low bits say whether an honest log is there already, and how it ended.
    fn new(mode: u8) -> Writer {
        let disk = match mode & 3 {
            0 | 1 => made(7),
            ended => honest(ended == 2),
        };
        Writer { disk, state: State::default() }
    }

    fn run(mut self, input: &mut Input<'_>) -> MemDir {
        for _ in 0..FILES_MAX {
            if input.is_empty() {
                break;
            }
            self.file(input);
        }
        self.disk
    }

    fn file(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=3 => self.segment(input),
            4 => {
                self.state.sequence = input.number().max(1);
                self.segment(input);
            }
            5 => self.spare(input),
            6 => self.control(input),
            7 => self.snapshot(input),
            8 => self.other(input),
            9 => self.raw_segment(input),
            10 => self.damage(input),
            11 => self.mend(input),
            12 => self.copy(input),
            13 => {
                if let Some(name) = self.any(input) {
                    self.disk.lose(&name);
                }
            }
            14 => self.state = State::default(),
            _ => self.foreign(input),
        }
    }

    fn segment(&mut self, input: &mut Input<'_>) {
        let Some(sequence) = Sequence::new(self.state.sequence) else { return };
        let file = Forge::new(input, &mut self.state).write(input);
        put(&self.disk, &format::segment_name(sequence), file);
    }

    /// A prepared segment, empty and whole; or all but.
    fn spare(&mut self, input: &mut Input<'_>) {
        let Some(sequence) = Sequence::new(self.state.sequence) else { return };
        let header = Forge::new(input, &mut self.state).header;
        let mut file = header.encode().to_vec();
        let short = input.byte();
        file.resize(if short < 128 { 64 << 10 } else { usize::from(short) }, 0);
        put(&self.disk, &format::segment_name(sequence), file);
    }

    fn identity(&self, name: &str) -> Identity {
        self.disk.identity(name).unwrap_or_default()
    }

    /// A sound control block, written here or elsewhere; or raw bytes.
    fn control(&mut self, input: &mut Input<'_>) {
        let name = format::CONTROL_NAME;
        put(&self.disk, name, Vec::new());
        let last = self.state.sequence.saturating_sub(1);
        let control = Control {
            log_id: if input.one_in(8) { LogId([1; 16]) } else { mend::LOG_ID },
            generation: Generation(if input.one_in(8) { input.number() } else { 1 }),
            own: Identity::default(),
            segment: Identity::default(),
            sequence: if input.one_in(4) { input.number() } else { last },
            durable_end: if input.one_in(2) { input.number().wrapping_mul(8) } else { 128 },
            durable_lsn: if input.one_in(2) { input.number() } else { 0 },
            pid: 1,
            marks: if input.one_in(8) { input.number() as u32 } else { 0 },
        };
        let segment = Sequence::new(control.sequence).map(format::segment_name);
        let segment = segment.map_or(Identity::default(), |name| self.identity(&name));
        let control = match input.below(4) {
            0 => control,
            1 => mend::at_home(control, self.identity(name), Identity::default()),
            _ => mend::at_home(control, self.identity(name), segment),
        };
        let mut bytes = control.encode().to_vec();
        if input.one_in(8) {
            bytes.truncate(input.below(129));
            bytes.extend_from_slice(input.some());
        }
        put(&self.disk, name, bytes);
    }

    fn snapshot(&mut self, input: &mut Input<'_>) {
        let lsn = input.number();
        let header = Lsn::new(lsn).map(|lsn| SnapshotHeader {
            log_id: if input.one_in(8) { LogId([1; 16]) } else { mend::LOG_ID },
            lsn,
            generation: Generation(input.number()),
        });
        let mut bytes = header.map_or_else(Vec::new, |header| header.encode().to_vec());
        bytes.extend_from_slice(input.some());
        let name = if input.one_in(8) { lsn ^ 1 } else { lsn };
        put(&self.disk, &format!("registry-{name}.snap"), bytes);
    }

    fn other(&mut self, input: &mut Input<'_>) {
        let sequence = Sequence::new(input.number()).unwrap_or(Sequence::FIRST);
        let name = match input.below(9) {
            0 => format::segment_tmp_name(sequence),
            1 => format::cut_name(sequence, input.number(), u32::from(input.byte())),
            2 => "registry-5.tmp".to_owned(),
            3 => "observer-x.lock".to_owned(),
            4 => "APPEND".to_owned(),
            5 => format::LOCK_NAME.to_owned(),
            6 => "registry-00.snap".to_owned(),
            7 => format::segment_tmp_name(
                Sequence::new(self.state.sequence).unwrap_or(Sequence::FIRST),
            ),
            _ => format::ARCHIVE_NAME.to_owned(),
        };
        put(&self.disk, &name, input.some().to_vec());
    }

    fn raw_segment(&mut self, input: &mut Input<'_>) {
        let Some(sequence) = Sequence::new(self.state.sequence) else { return };
        let mut file = input.some().to_vec();
        if input.one_in(2) {
            file.resize(64 << 10, 0);
        }
        if file.len() >= SEGMENT_HEADER_LEN && input.one_in(2) {
            let header = mend::mend_header(&mut file, sequence.get());
            mend::mend_frames(&mut file, &header);
        }
        put(&self.disk, &format::segment_name(sequence), file);
    }

    fn any(&self, input: &mut Input<'_>) -> Option<String> {
        let names = self.disk.names();
        if names.is_empty() { None } else { Some(names[input.below(names.len())].clone()) }
    }

    /// Flips, fills, cuts or lengthens any file.
    fn damage(&mut self, input: &mut Input<'_>) {
        let Some(name) = self.any(input) else { return };
        let mut bytes = self.disk.bytes(&name).unwrap_or_default();
        let at = usize::from(input.word()) % (bytes.len() + 1);
        match input.below(5) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + usize::from(input.word())).min(bytes.len());
                bytes[at..end].fill(0);
            }
            2 => bytes.resize(bytes.len() + usize::from(input.word() % 5000), input.below(2) as u8),
            3 => {
                let new = input.some();
                let end = (at + new.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << input.below(8);
                }
            }
        }
        put(&self.disk, &name, bytes);
    }

    /// Makes the checksums of a damaged file hold again.
    fn mend(&mut self, input: &mut Input<'_>) {
        let Some(name) = self.any(input) else { return };
        let mut bytes = self.disk.bytes(&name).unwrap_or_default();
        mend::mend_block(&mut bytes);
        if let format::HeaderVerdict::Good(header) = format::SegmentHeader::decode(&bytes) {
            mend::mend_frames(&mut bytes, &header);
        }
        put(&self.disk, &name, bytes);
    }

    fn copy(&mut self, input: &mut Input<'_>) {
        let (Some(from), Some(to)) = (self.any(input), self.any(input)) else { return };
        put(&self.disk, &to, self.disk.bytes(&from).unwrap_or_default());
    }

    /// Any name at all, as long as a file can have it.
    fn foreign(&mut self, input: &mut Input<'_>) {
        let name = String::from_utf8_lossy(input.take(24)).into_owned();
        if !name.is_empty() && !name.contains(['/', '\0']) {
            put(&self.disk, &name, input.some().to_vec());
        }
    }
}

/// A log of three segments with batches and a hold, as its process left it.
fn honest(closed: bool) -> MemDir {
    let disk = MemDir::new(1);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).expect("a new log");
    for size in 0..8usize {
        let record = |n: usize| Record::new(vec![n as u8; 40 + (size * 3 + n) * 3571 % 9000]);
        let batch: Batch = (0..1 + size % 3).map(record).collect();
        log.append_batch(batch).expect("memory does not fail");
    }
    log.set_hold("h", Lsn::new(3).expect("not 0")).expect("memory does not fail");
    if closed {
        log.close().expect("memory does not fail");
        disk.killed()
    } else {
        disk.crash(Keep::Everything)
    }
}
