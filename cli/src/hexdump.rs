//! The bytes of a damage, hexadecimal, the bad ones marked.
//!
//! Never here: a payload as it stands; the right column shows printable ASCII and dots. Invariant: at
//! most [`ROWS_MAX`] rows a damage, and the file is opened as the log opens it: for reading alone, no
//! link followed, nothing waited for.

use std::path::Path;

use annals_wal::diagnose::Damaged;
use annals_wal::fs::{Access, Dir, os::OsDir, read_full};

use crate::damage::file_name;
use crate::exit::Failure;
use crate::out::{Out, Tone};

const ROW: u64 = 16;
const ROWS_MAX: u64 = 12;
/// Rows before and after.
const AROUND: u64 = 2;

pub(crate) fn print(dir: &Path, damage: &Damaged, out: &mut Out) -> Result<(), Failure> {
    let (Some(segment), Some((from, to))) = (damage.segment, damage.bytes) else {
        return Ok(out.line("    bytes     none to show: the file is not there")?);
    };
    let file = match OsDir::new(dir).open(&file_name(segment), Access::Read) {
        Ok(file) => file,
        Err(error) => return Ok(out.line(&format!("    bytes     {error}"))?),
    };
    let len = file.len()?;
    let flip = damage.flip.map(|flip| flip.byte);
    // A flipped bit is the place to look at; else the beginning and the end.
    let focus = flip.unwrap_or(from);
    let start = (focus / ROW).saturating_sub(AROUND) * ROW;
    let end = (to.div_ceil(ROW) + AROUND) * ROW;
    let first_end = end.min(start + ROWS_MAX * ROW).min(len);
    out.line(&format!(
        "    bytes     {}: [xx] is bad{}",
        file_name(segment),
        if flip.is_some() { ", (xx) has the flipped bit" } else { "" }
    ))?;
    let mut at = start;
    let mut repeated = 0;
    let mut before = String::new();
    while at < first_end {
        let mut row = vec![0; ROW.min(len - at) as usize];
        let read = read_full(&*file, &mut row, at)?;
        row.truncate(read);
        // Rows that would look the same are shown once; the last one always.
        let look = line(
            0,
            &row,
            (from.saturating_sub(at).min(ROW), to.saturating_sub(at).min(ROW)),
            None,
            out,
        );
        let flipped = flip.is_some_and(|flip| (at..at + ROW).contains(&flip));
        if look == before && at + ROW < first_end && !flipped {
            repeated += 1;
        } else {
            if repeated > 0 {
                out.line(&format!("      {repeated} more rows like it"))?;
            }
            repeated = 0;
            out.line(&line(at, &row, (from, to), flip, out))?;
        }
        before = look;
        at += ROW;
    }
    if end.min(len) > at {
        out.line(&format!("      ... {} more bytes of it", to.min(len).saturating_sub(at)))?;
    }
    Ok(())
}

fn line(at: u64, row: &[u8], (from, to): (u64, u64), flip: Option<u64>, out: &Out) -> String {
    let mut hex = String::new();
    let mut ascii = String::new();
    for (index, byte) in row.iter().enumerate() {
        let here = at + index as u64;
        let (open, close) = match flip {
            Some(flip) if flip == here => ("(", ")"),
            _ if (from..to).contains(&here) => ("[", "]"),
            _ => (" ", " "),
        };
        let cell = format!("{open}{byte:02x}{close}");
        hex += &if open == " " { cell } else { out.toned(Tone::Bad, &cell) };
        let plain = byte.is_ascii_graphic() || *byte == b' ';
        ascii.push(if plain { char::from(*byte) } else { '.' });
    }
    let gap = " ".repeat((ROW as usize - row.len()) * 4);
    format!("      {at:>10} {hex}{gap}  {ascii}")
}
