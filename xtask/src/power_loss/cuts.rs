//! Where the power goes, and what the disk then has. Pure: a log of writes and dice go in.
//!
//! The model of the disk: requests complete in the order of the log. A FLUSH makes everything
//! completed before it durable; a FUA write is durable by itself. Of the *open epoch*, what came
//! after the last FLUSH before the cut, the disk keeps nothing, all, some requests, or some sectors
//! of some requests, whatever their order; of two writes to one sector that were both kept the
//! later stands. Nothing after the cut exists.
//! Never here: I/O. Next room: [`super::replay`].

use std::ops::Range;

use super::dice::Dice;
use super::image::Image;
use super::logwrites::{Entry, WriteLog};

/// What a disk writes whole or not at all; a sector-torn write is torn at these.
const SECTOR: u64 = 512;

/// Of a place and the data from there on: how many bytes are written whole or not at all, if that
/// is not one sector.
type Whole<'a> = &'a dyn Fn(u64, &[u8]) -> Option<u64>;

/// What is kept of the open epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mode {
    Nothing,
    Everything,
    Requests,
    Sectors,
}

/// One power cut. Everything about it follows from the log, the seed and its number.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) number: u64,
    /// Entries below this were completed.
    pub(crate) position: usize,
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
}

impl Cut {
    /// The cut of this number, at or after entry `first`. Right behind a FLUSH all modes are one,
    /// so of several places most cuts take the one with the most requests open.
    pub(crate) fn pick(log: &WriteLog, first: usize, area: u64, seed: u64, number: u64) -> Cut {
        let mut dice = Dice::of(&[seed, number]);
        let looks = [1, 4, 16][dice.index(3)];
        let places = log.entries.len() + 1 - first;
        let looked_at = (0..looks).map(|_| first + dice.index(places));
        let position = looked_at.max_by_key(|at| open_writes(log, *at, area)).unwrap_or(first);
        let mode = match dice.below(100) {
            0..15 => Mode::Nothing,
            15..35 => Mode::Everything,
            35..65 => Mode::Requests,
            _ => Mode::Sectors,
        };
        Cut { number, position, mode, seed: dice.next() }
    }
}

/// The entries after the last FLUSH before `position`. What lies before the range is durable.
pub(crate) fn open_epoch(log: &WriteLog, position: usize) -> Range<usize> {
    let done = &log.entries[..position];
    let start = match done.iter().rposition(Entry::is_flush) {
        // The flush comes before its own data.
        Some(flush) if done[flush].writes() => flush,
        Some(flush) => flush + 1,
        None => 0,
    };
    start..position
}

/// How many requests of the open epoch change the first `area` bytes and are not durable.
pub(crate) fn open_writes(log: &WriteLog, position: usize, area: u64) -> usize {
    let open = &log.entries[open_epoch(log, position)];
    open.iter().filter(|e| e.writes() && e.offset < area && !e.is_fua()).count()
}

/// Applies what is durable for good.
pub(crate) fn apply_all(log: &WriteLog, entries: Range<usize>, image: &mut Image) {
    for entry in &log.entries[entries] {
        apply_part(log, entry, 0..entry.len, image);
    }
}

/// Applies what this cut keeps of the open epoch. `whole` says, by place and content,
/// how many bytes there are never torn.
pub(crate) fn apply_open(log: &WriteLog, cut: &Cut, whole: Whole<'_>, image: &mut Image) {
    let mut dice = Dice::new(cut.seed);
    for entry in &log.entries[open_epoch(log, cut.position)] {
        let keep = dice.percent(50);
        match cut.mode {
            _ if entry.is_fua() => apply_part(log, entry, 0..entry.len, image),
            Mode::Nothing => {}
            Mode::Everything => apply_part(log, entry, 0..entry.len, image),
            Mode::Requests if keep => apply_part(log, entry, 0..entry.len, image),
            Mode::Requests => {}
            Mode::Sectors => {
                // A third kept, a third lost, a third torn.
                match dice.below(3) {
                    0 => apply_part(log, entry, 0..entry.len, image),
                    1 => {}
                    _ => {
                        for part in sectors(log, entry, whole) {
                            if dice.percent(50) {
                                apply_part(log, entry, part, image);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The entry in parts of one sector, relative to its start; what is whole stays one part.
fn sectors(log: &WriteLog, entry: &Entry, whole: Whole<'_>) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < entry.len {
        let place = entry.offset + at;
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let data = log.data(entry).get(from..).unwrap_or(&[]);
        let end = (at + whole(place, data).unwrap_or(SECTOR)).min(entry.len);
        parts.push(at..end);
        at = end;
    }
    parts
}

fn apply_part(log: &WriteLog, entry: &Entry, part: Range<u64>, image: &mut Image) {
    if entry.is_discard() {
        image.zero(entry.offset + part.start, part.end - part.start);
        return;
    }
    let range = usize::try_from(part.start).unwrap_or(0)..usize::try_from(part.end).unwrap_or(0);
    if let Some(data) = log.data(entry).get(range) {
        image.write(entry.offset + part.start, data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::logwrites::forge::Forge;
    use super::*;

    /// Sectors: 0 durable, then open: 1 and 2 in one request, 3 with FUA, 0 again, 4 discarded.
    fn log() -> WriteLog {
        let forge = Forge::new().entry(0, 1, 0, 1).entry(0, 0, 1, 0).entry(1, 2, 0, 2);
        WriteLog::parse(forge.entry(3, 1, 2, 3).entry(0, 1, 0, 4).entry(4, 1, 4, 0).bytes())
            .unwrap()
    }

    fn kept(mode: Mode, position: usize, seed: u64) -> Vec<u8> {
        let log = log();
        let cut = Cut { number: 0, position, mode, seed };
        let mut image = Image::new(vec![9; 5 * 512]);
        apply_all(&log, 0..open_epoch(&log, position).start, &mut image);
        apply_open(&log, &cut, &|_, _| None, &mut image);
        image.bytes().chunks(512).map(|sector| sector[0]).collect()
    }

    #[test]
    fn a_flush_ends_an_epoch_and_covers_only_what_came_before() {
        let log = log();
        assert_eq!(open_epoch(&log, 0), 0..0);
        assert_eq!(open_epoch(&log, 1), 0..1);
        assert_eq!(open_epoch(&log, 2), 2..2);
        assert_eq!(open_epoch(&log, 6), 2..6);
        assert_eq!(open_writes(&log, 6, 5 * 512), 3);
        assert_eq!(open_writes(&log, 6, 512), 1); // the others lie past the file system
        let carries = Forge::new().entry(0, 1, 0, 1).entry(1, 1, 1, 2).bytes();
        assert_eq!(open_epoch(&WriteLog::parse(carries).unwrap(), 2), 1..2);
    }

    #[test]
    fn durable_and_fua_stay_and_nothing_after_the_cut_exists() {
        assert_eq!(kept(Mode::Nothing, 1, 0), [9, 9, 9, 9, 9]);
        assert_eq!(kept(Mode::Nothing, 2, 0), [1, 9, 9, 9, 9]);
        assert_eq!(kept(Mode::Nothing, 6, 0), [1, 9, 9, 3, 9]);
        assert_eq!(kept(Mode::Everything, 3, 0), [1, 2, 2, 9, 9]);
        assert_eq!(kept(Mode::Everything, 6, 0), [4, 2, 2, 3, 0]);
    }

    #[test]
    fn subsets_keep_requests_whole_and_tears_do_not() {
        let all = |mode| {
            let seen = (0..300).map(|seed| kept(mode, 6, seed));
            seen.collect::<std::collections::BTreeSet<_>>()
        };
        let (requests, sectors) = (all(Mode::Requests), all(Mode::Sectors));
        assert_eq!((requests.len(), sectors.len()), (8, 16)); // 2^3 requests, 2^4 sectors
        assert!(requests.iter().all(|image| image[1] == image[2] && image[3] == 3));
        assert!(sectors.iter().any(|image| image[1] != image[2]));
        assert!(sectors.iter().all(|image| image[3] == 3));
    }

    #[test]
    fn what_must_be_whole_is_never_torn() {
        let log = WriteLog::parse(Forge::new().entry(7, 17, 0, 2).bytes()).unwrap();
        let mut torn = 0;
        for seed in 0..100 {
            let cut = Cut { number: 0, position: 1, mode: Mode::Sectors, seed };
            let mut image = Image::new(vec![9; 24 * 512]);
            apply_open(
                &log,
                &cut,
                &|place, data| (place == 4096 && data[0] == 2).then_some(4096),
                &mut image,
            );
            let is_torn = |range: Range<usize>| {
                let inside = &image.bytes()[range];
                inside.iter().any(|byte| *byte != inside[0])
            };
            assert!(!is_torn(4096..8192), "seed {seed}");
            torn += usize::from(is_torn(8192..12288));
        }
        assert!(torn > 10, "{torn}");
    }

    #[test]
    fn a_cut_follows_from_seed_and_number_and_lies_behind_the_start() {
        let log = log();
        for number in 0..200 {
            let cut = Cut::pick(&log, 2, 5 * 512, 7, number);
            let again = Cut::pick(&log, 2, 5 * 512, 7, number);
            assert_eq!(format!("{cut:?}"), format!("{again:?}"));
            assert!((2..=6).contains(&cut.position), "{cut:?}");
        }
        let modes = (0..200).map(|n| Cut::pick(&log, 2, 5 * 512, 7, n).mode);
        assert_eq!(modes.collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
