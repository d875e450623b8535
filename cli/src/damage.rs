//! One damage in words and as JSON: what, where, how it was decided, what it cost, what to do.
//!
//! Never here: judgement (the log's library has it); payload bytes. Every text that comes from a
//! file is escaped. Next room: [`crate::hexdump`].

use std::path::Path;

use annals_wal::Sequence;
use annals_wal::diagnose::{Class, Damaged, Flip};
use annals_wal::inspect::State;
use serde_json::{Value, json};

use crate::escape::escape;
use crate::exit::Failure;
use crate::out::{Out, Tone};

/// The class as people say it.
pub(crate) fn class_word(class: Class) -> &'static str {
    match class {
        Class::TornTail => "torn tail",
        Class::LostTail => "lost tail",
        Class::BitRot => "bit rot",
        Class::ZeroedRange => "zeroed range",
        Class::ForeignBytes => "foreign bytes",
        Class::Gap => "gap",
        Class::Overlap => "overlap",
        Class::Unsupported => "unsupported",
        _ => "broken rules",
    }
}

pub(crate) fn print(
    dir: &Path,
    damage: &Damaged,
    (index, count): (usize, usize),
    out: &mut Out,
) -> Result<(), Failure> {
    let tone = if damage.state == State::TornTail { Tone::Notice } else { Tone::Bad };
    let word = out.toned(tone, class_word(damage.class));
    out.line("")?;
    out.line(&format!("  {index}/{count} {word}: {}", place(damage)))?;
    out.line(&format!("    expected  {}", escape(&damage.expected)))?;
    out.line(&format!("    found     {}", escape(&damage.found)))?;
    out.line(&format!("    decided   {}", escape(&damage.decided)))?;
    if let Some(flip) = &damage.flip {
        out.line(&format!("    one bit   {}", flip_text(flip)))?;
    }
    out.line(&format!("    lost      {}", loss(damage)))?;
    Ok(out.line(&format!("    next      {}", next(dir, damage)))?)
}

fn flip_text(flip: &Flip) -> String {
    let chance = if flip.chance > 0.0 {
        format!("; by chance in 1 of {:.0}", 1.0 / flip.chance)
    } else {
        String::new()
    };
    format!("bit {} of byte {}, flipped, explains it{chance}", flip.bit, flip.byte)
}

/// Segment, bytes and LSNs, as far as known.
pub(crate) fn place(damage: &Damaged) -> String {
    let mut parts = Vec::new();
    if let Some(segment) = damage.segment {
        parts.push(format!("segment {segment}"));
    }
    if let Some((from, to)) = damage.bytes {
        parts.push(format!("bytes {from}..{to} ({})", to.saturating_sub(from)));
    }
    match damage.lsns {
        Some((first, last)) if first == last => parts.push(format!("LSN {first}")),
        Some((first, last)) => parts.push(format!("LSNs {first} to {last}")),
        None => {}
    }
    parts.join(", ")
}

pub(crate) fn loss(damage: &Damaged) -> String {
    let records = match damage.loss.records {
        // How many fit there; how many there were, nothing tells.
        Some(count) if damage.class == Class::TornTail && count > 0 => {
            format!("at most {count} record{} in these bytes", if count == 1 { "" } else { "s" })
        }
        Some(0) => "no record".to_owned(),
        Some(1) => "1 record".to_owned(),
        Some(count) => format!("{count} records"),
        None => "it is not known how many records".to_owned(),
    };
    let promised = match (damage.loss.promised, damage.loss.records) {
        (_, Some(0)) | (None, _) => "",
        (Some(true), _) => ", acknowledged: a sync had promised these bytes",
        (Some(false), _) => ", none of them acknowledged as far as anything proves",
    };
    format!("{records}{promised}")
}

/// The command to run next.
pub(crate) fn next(dir: &Path, damage: &Damaged) -> String {
    let dir = shown(dir);
    match (damage.class, damage.segment) {
        (Class::TornTail, _) => {
            format!(
                "wal repair {dir} --plan plan.json (or open it: recovery cuts it, keeps it aside)"
            )
        }
        (Class::Unsupported, _) => "use the version of wal that wrote it".to_owned(),
        (Class::Gap, Some(segment)) => format!(
            "put {} back from a backup; without one: wal salvage {dir} --to {dir}.salvaged",
            file_name(segment)
        ),
        _ => format!("wal salvage {dir} --to {dir}.salvaged"),
    }
}

/// A directory as it can be pasted into a shell.
pub(crate) fn shown(dir: &Path) -> String {
    let text = escape(&dir.display().to_string());
    let text = if text.len() > 1 { text.trim_end_matches('/').to_owned() } else { text };
    // No option of any command that it is pasted behind.
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

pub(crate) fn file_name(segment: Sequence) -> String {
    format!("{:020}.wal", segment.get())
}

pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Clean => "clean",
        State::Live => "live",
        State::Unclean => "unclean",
        State::TornTail => "torn_tail",
        State::Corrupt => "corrupt",
        State::Unfinished => "unfinished",
        State::Unsupported => "unsupported",
    }
}

pub(crate) fn as_json(dir: &Path, damage: &Damaged) -> Value {
    json!({
        "class": damage.class.name(),
        "state": state_name(damage.state),
        "segment": damage.segment.map(Sequence::get),
        "file": damage.segment.map(file_name),
        "from_byte": damage.bytes.map(|(from, _)| from),
        "to_byte": damage.bytes.map(|(_, to)| to),
        "first_lsn": damage.lsns.map(|(first, _)| first.get()),
        "last_lsn": damage.lsns.map(|(_, last)| last.get()),
        "expected": damage.expected,
        "found": damage.found,
        "decided": damage.decided,
        "lost_records": damage.loss.records,
        "promised": damage.loss.promised,
        "flip": damage.flip.map(|flip| json!({
            "byte": flip.byte, "bit": flip.bit, "chance": flip.chance,
        })),
        "next": next(dir, damage),
    })
}
