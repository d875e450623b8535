//! What must be true of a log: everything acknowledged is there, nothing is that nobody asked for,
//! and every open question is answered once and for ever by the next opening.
//!
//! Never here: steps, chance. Records are remembered as prints (a number for kind and content), so
//! that a model is cheap to copy: sweeps copy it a million times.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::life::archives::HOLDS;
use annals_observer::EntryKind;
use annals_registry::{Change, Prefix, Registry};
use annals_wal::{ErrorKind, Filter, Log, Lsn, Records, StoredRecord};

/// Named holds.
pub type Holds = BTreeMap<String, u64>;
/// The registry's keys and values.
pub type Keys = BTreeMap<String, Arc<[u8]>>;

/// A batch that may be in the log, whole or not at all.
#[derive(Clone, Debug, Hash)]
pub struct Maybe {
    /// The prints of its records.
    pub prints: Vec<u64>,
    /// What it does to the registry.
    pub changes: Vec<(String, Option<Arc<[u8]>>)>,
}

/// What an archive was promised.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub struct Archive {
    /// From this LSN on it has everything that the log lets go of; `None` as long as no hold of it is
    /// known.
    pub base: Option<u64>,
    /// That LSN, if the hold that was asked for last is there.
    pub base_maybe: u64,
    /// A hand-over said that everything below is there; 0 if none did.
    pub next: u64,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Prints of LSN 1, 2, ...: acknowledged, or shown by an opening.
    pub history: Vec<u64>,
    /// Batches that may follow, in order: any prefix of them.
    pub maybe: Vec<Maybe>,
    /// The head is at least this, and at most `head_max`.
    pub head: u64,
    /// See `head`.
    pub head_max: u64,
    /// Holds that must be there.
    pub holds: Holds,
    /// The holds if the last change, its outcome unknown, was written.
    pub holds_maybe: Option<Holds>,
    /// What the registry must hold.
    pub keys: Keys,
    /// The generation seen last.
    pub generation: u64,
    /// Whether the last session may have ended cleanly: a close was asked for.
    pub may_be_clean: bool,
    /// Copies of what recoveries cut: durable, so they stay as they are. Names and prints.
    pub evidence: BTreeMap<String, u64>,
    /// No segment below this sequence comes back.
    pub lowest_segment: u64,
    /// Archives beside the log, by name.
    pub archives: BTreeMap<u8, Archive>,
    /// Makes contents unique.
    pub stamp: u64,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            history: Vec::new(),
            maybe: Vec::new(),
            head: 1,
            head_max: 1,
            holds: Holds::new(),
            holds_maybe: None,
            keys: Keys::new(),
            generation: 0,
            may_be_clean: false,
            evidence: BTreeMap::new(),
            lowest_segment: 0,
            archives: BTreeMap::new(),
            stamp: 0,
        }
    }
}

impl Model {
    /// The LSN that the next record gets.
    pub fn next_lsn(&self) -> u64 {
        self.history.len() as u64 + 1
    }

    /// Contents that no other record has.
    pub fn content(&mut self, len: usize) -> Vec<u8> {
        self.stamp += 1;
        let mut content = format!("{} ", self.stamp).into_bytes();
        content.resize(content.len().max(len), self.stamp as u8 | 1);
        content
    }

    /// An acknowledged batch.
    pub fn acknowledged(&mut self, batch: Maybe) {
        self.history.extend(batch.prints);
        for (key, value) in batch.changes {
            match value {
                Some(value) => self.keys.insert(key, value),
                None => self.keys.remove(&key),
            };
        }
    }

    /// Compares with a log just opened; what it shows of the open questions is decided.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&mut self, log: &Log) -> Result<(), String> {
        let head = log.head_lsn().get();
        if !(self.head..=self.head_max).contains(&head) {
            return Err(format!("head {head} not in {}..={}", self.head, self.head_max));
        }
        // Those of archives are checked with the archives.
        let own = log.holds().into_iter().filter(|(name, _)| !name.starts_with(HOLDS));
        let holds: Holds = own.map(|(name, lsn)| (name, lsn.get())).collect();
        if holds != self.holds && Some(&holds) != self.holds_maybe.as_ref() {
            return Err(format!("holds {holds:?}, not {:?} or {:?}", self.holds, self.holds_maybe));
        }
        let generation = log.generation().0;
        if generation < self.generation {
            return Err(format!("generation {generation} after {}", self.generation));
        }
        if generation == self.generation && !self.may_be_clean {
            return Err(format!("generation {generation} again, after an unclean end"));
        }
        let records = log.range(..).map_err(|e| format!("range: {e:?}"))?;
        let extra = self.read(head, records)?;
        self.decide(&extra)?;
        self.check_by_index(log, head)?;
        (self.head, self.head_max, self.generation) = (head, head, generation);
        (self.holds, self.holds_maybe) = (holds, None);
        self.may_be_clean = false;
        Ok(())
    }

    /// Single records by number, and one stream of all, are what the scan has shown: both ways go
    /// by the index in the seals.
    fn check_by_index(&self, log: &Log, head: u64) -> Result<(), String> {
        let last = self.next_lsn() - 1;
        let mut streams = Vec::new();
        // About eight of them, others for each length of the history.
        let step = 1 + (last.saturating_sub(head) + last % 5) / 8;
        let lsns = (head..=last).step_by(step as usize).filter_map(Lsn::new);
        for lsn in lsns {
            let record = log.get(lsn).map_err(|e| format!("getting LSN {lsn}: {e:?}"))?;
            let known = self.history.get(lsn.get() as usize - 1).copied();
            if record.lsn != lsn || print(&record).ok() != known {
                return Err(format!("LSN {lsn} is another record when it is asked for alone"));
            }
            streams.push(record.stream);
        }
        let Some(stream) = streams.get(last as usize % streams.len().max(1)) else { return Ok(()) };
        let scan = || log.range(..).map_err(|e| format!("range: {e:?}"));
        let lsns = |records: Records| -> Result<Vec<Lsn>, String> {
            let of_stream = records.filter(|r| r.as_ref().map_or(true, |r| r.stream == *stream));
            of_stream.map(|r| r.map(|r| r.lsn).map_err(|e| format!("{e:?}"))).collect()
        };
        let queried = lsns(scan()?.only(Filter::new().stream(*stream)))?;
        if queried != lsns(scan()?)? {
            return Err(format!("a query for stream {} finds {queried:?}", stream.0));
        }
        let past = Lsn::new(last + 1).map(|lsn| log.get(lsn).map_err(|e| e.kind()));
        match past {
            Some(Err(ErrorKind::OutOfRange)) => Ok(()),
            other => Err(format!("the record after the last: {other:?}")),
        }
    }

    /// Reads everything and returns what goes beyond the history.
    ///
    /// # Errors
    /// A record that is lost, another one's, or unreadable.
    pub fn read(
        &self,
        head: u64,
        records: impl Iterator<Item = annals_wal::Result<StoredRecord>>,
    ) -> Result<Vec<u64>, String> {
        let (mut next, mut extra) = (head, Vec::new());
        for record in records {
            let record = record.map_err(|e| format!("reading LSN {next}: {e:?}"))?;
            if record.lsn.get() != next {
                return Err(format!("LSN {} where {next} was due", record.lsn));
            }
            let print = print(&record).map_err(|e| format!("decoding LSN {next}: {e}"))?;
            match self.history.get(next as usize - 1) {
                Some(known) if *known == print => {}
                Some(_) => return Err(format!("LSN {next} holds other bytes")),
                None => extra.push(print),
            }
            next += 1;
        }
        if next < self.next_lsn() {
            return Err(format!("acknowledged LSNs {next} to {} are lost", self.history.len()));
        }
        Ok(extra)
    }

    /// What an archive holds, from its first record on, is history.
    ///
    /// # Errors
    /// Other bytes than were written there, a gap, or a record that nobody was shown.
    pub fn archived(&self, first: u64, records: Records) -> Result<(), String> {
        for (due, record) in (first..).zip(records) {
            let record = record.map_err(|e| format!("reading LSN {due}: {e:?}"))?;
            let print = print(&record).map_err(|e| format!("decoding LSN {due}: {e}"))?;
            let known = self.history.get(due as usize - 1);
            if record.lsn.get() != due || known != Some(&print) {
                return Err(format!("LSN {} with other bytes where {due} was due", record.lsn));
            }
        }
        Ok(())
    }

    /// What lies beyond the history must be the first of the open questions, whole batches.
    fn decide(&mut self, extra: &[u64]) -> Result<(), String> {
        let mut rest = extra;
        let mut there = Vec::new();
        for batch in std::mem::take(&mut self.maybe) {
            let Some(after) = rest.strip_prefix(batch.prints.as_slice()) else { break };
            rest = after;
            there.push(batch);
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            return Err(format!("{} records that nobody appended, or half a batch", rest.len()));
        }
        if !extra.is_empty() {
            there.into_iter().for_each(|batch| self.acknowledged(batch));
        }
        Ok(())
    }

    /// What somebody who owns nothing was shown is a promise like an acknowledgement: the history,
    /// and of the open questions the first, whole.
    ///
    /// # Errors
    /// Other bytes than were written there, or a part of a batch.
    pub fn promise(&mut self, records: Records) -> Result<(), String> {
        let mut extra = Vec::new();
        for record in records {
            let record = record.map_err(|e| format!("reader: {e:?}"))?;
            let print = print(&record).map_err(|e| format!("reader: decoding: {e}"))?;
            match self.history.get(record.lsn.get() as usize - 1) {
                Some(known) if *known == print => {}
                Some(_) => return Err(format!("reader: LSN {} has other bytes", record.lsn)),
                None => extra.push(print),
            }
        }
        let mut rest = extra.as_slice();
        while !rest.is_empty() {
            let first = self.maybe.first().ok_or("reader: a record that nobody appended")?;
            rest = rest.strip_prefix(first.prints.as_slice()).ok_or("reader: half a batch")?;
            let first = self.maybe.remove(0);
            self.acknowledged(first);
        }
        Ok(())
    }

    /// What somebody who owns nothing reads must be the history, or the open questions after it.
    ///
    /// # Errors
    /// Other bytes than were written there.
    pub fn check_reader(&self, records: Records) -> Result<(), String> {
        let maybe = self.maybe.iter().flat_map(|batch| &batch.prints);
        let known: Vec<u64> = self.history.iter().chain(maybe).copied().collect();
        for record in records {
            let record = record.map_err(|e| format!("reader: {e:?}"))?;
            let print = print(&record).map_err(|e| format!("reader: decoding: {e}"))?;
            if known.get(record.lsn.get() as usize - 1) != Some(&print) {
                return Err(format!("reader: LSN {} has other bytes", record.lsn));
            }
        }
        Ok(())
    }

    /// The registry's whole state.
    ///
    /// # Errors
    /// A key that is missing, too much or wrong; never its value.
    pub fn check_registry(&self, registry: &Registry) -> Result<(), String> {
        let found = registry.scan(&Prefix::all());
        let same = found.len() == self.keys.len()
            && found.iter().zip(&self.keys).all(|((key, entry), (name, value))| {
                key.as_str() == name && *entry.value.bytes() == **value
            });
        if same {
            return Ok(());
        }
        let found: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        Err(format!("the registry has {found:?}, not {:?}", self.keys.keys()))
    }

    /// A number for everything in it that a check depends on.
    pub fn hash(&self) -> u64 {
        hash_of(&(
            (&self.history, &self.maybe, self.head, self.head_max),
            (&self.holds, &self.holds_maybe, &self.keys, self.generation),
            (self.may_be_clean, &self.evidence, self.lowest_segment, &self.archives),
        ))
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The print of a record that was read.
///
/// # Errors
/// What its decoder said.
pub fn print(record: &StoredRecord) -> Result<u64, String> {
    if record.kind == annals_registry::TRANSACTION {
        let changes = annals_registry::decode_transaction(record.lsn, &record.payload);
        return Ok(print_changes(&effects(&changes.map_err(|e| e.to_string())?)));
    }
    if record.kind == annals_registry::CHECKPOINT {
        return Ok(print_checkpoint());
    }
    if EntryKind::of_record(record.kind).is_some() {
        let entry = annals_observer::decode_record(record).map_err(|e| e.to_string())?;
        let entry = entry.ok_or("an entry's kind, and no entry")?;
        let session = entry.session.as_ref().map_or("", |session| session.as_str());
        let call = entry.call_id.as_ref().map_or("", |id| id.as_str());
        let text = entry.input.as_ref().or(entry.output.as_ref()).map_or("", |t| t.as_str());
        return Ok(print_entry(entry.kind, session, call, text));
    }
    Ok(print_plain(&record.payload))
}

/// The print of a plain record.
pub fn print_plain(payload: &[u8]) -> u64 {
    hash_of(&("plain", payload))
}

/// The print of a checkpoint of the registry.
pub fn print_checkpoint() -> u64 {
    hash_of(&"checkpoint")
}

/// The print of an entry.
pub fn print_entry(kind: EntryKind, session: &str, call: &str, text: &str) -> u64 {
    hash_of(&("entry", kind.number(), session, call, text))
}

/// The print of a transaction.
pub fn print_changes(changes: &[(String, Option<Arc<[u8]>>)]) -> u64 {
    let mut sorted: Vec<_> = changes.iter().collect();
    sorted.sort();
    hash_of(&("transaction", sorted))
}

/// What changes do, as the model keeps it.
pub fn effects(changes: &[Change]) -> Vec<(String, Option<Arc<[u8]>>)> {
    changes
        .iter()
        .map(|change| {
            let value = change.value().map(|value| Arc::from(value.bytes()));
            (change.key().as_str().to_owned(), value)
        })
        .collect()
}
