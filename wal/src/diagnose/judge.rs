//! One run of bad bytes: what happened to it, told from the bytes.
//!
//! Never here: which segment, which LSNs, whether it was promised. The questions are asked in the
//! order of how much an answer proves: does one flipped bit explain the checksum; is it zeros; do
//! frames stand in it that were written for another place; else bytes changed and nothing says how.
//! Invariant: the same bytes give the same answer. Next rooms: [`super::flip`], [`super::salt`].

use std::io;

use super::flip::{self, Flip};
use super::salt::{self, Known};
use super::value::Class;
use crate::format::{FRAME_HEADER_LEN, FrameHeader};
use crate::scan::Source;

/// Zeros in a row from which on a run is called zeroed. Padding has at most 7.
const ZEROS_MIN: u64 = 64;
/// Of a longer run, every place on the 8-byte grid is looked at for foreign frames; of a shorter
/// one every byte.
const EVERY_BYTE: u64 = 256 << 10;
/// No payload longer than this is tried for a flipped bit or held in memory for it.
const PAYLOAD_MAX: usize = 64 << 20;

/// What was found out.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Judged {
    pub(crate) class: Class,
    pub(crate) found: String,
    pub(crate) decided: String,
    pub(crate) flip: Option<Flip>,
}

/// Where and among which segments is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The salt of the segment that is read.
    pub(crate) salt: u32,
    /// Every segment's.
    pub(crate) known: &'a [Known],
}

/// A run without a sound frame header at its start. `fits` says whether a header could stand there.
pub(crate) fn no_header(
    source: &mut impl Source,
    (from, to): (u64, u64),
    place: Place<'_>,
    fits: impl Fn(&FrameHeader) -> bool,
) -> io::Result<Judged> {
    if to - from >= FRAME_HEADER_LEN as u64 {
        let bytes = source.bytes(from, FRAME_HEADER_LEN)?;
        if let Some(head) = bytes.first_chunk::<FRAME_HEADER_LEN>()
            && let Some((flip, header)) = flip::in_frame_header(head, place.salt, from, fits)
        {
            return Ok(Judged {
                class: Class::BitRot,
                found: "a frame header whose checksum is wrong".to_owned(),
                decided: format!(
                    "with one bit flipped back the checksum holds and the header fits here: LSN {}, \
                     {} bytes",
                    header.lsn, header.len
                ),
                flip: Some(flip),
            });
        }
    }
    by_content(source, (from, to), place, "no frame header whose checksum holds")
}

/// A payload whose checksum is wrong under a sound header.
pub(crate) fn payload(
    source: &mut impl Source,
    (from, to): (u64, u64),
    expected: u32,
    place: Place<'_>,
) -> io::Result<Judged> {
    let len = (to - from) as usize;
    if len <= PAYLOAD_MAX
        && let Some(flip) = flip::in_payload(source.bytes(from, len)?, from, expected)
    {
        return Ok(Judged {
            class: Class::BitRot,
            found: "a payload whose checksum is wrong, under a sound header".to_owned(),
            decided: "with one bit flipped back the payload has its checksum".to_owned(),
            flip: Some(flip),
        });
    }
    by_content(source, (from, to), place, "a payload whose checksum is wrong, under a sound header")
}

/// Zeros, foreign frames, or neither.
pub(crate) fn by_content(
    source: &mut impl Source,
    range: (u64, u64),
    place: Place<'_>,
    found: &str,
) -> io::Result<Judged> {
    let zeros = longest_zeros(source, range)?;
    let foreign = foreign_frames(source, range, place)?;
    if let Some(foreign) = foreign {
        return Ok(Judged {
            class: Class::ForeignBytes,
            found: format!(
                "{} that {} written for segment {} at offset {}, here at {}",
                if foreign.count == 1 { "a frame" } else { "frames, the first of them one" },
                "was",
                foreign.home.0,
                foreign.home.1,
                foreign.at
            ),
            decided: format!(
                "a header's checksum is seeded with its segment and its place, and {} in these \
                 bytes {} to another",
                if foreign.count == 1 { "one".to_owned() } else { foreign.count.to_string() },
                if foreign.count == 1 { "belongs" } else { "belong" },
            ),
            flip: None,
        });
    }
    if let Some((from, to)) = zeros {
        let sectors = if from % 512 == 0 || to % 512 == 0 {
            ", and it begins or ends with a sector"
        } else {
            ""
        };
        return Ok(Judged {
            class: Class::ZeroedRange,
            found: format!("{} zero bytes in a row, {from}..{to}", to - from),
            decided: format!("padding has at most 7 zeros in a row{sectors}"),
            flip: None,
        });
    }
    Ok(Judged {
        class: Class::BitRot,
        found: found.to_owned(),
        decided: "no single flipped bit explains it, there is no run of zeros in it, and no frame \
                  of another place"
            .to_owned(),
        flip: None,
    })
}

/// Bytes that should be zero and are not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stray {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: u64,
    /// The bit, if it is one alone.
    pub(crate) flip: Option<Flip>,
}

pub(crate) fn stray(source: &mut impl Source, (from, to): (u64, u64)) -> io::Result<Option<Stray>> {
    const CHUNK: u64 = 64 << 10;
    let (mut stray, mut bits, mut at): (Option<Stray>, u64, u64) = (None, 0, from);
    while at < to {
        let len = CHUNK.min(to - at);
        let bytes = source.bytes(at, len as usize)?.iter().enumerate();
        for (index, byte) in bytes.filter(|(_, byte)| **byte != 0) {
            let here = at + index as u64;
            let flip = Some(Flip { byte: here, bit: byte.trailing_zeros() as u8, chance: 0.0 });
            let first = Stray { first: here, last: here, count: 0, flip };
            let stray = stray.get_or_insert(first);
            (stray.last, stray.count) = (here, stray.count + 1);
            bits += u64::from(byte.count_ones());
        }
        at += len;
    }
    Ok(stray.map(|stray| Stray { flip: stray.flip.filter(|_| bits == 1), ..stray }))
}

/// The longest run of zeros, if it is long enough to mean something.
fn longest_zeros(
    source: &mut impl Source,
    (from, to): (u64, u64),
) -> io::Result<Option<(u64, u64)>> {
    const CHUNK: u64 = 64 << 10;
    let (mut best, mut run, mut at) = ((from, from), from, from);
    while at < to {
        let len = CHUNK.min(to - at);
        for (index, byte) in source.bytes(at, len as usize)?.iter().enumerate() {
            let here = at + index as u64;
            if *byte != 0 {
                run = here + 1;
            } else if here + 1 - run > best.1 - best.0 {
                best = (run, here + 1);
            }
        }
        at += len;
    }
    let long = best.1 - best.0 >= ZEROS_MIN || (best == (from, to) && to > from);
    Ok(long.then_some(best))
}

struct Foreign {
    at: u64,
    home: (crate::ids::Sequence, u64),
    count: usize,
}

/// Frames in these bytes that were written elsewhere.
fn foreign_frames(
    source: &mut impl Source,
    (from, to): (u64, u64),
    place: Place<'_>,
) -> io::Result<Option<Foreign>> {
    const LOOK: u64 = 64 << 10;
    let step = if to - from <= EVERY_BYTE { 1 } else { 8 };
    let mut found: Option<Foreign> = None;
    let mut at = from;
    while at + FRAME_HEADER_LEN as u64 <= to {
        let len = LOOK.min(to - at).max(FRAME_HEADER_LEN as u64);
        let bytes = source.bytes(at, len as usize)?;
        let Some(home) = salt::home(bytes, place.known) else {
            at += step;
            continue;
        };
        match &mut found {
            Some(found) => found.count += 1,
            None => found = Some(Foreign { at, home, count: 1 }),
        }
        let size = bytes.first_chunk().map_or(8, |head| FrameHeader::parse(head).frame_size());
        at = at.saturating_add(size.max(1));
    }
    Ok(found)
}
