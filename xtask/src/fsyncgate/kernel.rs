//! What the kernel does when a sync fails: seen, not judged.
//!
//! A file full of old bytes is synced; new bytes are written over a page of it; then one write, or
//! one flush, of the disk fails under an fdatasync. Next room: [`super::log`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::device::{Device, Fault, forget_pages};
use crate::power_loss::file_system::Fs;
use crate::power_loss::rig::{Res, wait_for};

const OLD: u8 = b'o';
const NEW: u8 = b'n';
const PAGE: u64 = 8192;

/// One line of the table.
pub(crate) struct Seen {
    pub(crate) fs: Fs,
    pub(crate) fault: Fault,
    /// Whether the kernel's own write-back met the error before anyone called a sync.
    pub(crate) early: bool,
    pub(crate) columns: [String; 9],
}

pub(crate) const COLUMNS: [&str; 9] = [
    "fd opened unseen",
    "1st fdatasync",
    "2nd, same fd",
    "opened before",
    "opened after",
    "cached",
    "pages dropped",
    "write+sync again",
    "remounted",
];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(crate) fn observe(fs: Fs, fault: Fault, early: bool) -> Res<Seen> {
    let mut device = Device::new(fs)?;
    let path = device.root().join("file");
    let file = File::create(&path).map_err(text)?;
    file.write_all_at(&[OLD; 65_536], 0).and_then(|()| file.sync_all()).map_err(text)?;
    drop(file);
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let first = open().map_err(text)?;
    let before = open().map_err(text)?;
    device.arm(fault)?;
    first.write_all_at(&[NEW; 4096], PAGE).map_err(text)?;
    let mut zero = "-".to_owned();
    if early {
        // As the flusher thread does it: the page is written, and nobody is there to be told. The
        // advice starts that, and lets go of the page once it is over.
        wait_for("the kernel's own write-back", || {
            forget_pages(&path).is_ok() && content(&path) == "OLD"
        })?;
        zero = word(open().and_then(|unseen| unseen.sync_data()));
    }
    let one = word(first.sync_data());
    let two = word(first.sync_data());
    let three = word(before.sync_data());
    let four = word(open().and_then(|after| after.sync_data()));
    let cached = content(&path);
    device.disarm()?;
    forget_pages(&path)?;
    let dropped = content(&path);
    let again = word(open().and_then(|file| {
        file.write_all_at(&[NEW; 4096], PAGE)?;
        file.sync_data()
    }));
    drop((first, before));
    let remounted = match device.remount() {
        Ok(()) => content(&path),
        Err(e) => e,
    };
    let columns = [zero, one, two, three, four, cached, dropped, again, remounted];
    Ok(Seen { fs, fault, early, columns })
}

fn word(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(e) => match e.raw_os_error() {
            Some(5) => "EIO".into(),
            Some(30) => "EROFS".into(),
            Some(117) => "EUCLEAN".into(),
            _ => e.to_string(),
        },
    }
}

fn content(path: &Path) -> String {
    let mut page = [0; 4096];
    match File::open(path).and_then(|file| file.read_exact_at(&mut page, PAGE)) {
        Err(e) => word(Err(e)),
        Ok(()) if page == [OLD; 4096] => "OLD".into(),
        Ok(()) if page == [NEW; 4096] => "NEW".into(),
        Ok(()) => "mixed".into(),
    }
}
