//! Forged files with good checksums, at random: whatever stands in them, nobody panics, reads for
//! ever, or changes a file that it refuses; and what is opened and closed opens again.
//!
//! One seed is one forgery; a failure prints its seed. Known forgeries: `regressions_forged.rs`.
//! `ANNALS_SEEDS` says how many seeds to run, `ANNALS_SEED_FROM` the first of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod lives;

use std::panic::catch_unwind;

use annals_wal::format::{
    self, Digest, FrameHeader, HeaderVerdict, Hold, OwnBody, SealBody, SealReference, SegmentHeader,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::inspect::{Depth, inspect_in};
use annals_wal::{
    Batch, Filter, Generation, Log, LogId, LogReader, Lsn, Options, Record, Sequence, StoredRecord,
    Stream,
};
use lives::{Rng, number};

const SEEDS: u64 = 200;
/// More records than any forgery of these sizes can hold.
const ENDLESS: usize = 10_000;

fn open(disk: &MemDir) -> annals_wal::Result<Log> {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir())
}

/// A number at the edges more often than not.
fn odd(rng: &mut Rng) -> u64 {
    let any = rng.next();
    let small = rng.below(40);
    rng.pick(&[0, u64::MAX, u64::MAX - 1, 1 << 32, 1 << 63, any, small, small])
}

/// A log of a few segments with batches and a hold, copied so that its control block counts for
/// nothing.
fn honest(clean: bool) -> MemDir {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    let mut n = 0u64;
    let mut record = || {
        n += 1;
        let mut payload = n.to_le_bytes().to_vec();
        payload.resize(8 + (n as usize * 3571) % 9000, n as u8);
        Record::new(payload).stream(Stream(n as u32 % 3))
    };
    for size in 0..14 {
        log.append_batch((0..1 + size % 3).map(|_| record()).collect::<Batch>()).unwrap();
    }
    log.set_hold("h", Lsn::new(3).unwrap()).unwrap();
    if clean {
        log.close().unwrap();
    }
    disk.copied()
}

fn forged_body(rng: &mut Rng) -> OwnBody {
    let digest = |algorithm| Digest { algorithm, bytes: vec![0; 4] };
    let hold = |rng: &mut Rng| Some(Hold { name: "x".into(), lsn: Lsn::new(odd(rng))? });
    let previous = Sequence::new(odd(rng)).map(|sequence| SealReference {
        sequence,
        offset: odd(rng),
        digest: digest(1),
    });
    let seal = SealBody {
        count: odd(rng),
        lsns: Lsn::new(odd(rng)).zip(Lsn::new(odd(rng))),
        log_id: LogId([0; 16]),
        salt: 0,
        digest: digest(rng.below(3) as u8),
    };
    OwnBody {
        generation: Some(Generation(odd(rng))),
        head: Lsn::new(odd(rng)),
        holds: (0..rng.below(3)).filter_map(|_| hold(rng)).collect(),
        previous,
        times_ms: Some((odd(rng), odd(rng))),
        seal: rng.one_in(2).then_some(seal),
        index: rng.one_in(2).then(|| (0..rng.below(40)).map(|_| rng.below(4) as u8).collect()),
    }
}

fn forge_file(rng: &mut Rng, disk: &MemDir) {
    let names: Vec<_> = disk.names().into_iter().filter(|name| name != "LOCK").collect();
    let name = &names[rng.below(names.len() as u64) as usize];
    let mut bytes = disk.bytes(name).unwrap();
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len() as u64;
    let at = rng.below(len) as usize;
    match rng.below(9) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes.truncate(at),
        2 => {
            let end = (at + rng.below(9000) as usize).min(bytes.len());
            bytes[at..end].fill(0);
        }
        3 => bytes.resize(bytes.len() + rng.below(5000) as usize, rng.below(2) as u8),
        4 => bytes = disk.bytes(&names[rng.below(names.len() as u64) as usize]).unwrap(),
        5 => forge_header(rng, &mut bytes),
        _ => forge_frames(rng, &mut bytes),
    }
    disk.set_bytes(name, bytes);
}

fn forge_header(rng: &mut Rng, bytes: &mut [u8]) {
    let HeaderVerdict::Good(mut header) = SegmentHeader::decode(bytes) else { return };
    match rng.below(4) {
        0 => header.sequence = Sequence::new(odd(rng)).unwrap_or(Sequence::FIRST),
        1 => {
            let pages = rng.below(1 << 9);
            header.capacity = 4096 * rng.pick(&[16, 17, 20, pages]);
        }
        2 => header.salt = rng.next() as u32,
        _ => header.log_id.0[0] ^= 1,
    }
    bytes[..128].copy_from_slice(&header.encode());
}

/// The frames of a segment, and an empty one after the last.
fn frames(bytes: &[u8], salt: u32) -> Vec<(usize, FrameHeader)> {
    let (mut frames, mut at) = (Vec::new(), 128usize);
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<32>()) {
        let Some(frame) = FrameHeader::decode(head, salt, at as u64) else {
            let (payload_crc, len, durable_lag, stream, kind, codec) = (0, 0, 0, 0, 0, 0);
            let (lsn, flags) = (1, 2);
            frames.push((
                at,
                FrameHeader { payload_crc, lsn, len, durable_lag, stream, kind, flags, codec },
            ));
            break;
        };
        at += frame.frame_size() as usize;
        frames.push((at - frame.frame_size() as usize, frame));
    }
    frames
}

/// Gives one or two frames strange fields, all but always with good checksums.
fn forge_frames(rng: &mut Rng, bytes: &mut [u8]) {
    let HeaderVerdict::Good(header) = SegmentHeader::decode(bytes) else { return };
    let frames = frames(bytes, header.salt);
    if frames.is_empty() {
        return;
    }
    for _ in 0..1 + rng.below(2) {
        let (at, mut frame) = frames[rng.below(frames.len() as u64) as usize];
        match rng.below(7) {
            0 => frame.lsn = odd(rng),
            1 => frame.len = odd(rng) as u32,
            2 => frame.durable_lag = odd(rng) as u32,
            3 => frame.kind = rng.pick(&[0x8001, 0x8002, 0x8003, 0x8004, 0xC000, 0x8005, 0]),
            4 => frame.flags = rng.below(8) as u8,
            5 => frame.lsn = frame.lsn.wrapping_add(rng.below(5)).wrapping_sub(2),
            _ => put_body(rng, bytes, at, &mut frame),
        }
        let payload = bytes.get(at + 32..).and_then(|rest| rest.get(..frame.len as usize));
        if let Some(payload) = payload.filter(|_| !rng.one_in(3)) {
            frame.payload_crc = format::crc32(payload);
        }
        bytes[at..at + 32].copy_from_slice(&frame.encode(header.salt, at as u64));
    }
}

fn put_body(rng: &mut Rng, bytes: &mut [u8], at: usize, frame: &mut FrameHeader) {
    let body = forged_body(rng).encode();
    let start = at + 32;
    let (end, padded) = (start + body.len(), (start + body.len()).next_multiple_of(8));
    if padded > bytes.len() {
        return;
    }
    (frame.len, frame.kind, frame.flags) = (body.len() as u32, 0x8001 + rng.below(4) as u16, 0);
    frame.payload_crc = format::crc32(&body);
    bytes[start..end].copy_from_slice(&body);
    bytes[end..padded].fill(0);
}

type Result<T, E = annals_wal::Error> = std::result::Result<T, E>;
type Files = Vec<(String, Option<Vec<u8>>)>;

fn files(disk: &MemDir) -> Files {
    let names = disk.names().into_iter().filter(|name| name != "LOCK");
    names.map(|name| (name.clone(), disk.bytes(&name))).collect()
}

/// Lent records are the owned ones, to the last word of the error; and what a filter lets through
/// are those of them that it wants, up to damage that only their reader can see.
fn lent_as_owned(reader: &LogReader, owned: &[Result<StoredRecord>]) -> Result<(), String> {
    let words = |record: Result<StoredRecord>| record.map_err(|e| format!("{e:?}"));
    let lend = |filter| {
        let mut records = reader.range(..).map_err(|e| format!("not twice: {e:?}"))?.only(filter);
        let mut lent = Vec::new();
        while let Some(record) = records.next_ref().filter(|_| lent.len() < ENDLESS) {
            lent.push(words(record.map(|record| record.to_stored())));
        }
        Ok::<_, String>(lent)
    };
    let owned: Vec<_> = owned.iter().cloned().map(words).collect();
    if lend(Filter::new())? != owned {
        return Err("lent records are not the owned ones".into());
    }
    let filter = Filter::new().stream(Stream(1));
    let wanted = owned.iter().map_while(|r| r.as_ref().ok()).filter(|r| r.stream == Stream(1));
    let filtered = lend(filter)?;
    if wanted.zip(&filtered).any(|(due, lent)| lent.as_ref() != Ok(due)) {
        return Err("a filter changes what is read before the damage".into());
    }
    let strange = |r: &&Result<_, String>| r.as_ref().is_ok_and(|r: &StoredRecord| r.stream.0 != 1);
    filtered.iter().find(strange).map_or(Ok(()), |r| Err(format!("let through: {r:?}")))
}

fn read_as_an_onlooker(disk: &MemDir, unproven: bool) -> Result<(), String> {
    let _ = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ());
    let Ok(reader) = LogReader::open_in(disk.dir()) else { return Ok(()) };
    let reader = reader.unproven(unproven);
    let Ok(range) = reader.range(..) else { return Ok(()) };
    let owned: Vec<_> = range.take(ENDLESS).collect();
    if owned.len() == ENDLESS {
        return Err("a range without an end".into());
    }
    lent_as_owned(&reader, &owned)?;
    for from in [1, 2, 30, u64::MAX - 1, u64::MAX] {
        let Ok(mut follow) = reader.follow(Lsn::new(from).unwrap()) else { continue };
        for _ in 0..50 {
            let _ = follow.try_next();
        }
    }
    Ok(())
}

fn use_as_an_owner(disk: &MemDir, log: Log) -> Result<(), String> {
    if log.range(..).is_ok_and(|range| range.take(ENDLESS).count() == ENDLESS) {
        return Err("a range of the owner without an end".into());
    }
    let _ = log.append("x");
    let _ = log.trim(Lsn::new(5).unwrap());
    if let Some(cause) = log.poisoned() {
        return Err(format!("poisoned: {cause:?}"));
    }
    let _ = log.close();
    open(disk).map(drop).map_err(|e| format!("opened, used and closed, and then: {e:?}"))
}

fn meet(seed: u64) -> Result<(), String> {
    let mut rng = Rng(seed);
    let disk = honest(seed.is_multiple_of(2));
    for _ in 0..1 + rng.below(2) {
        forge_file(&mut rng, &disk);
    }
    if rng.one_in(12) {
        let names = disk.names();
        disk.lose(&names[rng.below(names.len() as u64) as usize]);
    }
    let before = files(&disk);
    read_as_an_onlooker(&disk, false)?;
    read_as_an_onlooker(&disk, true)?;
    if files(&disk) != before {
        return Err("an onlooker changed a file".into());
    }
    match open(&disk) {
        Ok(log) => use_as_an_owner(&disk, log),
        Err(_) if files(&disk) == before => Ok(()),
        Err(error) => Err(format!("refused, but changed: {error:?}")),
    }
}

#[test]
fn no_forgery_makes_the_log_panic_run_for_ever_or_change_what_it_refuses() {
    let (from, count) = (number("ANNALS_SEED_FROM", 0), number("ANNALS_SEEDS", SEEDS));
    let mut failed = Vec::new();
    for seed in from..from + count {
        match catch_unwind(|| meet(seed)) {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => println!("seed {seed}: {why}"),
            Err(_) => println!("seed {seed}: panic, see above"),
        }
        failed.push(seed);
    }
    assert!(failed.is_empty(), "run one with ANNALS_SEEDS=1 ANNALS_SEED_FROM=: {failed:?}");
}
