//! Reads a dm-log-writes log: every write, flush and discard that a block device got, in order.
//!
//! The layout is the kernel's (`Documentation/admin-guide/device-mapper/log-writes.rst`), which
//! qemu's `blklogwrites` writes too: a superblock in sector 0 (magic, version, number of entries,
//! sector size), then for each entry one sector {sector, nr_sectors, flags, data_len} and its data,
//! none for a discard. All numbers are little endian.
//! Never here: a guess. A log that ends early or says something unknown is an error.
//! Next room: [`super::cuts`].

const MAGIC: u64 = 0x006A_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
const METADATA: u64 = 16;
const KNOWN: u64 = FLUSH | FUA | DISCARD | MARK | METADATA;

/// One request as it reached the device. Offsets are bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    flags: u64,
    /// Where its data lies in the log.
    data: std::ops::Range<usize>,
}

impl Entry {
    /// Everything completed before this entry is durable. (A flush that carries data flushes
    /// first; its data belong to what comes after.)
    pub(crate) fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// The entry's own data are durable.
    pub(crate) fn is_fua(&self) -> bool {
        self.flags & FUA != 0
    }

    pub(crate) fn is_discard(&self) -> bool {
        self.flags & DISCARD != 0
    }

    /// Whether it changes anything.
    pub(crate) fn writes(&self) -> bool {
        self.len > 0
    }
}

/// A whole log in memory.
pub(crate) struct WriteLog {
    bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

impl WriteLog {
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<WriteLog, String> {
        let head = bytes.get(..32).ok_or("the write log has no superblock")?;
        if word(head, 0) != MAGIC {
            return Err(format!("bad magic {:#x} in the write log", word(head, 0)));
        }
        if word(head, 8) != 1 {
            return Err(format!("write log version {} is unknown", word(head, 8)));
        }
        let count = word(head, 16);
        let sector = word(head, 24) & 0xFFFF_FFFF;
        if !(512..=65536).contains(&sector) || !sector.is_power_of_two() {
            return Err(format!("sector size {sector} in the write log"));
        }
        let mut entries = Vec::new();
        let mut at = sector;
        for n in 0..count {
            let (entry, next) = entry(&bytes, at, sector).map_err(|e| format!("entry {n}: {e}"))?;
            entries.push(entry);
            at = next;
        }
        Ok(WriteLog { bytes, entries })
    }

    pub(crate) fn data(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.data.clone()).unwrap_or(&[])
    }
}

fn entry(bytes: &[u8], at: u64, sector: u64) -> Result<(Entry, u64), String> {
    let start = usize::try_from(at).map_err(|e| e.to_string())?;
    let head = bytes.get(start..start.saturating_add(32)).ok_or("the log ends before it")?;
    let flags = word(head, 16);
    if flags & !KNOWN != 0 {
        return Err(format!("flags {flags:#x} are unknown"));
    }
    let over = || "its size overflows".to_owned();
    let offset = word(head, 0).checked_mul(sector).ok_or_else(over)?;
    let len = word(head, 8).checked_mul(sector).ok_or_else(over)?;
    let carried = match flags & (DISCARD | MARK) {
        0 => len,
        // A mark's text fills the rest of its own sector.
        _ => 0,
    };
    let from = at + sector;
    let to = from.checked_add(carried).ok_or_else(over)?;
    if to > bytes.len() as u64 {
        return Err(format!("its {carried} bytes of data go past the end of the log"));
    }
    let len = if flags & MARK != 0 { 0 } else { len };
    let data = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
    Ok((Entry { offset, len, flags, data }, to))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(from) = bytes.get(at..at + 8) {
        word.copy_from_slice(from);
    }
    u64::from_le_bytes(word)
}

/// Builds logs for tests, and damaged ones.
#[cfg(test)]
pub(crate) mod forge {
    use super::MAGIC;

    pub(crate) struct Forge {
        count: u64,
        body: Vec<u8>,
    }

    impl Forge {
        pub(crate) fn new() -> Forge {
            Forge { count: 0, body: Vec::new() }
        }

        pub(crate) fn entry(mut self, sector: u64, sectors: u64, flags: u64, fill: u8) -> Forge {
            let data = if flags & 4 == 0 { sectors * 512 } else { 0 };
            let mut head = vec![0; 512];
            for (at, word) in [(0, sector), (8, sectors), (16, flags), (24, data)] {
                head[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            self.body.extend(head);
            self.body.extend(vec![fill; data as usize]);
            self.count += 1;
            self
        }

        pub(crate) fn bytes(self) -> Vec<u8> {
            let mut bytes = vec![0; 512];
            for (at, word) in [(0, MAGIC), (8, 1), (16, self.count), (24, 512)] {
                bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
            }
            bytes.extend(self.body);
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::forge::Forge;
    use super::*;

    #[test]
    fn entries_come_back_with_their_data_and_flags() {
        let bytes =
            Forge::new().entry(8, 2, 0, 7).entry(0, 0, 1, 0).entry(64, 128, 4, 0).entry(3, 1, 2, 9);
        let log = WriteLog::parse(bytes.bytes()).unwrap();
        let [write, flush, discard, fua] = &log.entries[..] else { panic!("{:?}", log.entries) };
        assert_eq!((write.offset, write.len, log.data(write)), (4096, 1024, &[7; 1024][..]));
        assert!(!write.is_flush() && !write.is_fua() && !write.is_discard() && write.writes());
        assert!(flush.is_flush() && !flush.writes());
        assert!(discard.is_discard() && discard.len == 128 * 512 && log.data(discard).is_empty());
        assert!(fua.is_fua() && log.data(fua) == [9; 512]);
    }

    #[test]
    fn a_log_that_is_cut_forged_or_foreign_is_an_error() {
        let whole = Forge::new().entry(8, 2, 0, 7).entry(0, 0, 1, 0).bytes();
        for len in 0..whole.len() {
            assert!(WriteLog::parse(whole[..len].to_vec()).is_err(), "cut at {len}");
        }
        for (at, byte) in [(0, 1), (8, 2), (24, 1), (512 + 16, 0x80), (512 + 15, 0xFF)] {
            let mut bad = whole.clone();
            bad[at] = byte;
            assert!(WriteLog::parse(bad).is_err(), "byte {at}");
        }
    }
}
