//! Snapshot files: written, read, and judged.
//!
//! Never here: when ([`crate::checkpoint`]), what becomes of the log. A file is the log's snapshot
//! header (`docs/FORMAT.md` section 7) and blocks ([`crate::codec::blocks`]), each framed as
//! `u32 length, u32 crc, bytes`; the CRC goes on from that of the block before, so no block can be
//! left out or exchanged. Names come by hard link after the file's sync, so a final name proves it.
//! Invariants: a snapshot is believed whole or not at all; what is wrong with its own bytes
//! ([`Unusable`]) lets an older one be tried, what is wrong with its log does not. Next room:
//! [`crate::rebuild`].

use std::io;

use annals_wal::Lsn;
use annals_wal::format::{self, Name, SEGMENT_HEADER_LEN, SnapshotHeader};
use annals_wal::fs::{Access, Dir, DirLock, File, LockMode, SyncPoint, read_full, write_once};

use crate::codec::TRANSACTION;
use crate::codec::blocks::{self, BLOCK_BYTES_MAX, Block};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::source::Source;
use crate::state::Durable;
use crate::value::Entry;

/// This much is written at once, and synced, so that no group of the log waits long behind it.
const PIECE_BYTES: usize = 256 << 10;

/// Why a snapshot's own bytes cannot be believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unusable(pub(crate) String);

/// The snapshots that there are, newest first.
pub(crate) fn list(dir: &dyn Dir) -> Result<Vec<Lsn>> {
    let names = dir.list().map_err(|e| Error::io("listing the log's directory", e))?;
    let mut lsns: Vec<Lsn> = names
        .iter()
        .filter(|entry| entry.regular)
        .filter_map(|entry| match format::parse_name(&entry.name) {
            Some(Name::Snapshot(lsn)) => Lsn::new(lsn),
            _ => None,
        })
        .filter(|lsn| names.iter().any(|entry| entry.name == format::snapshot_name(*lsn)))
        .collect();
    lsns.sort_unstable_by(|a, b| b.cmp(a));
    Ok(lsns)
}

/// Writes a snapshot under its temporary name, a piece at a time.
pub(crate) struct Sink {
    /// Tells other processes that the temporary file is no leftover.
    lock: Option<Box<dyn DirLock>>,
    file: std::sync::Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
    chain: u32,
    count: u64,
}

impl Sink {
    pub(crate) fn create(dir: &dyn Dir, header: &SnapshotHeader) -> io::Result<Sink> {
        let name = format::snapshot_tmp_name(header.lsn);
        match dir.remove(&name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = dir.create(&name)?;
        let lock = dir.try_lock(&name, LockMode::Exclusive, false)?;
        Ok(Sink { lock, file, buffer: header.encode().to_vec(), written: 0, chain: 0, count: 0 })
    }

    pub(crate) fn begin(&mut self, record_crc: u32, wall_ms: u64) -> io::Result<()> {
        self.block(&Block::Begin { record_crc, wall_ms })
    }

    pub(crate) fn entries(&mut self, entries: Vec<(Key, Entry)>) -> io::Result<()> {
        self.count += entries.len() as u64;
        self.block(&Block::Entries(entries))
    }

    /// Everything is durable on return, but under no name yet. The size in bytes.
    /// Its size, and the lock: to be held until the file has its final name.
    pub(crate) fn end(mut self) -> io::Result<(u64, Option<Box<dyn DirLock>>)> {
        self.block(&Block::End { count: self.count })?;
        self.write()?;
        Ok((self.written, self.lock))
    }

    /// Whether other processes can see that the file is being written.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    fn block(&mut self, block: &Block) -> io::Result<()> {
        let bytes = blocks::encode(block).map_err(io::Error::other)?;
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.chain = chained(self.chain, &bytes);
        self.buffer.extend_from_slice(&len.to_le_bytes());
        self.buffer.extend_from_slice(&self.chain.to_le_bytes());
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() >= PIECE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        write_once(&*self.file, &self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.file.sync_data(SyncPoint::SnapshotFile)
    }
}

/// Gives a finished snapshot its name, durably.
pub(crate) fn publish(dir: &dyn Dir, lsn: Lsn) -> io::Result<()> {
    let (tmp, name) = (format::snapshot_tmp_name(lsn), format::snapshot_name(lsn));
    dir.hard_link(&tmp, &name)?;
    dir.remove(&tmp)?;
    dir.sync(SyncPoint::SnapshotName)
}

/// Whether another process writes a snapshot: it holds its temporary file's lock.
pub(crate) fn is_being_written(dir: &dyn Dir) -> io::Result<bool> {
    for entry in dir.list()? {
        let is_temporary = format::parse_name(&entry.name) == Some(Name::SnapshotTmp);
        if entry.regular && is_temporary {
            match dir.try_lock(&entry.name, LockMode::Exclusive, false) {
                Ok(None) => return Ok(true),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(false)
}

/// Unlinks temporary files that a crash left.
pub(crate) fn remove_leftovers(dir: &dyn Dir) -> io::Result<()> {
    for entry in dir.list()? {
        if entry.regular && format::parse_name(&entry.name) == Some(Name::SnapshotTmp) {
            dir.remove(&entry.name)?;
        }
    }
    Ok(())
}

/// The checksum of a block that follows one with checksum `before`.
fn chained(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A snapshot's blocks, read one after the other.
struct Blocks {
    file: std::sync::Arc<dyn File>,
    at: u64,
    len: u64,
    chain: u32,
}

type Read<T> = std::result::Result<T, Trouble>;

/// Why a snapshot was not read.
enum Trouble {
    Io(io::Error),
    /// Whoever takes the blocks wants no more.
    Stopped(Error),
    Unusable(Unusable),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

fn unusable(why: impl Into<String>) -> Trouble {
    Trouble::Unusable(Unusable(why.into()))
}

impl Blocks {
    fn next(&mut self) -> Read<Block> {
        let mut frame = [0; 8];
        self.fill(&mut frame)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = frame;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        // Nothing is allocated for a length that the file does not have.
        if len > BLOCK_BYTES_MAX || len as u64 > self.len.saturating_sub(self.at) {
            return Err(unusable("a block is longer than the file"));
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        self.chain = chained(self.chain, &bytes);
        if self.chain != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(unusable(format!("the checksum of the block before byte {}", self.at)));
        }
        blocks::decode(&bytes).map_err(unusable)
    }

    fn fill(&mut self, out: &mut [u8]) -> Read<()> {
        let read = read_full(&*self.file, out, self.at)?;
        if read < out.len() {
            return Err(unusable("it ends too early"));
        }
        self.at += read as u64;
        Ok(())
    }
}

/// What a snapshot's file says, all checksums verified.
pub(crate) struct Snapshot {
    pub(crate) header: SnapshotHeader,
    record_crc: u32,
    pub(crate) entries: Vec<(Key, Entry)>,
}

/// Reads a snapshot whole. The inner error is of its own bytes.
pub(crate) fn read(dir: &dyn Dir, lsn: Lsn) -> Result<std::result::Result<Snapshot, Unusable>> {
    let mut entries = Vec::new();
    let mut keep = |block| {
        entries.extend(block);
        Ok(())
    };
    let judged = judged(lsn, read_blocks(dir, lsn, &mut keep))?;
    Ok(judged.map(|(header, record_crc)| Snapshot { header, record_crc, entries }))
}

/// [`read`] without keeping anything, for as long as `go_on` lets it.
pub(crate) fn verify(
    dir: &dyn Dir,
    lsn: Lsn,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<std::result::Result<(), Unusable>> {
    judged(lsn, read_blocks(dir, lsn, &mut |_| go_on()).map(drop))
}

fn judged<T>(lsn: Lsn, read: Read<T>) -> Result<std::result::Result<T, Unusable>> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(Trouble::Unusable(why)) => Ok(Err(why)),
        Err(Trouble::Stopped(error)) => Err(error),
        Err(Trouble::Io(e)) => Err(Error::io(format!("reading {}", format::snapshot_name(lsn)), e)),
    }
}

fn read_blocks(
    dir: &dyn Dir,
    lsn: Lsn,
    take: &mut dyn FnMut(Vec<(Key, Entry)>) -> Result<()>,
) -> Read<(SnapshotHeader, u32)> {
    let file = dir.open(&format::snapshot_name(lsn), Access::Read)?;
    let len = file.len()?;
    let mut header = [0; SEGMENT_HEADER_LEN];
    let mut blocks = Blocks { file, at: 0, len, chain: 0 };
    blocks.fill(&mut header)?;
    let header = SnapshotHeader::decode(&header).ok_or_else(|| unusable("its header is bad"))?;
    if header.lsn != lsn {
        return Err(unusable("its header names another LSN than its file name"));
    }
    let Block::Begin { record_crc, .. } = blocks.next()? else {
        return Err(unusable("it does not begin with its first block"));
    };
    let (mut found, mut last): (u64, Option<Key>) = (0, None);
    loop {
        match blocks.next()? {
            Block::Entries(entries) => {
                for (key, entry) in &entries {
                    if last.as_ref().is_some_and(|last| last >= key) {
                        return Err(unusable("its keys are not in order"));
                    }
                    if entry.revision.lsn() > lsn {
                        return Err(unusable("an entry is newer than the snapshot"));
                    }
                    last = Some(key.clone());
                }
                found += entries.len() as u64;
                take(entries).map_err(Trouble::Stopped)?;
            }
            Block::End { count } if count == found && blocks.at == len => {
                return Ok((header, record_crc));
            }
            _ => return Err(unusable("it does not end as it should")),
        }
    }
}

impl Snapshot {
    /// Whether it belongs to this log: if not, the log has lost something or is another one, and no
    /// older snapshot would make it right.
    pub(crate) fn check_log(&self, source: Source<'_>) -> Result<()> {
        let SnapshotHeader { log_id, lsn, generation } = self.header;
        let name = format::snapshot_name(lsn);
        if source.log_id().is_some_and(|id| id != log_id) {
            return Err(Error::corrupt_file(&name, format!("it is of the log {log_id}")));
        }
        if source.generation().is_some_and(|newest| generation > newest) {
            let why = "it is of a generation that this log has not reached: the log was restored \
                       from an older copy. Restore them together, or move the snapshot away";
            return Err(Error::corrupt_file(&name, why));
        }
        if lsn < source.head() {
            return Ok(()); // its record was trimmed; the snapshot holds it
        }
        let record = source.all_records(lsn)?.next().transpose().map_err(Error::of_log)?;
        let same = record.is_some_and(|record| {
            record.lsn == lsn
                && record.kind == TRANSACTION
                && crc32fast::hash(&record.payload) == self.record_crc
        });
        if !same {
            let why = "the log has another record at its LSN, or none: the log was restored from \
                       an older copy. Restore them together, or move the snapshot away";
            return Err(Error::corrupt_file(&name, why));
        }
        Ok(())
    }

    pub(crate) fn into_state(self) -> Durable {
        Durable::of_snapshot(self.entries, self.header.lsn)
    }
}
