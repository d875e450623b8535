//! What must be true of the directory itself, before an opening and after: copies of what was cut
//! stay, removed segments stay away, the control block never claims less, nothing is left over.
//!
//! Never here: records. Invariant: only what a sync has covered, or a crash has left, is noted.

use std::hash::{DefaultHasher, Hasher};

use annals_wal::Sequence;
use annals_wal::format::{self, Control, HeaderVerdict, Name, SegmentHeader};
use annals_wal::fs::Dir;
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::recover::{Decision, Facts, decide};

use super::{Rooms, World};

impl World {
    /// What an earlier opening or a trim made so is still so.
    pub(super) fn check_before_opening(&mut self) -> Result<(), String> {
        for (name, print) in &self.model.evidence {
            if self.disk.bytes(name).map(|bytes| print_of(&bytes)) != Some(*print) {
                return Err(format!("{name}, what an opening had cut, is gone or changed"));
            }
        }
        let lowest = lowest_segment(&self.disk);
        if lowest.is_some_and(|lowest| lowest < self.model.lowest_segment) {
            let gone = self.model.lowest_segment;
            return Err(format!("segment {lowest:?} came back, though all below {gone} were gone"));
        }
        // A crash can have left a copy behind that no opening ever returned with.
        self.note_evidence();
        Ok(())
    }

    /// After an opening: what it cut has a durable copy.
    pub(super) fn note_disk(&mut self, rooms: &Rooms) -> Result<(), String> {
        self.note_evidence();
        let cut = rooms.log.recovery().cut.filter(|cut| cut.from < cut.to);
        let kept = cut.is_none_or(|cut| {
            // An opening that was killed may have left half a copy under the first names.
            (0..16).any(|copy| {
                let name = format::cut_name(cut.segment, cut.from, copy);
                let whole = |bytes: Vec<u8>| bytes.len() as u64 == cut.to - cut.from;
                self.model.evidence.contains_key(&name) && self.disk.bytes(&name).is_some_and(whole)
            })
        });
        if !kept && self.is_quiet() {
            return Err(format!("cut, and no durable copy of it: {cut:?}"));
        }
        self.note_segments();
        Ok(())
    }

    /// Notes the copies that the disk has as the cache shows them. Those of an opening that was
    /// killed before their sync may still change, and then say nothing.
    fn note_evidence(&mut self) {
        let shown = evidence(&self.disk);
        if shown.iter().all(|name| self.model.evidence.contains_key(name)) {
            return;
        }
        let durable = self.disk.crash(Keep::Nothing);
        for name in shown {
            let bytes = self.disk.bytes(&name);
            if let Some(bytes) = bytes.filter(|bytes| durable.bytes(&name).as_ref() == Some(bytes))
            {
                self.model.evidence.insert(name, print_of(&bytes));
            }
        }
    }

    /// After a trim or an opening: the segments below the lowest one are gone for good.
    pub(super) fn note_segments(&mut self) {
        let lowest = lowest_segment(&self.disk).unwrap_or(0);
        self.model.lowest_segment = self.model.lowest_segment.max(lowest);
    }

    /// The LSN that a control block vouches for, if it is believed.
    pub(super) fn claim(&self) -> Option<u64> {
        let control = self.own_control()?;
        let name = format::segment_name(Sequence::new(control.sequence)?);
        let segment = self.disk.identity(&name).ok()?;
        (segment == control.segment).then_some(control.durable_lsn)
    }

    /// An opening, done or not, never takes back what was vouched for. The block is a hint and not
    /// synced, so a writeback that fails may take it back.
    pub(super) fn check_claim(&self, before: Option<u64>) -> Result<(), String> {
        let now = self.own_control().map(|control| control.durable_lsn);
        match before.zip(now) {
            Some((before, now)) if now < before && !self.reverts => {
                Err(format!("CONTROL vouches for LSN {now}, and had vouched for {before}"))
            }
            _ => Ok(()),
        }
    }

    fn own_control(&self) -> Option<Control> {
        let control = Control::decode(&self.disk.bytes(format::CONTROL_NAME)?)?;
        let own = self.disk.identity(format::CONTROL_NAME).ok()?;
        (own == control.own).then_some(control)
    }

    /// After an opening nothing is left over. It may have sealed a segment that a trim had emptied,
    /// and that one goes with the next trim or opening.
    pub(super) fn check_leftovers(&self) -> Result<(), String> {
        let facts = Facts::read(&*self.disk.dir()).map_err(|e| e.to_string())?;
        if !facts.tmp_names.is_empty() {
            return Err(format!("left over: {:?}", facts.tmp_names));
        }
        if let Decision::Plan(plan) = decide(&facts)
            && plan.below_head > 1
        {
            return Err(format!("{} segments below the head are left over", plan.below_head));
        }
        Ok(())
    }

    /// No segment has its neighbour's salt.
    pub(super) fn check_salts(&self) -> Result<(), String> {
        let facts = Facts::read(&*self.disk.dir()).map_err(|e| e.to_string())?;
        let salts: Vec<_> = facts.segments.iter().filter_map(|s| s.good_header()).collect();
        match salts.windows(2).find(|pair| pair[0].salt == pair[1].salt) {
            Some(pair) => Err(format!("segment {} has its neighbour's salt", pair[1].sequence)),
            None => Ok(()),
        }
    }

    /// The segment that takes appends: the highest with a byte after its header.
    pub(super) fn active_segment(&self) -> Option<String> {
        let mut names = self.disk.names();
        names.sort();
        names.into_iter().rev().filter(|name| name.ends_with(".wal")).find(|name| {
            let bytes = self.disk.bytes(name).unwrap_or_default();
            let sound = matches!(SegmentHeader::decode(&bytes), HeaderVerdict::Good(_));
            sound && bytes.iter().skip(128).any(|byte| *byte != 0)
        })
    }
}

/// Copies of what was cut.
fn evidence(disk: &MemDir) -> Vec<String> {
    let cut = |name: &String| format::parse_name(name) == Some(Name::Cut);
    disk.names().into_iter().filter(cut).collect()
}

fn lowest_segment(disk: &MemDir) -> Option<u64> {
    let of = |name: String| match format::parse_name(&name) {
        Some(Name::Segment(sequence)) => Some(sequence.get()),
        _ => None,
    };
    disk.names().into_iter().filter_map(of).min()
}

fn print_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
