//! A dry run says what the real run would do, and where that would be refused it is refused, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::fs;
use std::path::Path;

use annals_wal::Options;

use common::{code, contents, segment, stderr, stdout, text, wal};

/// Three sealed segments and an active one.
fn log(path: &Path) {
    let log = Options::new().segment_bytes(64 << 10).open(path).unwrap();
    while log.stats().rotations < 3 {
        log.append("a text ".repeat(300)).unwrap();
    }
    log.close().unwrap();
}

/// The exit codes of both, and what the dry one said. It comes first, and writes nothing.
fn both(args: &[&str], dir: &Path) -> ([i32; 2], String) {
    let before = contents(dir);
    let dry = wal(&[args, &["--dry-run"]].concat());
    assert!(contents(dir) == before, "{args:?}: a dry run wrote");
    let real = wal(args);
    ([code(&dry), code(&real)], stdout(&dry) + &stderr(&dry))
}

#[test]
fn a_dry_run_of_what_is_refused_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (dir, archive) = (home.path().join("log"), home.path().join("archive"));
    log(&dir);
    assert_eq!(code(&wal(&["archive", text(&dir), "--to", text(&archive), "--copy"])), 0);
    fs::remove_file(segment(&dir, 2)).unwrap();
    for (dir, expected) in [(&archive, 1), (&dir, 4)] {
        let to = home.path().join("new");
        for args in [
            &["trim", text(dir), "--before", "40"] as &[&str],
            &["backup", text(dir), "--to", text(&to)],
        ] {
            let (codes, said) = both(args, dir);
            assert_eq!(codes, [expected; 2], "{args:?}: {said}");
            assert!(!said.contains("would"), "{args:?}: {said}");
            assert!(!to.exists(), "{args:?}");
        }
    }
}

#[test]
fn a_dry_run_of_what_is_done_says_so() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    log(&dir);
    let to = home.path().join("new");
    let (codes, said) = both(&["backup", text(&dir), "--to", text(&to)], &dir);
    assert_eq!(codes, [0; 2], "{said}");
    assert!(said.contains("would copy") && to.exists(), "{said}");
    let (codes, said) = both(&["trim", text(&dir), "--before", "40"], &dir);
    assert_eq!(codes, [0; 2], "{said}");
    assert!(said.contains("would trim") && !segment(&dir, 1).exists(), "{said}");
}
