//! Transactions that no registry wrote, in the log of one.
//!
//! Never here: an opinion which of them are sound; `decode_transaction` says, and rebuilding the
//! registry must say the same.

use annals_registry::{Change, Key, Registry, Revision, TRANSACTION, Value, decode_transaction};
use annals_wal::fs::mem::Keep;
use annals_wal::{Lsn, Options, Record};

use super::{Life, PATHS, apply};
use crate::input::Input;

impl Life<'_> {
    /// A transaction that no registry wrote, in the log of one: it is read whole or refused with
    /// its LSN, each time the same. False if it was refused: nothing can follow.
    pub(super) fn hostile(&mut self, registry: Registry) -> bool {
        let payload = forged(&mut self.input);
        let appended = registry.log().append(Record::new(payload.clone()).kind(TRANSACTION));
        let Ok(lsn) = appended else {
            drop(registry);
            assert!(self.trouble, "a good disk, but {appended:?}");
            // It may be in the log all the same: then nothing is known of it.
            return false;
        };
        drop(registry);
        self.lose_power();
        let decoded = decode_transaction(lsn, &payload);
        match decoded {
            Ok(changes) => {
                let revision = self.revision_of(lsn, &changes);
                apply(&mut self.entries, &changes, revision);
                self.open();
                true
            }
            Err(expected) => {
                for _ in 0..2 {
                    let options = Options::new().segment_bytes(64 << 10);
                    let log = options.open_in(self.disk.dir()).expect("the log is whole");
                    let refused = Registry::on(log).expect_err("half a state");
                    assert_eq!(refused.kind(), expected.kind());
                    assert_eq!(refused.to_string(), expected.to_string());
                    assert!(expected.to_string().contains(&format!("LSN {lsn}")), "{expected}");
                }
                false
            }
        }
    }

    /// Only a registry makes revisions: another one reads the same log and says.
    pub(super) fn revision_of(&mut self, lsn: Lsn, changes: &[Change]) -> Revision {
        let options = Options::new().segment_bytes(64 << 10);
        let log = options.open_in(self.disk.crash(Keep::Nothing).dir()).expect("a good disk");
        let other = Registry::on(log).expect("it was decoded");
        let put = changes.iter().find_map(|change| other.get(change.key()));
        let revision = match put {
            Some(entry) => entry.revision,
            // All deleted: any commit on the copy has the next one; an older one is as good.
            None => other.put(&Key::new("x").expect("a key"), Value::raw(*b"x")).expect("good"),
        };
        assert!(revision.lsn() >= lsn);
        if revision.lsn() == lsn {
            self.revisions.push(revision);
        }
        revision
    }
}

/// The bytes of a transaction by its layout (registry/src/codec.rs), each field open to lies; or
/// any bytes.
pub fn forged(input: &mut Input<'_>) -> Vec<u8> {
    if input.one_in(4) {
        return input.some().to_vec();
    }
    let version: u32 = if input.one_in(8) { input.number() as u32 } else { 0 };
    let count = input.below(4);
    let claimed = if input.one_in(8) { input.number() } else { count as u64 };
    let mut out = version.to_le_bytes().to_vec();
    out.extend_from_slice(&claimed.to_le_bytes());
    for _ in 0..count {
        let delete = input.one_in(3);
        let tag = if input.one_in(16) { input.number() as u32 } else { u32::from(delete) };
        out.extend_from_slice(&tag.to_le_bytes());
        let path = input.pick(&PATHS).as_bytes();
        let key = if input.one_in(4) { input.some() } else { path };
        text(&mut out, key, input);
        if !delete {
            out.push(input.byte());
            let value = input.some();
            text(&mut out, value, input);
        }
    }
    if input.one_in(16) {
        out.extend_from_slice(input.some());
    }
    out
}

fn text(out: &mut Vec<u8>, bytes: &[u8], input: &mut Input<'_>) {
    let len = if input.one_in(16) { input.number() } else { bytes.len() as u64 };
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}
