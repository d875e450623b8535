//! What a process was told, as its parent heard it, and the comparison with the log.
//!
//! Never here: mercy. What was acknowledged must be there; what was begun may be; nothing else is.
//! Next room: [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::Path;

use annals_registry::{Key, RegistryReader};
use annals_wal::{LogReader, Lsn};

use super::child::{COUNTERS, Writes, counter};

/// Of one slot: all the processes that were in it, one after the other.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    start: u64,
    /// What each thread of the living process has begun.
    begun: BTreeMap<u64, u64>,
    /// Start, thread, n, result.
    done: Vec<(u64, u64, u64, u64)>,
    unknown: Vec<(u64, u64, u64)>,
}

impl Ledger {
    pub(super) fn begin(&mut self, start: u64) {
        self.start = start;
    }

    /// One line; one that the kill has cut is not heard.
    pub(super) fn hear(&mut self, line: &str) {
        let Some(line) = line.strip_suffix('\n') else { return };
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (verb, &numbers[..]) {
            ("b", [thread, n]) => {
                self.begun.insert(*thread, *n);
            }
            ("d", [thread, n, result]) => {
                self.begun.remove(thread);
                self.done.push((self.start, *thread, *n, *result));
            }
            ("u", [thread, n]) => {
                self.begun.remove(thread);
                self.unknown.push((self.start, *thread, *n));
            }
            ("n", [thread, _]) => {
                self.begun.remove(thread);
            }
            _ => {}
        }
    }

    /// The process is gone: what it had begun is unknown.
    pub(super) fn ended(&mut self) {
        let start = self.start;
        let begun = std::mem::take(&mut self.begun).into_iter();
        self.unknown.extend(begun.map(|(thread, n)| (start, thread, n)));
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.done.len() as u64
    }

    pub(super) fn unknown(&self) -> u64 {
        self.unknown.len() as u64
    }
}

/// Everything that is not as it was told.
pub(super) fn compare(
    ledgers: &[impl Deref<Target = Ledger>],
    writes: Writes,
    log: &Path,
) -> Result<Vec<String>, String> {
    match writes {
        Writes::Registry => counters(ledgers, log),
        Writes::Entries => entries(ledgers, log),
    }
}

fn counters(ledgers: &[impl Deref<Target = Ledger>], log: &Path) -> Result<Vec<String>, String> {
    let reader = RegistryReader::open(log).map_err(|e| e.to_string())?;
    let mut failures = Vec::new();
    for n in 0..COUNTERS {
        let key = Key::new(counter(n)).map_err(|e| e.to_string())?;
        let entry = reader.get(&key);
        let last: u64 = match entry {
            Some(entry) => entry.value.decode_json().map_err(|e| e.to_string())?,
            None => 0,
        };
        let mut values = BTreeSet::new();
        let mut acknowledged = 0;
        let mut unknown = 0;
        for ledger in ledgers {
            for (.., value) in ledger.done.iter().filter(|(_, _, of, _)| *of == n) {
                acknowledged += 1;
                if !values.insert(*value) {
                    failures.push(format!("{key}: {value} was acknowledged twice"));
                }
            }
            unknown += ledger.unknown.iter().filter(|(_, _, of)| *of == n).count() as u64;
        }
        if last < acknowledged || last > acknowledged + unknown {
            failures.push(format!(
                "{key} is {last}: {acknowledged} increments were acknowledged, {unknown} are unknown"
            ));
        }
        if values.last().is_some_and(|highest| *highest > last) {
            failures.push(format!("{key} is {last}, and {:?} was acknowledged", values.last()));
        }
    }
    Ok(failures)
}

fn entries(ledgers: &[impl Deref<Target = Ledger>], log: &Path) -> Result<Vec<String>, String> {
    let reader = LogReader::open(log).map_err(|e| e.to_string())?;
    let mut found: BTreeMap<(usize, u64, u64), Vec<(u64, Lsn)>> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut due = Lsn::FIRST;
    for record in reader.range(..).map_err(|e| e.to_string())? {
        let record = record.map_err(|e| e.to_string())?;
        if record.lsn != due {
            failures.push(format!("LSN {} where {due} was due", record.lsn));
        }
        due = record.lsn.next().unwrap_or(due);
        let text = String::from_utf8_lossy(&record.payload).into_owned();
        let numbers: Vec<u64> = text.split(' ').map_while(|word| word.parse().ok()).collect();
        let [slot, start, thread, n] = numbers[..] else {
            failures.push(format!("LSN {}: nobody wrote that", record.lsn));
            continue;
        };
        let of = usize::try_from(slot).unwrap_or(usize::MAX);
        found.entry((of, start, thread)).or_default().push((n, record.lsn));
    }
    for (slot, ledger) in ledgers.iter().enumerate() {
        let done = ledger.done.iter().map(|(start, thread, n, lsn)| ((*start, *thread, *n), *lsn));
        let done: BTreeMap<_, _> = done.collect();
        let unknown: BTreeSet<_> = ledger.unknown.iter().copied().collect();
        let mut seen = BTreeSet::new();
        for ((_, start, thread), records) in found.iter().filter(|((of, ..), _)| *of == slot) {
            for pair in records.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
                failures.push(format!("slot {slot}: {} after {}", pair[1].0, pair[0].0));
            }
            for (n, lsn) in records {
                let which = (*start, *thread, *n);
                seen.insert(which);
                match done.get(&which) {
                    Some(told) if *told == lsn.get() => {}
                    Some(told) => failures.push(format!("{which:?} is {lsn}, told as {told}")),
                    None if unknown.contains(&which) => {}
                    None => failures.push(format!("slot {slot} {which:?}: nobody began that")),
                }
            }
        }
        for which in done.keys().filter(|which| !seen.contains(which)) {
            failures.push(format!("slot {slot} {which:?} was acknowledged and is not there"));
        }
    }
    failures.truncate(20);
    Ok(failures)
}
