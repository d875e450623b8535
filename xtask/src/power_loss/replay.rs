//! Cuts the power, again and again: builds the disk of each cut, mounts it, has the logs judged.
//!
//! Cuts are made in the order of their places, so that the durable part of the image only grows;
//! what a cut keeps of its open epoch is laid over it and taken back afterwards.
//! Never here: a judgement on logs ([`super::oracle`]). Next room: [`super::report`].

use std::fs::OpenOptions;
use std::path::Path;

use super::cuts::{Cut, apply_all, apply_open, open_epoch, open_writes};
use super::file_system::Fs;
use super::image::Image;
use super::mark::Mark;
use super::oracle::{Judge, Met};
use super::record::Recording;
use super::report::Tally;
use super::rig::{Loop, Mounted, Res, Scratch, Stop};
use super::told::Told;

pub(crate) struct Replay<'a> {
    pub(crate) fs: Fs,
    pub(crate) recording: &'a Recording,
    /// Seed of the cuts.
    pub(crate) seed: u64,
    pub(crate) stop: &'a Stop,
}

/// A cut that showed something wrong.
pub(crate) struct Violation {
    pub(crate) cut: Cut,
    pub(crate) problems: Vec<String>,
}

impl Replay<'_> {
    /// Makes the cuts of these numbers, with a disk and a mount of this job's own.
    /// `on_violation` says whether to go on; the disk of the cut, as it was when the power had
    /// gone, is then made anew at the path it gets.
    pub(crate) fn cuts(
        &self,
        job: usize,
        numbers: impl Iterator<Item = u64>,
        scratch: &Scratch,
        tally: &mut Tally,
        mut on_violation: impl FnMut(&Violation, &Path) -> bool,
    ) -> Res<()> {
        let log = &self.recording.log;
        let area = self.fs.bytes();
        let pick = |number| Cut::pick(log, self.recording.first, area, self.seed, number);
        let mut cuts: Vec<Cut> = numbers.map(pick).collect();
        cuts.sort_by_key(|cut| cut.position);

        let path = scratch.file(&format!("disk-{job}.img"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let disk = options.open(&path).map_err(|e| e.to_string())?;
        disk.set_len(area).map_err(|e| e.to_string())?;
        let device = Loop::attach(&path, area)?;
        let target = scratch.dir(&format!("cut-{job}"))?;

        let mut image = Image::new(self.recording.base.clone());
        let (mut durable, mut heard) = (0, 0);
        let mut told = Told::new();
        self.recording.before.iter().for_each(|mark| told.hear(*mark));
        for cut in cuts {
            self.stop.check()?;
            let open = open_epoch(log, cut.position);
            apply_all(log, durable..open.start.max(durable), &mut image);
            durable = durable.max(open.start);
            while let Some((at, mark)) = self.recording.marks.get(heard) {
                if *at >= cut.position {
                    break;
                }
                told.hear(*mark);
                heard += 1;
            }
            image.mark();
            let whole = |place: u64, data: &[u8]| self.fs.whole(place, data);
            apply_open(log, &cut, &whole, &mut image);
            let written = image.write_to(&disk).map_err(|e| e.to_string());
            let writes = open_writes(log, cut.position, area);
            let judged = written.and_then(|()| self.judge(&told, device.device(), &target))?;
            let (problems, met) = judged;
            tally.add(&cut, writes, told.acknowledged(), &met, problems.is_empty());
            let mut goes_on = true;
            if !problems.is_empty() {
                image.write_to(&disk).map_err(|e| e.to_string())?;
                goes_on = on_violation(&Violation { cut, problems }, &path);
            }
            image.undo();
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Makes the disk of one cut; returns the marks before it.
    pub(crate) fn disk(&self, number: u64, path: &Path) -> Res<(Cut, Vec<Mark>)> {
        let log = &self.recording.log;
        let cut = Cut::pick(log, self.recording.first, self.fs.bytes(), self.seed, number);
        let mut image = Image::new(self.recording.base.clone());
        apply_all(log, 0..open_epoch(log, cut.position).start, &mut image);
        let whole = |place: u64, data: &[u8]| self.fs.whole(place, data);
        apply_open(log, &cut, &whole, &mut image);
        let file = std::fs::File::create(path).map_err(|e| e.to_string())?;
        image.write_to(&file).map_err(|e| e.to_string())?;
        let before = self.recording.marks.iter().take_while(|(at, _)| *at < cut.position);
        let before = before.map(|(_, mark)| *mark);
        Ok((cut.clone(), self.recording.before.iter().copied().chain(before).collect()))
    }

    fn judge(&self, told: &Told, device: &Path, target: &Path) -> Res<(Vec<String>, Met)> {
        // Two replays of one recording are two file systems of one name, which xfs refuses.
        let options = if self.fs == Fs::Xfs { "nouuid" } else { "" };
        let mounted = match Mounted::mount(device, target, self.fs, options) {
            Ok(mounted) => mounted,
            Err(e) => {
                let met = Met { unmountable: true, ..Met::default() };
                return Ok((vec![format!("the file system: {e}")], met));
            }
        };
        let mut judge = Judge::new(told, self.recording.seed);
        judge.judge(target);
        let Judge { problems, met, .. } = judge;
        mounted.unmount()?;
        Ok((problems, met))
    }
}
