//! From the index in a seal to the runs of frames that a reader wants.
//!
//! Never here: records, damage. Whatever is amiss with an index, or in reading it, means that there
//! is none: the segment is then read from its first frame, which is slower and says what is wrong.
//! Invariants: the seal is the one that the next segment's open record names, both under their
//! checksums; runs rise and do not overlap; at the ends of each the frame stands that the index names,
//! looked at before a record is delivered, because afterwards it is too late to go back. Next rooms: [`crate::index`], [`crate::cursor`].

use crate::filter::Filter;
use crate::format::{
    self, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, HeaderVerdict, IndexBlock, KIND_OPEN,
    KIND_SEAL, SEGMENT_HEADER_LEN, SegmentHeader,
};
use crate::fs::{Access, Dir, File, read_full};
use crate::ids::Lsn;
use crate::index::Start;
use crate::recover::facts::{read_own, read_own_into};

/// What a reader wants of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) next: u64,
    pub(crate) last: u64,
    pub(crate) filter: Filter,
}

/// Frames from one place up to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) from: Start,
    pub(crate) to: Start,
}

/// The runs of a sealed segment to be read.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) runs: Vec<Run>,
    /// LSN of the record after the segment's last.
    pub(crate) after: u64,
    /// Bytes read to find this out.
    pub(crate) bytes_read: u64,
}

/// What is needed to look at a seal, kept from segment to segment: a seal and its blocks are a
/// quarter of a megabyte each, and with new memory for each of 160 segments a third of a query's time
/// were page faults.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    seal: Vec<u8>,
    blocks: Vec<IndexBlock>,
}

/// What is to be read of a sealed segment, if its seal has an index that can be used.
pub(crate) fn runs(
    dir: &dyn Dir,
    file: &dyn File,
    header: &SegmentHeader,
    want: Want,
    scratch: &mut Scratch,
) -> Option<Runs> {
    let mut bytes_read = 0;
    let index = sealed_index(dir, file, header, scratch, &mut bytes_read)?;
    let mut runs: Vec<Run> = Vec::new();
    for (at, block) in index.blocks.iter().enumerate() {
        let next = index.blocks.get(at + 1).map(|next| index.start(next));
        let run = Run { from: index.start(block), to: next.unwrap_or(index.end) };
        let within = run.to.lsn > want.next && run.from.lsn <= want.last;
        let passed_over = want.filter.is_narrow() && !want.filter.may_be_in(block);
        if !within || passed_over {
            continue;
        }
        match runs.last_mut().filter(|last| last.to == run.from) {
            Some(last) => last.to = run.to,
            None => runs.push(run),
        }
    }
    // Who wants everything is never told that there is nothing.
    if runs.is_empty() && !want.filter.is_narrow() {
        return None;
    }
    for at in runs.iter().flat_map(|run| [run.from, run.to]).filter(|at| *at != index.end) {
        bytes_read += FRAME_HEADER_LEN as u64;
        if !stands(file, header, at) {
            return None;
        }
    }
    Some(Runs { runs, after: index.end.lsn, bytes_read })
}

/// Whether a record of this LSN stands there. A read that fails says no: the walk will say why.
fn stands(file: &dyn File, header: &SegmentHeader, at: Start) -> bool {
    let mut head = [0; FRAME_HEADER_LEN];
    read_full(file, &mut head, at.offset).is_ok_and(|read| read == head.len())
        && FrameHeader::decode(&head, header.salt, at.offset)
            .is_some_and(|frame| frame.lsn == at.lsn && !frame.is_own())
}

struct SealedIndex<'s> {
    blocks: &'s [IndexBlock],
    first_lsn: u64,
    /// The seal, and the LSN after the last record.
    end: Start,
}

impl SealedIndex<'_> {
    fn start(&self, block: &IndexBlock) -> Start {
        let lsn = self.first_lsn.saturating_add(u64::from(block.lsn_delta));
        Start { offset: block.offset(), lsn }
    }
}

fn sealed_index<'s>(
    dir: &dyn Dir,
    file: &dyn File,
    header: &SegmentHeader,
    scratch: &'s mut Scratch,
    bytes_read: &mut u64,
) -> Option<SealedIndex<'s>> {
    let next = header.sequence.next()?;
    let next_file = dir.open(&format::segment_name(next), Access::Read).ok()?;
    let mut head = [0; SEGMENT_HEADER_LEN];
    let read = read_full(&*next_file, &mut head, 0).ok()?;
    let HeaderVerdict::Good(next_header) = SegmentHeader::decode(&head[..read]) else {
        return None;
    };
    let open = read_own(&*next_file, &next_header, FRAMES_START, KIND_OPEN).ok()?.ok()??;
    let previous = open.body.previous?;
    if next_header.log_id != header.log_id || previous.sequence != header.sequence {
        return None;
    }
    let Scratch { seal, blocks } = scratch;
    let lent = read_own_into(file, header, previous.offset, KIND_SEAL, seal).ok()?.ok()??;
    let (seal, bytes) = (lent.0, lent.1?);
    let body = seal.body.seal?;
    *bytes_read += (SEGMENT_HEADER_LEN + bytes.len()) as u64;
    let own = body.log_id == header.log_id && body.salt == header.salt;
    if !own || body.digest != previous.digest {
        return None;
    }
    let (first, last) = body.lsns?;
    // What the body says of itself no digest binds: a forged last LSN would lead past later segments.
    if last.get() != seal.lsn || open.lsn != seal.lsn {
        return None;
    }
    let end = Start { offset: seal.offset, lsn: last.next().map(Lsn::get)? };
    format::decode_index_into(bytes, blocks)?;
    let index = SealedIndex { blocks, first_lsn: first.get(), end };
    let (begins, ends) = (index.blocks.first()?, index.start(index.blocks.last()?));
    let inside = begins.lsn_delta == 0 && ends.offset < end.offset && ends.lsn < end.lsn;
    inside.then_some(index)
}
