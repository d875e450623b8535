//! The writer's housekeeping: holds, trims and backups of the log `plain`.
//!
//! Never here: two of these at once. What a log must show after a cut is then one of two states.
//! Next room: [`super::told`].

use annals_wal::{Log, Lsn};

use super::dice::Dice;
use super::mark::{Mark, What};
use super::story;
use super::told::hold_name;
use super::writer::{Done, Session, text};

impl Session<'_> {
    /// Holds, trims and backups, one after the other on one thread.
    pub(super) fn keep_house(&self, log: &Log, backups: &mut u64) -> Done {
        let mut dice = Dice::of(&[self.orders.seed, self.session, 99]);
        for _ in 0..self.orders.rounds / 2 {
            let head = log.head_lsn().get();
            let durable = log.durable_lsn().map_or(head, |lsn| lsn.get().max(head));
            let within = |dice: &mut Dice| head + dice.below(durable - head + 1);
            match dice.below(10) {
                0..2 => self.hold(log, dice.below(3), within(&mut dice))?,
                2..4 => self.hold(log, dice.below(3), 0)?,
                4..8 => self.trim(log, within(&mut dice))?,
                8 => self.backup(log, backups)?,
                // So that trims never stay behind a hold for long.
                _ => (0..3).try_for_each(|number| self.hold(log, number, 0))?,
            }
        }
        Ok(())
    }

    fn hold(&self, log: &Log, number: u64, lsn: u64) -> Done {
        let name = hold_name(number);
        let call = || match Lsn::new(lsn) {
            Some(lsn) => log.set_hold(&name, lsn).map_err(text),
            None => log.release_hold(&name).map_err(text),
        };
        self.marks.around(What::Hold, (30, number, lsn), call, |()| (number, lsn))
    }

    fn trim(&self, log: &Log, lsn: u64) -> Done {
        let call = || log.trim(Lsn::new(lsn).unwrap_or(Lsn::FIRST)).map_err(text);
        self.marks.around(What::Trim, (30, lsn, 0), call, |head| (lsn, head.get())).map(drop)
    }

    fn backup(&self, log: &Log, backups: &mut u64) -> Done {
        if *backups > 0 {
            self.marks.put(Mark::begun(What::Removal, *backups, 0, 0))?;
            let old = self.orders.root.join(story::backup_dir(*backups));
            std::fs::remove_dir_all(old).map_err(text)?;
        }
        *backups += 1;
        let number = *backups;
        let dir = self.dir(&story::backup_dir(number));
        let call = || log.backup_in(dir).map_err(text);
        self.marks
            .around(What::Backup, (number, 0, 0), call, |report| {
                (report.first_lsn.get(), report.last_lsn.map_or(0, Lsn::get))
            })
            .map(drop)
    }
}
