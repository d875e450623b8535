//! Segments made ready before they are needed: header and zeros durable before the name exists.
//!
//! Never here: records, LSNs, queues. Order (each step survives the crash after it): remove a
//! leftover `.wal.tmp`, create it, header and zeros, sync, `hard_link` to the final name (never
//! replaces anything), unlink the `.tmp`, sync the directory. So a final name proves that the
//! file behind it was synced, and a full disk is met here and not in the middle of a group
//! (reliability catalogue D5, timeplus-io/proton#1229). Next room: [`crate::writer`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, is_full};
use crate::format::{self, FRAMES_START, Identity, SegmentHeader};
use crate::fs::{Dir, File, Status, SyncPoint, write_once, write_zeros};
use crate::ids::{LogId, Sequence};
use crate::mutant;

/// Zeros synced at once. A sync of 64 MiB of them would hold up the commits that share the disk
/// (scylladb/scylladb#7794 stalled so).
const PIECE_BYTES: u64 = 1 << 20;

/// A segment that is empty and waiting.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
    pub(crate) identity: Identity,
    /// Asked of the file as opened for writing: on some file systems that makes another of it.
    pub(crate) status: Status,
}

/// A preparation that failed.
#[derive(Debug)]
pub(crate) struct PrepareFailed {
    pub(crate) error: Error,
    /// Whether a sync failed: then the log must be poisoned. A full disk is an ordinary error,
    /// whoever reports it, because the half-made file is thrown away and never synced again.
    pub(crate) poison: bool,
    /// Whether the spare to be replaced lost its name before the failure.
    pub(crate) replaced_is_gone: bool,
}

impl Prepared {
    /// Whether frames of this many bytes fit, the open record among them.
    pub(crate) fn holds(&self, frame_bytes: u64) -> bool {
        FRAMES_START + frame_bytes <= self.header.records_end()
    }
}

/// What is to be prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) log_id: LogId,
    pub(crate) sequence: Sequence,
    pub(crate) capacity: u64,
    /// The neighbour's and, where a spare is replaced, the replaced one's: the new salt differs.
    pub(crate) salts_taken: [u32; 2],
    /// A spare of this sequence that is too small and must give way.
    pub(crate) replaces: bool,
}

/// Makes a segment and publishes it. `pace` is called between two pieces with the time that the
/// last one took; an error of it gives the preparation up.
pub(crate) fn prepare(
    dir: &dyn Dir,
    order: Order,
    pace: &mut dyn FnMut(Duration) -> io::Result<()>,
) -> Result<Prepared, PrepareFailed> {
    let tmp = format::segment_tmp_name(order.sequence);
    let name = format::segment_name(order.sequence);
    let failed = |doing: &str, e: io::Error| PrepareFailed {
        error: Error::io(format!("{doing} {}", dir.path().join(&name).display()), e),
        poison: false,
        replaced_is_gone: false,
    };
    if mutant::is("publish:in-place") {
        remove_if_there(dir, &name).map_err(|e| failed("replacing", e))?;
        let made = fill(dir, order, &name, pace).map_err(|(e, _)| failed("preparing", e))?;
        return dir.sync(SyncPoint::Published).map(|()| made).map_err(|e| failed("syncing", e));
    }
    remove_if_there(dir, &tmp).map_err(|e| failed("removing the leftover of", e))?;
    let prepared = match fill(dir, order, &tmp, pace) {
        Ok(prepared) => prepared,
        Err((e, synced)) => {
            // Give the space back; a name that stays is row H's.
            let _ = dir.remove(&tmp);
            let poison = synced && !is_full(&e);
            return Err(PrepareFailed { poison, ..failed("preparing", e) });
        }
    };
    if order.replaces {
        remove_if_there(dir, &name).map_err(|e| failed("replacing", e))?;
    }
    if let Err(e) = dir.hard_link(&tmp, &name) {
        let _ = dir.remove(&tmp);
        return Err(PrepareFailed { replaced_is_gone: true, ..failed("publishing", e) });
    }
    // A `.tmp` name that stays behind is row H's; the segment itself is published.
    let _ = dir.remove(&tmp);
    dir.sync(SyncPoint::Published).map_err(|e| PrepareFailed {
        poison: true,
        replaced_is_gone: true,
        ..failed("syncing the directory of", e)
    })?;
    Ok(prepared)
}

/// Creates the file and makes header and zeros durable. The flag tells whether it was the sync
/// that failed.
fn fill(
    dir: &dyn Dir,
    order: Order,
    tmp: &str,
    pace: &mut dyn FnMut(Duration) -> io::Result<()>,
) -> Result<Prepared, (io::Error, bool)> {
    let plain = |e| (e, false);
    let header = SegmentHeader {
        compatible: 0,
        log_id: order.log_id,
        sequence: order.sequence,
        capacity: order.capacity,
        salt: random_salt(dir, order.salts_taken).map_err(plain)?,
        created_ms: dir.now_ms(),
    };
    let file = dir.create(tmp).map_err(plain)?;
    write_once(&*file, &header.encode(), 0).map_err(plain)?;
    let mut from = FRAMES_START;
    loop {
        let begin = dir.elapsed();
        let to = order.capacity.min(from + PIECE_BYTES);
        let early = mutant::is("prepare:synced-before-the-zeros");
        if early {
            file.sync_data(SyncPoint::Prepared).map_err(|e| (e, true))?;
        }
        write_zeros(&*file, from, to).map_err(plain)?;
        if !early {
            file.sync_data(SyncPoint::Prepared).map_err(|e| (e, true))?;
        }
        if to == order.capacity {
            break;
        }
        from = to;
        pace(dir.elapsed().saturating_sub(begin)).map_err(plain)?;
    }
    // Asked before the name exists, so that nothing can fail between publishing and using it.
    let identity = file.identity().map_err(plain)?;
    let status = file.status().map_err(plain)?;
    Ok(Prepared { header, file, identity, status })
}

/// Random, but never a neighbour's: a frame copied across must not check out.
fn random_salt(dir: &dyn Dir, taken: [u32; 2]) -> io::Result<u32> {
    loop {
        let mut bytes = [0; 4];
        dir.random(&mut bytes)?;
        let salt = u32::from_le_bytes(bytes);
        if mutant::is("salt:the-neighbours") {
            return Ok(taken[0].max(1));
        }
        if !taken.contains(&salt) {
            return Ok(salt);
        }
    }
}

/// A fresh log's id.
pub(crate) fn random_log_id(dir: &dyn Dir) -> Result<LogId, Error> {
    let mut bytes = [0; 16];
    dir.random(&mut bytes).map_err(|e| Error::io("drawing a random log id", e))?;
    Ok(LogId(bytes))
}

fn remove_if_there(dir: &dyn Dir, name: &str) -> io::Result<()> {
    match dir.remove(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
