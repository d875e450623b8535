//! One segment of any bytes, three ways: raw, with its checksums mended, written by a program of
//! choices. The walk ends, the survey's kept part depends on nothing behind it, memory follows the
//! file, and inspector, recovery table and opening say the same of it.

use std::sync::Arc;

use annals_wal::Window;
use annals_wal::format::{self, FRAMES_START, OwnBody, SegmentHeader};
use annals_wal::fs::mem::MemDir;
use annals_wal::fs::{Access, Dir};
use annals_wal::scan::{Source, Step, Walker};
use annals_wal::survey::Survey;

use crate::directory;
use crate::forge::{Forge, State};
use crate::input::Input;
use crate::memory::measured;
use crate::mend;

/// The body of the target `scan`. The first byte says how the rest is read, the second where the
/// file is cut.
pub fn scan(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else { return };
    let (file, header) = match mode & 3 {
        2 | 3 => forged(rest),
        mode => {
            let mut file = rest.to_vec();
            let header = mend::mend_header(&mut file, 1);
            if mode == 1 {
                mend::mend_frames(&mut file, &header);
            }
            (file, header)
        }
    };
    let (steps, used) = measured(|| walk(&file, &header));
    assert!(used.peak <= 4096, "the walk of a slice keeps nothing: {used:?}");
    let (survey, used) = measured(|| of(file.as_slice(), &header));
    let room = 16 * file.len() + (64 << 10);
    assert!(used.peak <= room, "{used:?} for a file of {}", file.len());
    assert!(steps >= survey.damages.len(), "no damage without a step");
    let kept = (survey.kept.end, survey.kept.records, survey.kept.last_lsn);
    assert_eq!(kept, whole_batches(&file, &header), "end, records, last LSN");
    kept_stays_kept(&file, &header, &survey, usize::from(mode >> 2));
    let disk = MemDir::new(1);
    disk.make().expect("memory does not fail");
    let name = format::segment_name(header.sequence);
    disk.create(&name).expect("memory does not fail");
    disk.set_bytes(&name, file);
    same_through_a_window(&disk, &name, &header, &survey);
    directory::agree(&disk);
}

fn forged(rest: &[u8]) -> (Vec<u8>, SegmentHeader) {
    let mut input = Input::new(rest);
    let mut state = State::default();
    let forge = Forge::new(&mut input, &mut state);
    let header = forge.header;
    (forge.write(&mut input), header)
}

fn of(source: impl Source, header: &SegmentHeader) -> Survey {
    Survey::of(source, header).expect("memory does not fail")
}

/// Every step moves forward and stays inside the file. Returns how many there were.
fn walk(file: &[u8], header: &SegmentHeader) -> usize {
    let mut walker = Walker::new(file, header);
    let (mut steps, mut at) = (0usize, 0);
    while let Some(step) = walker.step().expect("memory does not fail") {
        steps += 1;
        assert!(steps <= file.len() / 8 + 2, "more steps than places");
        match step {
            Step::Frame(frame) => {
                assert!(frame.offset >= at && frame.offset < file.len() as u64);
                at = frame.offset + 8;
                if frame.trouble.is_none() {
                    let payload = walker.payload(&frame).expect("a sound frame has its payload");
                    assert_eq!(format::crc32(payload), frame.header.payload_crc);
                }
            }
            Step::Unreadable { from, to, .. } | Step::Zeros { from, to } => {
                assert!(from >= at && to >= from);
                at = to;
            }
        }
    }
    steps
}

/// End, records and last LSN of the whole batches before the first trouble: what a survey keeps,
/// counted without one.
fn whole_batches(file: &[u8], header: &SegmentHeader) -> (u64, u64, u64) {
    let mut walker = Walker::new(file, header);
    let (mut whole, mut records) = ((FRAMES_START, 0, 0), 0);
    while let Some(Step::Frame(frame)) = walker.step().expect("memory does not fail") {
        let own = frame.header.is_own();
        let known = frame.header.kind < format::OWN_KIND_IGNORABLE;
        let payload = if frame.trouble.is_none() { walker.payload(&frame).ok() } else { None };
        let Some(payload) = payload else { break };
        if own && known && OwnBody::decode(payload).is_err() {
            break;
        }
        records += u64::from(!own);
        if own || !frame.header.goes_on() {
            whole = (frame.end(), records, frame.header.lsn);
        }
    }
    whole
}

/// What a survey says of the part that it keeps.
fn essence(survey: &Survey) -> impl PartialEq + std::fmt::Debug + use<> {
    let kept = &survey.kept;
    let own: Vec<_> = survey.own.iter().map(|own| (own.offset, own.kind, own.lsn)).collect();
    let counts = (kept.end, kept.records, kept.payload_bytes, kept.last_lsn, kept.first_lsn);
    (counts, kept.last_own_kind, kept.digest(), own)
}

/// The kept part is the same when everything behind it is gone, or zero, and then it is all there
/// is. A cut inside it keeps a part of it.
fn kept_stays_kept(file: &[u8], header: &SegmentHeader, survey: &Survey, cut: usize) {
    let end = survey.kept.end as usize;
    assert!(end <= file.len().max(FRAMES_START as usize));
    let damaged = survey.damages.iter().map(|damage| damage.from).min();
    assert!(damaged.is_none_or(|from| from >= survey.kept.end), "damage in the kept part");
    let kept = &file[..end.min(file.len())];
    let without = of(kept, header);
    assert!(without.damages.is_empty(), "{:?}", without.damages);
    assert_eq!(essence(&without), essence(survey));
    let mut zeros = kept.to_vec();
    zeros.resize(file.len() + 64, 0);
    let with_zeros = of(zeros.as_slice(), header);
    assert_eq!(essence(&with_zeros), essence(survey));
    assert!(with_zeros.damages.is_empty(), "{:?}", with_zeros.damages);
    let cut = kept.len() * cut / 63;
    let less = of(&kept[..cut], header);
    assert!(less.kept.end <= FRAMES_START.max(cut as u64) && less.kept.end <= survey.kept.end);
    assert!(less.kept.records <= survey.kept.records);
    let own = less.own.iter().zip(&survey.own);
    assert!(less.own.len() <= survey.own.len() && own.into_iter().all(|(a, b)| a == b));
}

/// A window that reads ahead sees what a slice sees.
fn same_through_a_window(disk: &MemDir, name: &str, header: &SegmentHeader, survey: &Survey) {
    let file: Arc<dyn annals_wal::fs::File> =
        disk.open(name, Access::Read).expect("memory does not fail");
    let through = of(Window::new(file).expect("memory does not fail"), header);
    assert_eq!(essence(&through), essence(survey));
    assert_eq!(through.damages, survey.damages);
    assert_eq!((through.witness, through.highest_lsn), (survey.witness, survey.highest_lsn));
}
