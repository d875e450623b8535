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
#[cfg(not(annals_shuttle))]
const PIECE_BYTES: u64 = 256 << 10;
/// So that its small segments have several too.
#[cfg(annals_shuttle)]
const PIECE_BYTES: u64 = 24 << 10;

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
    pub(crate) shared: bool,
    pub(crate) sequence: Sequence,
    pub(crate) capacity: u64,
    /// The neighbour's and, where a spare is replaced, the replaced one's: the new salt differs.
    pub(crate) salts_taken: [u32; 2],
    /// A spare of this sequence that is too small and must give way.
    pub(crate) replaces: bool,
}

/// Where a preparation asks whether it may go on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Names are made or removed next.
    Names,
    /// Between two pieces of zeros.
    Piece {
        /// How long the last one took.
        took: Duration,
        /// Bytes of the segment that are written.
        done: u64,
        capacity: u64,
    },
}

/// Why it may not.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The log ended. What was made is thrown away.
    Over,
    /// The directory is not ours any more: nothing in it is touched.
    NotOurs(io::Error),
}

/// How it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Go {
    /// With the next piece.
    On,
    /// Somebody waits, or will in a moment: what is left is allocated and not written. It reads as
    /// zeros too, but each first write to it changes the file's metadata, which its sync pays for.
    Hurry,
}

/// Asked at each [`Step`].
pub(crate) type Pace<'a> = &'a mut dyn FnMut(Step) -> Result<Go, Stop>;

/// Makes a segment and publishes it.
pub(crate) fn prepare(
    dir: &dyn Dir,
    order: Order,
    pace: Pace<'_>,
) -> Result<Prepared, PrepareFailed> {
    // Never a header that no reader would accept.
    if let Err(why) = format::check_capacity(order.capacity) {
        let error = Error::invalid(format!("a segment of {} bytes: {why}", order.capacity));
        return Err(PrepareFailed { error, poison: false, replaced_is_gone: false });
    }
    names_are_ours(pace)?;
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
            names_are_ours(pace)?;
            // Give the space back; a name that stays is row H's.
            let _ = dir.remove(&tmp);
            let poison = synced && !is_full(&e);
            return Err(PrepareFailed { poison, ..failed("preparing", e) });
        }
    };
    // Looked at again: a large segment took its time, and what stands under its name now may be the
    // next owner's.
    names_are_ours(pace)?;
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

fn names_are_ours(pace: Pace<'_>) -> Result<(), PrepareFailed> {
    match pace(Step::Names) {
        Err(Stop::NotOurs(e)) => Err(PrepareFailed {
            error: Error::io("preparing a segment", e),
            poison: true,
            replaced_is_gone: true,
        }),
        Err(Stop::Over) | Ok(_) => Ok(()),
    }
}

/// Creates the file and makes header and zeros durable. The flag tells whether it was the sync
/// that failed.
fn fill(
    dir: &dyn Dir,
    order: Order,
    tmp: &str,
    pace: Pace<'_>,
) -> Result<Prepared, (io::Error, bool)> {
    let plain = |e| (e, false);
    let header = SegmentHeader {
        shared: order.shared,
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
    let mut go = Go::On;
    loop {
        let begin = dir.elapsed();
        let to =
            if go == Go::Hurry { order.capacity } else { order.capacity.min(from + PIECE_BYTES) };
        let early = mutant::is("prepare:synced-before-the-zeros");
        if early {
            file.sync_data(SyncPoint::Prepared).map_err(|e| (e, true))?;
        }
        match go {
            Go::On => write_zeros(&*file, from, to),
            Go::Hurry if mutant::is("prepare:hurry-takes-no-room") => Ok(()),
            Go::Hurry => file.allocate(from, to),
        }
        .map_err(plain)?;
        if !early {
            file.sync_data(SyncPoint::Prepared).map_err(|e| (e, true))?;
        }
        if to == order.capacity {
            break;
        }
        from = to;
        let took = dir.elapsed().saturating_sub(begin);
        go = pace(Step::Piece { took, done: to, capacity: order.capacity }).map_err(|stop| {
            match stop {
                Stop::Over => plain(io::Error::other("the log ended")),
                Stop::NotOurs(e) => plain(e),
            }
        })?;
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
