//! What every test of the tool does: run it, and look at a directory.

#![allow(dead_code, reason = "each test file is a crate of its own and uses some of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs the tool.
pub(crate) fn wal(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every file with its bytes.
pub(crate) fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

pub(crate) fn segment(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:020}.wal"))
}

/// The number of the last segment that is no spare: those have a header and zeros.
pub(crate) fn last_used(dir: &Path) -> u64 {
    let used = |bytes: &Vec<u8>| bytes[128..].iter().any(|byte| *byte != 0);
    let segments = contents(dir).into_iter().filter(|(name, _)| name.ends_with(".wal"));
    segments.filter(|(_, bytes)| used(bytes)).count() as u64
}
