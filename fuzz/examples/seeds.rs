//! Writes the first inputs of the corpus from small real logs; the others (`cover-*`) were found by
//! fuzzing and kept by `-merge=1`, and what once failed has a name that says so:
//! cargo run --manifest-path fuzz/Cargo.toml --example seeds

use std::path::Path;

use annals_observer::{JsonText, Observer};
use annals_registry::{Key, Registry};
use annals_wal::format::{
    self, Digest, Hold, IndexBlock, KIND_OPEN, OwnBody, SealBody, SealReference, SnapshotHeader,
    segment_name,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Batch, Generation, LogId, Lsn, Options, Record, Sequence};

fn save(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

fn with_mode(mode: u8, bytes: &[u8]) -> Vec<u8> {
    // The zeros at the end say nothing and make every input large.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 9);
    let mut out = vec![mode];
    out.extend_from_slice(&bytes[..used.min(bytes.len())]);
    out
}

fn main() {
    let disk = MemDir::new(1);
    let options = || Options::new().segment_bytes(64 << 10);
    let log = options().open_in(disk.dir()).unwrap();
    log.append("one").unwrap();
    let batch: Batch = (0..3u8).map(|n| Record::new(vec![n; 40])).collect();
    log.append_batch(batch).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let mut call = observer.session("s").unwrap().tool("t").start().unwrap();
    call.end_ok(JsonText::string("out")).unwrap();
    Registry::on(log.clone()).unwrap().put_json(&Key::new("a/b").unwrap(), &1).unwrap();
    for record in log.range(..).unwrap().map(Result::unwrap) {
        let pick = match record.kind.get() {
            0x0100 => 0,
            0x0205 => 1,
            _ => 2,
        };
        let mut bytes = vec![pick];
        bytes.extend_from_slice(&record.payload);
        save("payloads", &format!("lsn-{}", record.lsn), &bytes);
    }
    drop((observer, call));
    log.close().unwrap();
    let closed = disk.bytes(&segment_name(Sequence::FIRST)).unwrap();
    save("decode", "segment-header", &closed[..128]);
    save("decode", "control", &disk.bytes("CONTROL").unwrap());
    assert_eq!(closed[128 + 28..128 + 30], KIND_OPEN.to_le_bytes());
    save("decode", "frame", &closed[128..192]);
    save("decode", "open-body", &closed[160..192]);
    for mode in 0..2 {
        save("scan", &format!("closed-{mode}"), &with_mode(mode, &closed));
    }
    let log = options().open_in(disk.dir()).unwrap();
    for n in 0..4u8 {
        log.append(vec![n; 30_000]).unwrap();
    }
    drop(log);
    let sealed = disk.bytes(&segment_name(Sequence::FIRST)).unwrap();
    save("scan", "sealed", &with_mode(0, &sealed));
    let small = MemDir::new(2);
    let log = options().open_in(small.dir()).unwrap();
    log.append("small").unwrap();
    drop(log);
    let small = small.bytes(&segment_name(Sequence::FIRST)).unwrap();
    for mode in [0, 4, 12] {
        save("directory", &format!("short-{mode}"), &with_mode(mode, &small));
    }
    own_bodies();
}

/// A body with every field, and a snapshot's header: no small log has them.
fn own_bodies() {
    let lsn = |n| Lsn::new(n).unwrap();
    let digest = Digest { algorithm: 1, bytes: vec![1, 2, 3, 4] };
    let seal = SealBody {
        count: 3,
        lsns: Some((lsn(4), lsn(6))),
        log_id: LogId([7; 16]),
        salt: 9,
        digest: digest.clone(),
    };
    let mut block = IndexBlock::new(128, 0);
    block.add(7, 0x0101);
    let body = OwnBody {
        generation: Some(Generation(2)),
        head: Some(lsn(3)),
        holds: vec![Hold { name: "a".to_owned(), lsn: lsn(3) }],
        previous: Some(SealReference { sequence: Sequence::FIRST, offset: 256, digest }),
        times_ms: Some((1, 2)),
        seal: Some(seal),
        index: Some(format::encode_index(&[block])),
    };
    save("decode", "every-field", &body.encode());
    let snapshot =
        SnapshotHeader { log_id: LogId([7; 16]), lsn: lsn(5), generation: Generation(2) };
    save("decode", "snapshot-header", &snapshot.encode());
}
