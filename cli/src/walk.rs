//! The records of a range as a verb that reads once sees them: what is proven durable, and behind it,
//! where nobody writes, what stands whole above.
//!
//! Never here: output. The second part is asked for by its own first LSN and not from the beginning: a
//! reader of unproven records checks every payload that it passes, and what lies below the range, a
//! trimmed record, say, is nobody's business. Invariant: after an error nothing more comes. Next room:
//! [`crate::place`].

use std::ops::Bound;

use annals_wal::{ErrorKind, LogReader, Lsn, Records, StoredRecord};

use crate::exit::Failure;

/// Goes forward once. Each record with whether nothing proves that it was durable.
pub(crate) struct Walk {
    reader: LogReader,
    to: Option<Lsn>,
    records: Option<Records>,
    /// Where the part after this one begins; `None` behind the highest LSN there is.
    next: Option<Lsn>,
    unproven: bool,
}

impl Walk {
    pub(crate) fn new(
        reader: LogReader,
        from: Option<Lsn>,
        to: Option<Lsn>,
    ) -> Result<Walk, Failure> {
        let records = Some(reader.range(bounds(from, to))?);
        let next = Some(from.unwrap_or_else(|| reader.head_lsn()));
        Ok(Walk { reader, to, records, next, unproven: false })
    }

    /// The part above what is proven, if there is one to ask for.
    fn above(&mut self) -> annals_wal::Result<Option<Records>> {
        let Some(next) = self.next.filter(|next| self.to.is_none_or(|to| *next <= to)) else {
            return Ok(None);
        };
        // Who writes there decides what becomes of it.
        if self.unproven || self.reader.is_live()? {
            return Ok(None);
        }
        self.unproven = true;
        match self.reader.clone().unproven(true).range(bounds(Some(next), self.to)) {
            Ok(records) => Ok(Some(records)),
            Err(error) if error.kind() == ErrorKind::Trimmed => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn bounds(from: Option<Lsn>, to: Option<Lsn>) -> (Bound<Lsn>, Bound<Lsn>) {
    let bound = |lsn: Option<Lsn>| lsn.map_or(Bound::Unbounded, Bound::Included);
    (bound(from), bound(to))
}

impl Iterator for Walk {
    type Item = annals_wal::Result<(StoredRecord, bool)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.as_mut()?.next() {
                Some(Ok(record)) => {
                    self.next = record.lsn.next();
                    return Some(Ok((record, self.unproven)));
                }
                Some(Err(error)) => {
                    self.records = None;
                    return Some(Err(error));
                }
                None => match self.above() {
                    Ok(records) => self.records = records,
                    Err(error) => {
                        self.records = None;
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}
