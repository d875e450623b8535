//! Bytes that go bad, files that get lost: done to a copy of a world's disk, which is then judged.
//!
//! Never here: a repair, the living log. The oracle: whatever was damaged, no wrong byte is
//! delivered as good; a refusal is typed and changes nothing; where a control block vouches
//! for everything acknowledged (in place, not in a copy), nothing is lost without a word; and what
//! can be judged from the bytes alone must be judged so (`Must`): damage to bytes that later
//! frames call durable is refused, an older state that was put back is opened.
//! Next room: [`super::forge`], for damage with good checksums.

use std::ops::Range;

use annals_wal::format::FRAMES_START;
use annals_wal::fs::mem::MemDir;
use annals_wal::fs::{Dir, SyncPoint};
use annals_wal::inspect::{Depth, inspect_in};
use annals_wal::recover::{Decision, Facts, Plan, decide};
use annals_wal::scan::{Step, Walker};
use annals_wal::{ErrorKind, LogReader, Lsn, Records, format};

use super::forge::{self, Forgery};
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
    /// The last sealed segment is gone, and the next one's open record, which names it, is torn.
    Gap,
    /// Two sectors have changed places.
    Swap,
    /// A segment's bytes stand under another segment's name.
    Misplace,
    /// A newer version wrote a segment's header.
    Newer,
    /// The control block is cut short or has a bad bit.
    Control,
    /// An older state of the active segment was put back.
    Restore,
    /// Good checksums over what no writer writes.
    Forge(Forgery),
}

/// What the log must make of a damage, whatever else is true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Must {
    /// Refuse to open.
    Refuse,
    /// Open.
    Open,
    /// Either.
    Either,
}

/// What was done, and what must follow.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) told: String,
    pub(crate) must: Must,
}

/// The directory as it was before, judged sound.
pub(crate) struct Before {
    pub(crate) facts: Facts,
    pub(crate) plan: Box<Plan>,
}

/// All but the forgeries.
pub const ALL: [Damage; 12] = [
    Damage::Flip,
    Damage::FlipHeader,
    Damage::Zero,
    Damage::Noise,
    Damage::Cut,
    Damage::Lose,
    Damage::Gap,
    Damage::Swap,
    Damage::Misplace,
    Damage::Newer,
    Damage::Control,
    Damage::Restore,
];

/// Damages a copy of the world's disk and judges what the log makes of it.
///
/// # Errors
/// The violation, in words.
pub fn judge(world: &mut World, what: Damage, copied: bool, seed: u64) -> Result<(), String> {
    let disk = if copied { world.disk.copied() } else { world.disk.killed() };
    disk.set_bytes_free(None);
    let Ok(facts) = Facts::read(&*disk.dir()) else { return Ok(()) };
    let Decision::Plan(plan) = decide(&facts) else { return Ok(()) };
    let vouched = facts.control.as_ref().is_some_and(|control| {
        control.own_matches && control.control.durable_lsn >= world.model.history.len() as u64
    });
    let before = Before { facts, plan };
    let strict = vouched && !copied && what != Damage::Restore;
    let Some(done) = damage(&disk, &before, what, &mut Random(seed)) else { return Ok(()) };
    for row in rows(&*disk.dir()) {
        world.tally.row(row);
    }
    judge_damaged(&disk, &world.model, strict, done.must)
        .map_err(|why| format!("{}: {why}", done.told))
}

/// Whether a registry snapshot proves that the log has lost something: without the snapshots it opens,
/// and ends below the newest one.
fn is_accused(disk: &MemDir) -> bool {
    let newest = |facts: Facts| facts.snapshots.iter().map(|snapshot| snapshot.lsn).max();
    let Some(newest) = Facts::read(&*disk.dir()).ok().and_then(newest) else { return false };
    let without = disk.killed();
    for name in without.names().into_iter().filter(|name| name.starts_with("registry-")) {
        without.lose(&name);
    }
    options().open_in(without.dir()).is_ok_and(|log| log.durable_lsn() < Some(newest))
}

fn judge_damaged(disk: &MemDir, model: &Model, strict: bool, must: Must) -> Result<(), String> {
    // Whoever only reads: typed errors, and no other bytes than were written.
    if let Ok(reader) = LogReader::open_in(disk.dir())
        && let Ok(records) = reader.range(..)
    {
        delivered(model, records)?;
        for lsn in (1..=model.history.len() as u64).step_by(5).filter_map(Lsn::new) {
            let Ok(records) = reader.range(lsn..=lsn) else { continue };
            delivered(model, records)?;
        }
    }
    let _ = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ());
    let before = contents(disk);
    match options().open_in(disk.dir()) {
        Ok(_) if must == Must::Refuse => Err("opened, and had to be refused".to_owned()),
        Err(_) if must == Must::Open && is_accused(disk) => Ok(()),
        Err(e) if must == Must::Open => Err(format!("refused, and nothing was wrong: {e}")),
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

/// Does it, or `None` where there is nothing to damage.
fn damage(disk: &MemDir, before: &Before, what: Damage, random: &mut Random) -> Option<Done> {
    let names: Vec<String> = disk
        .names()
        .into_iter()
        // Damaged snapshots are `registry/tests/it/checkpoint.rs`'s.
        .filter(|name| {
            name != "LOCK" && !name.starts_with("cut-") && !name.starts_with("registry-")
        })
        .collect();
    let segments: Vec<&String> = names.iter().filter(|name| name.ends_with(".wal")).collect();
    if segments.is_empty() {
        return None;
    }
    let name = match what {
        Damage::Flip | Damage::Lose => names[random.below(names.len() as u64) as usize].clone(),
        Damage::Control => format::CONTROL_NAME.to_owned(),
        _ => segments[random.below(segments.len() as u64) as usize].clone(),
    };
    let mut bytes = disk.bytes(&name).filter(|bytes| !bytes.is_empty())?;
    let sound = bytes.clone();
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
        Damage::Control if random.one_in(2) => bytes.truncate(at % 128),
        Damage::Control => bytes[at] ^= 1 << random.below(8),
        Damage::Lose => {
            disk.lose(&name);
            let must = if before.needs(&name) { Must::Refuse } else { Must::Either };
            return Some(Done { told, must });
        }
        Damage::Gap => return gap(disk, before),
        Damage::Swap => swap(&mut bytes, at / 512, random.below(used.div_ceil(512)) as usize),
        Damage::Misplace => return misplace(disk, before, &segments, &name, bytes, random),
        Damage::Newer => newer(&mut bytes),
        Damage::Restore => return forge::restore(disk, before, random),
        Damage::Forge(how) => return forge::forge(disk, before, how, random),
    }
    let must = before.must(&name, &sound, &bytes);
    disk.set_bytes(&name, bytes);
    Some(Done { told, must })
}

impl Before {
    /// The place of a segment in the facts.
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.facts.segments.iter().position(|s| format::segment_name(s.sequence) == name)
    }

    /// The active segment's place; none before the first record.
    pub(crate) fn active(&self) -> Option<usize> {
        self.facts.active.as_ref().map(|active| active.index)
    }

    /// Whether this is a segment from the head on, sealed or active.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        let index = self.index(name).zip(self.active());
        index.is_some_and(|(index, active)| (self.plan.below_head..=active).contains(&index))
    }

    /// Whether a log without this file has a hole, so that no opening may pass over it.
    fn needs(&self, name: &str) -> bool {
        self.keeps(name) && self.index(name) != self.active()
    }

    /// What changed bytes ask for.
    fn must(&self, name: &str, sound: &[u8], bytes: &[u8]) -> Must {
        let Some(changed) = changed(sound, bytes) else { return Must::Open };
        if name == format::CONTROL_NAME {
            // A hint that cannot be read claims nothing; the log is whole.
            return Must::Open;
        }
        if !self.keeps(name) {
            return Must::Either;
        }
        let sealed = self.index(name) != self.active();
        // A segment with nothing behind its header was never in use, as far as its bytes tell; the
        // last one wiped clean looks so (the residue: `docs/TESTING.md`, section 10).
        let says_something = bytes.iter().skip(128).any(|byte| *byte != 0);
        let in_header = changed.start < 128 && bytes.len() >= 128 && (sealed || says_something);
        let refuse = in_header
            || sealed && self.hits_the_chain(name, sound, &changed)
            || !sealed && bytes.len() == sound.len() && self.is_promised(sound, &changed);
        if refuse { Must::Refuse } else { Must::Either }
    }

    /// Whether it hits what the chain of sealed segments hangs on: an open record or a seal.
    fn hits_the_chain(&self, name: &str, sound: &[u8], changed: &Range<usize>) -> bool {
        let Some(index) = self.index(name) else { return false };
        let segment = &self.facts.segments[index];
        let links = segment.open.iter().chain(&segment.seal);
        links.into_iter().any(|own| {
            let head = sound.get(own.offset as usize + 16..).and_then(|b| b.first_chunk::<4>());
            let len = head.map_or(0, |len| u32::from_le_bytes(*len));
            // Not its padding: an opening does not look at that, `verify` does.
            let end = own.offset as usize + format::FRAME_HEADER_LEN + len as usize;
            let frame = own.offset as usize..end;
            changed.start < frame.end && frame.start < changed.end
        })
    }

    /// Whether a frame behind the change, and whole, says that what was changed had been durable.
    fn is_promised(&self, sound: &[u8], changed: &Range<usize>) -> bool {
        let active = self.facts.active.as_ref();
        let segment = active.map(|active| &self.facts.segments[active.index]);
        let Some(header) = segment.and_then(|segment| segment.good_header()) else { return false };
        let mut walker = Walker::new(sound, header);
        let (mut hit, mut promised) = (false, 0);
        while let Ok(Some(step)) = walker.step() {
            let Step::Frame(frame) = step else { continue };
            let (start, end) = (frame.offset as usize, frame.end() as usize);
            hit |= changed.start < end && start < changed.end;
            if start >= changed.end && frame.trouble.is_none() {
                let lag = frame.header.durable_lag as usize * format::ALIGN as usize;
                promised = promised.max(start.saturating_sub(lag));
            }
        }
        hit && promised > changed.start
    }
}

/// From the first byte that differs to the last.
fn changed(sound: &[u8], bytes: &[u8]) -> Option<Range<usize>> {
    let both = sound.len().min(bytes.len());
    let differs = |at: &usize| sound[*at] != bytes[*at];
    let first = (0..both).find(differs);
    let last = (0..both).rev().find(differs);
    if sound.len() != bytes.len() {
        return Some(first.unwrap_or(both)..sound.len().max(bytes.len()));
    }
    Some(first?..last? + 1)
}

/// Only the sequence numbers tell that something is missing.
fn gap(disk: &MemDir, before: &Before) -> Option<Done> {
    let active = before.active().filter(|active| *active >= before.plan.below_head + 2)?;
    let name = |index: usize| format::segment_name(before.facts.segments[index].sequence);
    let mut torn = disk.bytes(&name(active))?;
    torn.get_mut(FRAMES_START as usize + 8..)?.fill(0);
    // One that lost its first sector already would now look like a segment never used.
    torn.get(FRAMES_START as usize..)?.iter().find(|byte| **byte != 0)?;
    disk.set_bytes(&name(active), torn);
    disk.lose(&name(active - 1));
    Some(Done { told: format!("{} lost, the next one torn", name(active - 1)), must: Must::Refuse })
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
        forge::seal_header(bytes);
    }
}

fn misplace(
    disk: &MemDir,
    before: &Before,
    segments: &[&String],
    name: &str,
    bytes: Vec<u8>,
    random: &mut Random,
) -> Option<Done> {
    let other = segments[random.below(segments.len() as u64) as usize];
    if random.one_in(2) && other != name {
        let below = before.active().is_some() && before.index(other)? < before.plan.below_head;
        let must = if below { Must::Either } else { Must::Refuse };
        disk.set_bytes(other, bytes);
        return Some(Done { told: format!("{name} under the name {other}"), must });
    }
    let last: u64 = segments.last()?.trim_end_matches(".wal").parse().ok()?;
    let new = format!("{:020}.wal", last + 1 + random.below(2));
    disk.create(&new).ok()?.write_at(&bytes, 0).ok()?;
    disk.sync(SyncPoint::Published).ok()?;
    Some(Done { told: format!("{name} also under the name {new}"), must: Must::Refuse })
}
