//! One file's bytes twice: what a reader sees, and what the disk has.
//!
//! Never here: names, faults' timing. Invariants: durable per 512-byte sector; a crash may keep of
//! every un-synced sector any image that it had since the last sync, each sector for itself, and
//! of the size the old, the new or one between. Writes since the last sync are kept as a list, and
//! images are made from it only when a crash asks: sweeps write millions of times.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::disk::StateHash;
use super::fault::SyncFailure;
use super::keep::Chooser;

pub(super) const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What a reader sees. Shared between clones of the disk until one of them writes.
    pub(super) cached: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    /// What the cache showed when the first of `writes` came; `None` where that is `durable`.
    base: Option<Arc<Vec<u8>>>,
    /// Since the last sync, oldest first.
    writes: Vec<Write>,
    /// Whether the cache may show, in clean pages, what the disk does not have.
    diverged: bool,
    /// Failures of sync or writeback so far, and whether any descriptor was told the last one.
    pub(super) errors: u64,
    pub(super) told: bool,
}

#[derive(Clone, Debug)]
struct Write {
    at: usize,
    bytes: Bytes,
}

#[derive(Clone, Debug)]
enum Bytes {
    Zeros(usize),
    Some(Arc<[u8]>),
}

impl Write {
    fn range(&self) -> Range<usize> {
        let len = match &self.bytes {
            Bytes::Zeros(len) => *len,
            Bytes::Some(bytes) => bytes.len(),
        };
        self.at..self.at + len
    }

    fn sectors(&self) -> Range<usize> {
        let range = self.range();
        range.start / SECTOR..range.end.div_ceil(SECTOR)
    }

    /// Puts the part of it that lies in `image`, which starts at `start`, there.
    fn apply(&self, image: &mut [u8], start: usize) {
        let range = self.range();
        let from = range.start.max(start);
        let to = range.end.min(start + image.len());
        if from >= to {
            return;
        }
        let into = &mut image[from - start..to - start];
        match &self.bytes {
            Bytes::Zeros(_) => into.fill(0),
            Bytes::Some(bytes) => into.copy_from_slice(&bytes[from - self.at..to - self.at]),
        }
    }
}

impl Inode {
    /// A file whose bytes are durable.
    pub(super) fn durable(bytes: Vec<u8>) -> Inode {
        let bytes = Arc::new(bytes);
        Inode { cached: bytes.clone(), durable: bytes, told: true, ..Inode::default() }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.writes.is_empty() || self.cached.len() != self.durable.len()
    }

    /// Clean sectors that a write of this range would make dirty.
    pub(super) fn newly_dirty(&self, at: usize, len: usize) -> u64 {
        let dirty = self.dirty_sectors();
        (at / SECTOR..(at + len).div_ceil(SECTOR)).filter(|s| !dirty.contains(s)).count() as u64
    }

    pub(super) fn dirty_sectors(&self) -> BTreeSet<usize> {
        self.writes.iter().flat_map(Write::sectors).collect()
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: usize, ignore_same: bool) {
        if ignore_same {
            return self.write_what_differs(bytes, at);
        }
        self.write_all(bytes, at);
    }

    fn write_all(&mut self, bytes: &[u8], at: usize) {
        if self.writes.is_empty() {
            self.base = self.diverged.then(|| self.cached.clone());
        }
        let end = at + bytes.len();
        let cached = Arc::make_mut(&mut self.cached);
        if cached.len() < end {
            cached.resize(end, 0);
        }
        cached[at..end].copy_from_slice(bytes);
        let zeros = bytes.len() > SECTOR && bytes.iter().fold(0, |any, byte| any | byte) == 0;
        let bytes = if zeros { Bytes::Zeros(bytes.len()) } else { Bytes::Some(bytes.into()) };
        self.writes.push(Write { at, bytes });
    }

    /// Leaves out the sectors that are clean and already show these bytes.
    fn write_what_differs(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            let from = (sector * SECTOR).max(at);
            let to = ((sector + 1) * SECTOR).min(end);
            let new = &bytes[from - at..to - at];
            let same = self.cached.get(from..to) == Some(new);
            let clean = !self.writes.iter().any(|write| write.sectors().contains(&sector));
            if !(same && clean) {
                self.write_all(new, from);
            }
        }
    }

    pub(super) fn sync(&mut self) {
        // Only what is dirty reaches the disk: a page that a failed sync has marked clean stays
        // as it is there, whatever the cache shows.
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.cached.len(), 0);
        for write in self.writes.drain(..) {
            let sectors = write.sectors();
            let range = sectors.start * SECTOR..(sectors.end * SECTOR).min(self.cached.len());
            durable[range.clone()].copy_from_slice(&self.cached[range]);
        }
        self.base = None;
    }

    /// A sync or a writeback failed: the pages are clean, the disk has what it had.
    pub(super) fn fail(&mut self, how: SyncFailure) {
        if how == SyncFailure::CleanOld {
            let len = self.cached.len();
            let mut old = self.durable.to_vec();
            old.resize(len, 0);
            self.cached = Arc::new(old);
        } else {
            self.diverged |= self.is_dirty();
        }
        self.writes.clear();
        self.base = None;
        self.errors += 1;
        self.told = false;
    }

    pub(super) fn hash(&self, hash: &mut StateHash) {
        hash.bytes(&self.cached);
        if !Arc::ptr_eq(&self.cached, &self.durable) {
            hash.bytes(&self.durable);
        }
        for write in &self.writes {
            hash.number(write.at as u64);
            match &write.bytes {
                Bytes::Zeros(len) => hash.number(*len as u64),
                Bytes::Some(bytes) => hash.bytes(bytes),
            }
        }
        hash.number(u64::from(self.told) << 1 | u64::from(self.base.is_some()));
    }

    /// What the disk has after a crash.
    pub(super) fn crash(&mut self, chooser: &mut Chooser, tear: bool) {
        match chooser {
            Chooser::Nothing => self.cached = self.durable.clone(),
            Chooser::Everything => {}
            _ => self.keep_some(chooser, tear),
        }
        let bytes = self.cached.clone();
        *self = Inode { cached: bytes.clone(), durable: bytes, told: true, ..Inode::default() };
    }

    fn keep_some(&mut self, chooser: &mut Chooser, tear: bool) {
        let (old, new) = (self.durable.len(), self.cached.len());
        // A seed draws for every file, so that what it meant yesterday it means today.
        let draws = old != new || matches!(chooser, Chooser::Seed(_));
        let len = match if draws { chooser.one_of(3) } else { 0 } {
            0 => old,
            1 => new,
            _ => old + (new - old.min(new)) / 2,
        };
        if !self.is_dirty() {
            // Nothing un-synced: what a failed sync left in the cache alone is gone.
            self.cached = self.durable.clone();
            return;
        }
        let mut bytes = self.durable.to_vec();
        bytes.resize(new.max(old), 0);
        for (sector, touching) in self.touching() {
            let pick = chooser.one_of(touching.len() as u64 + 1) as usize;
            if pick < touching.len() {
                let at = sector * SECTOR;
                let image = self.image(sector, &touching[..=pick]);
                // Whole, or as far as the head came: with `tear`, any byte.
                let part = if tear { chooser.one_of(SECTOR as u64 + 1) as usize } else { SECTOR };
                let end = (at + image.len().min(part)).min(bytes.len());
                bytes[at..end].copy_from_slice(&image[..end - at]);
            }
        }
        bytes.truncate(len);
        self.cached = Arc::new(bytes);
    }

    /// For every dirty sector the writes that touched it, oldest first.
    fn touching(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut touching: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, write) in self.writes.iter().enumerate() {
            for sector in write.sectors() {
                touching.entry(sector).or_default().push(index);
            }
        }
        touching
    }

    /// A sector as it was after these writes.
    fn image(&self, sector: usize, writes: &[usize]) -> [u8; SECTOR] {
        let start = sector * SECTOR;
        let base = self.base.as_ref().unwrap_or(&self.durable);
        let mut image = [0; SECTOR];
        if let Some(before) = base.get(start..) {
            let len = before.len().min(SECTOR);
            image[..len].copy_from_slice(&before[..len]);
        }
        for index in writes {
            self.writes[*index].apply(&mut image, start);
        }
        image
    }
}
