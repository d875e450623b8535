//! A FIFO, a link, a directory or a device in the place of a log's file: every reading verb says so and
//! ends. A verb that waits is killed and is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use annals_observer::{JsonText, Observer};
use annals_wal::Options;

use common::{contents, segment, text};

/// Nothing that a verb does here takes a hundredth of it.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Runs a verb to its end: exit code and what it printed. One that does not end is killed.
fn run(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (ended, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            text
        });
        let mut text = Vec::new();
        out.read_to_end(&mut text).unwrap();
        text.extend(errors.join().unwrap());
        let _ = ended.send(());
        String::from_utf8(text).unwrap()
    });
    let hangs = told.recv_timeout(TOO_LONG).is_err();
    if hangs {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let printed = reader.join().unwrap();
    assert!(!hangs, "{args:?} did not end: {printed}");
    (status.code().unwrap_or(-1), printed)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Odd {
    Fifo,
    /// To a whole copy of the file.
    Link,
    /// To a file that never ends.
    Device,
    Directory,
}

fn put(odd: Odd, at: &Path, copy: &Path) {
    match odd {
        Odd::Fifo => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        Odd::Link => symlink(copy, at).unwrap(),
        Odd::Device => symlink("/dev/zero", at).unwrap(),
        Odd::Directory => fs::create_dir(at).unwrap(),
    }
}

#[test]
fn an_odd_file_in_a_files_place_is_an_error_and_nothing_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (log, archive) = (path("log"), path("archive"));
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    let observer = Observer::on(made.clone()).unwrap();
    for n in 0..40 {
        let call = observer.session("s-1").unwrap().tool("search").by_agent("planner");
        let call = call.input(JsonText::string(&format!("query {n} ").repeat(300)));
        call.start().unwrap().end_ok(JsonText::string("ok")).unwrap();
    }
    observer.shutdown().unwrap();
    drop(observer);
    made.close().unwrap();
    assert_eq!(run(&["registry", "put", text(&log), "a", "1"]).0, 0);
    assert_eq!(run(&["archive", text(&log), "--to", text(&archive)]).0, 0);
    let last = common::last_used(&log);
    let (first, last) = (segment(&log, 1), segment(&log, last));
    let named = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let cases = [
        (&log, "CONTROL".to_owned()),
        (&log, named(&first)),
        (&log, named(&last)),
        // Where there was none: a link there may lead to anybody's mark.
        (&log, "ARCHIVE".to_owned()),
        (&archive, "ARCHIVE".to_owned()),
        (&archive, named(&first)),
    ];
    let (mut runs, mut new, mut wrong) = (0, 0, Vec::new());
    for (dir, name) in cases {
        for odd in [Odd::Fifo, Odd::Link, Odd::Device, Odd::Directory] {
            let (at, aside) = (dir.join(&name), path("aside"));
            let was_there = at.exists();
            if was_there {
                fs::rename(&at, &aside).unwrap();
            } else {
                fs::copy(archive.join("ARCHIVE"), &aside).unwrap();
            }
            put(odd, &at, &aside);
            new += 1;
            let (to, report) = (path(&format!("to-{new}")), path(&format!("report-{new}")));
            let dir = text(dir);
            let reading: &[&[&str]] = &[
                &["inspect", dir],
                &["inspect", dir, "--deep", "--hex", "--map", "--format", "json"],
                &["verify", dir],
                &["cat", dir],
                &["tail", dir],
                &["tail", dir, "-f", "--idle", "1"],
                &["stats", dir],
                &["timeline", dir],
                &["export", dir, "--format", "jsonl"],
                &["backup", dir, "--to", text(&to), "--dry-run"],
                &["registry", "get", dir, "a"],
                &["registry", "list", dir],
                &["registry", "history", dir, "a"],
                &["registry", "export", dir],
                &["registry", "watch", dir, "--once"],
            ];
            // What looks behind damage may go on without the file.
            let rescuing: &[&[&str]] = &[
                &["salvage", dir, "--dry-run"],
                &["salvage", dir, "--to", text(&to)],
                &["diff", dir, dir],
                &["bundle", dir, "--to", text(&report)],
            ];
            for (verbs, may_go_on) in [(reading, false), (rescuing, true)] {
                for verb in verbs {
                    let (code, said) = run(verb);
                    let what = format!("{odd:?} as {name}: {verb:?}: {code} {said}");
                    assert!(!said.contains("panicked") && (0..=7).contains(&code), "{what}");
                    if code == 0 && !may_go_on {
                        wrong.push(what);
                    }
                    runs += 1;
                }
            }
            if odd == Odd::Directory {
                fs::remove_dir(&at).unwrap();
            } else {
                fs::remove_file(&at).unwrap();
            }
            if was_there {
                fs::rename(&aside, &at).unwrap();
            }
        }
    }
    // All of it as before: nothing was written through a link or beside it.
    assert_eq!(run(&["verify", text(&log)]).0, 0);
    assert_eq!(run(&["verify", text(&archive)]).0, 0);
    assert!(contents(&log).len() > 3);
    assert!(wrong.is_empty(), "{} of {runs} runs:\n{}", wrong.len(), wrong.join("\n"));
    println!("{runs} runs");
}
