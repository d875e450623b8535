//! The segments drawn in the terminal: one cell for so many bytes, a glyph and a colour by class.
//!
//! Never here: bytes. The glyph says what the colour says. Invariant: a damage however small takes
//! a cell: of what lies in a cell the worst is shown. Next room: [`crate::picture`].

use annals_wal::diagnose::{Class, SegmentMap, SpanKind};

use crate::exit::Failure;
use crate::out::{Out, Tone};

/// Cells in a line.
const CELLS: u64 = 64;
/// Segments drawn before sound ones are left out.
const SEGMENTS_MAX: usize = 40;
/// Damaged segments drawn between the first and the last ones: a picture has an end.
const DAMAGED_MAX: usize = 60;

/// A line of the map.
pub(crate) enum Drawn<'a> {
    Segment(&'a SegmentMap),
    /// So many sound and so many damaged ones that are not drawn.
    LeftOut(usize, usize),
}

/// Which segments are drawn: the first and the last, and between them those with damage.
pub(crate) fn drawn(maps: &[SegmentMap]) -> Vec<Drawn<'_>> {
    let bad = |map: &SegmentMap| map.spans.iter().any(|s| matches!(s.kind, SpanKind::Bad(_)));
    let (mut lines, mut left_out, mut damaged) = (Vec::new(), (0, 0), 0);
    for (index, map) in maps.iter().enumerate() {
        let edge = index < SEGMENTS_MAX / 2 || index + SEGMENTS_MAX / 2 >= maps.len();
        if maps.len() > SEGMENTS_MAX && !edge {
            if !bad(map) {
                left_out.0 += 1;
                continue;
            }
            damaged += 1;
            if damaged > DAMAGED_MAX {
                left_out.1 += 1;
                continue;
            }
        }
        if left_out != (0, 0) {
            let (sound, damaged) = std::mem::take(&mut left_out);
            lines.push(Drawn::LeftOut(sound, damaged));
        }
        lines.push(Drawn::Segment(map));
    }
    lines
}

/// What stands for those that are not drawn.
pub(crate) fn left_out(sound: usize, damaged: usize) -> String {
    match (sound, damaged) {
        (1, 0) => "(1 sound segment)".to_owned(),
        (0, 1) => "(1 damaged segment)".to_owned(),
        (sound, 0) => format!("({sound} sound segments)"),
        (0, damaged) => format!("({damaged} damaged segments)"),
        (sound, damaged) => format!("({sound} sound and {damaged} damaged segments)"),
    }
}

/// Glyph and meaning, in the order of the legend.
pub(crate) const LEGEND: [(SpanKind, char, &str); 13] = [
    (SpanKind::Header, '#', "data"),
    (SpanKind::Data, '#', "data"),
    (SpanKind::Unread, '+', "below a seal, not read"),
    (SpanKind::Free, '.', "free"),
    (SpanKind::Bad(Class::TornTail), 't', "torn tail"),
    (SpanKind::Bad(Class::LostTail), 'L', "lost tail"),
    (SpanKind::Bad(Class::BitRot), 'R', "bit rot"),
    (SpanKind::Bad(Class::ZeroedRange), 'Z', "zeroed range"),
    (SpanKind::Bad(Class::ForeignBytes), 'F', "foreign bytes"),
    (SpanKind::Bad(Class::Gap), 'G', "missing"),
    (SpanKind::Bad(Class::Overlap), 'O', "overlap"),
    (SpanKind::Bad(Class::BrokenRules), 'X', "broken rules"),
    (SpanKind::Bad(Class::Unsupported), 'U', "unsupported"),
];

fn glyph(kind: SpanKind) -> char {
    LEGEND.iter().find(|row| row.0 == kind).map_or('?', |row| row.1)
}

/// How much a kind outweighs the others in its cell.
fn weight(kind: SpanKind) -> u8 {
    match kind {
        SpanKind::Free => 0,
        SpanKind::Unread => 1,
        SpanKind::Header | SpanKind::Data => 2,
        SpanKind::Bad(Class::TornTail) => 3,
        SpanKind::Bad(_) => 4,
    }
}

pub(crate) fn print(maps: &[SegmentMap], out: &mut Out) -> Result<(), Failure> {
    let longest = maps.iter().map(|map| map.len).max().unwrap_or(0);
    let cell = (longest.div_ceil(CELLS)).next_power_of_two().max(1024);
    out.line("")?;
    out.line(&format!("  map: a cell is {}, `|` the durable end", size(cell)))?;
    for line in drawn(maps) {
        out.line(&match line {
            Drawn::Segment(map) => format!("  {:>7}  {}", map.segment.get(), row(map, cell, out)),
            Drawn::LeftOut(sound, damaged) => format!("           {}", left_out(sound, damaged)),
        })?;
    }
    let seen = |kind| maps.iter().any(|map| map.spans.iter().any(|span| span.kind == kind));
    let mut legend: Vec<String> = Vec::new();
    for (kind, glyph, meaning) in LEGEND.iter().skip(1).filter(|row| seen(row.0)) {
        legend.push(format!("{} {meaning}", toned(*kind, *glyph, out)));
    }
    Ok(out.line(&format!("           {}", legend.join("   ")))?)
}

fn row(map: &SegmentMap, cell: u64, out: &Out) -> String {
    let cells = map.len.div_ceil(cell).max(1);
    let mut text = String::new();
    for index in 0..cells {
        let (from, to) = (index * cell, (index + 1) * cell);
        let within = map.spans.iter().filter(|span| span.from < to && span.to > from);
        let kind = within.map(|span| span.kind).max_by_key(|kind| weight(*kind));
        let kind = kind.unwrap_or(SpanKind::Free);
        text += &toned(kind, glyph(kind), out);
        if map.durable_end.is_some_and(|end| end > from && end <= to) {
            text.push('|');
        }
    }
    text
}

fn toned(kind: SpanKind, glyph: char, out: &Out) -> String {
    let glyph = glyph.to_string();
    match kind {
        SpanKind::Bad(Class::TornTail) => out.toned(Tone::Notice, &glyph),
        SpanKind::Bad(_) => out.toned(Tone::Bad, &glyph),
        SpanKind::Data | SpanKind::Header => out.toned(Tone::Good, &glyph),
        SpanKind::Unread | SpanKind::Free => glyph,
    }
}

/// Bytes for people: exact in powers of two where it is one.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
