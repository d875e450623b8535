//! Reads a directory into facts: everything the recovery table asks about, and nothing more.
//!
//! Never here: writing, judging. Invariants: the active segment is read once, and the memory that
//! was judged is what gets rewritten (after a failed sync the page cache may lie, so a second read
//! could show other bytes): it is kept from the witness on; of sealed segments only the header, the first frame and the seal are
//! read. Next room: [`super::decide()`].

use std::io;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    self, Control, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, HeaderVerdict, Identity, KIND_OPEN,
    KIND_SEAL, Name, OwnBody, SEGMENT_HEADER_LEN, SegmentHeader, SnapshotHeader,
};
use crate::fs::{Access, Dir, File, read_full};
use crate::ids::Sequence;
use crate::mutant;
use crate::scan::{Step, Walker};
use crate::source::zeros_from;
use crate::survey::{OwnRecord, Survey};
use crate::tail::Tail;
use crate::window::Window;

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Facts {
    /// Segments by rising sequence.
    pub segments: Vec<SegmentFacts>,
    /// The sound control block, if there is one.
    pub control: Option<ControlFacts>,
    /// Files left over from preparation.
    pub tmp_names: Vec<String>,
    /// Sound registry snapshots.
    pub snapshots: Vec<SnapshotHeader>,
    /// Whether an archive manifest forbids writing.
    pub archive: bool,
    /// What stands in its place, if it is no manifest.
    pub mark: Option<Mark>,
    /// Whether any name of the format other than the lock files and `.wal.tmp` exists.
    pub any_log_file: bool,
    /// The active segment: the highest with a byte after its header that is not zero.
    pub active: Option<Active>,
}

/// The active segment, read whole.
#[derive(Debug)]
pub struct Active {
    /// Its place in [`Facts::segments`].
    pub index: usize,
    /// Its bytes as read, once, from its witness on and without the zeros at its end; none if its
    /// header is bad.
    kept: (u64, Vec<u8>),
    /// What one pass over them found; `None` if the header cannot be used.
    pub survey: Option<Survey>,
}

impl Facts {
    /// What the mark says, if it is without doubt that of a copy that was broken off.
    pub fn unfinished(&self) -> Option<&str> {
        match &self.mark {
            Some(Mark::Unfinished(what)) => Some(what),
            _ => None,
        }
    }
}

impl Active {
    /// The bytes of a range, as far as they were kept.
    pub(crate) fn bytes(&self, from: u64, to: u64) -> Option<&[u8]> {
        self.bytes_from(from)?.get(..to.checked_sub(from)? as usize)
    }

    /// What was kept from here on: nothing where only zeros stand.
    pub(crate) fn bytes_from(&self, from: u64) -> Option<&[u8]> {
        let (start, kept) = &self.kept;
        kept.get((from.checked_sub(*start)? as usize).min(kept.len())..)
    }
}

/// What is known of one segment without reading its body.
#[derive(Clone, Debug)]
pub struct SegmentFacts {
    /// From the file's name.
    pub sequence: Sequence,
    /// Size of the file.
    pub file_len: u64,
    /// The first 128 bytes.
    pub header: HeaderVerdict,
    /// Which file it is.
    pub identity: Identity,
    /// Whether the name is a symbolic link or anything else that is no regular file.
    pub irregular: bool,
    /// Whether any byte after the header is not zero.
    pub has_data: bool,
    /// The open record at the start of the frames.
    pub open: Option<OwnRecord>,
    /// The seal: where the next segment's open record says it is or, for the one before the
    /// active segment when that record is torn, found by a walk.
    pub seal: Option<OwnRecord>,
    /// What a newer version wrote in the open record or the seal, if it did.
    pub unsupported: Option<String>,
}

impl SegmentFacts {
    /// The header, if it is good.
    pub fn good_header(&self) -> Option<&SegmentHeader> {
        match &self.header {
            HeaderVerdict::Good(header) => Some(header),
            _ => None,
        }
    }
}

/// The control block and whether it is the one written here.
#[derive(Clone, Copy, Debug)]
pub struct ControlFacts {
    /// What it says.
    pub control: Control,
    /// Whether its own inode and birth time are those it was written with.
    pub own_matches: bool,
}

impl Facts {
    /// Reads a directory.
    ///
    /// # Errors
    /// `NotALog` if it is absent or no directory; `Io` for anything that could not be read: an
    /// I/O error is no verdict.
    pub fn read(dir: &dyn Dir) -> Result<Facts> {
        // A living owner may trim a segment between our listing and our opening it: then the
        // listing is old and is made anew. Under the directory's lock this never happens.
        const TRIES: usize = 100;
        for _ in 1..TRIES {
            match Facts::read_once(dir) {
                Err(error) if vanished(&error) => {}
                other => return other,
            }
        }
        Facts::read_once(dir)
    }

    fn read_once(dir: &dyn Dir) -> Result<Facts> {
        let mut facts = Facts::default();
        let mut segments = Vec::new();
        let mut snapshots = Vec::new();
        for entry in list(dir)? {
            let Some(name) = format::parse_name(&entry.name) else { continue };
            match &name {
                Name::Lock | Name::Append | Name::SegmentTmp(_) => {}
                _ => facts.any_log_file = true,
            }
            match name {
                Name::Segment(sequence) => segments.push((sequence, entry.regular)),
                Name::SegmentTmp(_) if entry.regular => facts.tmp_names.push(entry.name),
                Name::Snapshot(_) if entry.regular => snapshots.push(entry.name),
                Name::Archive => {
                    facts.archive = true;
                    facts.mark =
                        if entry.regular { read_mark(dir)? } else { Some(Mark::Irregular) };
                }
                _ => {}
            }
        }
        segments.sort_unstable();
        facts.tmp_names.sort_unstable();
        facts.control = read_control(dir)?;
        for name in snapshots {
            facts.snapshots.extend(read_snapshot(dir, &name)?);
        }
        for (sequence, regular) in segments {
            facts.segments.push(read_segment_head(dir, sequence, regular)?);
        }
        facts.find_active(dir)?;
        facts.find_seals(dir)?;
        Ok(facts)
    }

    /// Walks down from the highest segment to the first one with data. The prepared ones above it
    /// are all zeros, so only those are read whole.
    fn find_active(&mut self, dir: &dyn Dir) -> Result<()> {
        for index in (0..self.segments.len()).rev() {
            let segment = &mut self.segments[index];
            if segment.irregular {
                continue;
            }
            let name = format::segment_name(segment.sequence);
            let file = open_segment(dir, &name)?;
            let mut window = Window::new(file.clone()).map_err(|e| reading(dir, &name, e))?;
            // A segment gets its name only after its header was synced, so a file that is shorter
            // than a header and says anything at all is none of ours, and not ours to remove.
            let start = if segment.file_len < FRAMES_START { 0 } else { FRAMES_START };
            let zeros = zeros_from(&mut window, start).map_err(|e| reading(dir, &name, e))?;
            segment.has_data = !zeros;
            if zeros {
                continue;
            }
            // Neither a bad header nor bytes beyond the capacity are ever kept: they are refused
            // without a look at what they say, so they are not read (a sparse file claims any
            // size).
            let (kept, survey) = match segment.good_header() {
                Some(header) => {
                    let len = file.len().map_err(|e| reading(dir, &name, e))?;
                    let mut tail = Tail::new(file, len.min(header.capacity));
                    let survey = Survey::of(&mut tail, header);
                    let survey = survey.map_err(|e| reading(dir, &name, e))?;
                    (tail.into_kept(), Some(survey))
                }
                None => ((0, Vec::new()), None),
            };
            segment.open = survey.as_ref().and_then(Survey::first_open).cloned();
            self.active = Some(Active { index, kept, survey });
            for below in &mut self.segments[..index] {
                below.has_data = true;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Reads the open record and the seal of every segment below the active one.
    fn find_seals(&mut self, dir: &dyn Dir) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let mut buffer = Vec::new();
        for index in (0..active.index).rev() {
            let next_open = self.segments[index + 1].open.clone();
            let next_sequence = Some(self.segments[index + 1].sequence);
            let segment = &mut self.segments[index];
            let Some(header) = segment.good_header().copied() else { continue };
            let name = format::segment_name(segment.sequence);
            let file = open_segment(dir, &name)?;
            let reading = |e| reading(dir, &name, e);
            let open = read_own(&*file, &header, FRAMES_START, KIND_OPEN).map_err(reading)?;
            segment.open = open.unwrap_or_else(|what| note(&mut segment.unsupported, what));
            let reference = next_open.and_then(|open| open.body.previous);
            segment.seal = match reference {
                Some(previous) if previous.sequence == segment.sequence => {
                    read_own_into(&*file, &header, previous.offset, KIND_SEAL, &mut buffer)
                        .map_err(reading)?
                        .unwrap_or_else(|what| note(&mut segment.unsupported, what))
                        .map(|(seal, _)| seal)
                }
                // In an archive nobody names the seal before an empty segment, which is not handed
                // over. Damage before it is told by who reads the body, and accuses no seal.
                _ if self.archive && segment.sequence.next() != next_sequence => {
                    let limit = header.capacity.min(segment.file_len);
                    walk_to_seal(Window::limited(file, limit), &header).map_err(reading)?
                }
                // Else only a torn open record right after it makes this walk necessary.
                _ if index + 1 == active.index => {
                    let limit = header.capacity.min(segment.file_len);
                    let window = Window::limited(file, limit);
                    let survey = Survey::of(window, &header).map_err(reading)?;
                    survey.seal().cloned()
                }
                _ => None,
            };
            // Memory for an opening does not grow with history by more than a seal's other fields.
            if let Some(seal) = &mut segment.seal {
                seal.body.index = None;
            }
        }
        Ok(())
    }
}

/// The seal that stands in a segment, also behind damage; no record's body is read.
fn walk_to_seal(window: Window, header: &SegmentHeader) -> io::Result<Option<OwnRecord>> {
    let mut walker = Walker::new(window, header);
    while let Some(step) = walker.step_where(|_| false)? {
        let Step::Frame(frame) = step else { continue };
        if frame.trouble.is_some() || frame.header.kind != KIND_SEAL {
            continue;
        }
        let (offset, kind, lsn) = (frame.offset, frame.header.kind, frame.header.lsn);
        let body = OwnBody::decode(walker.payload(&frame)?).ok();
        return Ok(body.map(|body| OwnRecord { offset, kind, lsn, body }));
    }
    Ok(None)
}

fn vanished(error: &Error) -> bool {
    error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// The directory's names; an absent directory and a file in its place are `NotALog`.
pub(crate) fn list(dir: &dyn Dir) -> Result<Vec<crate::fs::DirEntry>> {
    dir.list().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::not_a_log(dir.path(), "there is no such directory"),
        io::ErrorKind::NotADirectory => Error::not_a_log(dir.path(), "it is not a directory"),
        _ => Error::io(format!("listing {}", dir.path().display()), e),
    })
}

fn open_segment(dir: &dyn Dir, name: &str) -> Result<Arc<dyn File>> {
    dir.open(name, Access::Read).map_err(|e| reading(dir, name, e))
}

pub(crate) fn reading(dir: &dyn Dir, name: &str, e: io::Error) -> Error {
    Error::io(format!("reading {}", dir.path().join(name).display()), e)
}

fn read_segment_head(dir: &dyn Dir, sequence: Sequence, regular: bool) -> Result<SegmentFacts> {
    let mut facts = SegmentFacts {
        sequence,
        file_len: 0,
        header: HeaderVerdict::Bad("it is not a regular file"),
        identity: Identity::default(),
        irregular: !regular,
        has_data: false,
        open: None,
        seal: None,
        unsupported: None,
    };
    if !regular {
        return Ok(facts);
    }
    let name = format::segment_name(sequence);
    let file = open_segment(dir, &name)?;
    let mut head = [0; SEGMENT_HEADER_LEN];
    let read = read_full(&*file, &mut head, 0).map_err(|e| reading(dir, &name, e))?;
    facts.file_len = file.len().map_err(|e| reading(dir, &name, e))?;
    facts.identity = file.identity().map_err(|e| reading(dir, &name, e))?;
    facts.header = SegmentHeader::decode(&head[..read]);
    Ok(facts)
}

fn note<T>(unsupported: &mut Option<String>, what: String) -> Option<T> {
    *unsupported = Some(what);
    None
}

/// An own record, none, or (as an error) what a newer version wrote there.
pub(crate) type Own = std::result::Result<Option<OwnRecord>, String>;

/// The own record of this kind at this offset, or `None` if there is no such whole record.
pub(crate) fn read_own(
    file: &dyn File,
    segment: &SegmentHeader,
    offset: u64,
    kind: u16,
) -> io::Result<Own> {
    let mut payload = Vec::new();
    let lent = read_own_into(file, segment, offset, kind, &mut payload)?;
    Ok(lent.map(|found| {
        found.map(|(mut record, index)| {
            record.body.index = index.map(<[u8]>::to_vec);
            record
        })
    }))
}

/// [`OwnRecord`] without its index, which is lent.
pub(crate) type Lent<'b> = std::result::Result<Option<(OwnRecord, Option<&'b [u8]>)>, String>;

/// [`read_own`] by a buffer that is kept from call to call: who passes over many sealed segments
/// needs memory once, and not a quarter of a megabyte for each.
pub(crate) fn read_own_into<'b>(
    file: &dyn File,
    segment: &SegmentHeader,
    offset: u64,
    kind: u16,
    buffer: &'b mut Vec<u8>,
) -> io::Result<Lent<'b>> {
    let in_place = offset >= FRAMES_START && offset.is_multiple_of(format::ALIGN);
    if !in_place || offset > segment.capacity {
        return Ok(Ok(None));
    }
    let mut head = [0; FRAME_HEADER_LEN];
    if read_full(file, &mut head, offset)? < FRAME_HEADER_LEN {
        return Ok(Ok(None));
    }
    let Some(header) = FrameHeader::decode(&head, segment.salt, offset) else {
        return Ok(Ok(None));
    };
    if let Some(what) = header.unsupported() {
        return Ok(Err(what));
    }
    // Own records are small; a longer one is none of ours and asks for no memory.
    let left = file.len()?.saturating_sub(offset);
    let left = if mutant::is("length:own-record") { u64::MAX } else { left.min(1 << 20) };
    if header.kind != kind || u64::from(header.len) > left {
        return Ok(Ok(None));
    }
    let len = header.len as usize;
    if buffer.len() < len {
        *buffer = vec![0; len];
    }
    let payload = buffer.get_mut(..len).unwrap_or_default();
    let read = read_full(file, payload, offset + FRAME_HEADER_LEN as u64)?;
    if read < len || format::crc32(payload) != header.payload_crc {
        return Ok(Ok(None));
    }
    Ok(match OwnBody::decode_lending(payload) {
        Ok((body, index)) => Ok(Some((OwnRecord { offset, kind, lsn: header.lsn, body }, index))),
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(error.to_string()),
        Err(_) => Ok(None),
    })
}

/// The control block, if a sound one is there. Content that is none claims nothing; but a block
/// that cannot be *read* may claim a great deal, so that is an error like any other: taking it for
/// absent would let acknowledged records be cut.
pub(crate) fn read_control(dir: &dyn Dir) -> Result<Option<ControlFacts>> {
    let failed = |e| reading(dir, format::CONTROL_NAME, e);
    let file = match dir.open(format::CONTROL_NAME, Access::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = [0; format::CONTROL_LEN];
    let read = read_full(&*file, &mut bytes, 0).map_err(failed)?;
    let Some(control) = Control::decode(&bytes[..read]) else { return Ok(None) };
    let own_matches = is_same_file(control.own, file.identity().map_err(failed)?)
        || mutant::is("control:any-file");
    Ok(Some(ControlFacts { control, own_matches }))
}

/// A copied or restored file has another inode or another birth; where no birth time is kept,
/// nothing can be proven.
pub(crate) fn is_same_file(a: Identity, b: Identity) -> bool {
    a == b && a.born_ns != 0
}

/// What the mark of an unfinished copy says before and after the copy's name: `backup` and `salvage`
/// write it first and remove it last.
const MARK: (&str, &str) = ("unfinished: ", " was broken off here: remove this directory");
/// Longest mark.
const MARK_MAX: usize = 80;

/// The mark of a copy that is being made.
pub(crate) fn mark_of(what: &str) -> String {
    format!("{}a {what}{}\n", MARK.0, MARK.1)
}

/// What the file `ARCHIVE` says besides that nothing is to be written here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The mark of a copy that was broken off, whole, without its first word: no log.
    Unfinished(String),
    /// Too short for a manifest, and no mark either. A crash between making a mark and syncing it may
    /// leave it empty or zeros; but so may damage leave the manifest of a whole archive, and then the
    /// segments are all there is.
    Doubtful,
    /// A link, a FIFO or anything else that is no regular file: it says nothing, and what stood there
    /// may have been a mark.
    Irregular,
    /// As long as a manifest, but its first byte is gone.
    DamagedManifest,
}

/// A mark that is gone since it was listed is that of a backup that was finished: its segments are no
/// archive's, and the directory is listed anew ([`vanished`]).
fn read_mark(dir: &dyn Dir) -> Result<Option<Mark>> {
    let file = dir.open(format::ARCHIVE_NAME, Access::Read);
    let file = file.map_err(|e| reading(dir, format::ARCHIVE_NAME, e))?;
    let mut bytes = [0; MARK_MAX + 1];
    let read = read_full(&*file, &mut bytes, 0);
    let read = read.map_err(|e| reading(dir, format::ARCHIVE_NAME, e))?;
    let bytes = &bytes[..read];
    let whole = std::str::from_utf8(bytes).ok().filter(|_| read <= MARK_MAX).and_then(|text| {
        let text = text.strip_suffix('\n')?.strip_prefix(MARK.0)?;
        text.strip_suffix(MARK.1).and_then(|what| what.strip_prefix("a ")).map(|_| text.to_owned())
    });
    if let Some(text) = whole {
        return Ok(Some(Mark::Unfinished(text)));
    }
    // A mark is written at once, and of a short write only the beginning may have come.
    let written = bytes.iter().position(|byte| *byte == 0).unwrap_or(read);
    let (said, rest) = bytes.split_at(written);
    let begins = |whole: &str| said.iter().zip(whole.as_bytes()).all(|(a, b)| a == b);
    let short = read <= MARK_MAX && begins(MARK.0) && rest.iter().all(|byte| *byte == 0);
    Ok(match bytes.first() {
        _ if short => Some(Mark::Doubtful),
        Some(0) => Some(Mark::DamagedManifest),
        _ => None,
    })
}

/// The header of a snapshot, if it is sound.
pub(crate) fn read_snapshot(dir: &dyn Dir, name: &str) -> Result<Option<SnapshotHeader>> {
    let file = open_segment(dir, name)?;
    let mut head = [0; SEGMENT_HEADER_LEN];
    let read = read_full(&*file, &mut head, 0).map_err(|e| reading(dir, name, e))?;
    Ok(SnapshotHeader::decode(&head[..read]))
}
