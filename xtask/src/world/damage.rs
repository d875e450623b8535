//! Bytes that go bad, files that get lost: done to a copy of a world's disk, which is then judged.
//!
//! Never here: a repair, the living log. The oracle: whatever was damaged, no wrong byte is
//! delivered as good; a refusal is typed and changes nothing; and where a control block vouches
//! for everything acknowledged (in place, not in a copy), nothing is lost without a word.

use annals_wal::fs::mem::MemDir;
use annals_wal::fs::{Dir, SyncPoint};
use annals_wal::inspect::{Depth, inspect_in};
use annals_wal::recover::Facts;
use annals_wal::{ErrorKind, LogReader, Records, format};

use super::life::{World, options, rows};
use super::model::{Model, print};
use super::random::Random;

/// What goes bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit somewhere.
    Flip,
    /// One bit of a segment's header.
    FlipHeader,
    /// A sector of zeros.
    Zero,
    /// A sector of noise.
    Noise,
    /// A file is shorter than it was.
    Cut,
    /// A file is gone.
    Lose,
    /// Two sectors have changed places.
    Swap,
    /// A segment's bytes stand under another segment's name.
    Misplace,
    /// A newer version wrote a segment's header.
    Newer,
}

/// All of them.
pub const ALL: [Damage; 9] = [
    Damage::Flip,
    Damage::FlipHeader,
    Damage::Zero,
    Damage::Noise,
    Damage::Cut,
    Damage::Lose,
    Damage::Swap,
    Damage::Misplace,
    Damage::Newer,
];

/// Damages a copy of the world's disk and judges what the log makes of it.
///
/// # Errors
/// The violation, in words.
pub fn judge(world: &mut World, what: Damage, copied: bool, seed: u64) -> Result<(), String> {
    let disk = if copied { world.disk.copied() } else { world.disk.killed() };
    disk.set_bytes_free(None);
    let vouched = Facts::read(&*disk.dir()).is_ok_and(|facts| {
        facts.control.is_some_and(|control| {
            control.own_matches && control.control.durable_lsn >= world.model.history.len() as u64
        })
    });
    let strict = vouched && !copied;
    let Some(done) = damage(&disk, what, &mut Random(seed)) else { return Ok(()) };
    for row in rows(&*disk.dir()) {
        world.tally.row(row);
    }
    judge_damaged(&disk, &world.model, strict).map_err(|why| format!("{done}: {why}"))
}

fn judge_damaged(disk: &MemDir, model: &Model, strict: bool) -> Result<(), String> {
    // Whoever only reads: typed errors, and no other bytes than were written.
    if let Ok(reader) = LogReader::open_in(disk.dir())
        && let Ok(records) = reader.range(..)
    {
        delivered(model, records)?;
    }
    let _ = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ());
    let before = contents(disk);
    match options().open_in(disk.dir()) {
        Ok(log) => {
            let head = log.head_lsn().get();
            let records = log.range(..).map_err(|e| format!("range: {e:?}"))?;
            let (last, told) = delivered(model, records)?;
            let last = last.max(head.saturating_sub(1));
            if strict && !told && last < model.history.len() as u64 {
                let acked = model.history.len();
                return Err(format!("opened, read to {last} of {acked} acknowledged, no error"));
            }
            Ok(())
        }
        Err(e) => match e.kind() {
            ErrorKind::Corrupt | ErrorKind::Unsupported if contents(disk) == before => Ok(()),
            ErrorKind::Corrupt | ErrorKind::Unsupported => {
                Err(format!("refused, and yet something was changed: {e}"))
            }
            _ => Err(format!("opening: {e:?}")),
        },
    }
}

/// The last LSN delivered, and whether an error ended the reading. Every record delivered must be
/// the one that was written there.
fn delivered(model: &Model, records: Records) -> Result<(u64, bool), String> {
    let maybe = model.maybe.iter().flat_map(|batch| &batch.prints);
    let known: Vec<u64> = model.history.iter().chain(maybe).copied().collect();
    let mut last = 0;
    for record in records {
        let Ok(record) = record else { return Ok((last, true)) };
        last = record.lsn.get();
        let print = print(&record).map_err(|e| format!("LSN {last} delivered, and {e}"))?;
        if known.get(last as usize - 1) != Some(&print) {
            return Err(format!("LSN {last} delivered with bytes that were never written there"));
        }
    }
    Ok((last, false))
}

/// Everything but the lock file.
fn contents(disk: &MemDir) -> Vec<(String, Option<Vec<u8>>)> {
    let names = disk.names().into_iter().filter(|name| name != "LOCK");
    names.map(|name| (name.clone(), disk.bytes(&name))).collect()
}

/// Does it; tells in words what, or `None` where there is nothing to damage.
fn damage(disk: &MemDir, what: Damage, random: &mut Random) -> Option<String> {
    let names: Vec<String> = disk
        .names()
        .into_iter()
        .filter(|name| name != "LOCK" && !name.starts_with("cut-"))
        .collect();
    let segments: Vec<&String> = names.iter().filter(|name| name.ends_with(".wal")).collect();
    if segments.is_empty() {
        return None;
    }
    let name = match what {
        Damage::Flip | Damage::Lose => names[random.below(names.len() as u64) as usize].clone(),
        _ => segments[random.below(segments.len() as u64) as usize].clone(),
    };
    let mut bytes = disk.bytes(&name).filter(|bytes| !bytes.is_empty())?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
    let at = random.below(used.max(128)) as usize % bytes.len();
    let sector = at / 512 * 512..(at / 512 * 512 + 512).min(bytes.len());
    let told = format!("{what:?} in {name} at {at}");
    match what {
        Damage::Flip => bytes[at] ^= 1 << random.below(8),
        Damage::FlipHeader => bytes[at % 128] ^= 1 << random.below(8),
        Damage::Zero => bytes[sector].fill(0),
        Damage::Noise => bytes[sector].iter_mut().for_each(|byte| *byte = random.draw() as u8),
        Damage::Cut => bytes.truncate(at),
        Damage::Lose => {
            disk.lose(&name);
            return Some(told);
        }
        Damage::Swap => swap(&mut bytes, at / 512, random.below(used.div_ceil(512)) as usize),
        Damage::Misplace => return misplace(disk, &segments, &name, bytes, random),
        Damage::Newer => newer(&mut bytes),
    }
    disk.set_bytes(&name, bytes);
    Some(told)
}

fn swap(bytes: &mut [u8], a: usize, b: usize) {
    let (a, b) = (a.min(b) * 512, a.max(b) * 512);
    if a != b && b + 512 <= bytes.len() {
        let (low, high) = bytes.split_at_mut(b);
        low[a..a + 512].swap_with_slice(&mut high[..512]);
    }
}

/// The version one up, and a checksum that says it was meant.
fn newer(bytes: &mut [u8]) {
    if bytes.len() >= 128 {
        bytes[8] = bytes[8].wrapping_add(1);
        let crc = format::crc32(&bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    }
}

fn misplace(
    disk: &MemDir,
    segments: &[&String],
    name: &str,
    bytes: Vec<u8>,
    random: &mut Random,
) -> Option<String> {
    let other = segments[random.below(segments.len() as u64) as usize];
    if random.one_in(2) && other != name {
        disk.set_bytes(other, bytes);
        return Some(format!("{name} under the name {other}"));
    }
    let last: u64 = segments.last()?.trim_end_matches(".wal").parse().ok()?;
    let new = format!("{:020}.wal", last + 1 + random.below(2));
    disk.create(&new).ok()?.write_at(&bytes, 0).ok()?;
    disk.sync(SyncPoint::Published).ok()?;
    Some(format!("{name} also under the name {new}"))
}
