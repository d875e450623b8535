//! A whole segment in one value: what is kept, what is damaged, what vouches for what.
//!
//! Never here: writing, and the words *torn* and *corrupt*. It counts and locates; the verdict is
//! [`crate::recover::decide()`]'s for an opening and [`crate::inspect`]'s for a report, both from
//! this one value. Invariant: *kept* is the longest run of whole batches before the first trouble.

use std::io;

use crate::error::ErrorKind;
use crate::format::{
    Digest, FRAMES_START, FrameHeader, INDEX_LAYOUT, KIND_CLOSE, KIND_OPEN, KIND_SEAL,
    OWN_KIND_IGNORABLE, OwnBody, SegmentHeader,
};
use crate::ids::{Generation, Lsn};
use crate::index::IndexBuilder;
use crate::mutant;
use crate::scan::{Frame, Source, Step, Trouble, Walker};

/// What one pass over a segment found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Size of the file.
    pub file_len: u64,
    /// The kept part.
    pub kept: Kept,
    /// The log's own records in the kept part, in order.
    pub own: Vec<OwnRecord>,
    /// Highest durable end that any sound frame vouches for, wherever it stands; at least the
    /// start of the frames.
    pub witness: u64,
    /// Highest generation in any open or seal record read, kept or not.
    pub generation_max: Option<Generation>,
    /// What is wrong, in order of offset: the first [`DAMAGES_KEPT`], and the first of each class
    /// where it comes later, because a class decides on the verdict.
    pub damages: Vec<Damage>,
    /// How much more was wrong and is only counted: memory does not follow hostile bytes.
    pub damages_cut: u64,
    /// Highest LSN that can have stood in any damage, counted ones included; 0 if none.
    pub damaged_lsn: u64,
    /// Sound frames beyond the first damage.
    pub frames_beyond: u64,
    /// Highest LSN in any sound frame, kept or not; 0 if none.
    pub highest_lsn: u64,
    /// Where the records of the kept part are.
    pub(crate) index: IndexBuilder,
    /// Whether the seal's index is that of the frames, if it has one of a known layout.
    pub index_holds: Option<bool>,
    /// Where the last kept seal stands and the digest of the headers before it.
    seal_digest: Option<(u64, Digest)>,
}

/// Whole batches before the first trouble.
#[derive(Clone, Debug)]
pub struct Kept {
    /// First byte after them.
    pub end: u64,
    /// Records among them.
    pub records: u64,
    /// Bytes of payload in those records.
    pub payload_bytes: u64,
    /// LSN of the last record at that point of the log, in this segment or before; 0 if none.
    pub last_lsn: u64,
    /// LSN of the first record in this segment.
    pub first_lsn: Option<Lsn>,
    /// Kind of the last frame, if it is one of the log's own.
    pub last_own_kind: Option<u16>,
    /// Running CRC-32 over the headers.
    pub(crate) digest: crc32fast::Hasher,
}

impl Kept {
    /// Nothing yet: the state at the first frame.
    pub(crate) fn empty() -> Kept {
        Kept {
            end: FRAMES_START,
            records: 0,
            payload_bytes: 0,
            last_lsn: 0,
            first_lsn: None,
            last_own_kind: None,
            digest: crc32fast::Hasher::new(),
        }
    }

    /// The digest of the headers so far.
    pub fn digest(&self) -> Digest {
        Digest::crc32(self.digest.clone().finalize())
    }

    pub(crate) fn add(&mut self, header: &FrameHeader, encoded: &[u8], end: u64) {
        self.digest.update(encoded);
        self.end = end;
        self.last_lsn = header.lsn;
        if header.is_own() {
            self.last_own_kind = Some(header.kind);
        } else {
            self.last_own_kind = None;
            self.records += 1;
            self.payload_bytes += u64::from(header.len);
            self.first_lsn = self.first_lsn.or(Lsn::new(header.lsn));
        }
    }
}

/// One of the log's own records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnRecord {
    /// Where it stands.
    pub offset: u64,
    /// Which one.
    pub kind: u16,
    /// LSN of the last record before it, 0 if none.
    pub lsn: u64,
    /// What it says.
    pub body: OwnBody,
}

/// How bad bytes can have come about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageClass {
    /// Tearing can make this: a wrong checksum, zeros, padding, a missing end.
    Tearable,
    /// No crash can make this: a sound header with an impossible content.
    Impossible,
    /// Written by a newer version.
    Unsupported,
}

/// One run of bad bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// First bad byte.
    pub from: u64,
    /// First byte after, as far as can be told.
    pub to: u64,
    /// How it can have come about.
    pub class: DamageClass,
    /// What was found.
    pub why: String,
    /// The LSNs that stood there, as far as sound frames around tell; both inclusive. Damage to
    /// one of the log's own records is given the LSN of the last record before it.
    pub lsns: (u64, u64),
}

impl Survey {
    /// Walks a whole segment.
    ///
    /// # Errors
    /// What the source said; damage is a value, not an error.
    pub fn of(source: impl Source, header: &SegmentHeader) -> io::Result<Survey> {
        Survey::walk(source, header, false)
    }

    /// [`Survey::of`] for whoever compares a sealed body with its seal: memory does not follow what is
    /// in it. Of the own records the last is kept, of the index nothing.
    pub(crate) fn of_sealed(source: impl Source, header: &SegmentHeader) -> io::Result<Survey> {
        Survey::walk(source, header, true)
    }

    fn walk(source: impl Source, header: &SegmentHeader, brief: bool) -> io::Result<Survey> {
        let mut surveyor = Surveyor::new(source.len(), header.capacity, brief);
        let mut walker = Walker::new(source, header);
        while let Some(step) = walker.step()? {
            match step {
                Step::Frame(frame) => surveyor.frame(&frame, &mut walker, header)?,
                Step::Unreadable { from, to, why } => surveyor.unreadable(from, to, why),
                Step::Zeros { .. } => {}
            }
            let all = if mutant::is("tail:all-released") { walker.offset() } else { 0 };
            walker.source_mut().release(surveyor.survey.witness.max(all));
        }
        Ok(surveyor.finish())
    }

    /// The newest own record of this kind in the kept part.
    pub fn last_own(&self, kind: u16) -> Option<&OwnRecord> {
        self.own.iter().rev().find(|own| own.kind == kind)
    }

    /// The segment's own open record: its first frame.
    pub fn first_open(&self) -> Option<&OwnRecord> {
        self.own.first().filter(|own| own.kind == KIND_OPEN && own.offset == FRAMES_START)
    }

    /// The seal, if the kept part ends in one.
    pub fn seal(&self) -> Option<&OwnRecord> {
        let ends_in_seal = self.kept.last_own_kind == Some(KIND_SEAL);
        self.own.last().filter(|own| ends_in_seal && own.kind == KIND_SEAL)
    }

    /// The digest of the headers before the seal at this offset.
    pub fn digest_before(&self, seal_offset: u64) -> Option<Digest> {
        let (offset, digest) = self.seal_digest.as_ref()?;
        (*offset == seal_offset).then(|| digest.clone())
    }

    /// Whether the kept part ends in a close record.
    pub fn ends_in_close(&self) -> bool {
        self.kept.last_own_kind == Some(KIND_CLOSE)
    }
}

/// The pass itself.
struct Surveyor {
    survey: Survey,
    /// Like `survey.kept`, with the batch that is still open.
    running: Kept,
    /// The unreadable run that was met last, until a frame tells which LSNs can have stood in it.
    open_range: Option<usize>,
    /// The last damage that is only counted: what a frame after it tells of its LSNs still counts.
    counted: Option<Damage>,
    /// Which classes of damage were met.
    met: [bool; 3],
    /// Keep no more than a sealed body's judge asks for.
    brief: bool,
}

/// So many damages of a segment are kept; see [`Survey::damages`].
pub const DAMAGES_KEPT: usize = 1000;

impl Surveyor {
    fn new(file_len: u64, capacity: u64, brief: bool) -> Surveyor {
        let survey = Survey {
            file_len,
            kept: Kept::empty(),
            own: Vec::new(),
            witness: FRAMES_START,
            generation_max: None,
            damages: Vec::new(),
            damages_cut: 0,
            damaged_lsn: 0,
            frames_beyond: 0,
            highest_lsn: 0,
            index: IndexBuilder::new(capacity),
            index_holds: None,
            seal_digest: None,
        };
        Surveyor {
            survey,
            running: Kept::empty(),
            open_range: None,
            counted: None,
            met: [false; 3],
            brief,
        }
    }

    fn frame<S: Source>(
        &mut self,
        frame: &Frame,
        walker: &mut Walker<S>,
        segment: &SegmentHeader,
    ) -> io::Result<()> {
        self.close_range(&frame.header);
        let impossible = matches!(frame.trouble, Some(Trouble::Impossible(_)));
        if !impossible && !mutant::is("witness:frames") {
            self.survey.witness = self.survey.witness.max(frame.witness().unwrap_or(0));
            self.survey.highest_lsn = self.survey.highest_lsn.max(frame.header.lsn);
        }
        if let Some(trouble) = &frame.trouble {
            self.trouble(frame, trouble);
            self.running.last_lsn = frame.header.lsn;
            return Ok(());
        }
        let mut own = if frame.header.is_own() { self.own_record(frame, walker)? } else { None };
        if let Some(own) = &mut own {
            self.compare_index(own);
        }
        if !self.survey.damages.is_empty() {
            self.survey.frames_beyond += 1;
            self.running.last_lsn = frame.header.lsn;
            return Ok(());
        }
        if frame.header.kind == KIND_SEAL {
            self.survey.seal_digest = Some((frame.offset, self.running.digest()));
        }
        self.survey.index.add(&frame.header, frame.offset);
        let encoded = frame.header.encode(segment.salt, frame.offset);
        self.running.add(&frame.header, &encoded, frame.end());
        if frame.header.is_own() || !frame.header.goes_on() || mutant::is("batch:end") {
            self.survey.kept = self.running.clone();
        }
        if self.brief && own.is_some() {
            self.survey.own.clear();
        }
        self.survey.own.extend(own);
        Ok(())
    }

    /// Reads an own record's body; a generation counts wherever it was read.
    fn own_record<S: Source>(
        &mut self,
        frame: &Frame,
        walker: &mut Walker<S>,
    ) -> io::Result<Option<OwnRecord>> {
        let header = &frame.header;
        if header.kind >= OWN_KIND_IGNORABLE {
            // Of a newer version, and its body with it.
            return Ok(None);
        }
        match OwnBody::decode(walker.payload(frame)?) {
            Ok(body) => {
                self.survey.generation_max = self.survey.generation_max.max(body.generation);
                Ok(Some(OwnRecord {
                    offset: frame.offset,
                    kind: header.kind,
                    lsn: header.lsn,
                    body,
                }))
            }
            Err(error) => {
                let class = if error.kind() == ErrorKind::Unsupported {
                    DamageClass::Unsupported
                } else {
                    DamageClass::Impossible
                };
                self.damage(frame.offset, frame.end(), class, error.to_string(), header.lsn);
                Ok(None)
            }
        }
    }

    /// The index itself is not kept: it is large, and what it says is in the frames.
    fn compare_index(&mut self, own: &mut OwnRecord) {
        let Some(carried) = own.body.index.take() else { return };
        // Only a seal's says anything; comparing each that a forged file carries took hours.
        if own.kind != KIND_SEAL {
            return;
        }
        let known = carried.get(..4) == Some(&INDEX_LAYOUT.to_le_bytes());
        let holds = || self.survey.index.encode().is_some_and(|due| due == carried);
        self.survey.index_holds = known.then(holds);
    }

    fn trouble(&mut self, frame: &Frame, trouble: &Trouble) {
        let (class, why) = match trouble {
            Trouble::Tearable(why) => (DamageClass::Tearable, (*why).to_owned()),
            Trouble::Impossible(why) => (DamageClass::Impossible, (*why).to_owned()),
            Trouble::Unsupported(why) => (DamageClass::Unsupported, why.clone()),
        };
        self.damage(frame.offset, frame.end(), class, why, frame.header.lsn);
    }

    fn damage(&mut self, from: u64, to: u64, class: DamageClass, why: String, lsn: u64) {
        let lsns = (lsn.max(1), lsn.max(1));
        self.add(Damage { from, to, class, why, lsns });
    }

    /// Past the cap only the first of a class is kept: an opening refuses what is impossible or of a
    /// newer version wherever it stands.
    fn add(&mut self, damage: Damage) {
        let first = !std::mem::replace(&mut self.met[damage.class as usize], true);
        if self.survey.damages.len() < DAMAGES_KEPT || first {
            self.survey.damages.push(damage);
            return;
        }
        self.survey.damages_cut += 1;
        let before = self.counted.replace(damage).map_or(0, |damage| damage.lsns.1);
        self.survey.damaged_lsn = self.survey.damaged_lsn.max(before);
    }

    fn unreadable(&mut self, from: u64, to: u64, why: &'static str) {
        let sealed = self.survey.seal().is_some();
        let class = if sealed { DamageClass::Impossible } else { DamageClass::Tearable };
        let low = self.running.last_lsn.saturating_add(1);
        // How many records at most: until a sound frame says better.
        let most = (to - from) / crate::format::FRAME_HEADER_LEN as u64;
        let high = low.saturating_add(most.saturating_sub(1));
        let why = why.to_owned();
        self.open_range = Some(self.survey.damages.len());
        self.add(Damage { from, to, class, why, lsns: (low, high) });
    }

    /// A sound frame after an unreadable run says which LSNs can have stood in it.
    fn close_range(&mut self, header: &FrameHeader) {
        let Some(index) = self.open_range.take() else { return };
        let Some(damage) = self.survey.damages.get_mut(index).or(self.counted.as_mut()) else {
            return;
        };
        let high = if header.is_own() { header.lsn } else { header.lsn.saturating_sub(1) };
        if damage.lsns.0 > high {
            damage.lsns = (high.max(1), high.max(1));
        } else {
            damage.lsns.1 = high;
        }
    }

    fn finish(mut self) -> Survey {
        let unfinished = self.running.end > self.survey.kept.end;
        if unfinished && self.survey.damages.is_empty() {
            let lsns = (self.survey.kept.last_lsn.saturating_add(1), self.running.last_lsn);
            self.survey.damages.push(Damage {
                from: self.survey.kept.end,
                to: self.running.end,
                class: DamageClass::Tearable,
                why: "the batch has no end".to_owned(),
                lsns,
            });
        }
        let listed = self.survey.damages.iter().chain(&self.counted).map(|damage| damage.lsns.1);
        self.survey.damaged_lsn = self.survey.damaged_lsn.max(listed.max().unwrap_or(0));
        if !mutant::is("index:batch-without-end") {
            self.survey.index.forget_open_batch();
        }
        if self.brief {
            self.survey.index = IndexBuilder::new(crate::format::CAPACITY_MIN);
        }
        // Own records that stand between the kept end and the damage belong to no kept part.
        let end = self.survey.kept.end;
        self.survey.own.retain(|own| own.offset < end);
        self.survey
    }
}
