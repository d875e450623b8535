//! The contract of appending: what a caller may rely on when a call has returned.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use annals_wal::fs::mem::MemDir;
use annals_wal::{Batch, Codec, ErrorKind, Kind, Log, Lsn, Options, Record, Stream};

fn open(disk: &MemDir) -> Log {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

#[test]
fn lsns_are_dense_and_payloads_come_back() {
    let disk = MemDir::new(1);
    let log = open(&disk);
    for n in 1..=300u64 {
        let record = Record::new(vec![n as u8; (n % 97) as usize])
            .kind(Kind::new(0x1000).unwrap())
            .stream(Stream(n as u32))
            .codec(Codec::JSON);
        assert_eq!(log.append(record).unwrap(), lsn(n));
    }
    let back: Vec<_> = log.range(..).unwrap().map(Result::unwrap).collect();
    assert_eq!(back.len(), 300);
    for (n, record) in (1u64..).zip(&back) {
        assert_eq!(record.lsn, lsn(n));
        assert_eq!(record.payload, vec![n as u8; (n % 97) as usize]);
        assert_eq!(record.stream, Stream(n as u32));
        assert_eq!((record.kind.get(), record.codec), (0x1000, Codec::JSON));
    }
    assert_eq!(log.get(lsn(17)).unwrap().payload, vec![17; 17]);
}

#[test]
fn a_log_rotates_and_reads_across_segments() {
    let disk = MemDir::new(2);
    let log = open(&disk);
    for n in 0..400u32 {
        log.append(vec![n as u8; 1000]).unwrap();
    }
    assert!(log.stats().rotations >= 6, "{:?}", log.stats());
    let lsns: Vec<_> =
        log.range(lsn(150)..lsn(250)).unwrap().map(|r| r.unwrap().lsn.get()).collect();
    assert_eq!(lsns, (150..250).collect::<Vec<_>>());
    log.close().unwrap();
    let log = open(&disk);
    assert_eq!(log.durable_lsn(), Some(lsn(400)));
    assert_eq!(log.range(..).unwrap().map(Result::unwrap).count(), 400);
    assert_eq!(log.append("next").unwrap(), lsn(401));
}

#[test]
fn bad_input_is_refused_by_kind_and_changes_nothing() {
    let disk = MemDir::new(3);
    let log = Options::new()
        .segment_bytes(64 << 10)
        .segment_bytes_max(128 << 10)
        .record_bytes_max(200_000)
        .open_in(disk.dir())
        .unwrap();
    let kind = |result: annals_wal::Result<_>| result.unwrap_err().kind();
    assert_eq!(kind(log.append_batch(Batch::new())), ErrorKind::Invalid);
    assert_eq!(kind(log.append(vec![0; 200_001]).map(|l| l..=l)), ErrorKind::TooLarge);
    // Within the cap of a record, and over what the largest segment holds.
    assert_eq!(kind(log.append(vec![0; 190_000]).map(|l| l..=l)), ErrorKind::TooLarge);
    assert_eq!(log.get(lsn(1)).unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(Lsn::new(0), None);
    assert_eq!(log.append("first").unwrap(), Lsn::FIRST);
    assert_eq!(log.get(lsn(2)).unwrap_err().kind(), ErrorKind::OutOfRange);
}

#[test]
fn a_large_batch_gets_a_larger_segment_and_stays_whole() {
    let disk = MemDir::new(4);
    let log = open(&disk);
    log.append("small").unwrap();
    let batch: Batch = (0..10).map(|n| Record::new(vec![n; 50_000])).collect();
    assert_eq!(log.append_batch(batch).unwrap(), lsn(2)..=lsn(11));
    log.append("after").unwrap();
    log.close().unwrap();
    let log = open(&disk);
    let sizes: Vec<_> = log.range(..).unwrap().map(|r| r.unwrap().payload.len()).collect();
    assert_eq!(sizes[0], 5);
    assert_eq!(sizes[1..11], [50_000; 10]);
    assert_eq!(sizes[11], 5);
}

#[test]
fn many_threads_share_syncs_and_every_record_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 10).open(dir.path().join("log")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let log = log.clone();
            scope.spawn(move || {
                let mut last = None;
                for n in 0..200u64 {
                    let lsn = log.append(format!("{thread}:{n}").into_bytes()).unwrap();
                    assert!(Some(lsn) > last, "one thread's LSNs rise");
                    last = Some(lsn);
                }
            });
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for record in log.range(..).unwrap() {
        assert!(seen.insert(record.unwrap().payload), "no record twice");
    }
    assert_eq!(seen.len(), 1600);
    let stats = log.stats();
    assert_eq!(stats.records, 1600);
    assert!(stats.groups <= 1600);
}

#[test]
fn a_submitted_batch_can_be_waited_for_or_awaited() {
    struct Flag(std::sync::Mutex<bool>, std::sync::Condvar);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }
    }
    let disk = MemDir::new(5);
    let log = open(&disk);
    let first = log.submit(Batch::from(Record::new("a"))).unwrap();
    let mut second = Box::pin(log.submit(Batch::from(Record::new("b"))).unwrap());
    assert_eq!(first.wait().unwrap(), lsn(1)..=lsn(1));
    let flag = Arc::new(Flag(Default::default(), Default::default()));
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    let lsns = loop {
        match second.as_mut().poll(&mut context) {
            Poll::Ready(result) => break result.unwrap(),
            Poll::Pending => {
                let mut woken = flag.0.lock().unwrap();
                while !*woken {
                    woken = flag.1.wait(woken).unwrap();
                }
                *woken = false;
            }
        }
    };
    assert_eq!(lsns, lsn(2)..=lsn(2));
}

use std::future::Future;

#[test]
fn a_dropped_pending_loses_the_answer_and_not_the_record() {
    let disk = MemDir::new(6);
    let log = open(&disk);
    drop(log.submit(Batch::from(Record::new("kept"))).unwrap());
    log.append("after").unwrap();
    let payloads: Vec<_> = log.range(..).unwrap().map(|r| r.unwrap().payload).collect();
    assert_eq!(payloads, [b"kept".to_vec(), b"after".to_vec()]);
}

#[test]
fn dropping_the_last_handle_still_writes_what_was_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    let pending: Vec<_> =
        (0..50).map(|n| log.submit(Batch::from(Record::new(vec![n]))).unwrap()).collect();
    drop(log);
    for handle in pending {
        handle.wait().unwrap();
    }
    // The committer is on its way out, and on a busy machine that takes longer than an opening waits.
    let log = (0..100).find_map(|_| match Log::open(&path) {
        Err(error) if error.kind() == ErrorKind::Locked => None,
        opened => Some(opened.unwrap()),
    });
    let log = log.expect("the lock is never free");
    assert_eq!(log.durable_lsn(), Some(lsn(50)));
    assert_eq!(log.generation().0, 2, "no close record: an unclean end");
}

#[test]
fn close_refuses_the_other_handles_and_frees_the_lock_at_once() {
    let disk = MemDir::new(7);
    let log = open(&disk);
    let other = log.clone();
    log.append("one").unwrap();
    log.close().unwrap();
    assert_eq!(other.append("two").unwrap_err().kind(), ErrorKind::Closed);
    let again = open(&disk);
    assert_eq!(again.generation().0, 1, "a clean end keeps the generation");
    assert_eq!(again.durable_lsn(), Some(lsn(1)));
}

#[test]
fn ordered_runs_again_after_a_refusal_and_applies_once() {
    let disk = MemDir::new(8);
    let log = open(&disk);
    let (mut runs, mut applied) = (0, 0);
    for n in 0..200u64 {
        let mut encoded = Batch::from(Record::new(vec![7; 900])).encode(1 << 20).unwrap();
        let got = log
            .ordered_durable(|slot| {
                runs += 1;
                let lsns = slot.push(&mut encoded)?;
                applied += 1;
                Ok(lsns)
            })
            .unwrap();
        assert_eq!(*got.start(), lsn(n + 1));
    }
    assert_eq!(applied, 200);
    assert!(runs > applied, "segments had to be prepared: {runs} runs");
}
