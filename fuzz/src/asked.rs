//! Questions that go by the index in a seal, compared with a scan, which does not: records by number,
//! and records of one stream or some kinds.
//!
//! Never here: the files ([`crate::files`]), or trust in an index: some are forged. Whatever it says, a
//! number gives that record or a typed error, and nobody is given what a scan does not show. Next
//! room: [`crate::directory`].

use annals_wal::{Error, ErrorKind, Filter, Kind, Log, Lsn, Records, Result, StoredRecord, Stream};

/// More records than any input of a fuzzer holds.
const ENDLESS: usize = 1 << 17;
/// About so many records are asked for by number.
const GETS: usize = 24;

/// Asks for records in all ways. `whole`: the inspector, which reads all indexes, found no fault.
pub fn of(log: &Log, whole: bool) {
    let (due, trouble) = read(log.range(..));
    for record in due.iter().step_by(due.len().div_ceil(GETS).max(1)) {
        match log.get(record.lsn) {
            Ok(got) => assert!(got == *record, "LSN {} is another record by number", record.lsn),
            // Damage behind it may be met first where the scan would have met it later.
            Err(error) => assert!(
                trouble.is_some() && known(&error),
                "LSN {} is shown and not found: {error:?}",
                record.lsn
            ),
        }
    }
    outside(log);
    for filter in filters() {
        let (got, refused) = read(log.range(..).map(|records| records.only(filter)));
        let rises = got.windows(2).all(|pair| pair[0].lsn < pair[1].lsn);
        assert!(rises, "{filter:?}: LSNs do not rise");
        assert!(got.iter().all(|r| filter.wants(r.stream, r.kind)), "{filter:?}: not asked for");
        let wanted: Vec<_> = due.iter().filter(|r| filter.wants(r.stream, r.kind)).collect();
        // A filter reads on behind damage in what it passes by: only what the scan came to counts.
        let last = due.last().map(|record| record.lsn);
        let got: Vec<_> = got.iter().filter(|record| Some(record.lsn) <= last).collect();
        assert!(got.iter().all(|r| wanted.contains(r)), "{filter:?}: not what a scan shows");
        if whole && trouble.is_none() {
            assert!(refused.is_none(), "{filter:?}: {refused:?}");
            assert!(got == wanted, "{filter:?}: {} of {}", got.len(), wanted.len());
        }
    }
}

fn filters() -> impl Iterator<Item = Filter> {
    let streams = (0..6).map(|n| Filter::new().stream(Stream(n)));
    let kinds = [(0, 0), (0, 255), (256, 0x0FFF), (0x1000, 0x7FFF)].map(|(low, high)| {
        let kind = |n| Kind::new(n).expect("below the log's own");
        Filter::new().kinds(kind(low)..=kind(high))
    });
    streams.chain(kinds).chain([Filter::new(), Filter::new().stream(Stream(1)).and(kinds[1])])
}

/// What lies outside the log is said to.
fn outside(log: &Log) {
    let last = log.durable_lsn();
    let after = last.map_or(Some(Lsn::FIRST), Lsn::next);
    if let Some(after) = after {
        let kind = log.get(after).map_err(|error| error.kind()).err();
        assert_eq!(kind, Some(ErrorKind::OutOfRange), "LSN {after} behind the last");
    }
    if let Some(before) = log.head_lsn().get().checked_sub(1).and_then(Lsn::new) {
        let kind = log.get(before).map_err(|error| error.kind()).err();
        assert_eq!(kind, Some(ErrorKind::Trimmed), "LSN {before} below the head");
    }
}

fn known(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

fn read(records: Result<Records>) -> (Vec<StoredRecord>, Option<ErrorKind>) {
    let mut read = Vec::new();
    let records = match records {
        Ok(records) => records,
        Err(error) => return (read, Some(error.kind())),
    };
    for record in records {
        match record {
            Ok(record) => read.push(record),
            Err(error) => return (read, Some(error.kind())),
        }
        assert!(read.len() < ENDLESS, "a range without an end");
    }
    (read, None)
}
