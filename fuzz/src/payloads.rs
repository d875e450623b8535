//! The decoders of the rooms above the log, on any payload: an entry of the observer, a transaction
//! of the registry. What is understood survives being written again; nothing is reserved for a
//! length that lies.

use annals_wal::{Codec, Kind, Lsn, StoredRecord, Stream};

use crate::input::Input;
use crate::memory::measured;
use crate::registry::forged;

/// The body of the target `payloads`. The first byte picks the kind.
pub fn payloads(bytes: &[u8]) {
    let kinds = [0x0100, 0x0201, 0x0206, 0x020D, 0x02FF];
    let Some((&pick, payload)) = bytes.split_first() else { return };
    let kind = Kind::new(kinds[usize::from(pick) % kinds.len()]).expect("no own kind");
    entry(&record(kind, pick, payload.to_vec()));
    transaction(payload);
    transaction(&forged(&mut Input::new(payload)));
}

pub fn record(kind: Kind, pick: u8, payload: Vec<u8>) -> StoredRecord {
    StoredRecord {
        lsn: Lsn::FIRST,
        kind,
        stream: Stream(u32::from(pick)),
        codec: Codec::BINCODE,
        payload,
    }
}

fn entry(record: &StoredRecord) {
    let len = record.payload.len();
    let (decoded, used) = measured(|| annals_observer::decode_record(record));
    assert!(used.peak <= 4 * len + 8192, "{used:?} for {len} bytes");
    let Ok(Some(entry)) = decoded else { return };
    let mut again = record.clone();
    again.payload = annals_observer::encode_entry(&entry).expect("what was read can be written");
    assert_eq!(annals_observer::decode_record(&again).ok().flatten(), Some(entry.clone()));
    // Text with line breaks is kept without them; nothing else changes.
    assert!(again.payload.len() <= len, "writing it again makes it longer");
    serde_json::to_string(&entry).expect("an entry is JSON");
}

fn transaction(payload: &[u8]) {
    let (decoded, used) = measured(|| annals_registry::decode_transaction(Lsn::FIRST, payload));
    // The shortest change takes 13 bytes here and about 56, twice over, in memory.
    assert!(used.peak <= 24 * payload.len() + 4096, "{used:?} for {} bytes", payload.len());
    match decoded {
        Ok(changes) => assert!(!changes.is_empty() && changes.len() <= payload.len() / 12),
        Err(error) => assert!(error.to_string().contains("LSN 1"), "{error}"),
    }
}
