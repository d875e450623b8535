//! Each class of damage: its golden JSON and exit code, the committed schema, and that no reading verb
//! changes a byte, also beside a living writer.
//!
//! `UPDATE_GOLDEN=1 cargo test -p annals-cli --test damage` writes the goldens anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use annals_wal::{Log, Options};
use serde_json::Value;

use common::{contents, last_used, segment, text, wal};

/// Four segments and a little of a fifth; the same payloads each time.
fn log(path: &Path) {
    let log = Options::new().segment_bytes(64 << 10).open(path).unwrap();
    for n in 0..100u32 {
        log.append(format!("record {n} ").repeat(200)).unwrap();
    }
    log.prepare_ahead().unwrap();
    log.close().unwrap();
}

fn patch(file: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn used_end(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

type Harm = fn(&Path);

/// Name of the golden, whether in a copy, what is done, exit code.
const CASES: [(&str, bool, Harm, i32); 12] = [
    (
        "torn_tail",
        true,
        |dir| {
            let file = segment(dir, last_used(dir));
            let end = used_end(&file) - 500;
            OpenOptions::new().write(true).open(file).unwrap().set_len(end).unwrap();
        },
        3,
    ),
    (
        "lost_tail",
        false,
        |dir| {
            let file = segment(dir, last_used(dir));
            let end = used_end(&file) - 500;
            OpenOptions::new().write(true).open(file).unwrap().set_len(end).unwrap();
        },
        4,
    ),
    (
        "lost_tail_sealed",
        true,
        |dir| {
            OpenOptions::new().write(true).open(segment(dir, 2)).unwrap().set_len(20_000).unwrap();
        },
        4,
    ),
    (
        "bit_rot",
        true,
        |dir| {
            let byte = fs::read(segment(dir, 1)).unwrap()[30_000];
            patch(&segment(dir, 1), 30_000, &[byte ^ 8]);
        },
        4,
    ),
    (
        "bit_rot_header",
        true,
        |dir| {
            let byte = fs::read(segment(dir, 2)).unwrap()[45];
            patch(&segment(dir, 2), 45, &[byte ^ 8]);
        },
        4,
    ),
    ("zeroed_range", true, |dir| patch(&segment(dir, 2), 8192, &[0; 4096]), 4),
    (
        "foreign_bytes",
        true,
        |dir| {
            let other = fs::read(segment(dir, 3)).unwrap();
            patch(&segment(dir, 1), 4096, &other[4096..12_288]);
        },
        4,
    ),
    ("gap", true, |dir| fs::remove_file(segment(dir, 3)).unwrap(), 4),
    ("gap_at_the_end", false, |dir| fs::remove_file(segment(dir, last_used(dir))).unwrap(), 4),
    (
        "overlap",
        true,
        |dir| {
            fs::copy(segment(dir, 1), segment(dir, 9)).unwrap();
        },
        4,
    ),
    ("overlap_renamed", true, |dir| fs::rename(segment(dir, 2), segment(dir, 9)).unwrap(), 4),
    (
        "unsupported",
        true,
        |dir| {
            let mut head = fs::read(segment(dir, 2)).unwrap()[..128].to_vec();
            head[8] = 9;
            let crc = annals_wal::format::crc32(&head[..124]).to_le_bytes();
            head[124..].copy_from_slice(&crc);
            patch(&segment(dir, 2), 0, &head);
        },
        5,
    ),
];

#[test]
fn every_class_has_its_golden_its_exit_code_and_its_schema() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = fs::read_to_string(here.join("schema/inspect.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (name, in_copy, harm, code) in CASES {
        let home = tempfile::tempdir().unwrap();
        let made = home.path().join("made");
        log(&made);
        let dir = if in_copy { home.path().join("log") } else { made.clone() };
        if in_copy {
            copy(&made, &dir);
        }
        harm(&dir);
        let output = wal(&["verify", text(&dir), "--format", "json"]);
        assert_eq!(output.status.code(), Some(code), "{name}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let value: Value = serde_json::from_str(&printed).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let mut broken = value.clone();
        broken["findings"][0]["class"] = "rust".into();
        assert!(!schema.is_valid(&broken), "{name}: the schema takes anything");
        // Ids and times are each log's own; findings are not.
        let findings = serde_json::to_string_pretty(&value["findings"]).unwrap();
        let findings = findings.replace(text(&dir), "DIR") + "\n";
        let golden = here.join("tests/golden").join(format!("{name}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &findings).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != findings {
            wrong.push(format!("{name}:\n{findings}"));
        }
        let first = value["findings"].as_array().unwrap();
        let class = name.split("_sealed").next().unwrap().split("_header").next().unwrap();
        let class = class.split("_at_").next().unwrap().split("_renamed").next().unwrap();
        assert!(first.iter().any(|finding| finding["class"] == class), "{name}: {findings}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const READING: [&[&str]; 11] = [
    &["inspect", "DIR", "--deep", "--hex", "--map"],
    &["verify", "DIR"],
    &["cat", "DIR"],
    &["tail", "DIR"],
    &["tail", "DIR", "-f", "--idle", "1"],
    &["stats", "DIR"],
    &["timeline", "DIR"],
    &["salvage", "DIR", "--dry-run"],
    &["diff", "DIR", "DIR"],
    &["backup", "DIR", "--to", "NEW", "--dry-run"],
    &["trim", "DIR", "--before", "5", "--dry-run"],
];

fn run(args: &[&str], dir: &Path) -> Output {
    let new = dir.with_extension("new");
    let args: Vec<&str> = args
        .iter()
        .map(|arg| match *arg {
            "DIR" => text(dir),
            "NEW" => text(&new),
            other => other,
        })
        .collect();
    wal(&args)
}

#[test]
fn no_reading_verb_changes_a_byte_of_any_damaged_log() {
    for (name, _, harm, _) in CASES {
        let home = tempfile::tempdir().unwrap();
        let (made, dir) = (home.path().join("made"), home.path().join("log"));
        log(&made);
        copy(&made, &dir);
        harm(&dir);
        let before = contents(&dir);
        for args in READING.iter().filter(|args| !args.contains(&"--idle")) {
            let output = run(args, &dir);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("panicked"), "{name} {args:?}: {stderr}");
            assert!(contents(&dir) == before, "{name}: {args:?} wrote");
        }
    }
}

/// Stops the writer, also where an assertion fails: a scope waits for its threads.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The verbs run beside a process that appends and rotates: it goes on undisturbed, all of its files
/// hold what it wrote, and none is new.
#[test]
fn reading_beside_a_writer_disturbs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = Options::new().segment_bytes(64 << 10).open(&dir).unwrap();
    for n in 0..50u32 {
        log.append(format!("record {n} ").repeat(200)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let writer = scope.spawn(|| {
            let mut written = 50u32;
            // And no more: a slow reader of a log that grows without end never ends.
            while written < 20_000 && !stop.load(Ordering::Relaxed) {
                log.append(format!("record {written} ").repeat(200)).unwrap();
                written += 1;
            }
            written
        });
        for args in READING {
            // A follower of a log that never rests does not end.
            if args.contains(&"--idle") {
                continue;
            }
            let output = run(args, &dir);
            let code = output.status.code().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let expected: &[i32] = match args[0] {
                "salvage" => &[6],
                // Reads the growing log twice, one after the other: the second may be longer.
                "diff" => &[0, 1],
                _ => &[0],
            };
            assert!(expected.contains(&code), "{args:?}: {code}: {stderr}");
        }
        drop(stops);
        writer.join().unwrap()
    });
    // At rest, the log's own preparer too: not a byte.
    log.prepare_ahead().unwrap();
    let before = contents(&dir);
    for args in READING {
        run(args, &dir);
    }
    assert!(contents(&dir) == before, "a reading verb wrote");
    let mut n = 0;
    for record in log.range(..).unwrap() {
        assert_eq!(record.unwrap().payload, format!("record {n} ").repeat(200).as_bytes());
        n += 1;
    }
    assert_eq!(n, written);
    log.close().unwrap();
}

/// Follows across rotation and restart; damage ends it with 4.
#[test]
fn a_follower_sees_what_comes_and_stops_at_damage() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = Options::new().segment_bytes(64 << 10).open(&dir).unwrap();
    log.append("the first").unwrap();
    log.close().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wal"))
        .args(["tail", text(&dir), "-f", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // `tail` shows the last ten of what is there: it must have begun before more is written.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    stdout.read_line(&mut lines).unwrap();
    for round in 0..3u32 {
        let log = Options::new().segment_bytes(64 << 10).open(&dir).unwrap();
        for n in 0..30u32 {
            log.append(format!("record {round} {n} ").repeat(200)).unwrap();
        }
        drop(log);
        while Log::open(&dir).map(Log::close).is_err() {
            std::thread::yield_now();
        }
    }
    for _ in 0..90 {
        stdout.read_line(&mut lines).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let rested = run(&["tail", "DIR", "-f", "--idle", "1"], &dir);
    let stderr = String::from_utf8_lossy(&rested.stderr);
    assert_eq!(rested.status.code(), Some(0), "a log at rest: {stderr}");
    let lsn = |line: &str| serde_json::from_str::<Value>(line).unwrap()["lsn"].as_u64().unwrap();
    let lsns: Vec<u64> = lines.lines().map(lsn).collect();
    assert_eq!(lsns, (1..=91).collect::<Vec<u64>>());
    // Below everything that is proven, a byte goes bad.
    let byte = fs::read(segment(&dir, 2)).unwrap()[9000];
    patch(&segment(&dir, 2), 9000, &[byte ^ 1]);
    child = Command::new(env!("CARGO_BIN_EXE_wal"))
        .args(["tail", text(&dir), "-f", "--from", "1", "-n", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(output.stdout.len() > 1000 && stderr.contains("segment 2"), "{stderr}");
}

/// What is gone below the first record that can be read has no placeholder: it is said.
#[test]
fn a_salvage_says_what_is_gone_before_its_first_record() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    log(&made);
    copy(&made, &dir);
    fs::remove_file(segment(&dir, 1)).unwrap();
    let output = wal(&["salvage", text(&dir), "--dry-run"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("not in it: LSNs 1 to ") && !printed.contains("lost: none"),
        "{printed}"
    );
    let output = wal(&["salvage", text(&dir), "--dry-run", "--format", "json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["not_in_it"][0]["first_lsn"], 1);
    assert_eq!(value["not_in_it"][0]["last_lsn"], value["first_lsn"].as_u64().unwrap() - 1);
    // A reading verb that ends in damage says where to look.
    let output = wal(&["cat", text(&dir)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("next: wal inspect {}", text(&dir))), "{said}");
}

/// From a damaged copy to rescued data, by the commands that the tool itself prints.
#[test]
fn a_new_user_gets_to_rescued_data_by_what_the_tool_prints() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    log(&made);
    copy(&made, &dir);
    patch(&segment(&dir, 1), 0, &[7; 512]);
    patch(&segment(&dir, 2), 8000, &[9; 512]);
    let mut command = format!("wal inspect {}", text(&dir));
    let mut walked = Vec::new();
    for _ in 0..4 {
        let args: Vec<&str> = command.split_whitespace().skip(1).collect();
        let output = wal(&args);
        walked.push(command.clone());
        let stdout = String::from_utf8(output.stdout).unwrap();
        let Some(next) = stdout.lines().rev().find_map(|line| line.trim().strip_prefix("next: "))
        else {
            break;
        };
        command = next.split("  ").next().unwrap().trim().to_owned();
    }
    assert!(walked.iter().any(|c| c.starts_with("wal salvage")), "{walked:?}");
    let rescued = home.path().join("log.salvaged");
    let output = wal(&["cat", text(&rescued), "--kind", "untyped"]);
    let lines = String::from_utf8(output.stdout).unwrap().lines().count();
    assert_eq!((output.status.code(), lines >= 96), (Some(0), true), "{lines} lines");
}

/// `inspect` reads seals: that all seems well says nothing of the bodies, and it says so.
#[test]
fn an_inspection_that_read_no_body_says_so_and_names_who_does() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    log(&made);
    copy(&made, &dir);
    let byte = fs::read(segment(&dir, 1)).unwrap()[30_000];
    patch(&segment(&dir, 1), 30_000, &[byte ^ 8]);
    let printed = String::from_utf8(wal(&["inspect", text(&dir)]).stdout).unwrap();
    assert!(printed.contains("were not read, only their seals"), "{printed}");
    assert!(printed.trim_end().ends_with(&format!("next: wal verify {}", text(&dir))), "{printed}");
    let printed = String::from_utf8(wal(&["inspect", text(&made), "--deep"]).stdout).unwrap();
    assert!(!printed.contains("not read"), "{printed}");
}

/// A copy that lost its end looks whole; the control block that came with it proves nothing and is the
/// only one who knows.
#[test]
fn a_copied_control_block_that_names_a_higher_lsn_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    log(&made);
    let report = |dir: &Path| -> Value {
        serde_json::from_slice(&wal(&["inspect", text(dir), "--format", "json"]).stdout).unwrap()
    };
    let last = report(&made)["last_lsn"].as_u64().unwrap();
    copy(&made, &dir);
    assert_eq!(report(&dir)["copied_lsn"], Value::Null);
    fs::remove_file(segment(&dir, last_used(&dir))).unwrap();
    assert_eq!(report(&dir)["copied_lsn"], last);
    let here = report(&dir)["last_lsn"].as_u64().unwrap();
    assert!(here < last);
    for verb in [&["inspect", text(&dir)][..], &["verify", text(&dir)]] {
        let printed = String::from_utf8(wal(verb).stdout).unwrap();
        let lost = format!("LSNs {} to {last} are not in it", here + 1);
        assert!(printed.contains("perhaps not whole") && printed.contains(&lost), "{printed}");
    }
    let printed = wal(&["salvage", text(&dir), "--dry-run"]).stdout;
    assert!(String::from_utf8(printed).unwrap().contains(&format!("LSN {last} was durable")));
}

/// Behind a bad header the frames still prove what was durable: nothing there is a torn tail, and no
/// plan that cuts is proposed.
#[test]
fn behind_a_bad_header_of_the_active_segment_promises_count() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    log(&made);
    copy(&made, &dir);
    let active = segment(&dir, last_used(&dir));
    patch(&active, 0, &[7; 512]);
    let output = wal(&["inspect", text(&dir), "--format", "json"]);
    assert_eq!(output.status.code(), Some(4));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = value["findings"].as_array().unwrap();
    assert!(findings.len() >= 2, "{findings:?}");
    for finding in findings {
        assert_ne!(finding["class"], "torn_tail", "{finding}");
        assert_eq!(finding["promised"], true, "{finding}");
    }
}

/// A picture has an end, however many segments there are and however many are damaged.
#[test]
fn a_picture_of_many_segments_is_bounded() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = Options::new().segment_bytes(64 << 10).open(&dir).unwrap();
    while log.stats().rotations < 260 {
        log.append(vec![7; 15_000]).unwrap();
    }
    log.close().unwrap();
    let height = |name: &str| -> f64 {
        let file = home.path().join(name);
        wal(&["inspect", text(&dir), "--deep", "--svg", text(&file)]);
        let svg = fs::read_to_string(file).unwrap();
        let height = svg.split(" height=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(svg.contains("segments)</text>"), "what is not drawn is counted");
        height.parse().unwrap()
    };
    let whole = height("whole.svg");
    for n in (2..=250).step_by(2) {
        patch(&segment(&dir, n), 9000, &[8]);
    }
    let damaged = height("damaged.svg");
    assert!(whole < 1200.0 && whole < damaged && damaged < 5000.0, "{whole}, {damaged}");
    if let Some(keep) = std::env::var_os("ANNALS_PICTURES") {
        fs::copy(home.path().join("damaged.svg"), Path::new(&keep).join("damaged.svg")).unwrap();
    }
}

fn session_of(log: &Log, session: &str, calls: usize) {
    let observer = annals_observer::Observer::on(log.clone()).unwrap();
    for _ in 0..calls {
        let mut call = observer.session(session).unwrap().tool("search").start().unwrap();
        call.end_ok(annals_observer::JsonText::string(&"a text ".repeat(100))).unwrap();
    }
    observer.shutdown().unwrap();
}

/// Two sessions one behind the other, in several segments.
fn sessions(path: &Path) {
    let log = Options::new().segment_bytes(64 << 10).open(path).unwrap();
    session_of(&log, "first", 150);
    session_of(&log, "second", 150);
    log.close().unwrap();
}

/// Flips a bit in the middle of the record with this LSN.
fn rot(dir: &Path, lsn: u64) {
    let lsn = annals_wal::Lsn::new(lsn).unwrap();
    let record = annals_wal::LogReader::open(dir).unwrap().get(lsn).unwrap();
    for n in 1..=last_used(dir) {
        let bytes = fs::read(segment(dir, n)).unwrap();
        let mut found = bytes.windows(record.payload.len());
        if let Some(at) = found.position(|bytes| bytes == record.payload) {
            let at = at + record.payload.len() / 2;
            return patch(&segment(dir, n), at as u64, &[bytes[at] ^ 4]);
        }
    }
    panic!("LSN {lsn} is nowhere");
}

/// What lies below the head is nobody's business any more, though its segment is there.
#[test]
fn damage_below_the_head_hides_no_record_above_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    sessions(&dir);
    let log = Log::open(&dir).unwrap();
    let head = log.trim(annals_wal::Lsn::new(320).unwrap()).unwrap();
    // Left without a close: what stands above the proven end is asked for, too.
    std::mem::forget(log.clone());
    drop(log);
    let unclean = home.path().join("unclean");
    copy(&dir, &unclean);
    assert_eq!(head.get(), 320);
    rot_below(&unclean, 319);
    let whole = 600 - 320 + 1;
    let listed = wal(&["cat", text(&unclean)]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), whole);
    let stats = wal(&["stats", text(&unclean), "--format", "json"]);
    assert_eq!(stats.status.code(), Some(0), "{stats:?}");
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["total"]["records"], whole);
    let timeline = run(&["timeline", "DIR", "second"], &unclean);
    assert_eq!(timeline.status.code(), Some(0), "{timeline:?}");
    let lines = String::from_utf8(timeline.stdout).unwrap().lines().count();
    assert!(lines > 130, "{lines}");
}

/// As [`rot`], of a record that no reader gives any more: the one before the head.
fn rot_below(dir: &Path, lsn: u64) {
    let names = contents(dir).into_keys().filter(|name| name.ends_with(".wal"));
    for name in names {
        let bytes = fs::read(dir.join(&name)).unwrap();
        let header = match annals_wal::format::SegmentHeader::decode(&bytes[..128]) {
            annals_wal::format::HeaderVerdict::Good(header) => header,
            other => panic!("{other:?}"),
        };
        let mut walker = annals_wal::scan::Walker::new(&bytes[..], &header);
        while let Some(step) = walker.step().unwrap() {
            let annals_wal::scan::Step::Frame(frame) = step else { break };
            if frame.header.lsn == lsn && !frame.header.is_own() {
                let at = frame.offset + 40;
                return patch(&dir.join(name), at, &[bytes[at as usize] ^ 4]);
            }
        }
    }
    panic!("LSN {lsn} is nowhere");
}

/// A session that lies behind damage is not denied, and a list is not called whole.
#[test]
fn a_timeline_says_where_it_could_not_be_read_to_the_end() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    sessions(&made);
    let fresh = || {
        let _ = fs::remove_dir_all(&dir);
        copy(&made, &dir);
    };
    fresh();
    rot(&dir, 40);
    for session in ["second", "none"] {
        let output = run(&["timeline", "DIR", session], &dir);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("as far as the log can be read"), "{said}");
        assert!(said.contains("next: wal inspect") && said.contains("--deep"), "{said}");
    }
    let last = last_used(&made);
    let harms: [(&str, &dyn Fn()); 4] = [
        ("gone", &|| fs::remove_file(segment(&dir, last - 1)).unwrap()),
        ("emptied", &|| fs::write(segment(&dir, last - 1), b"").unwrap()),
        ("cut", &|| {
            let file = OpenOptions::new().write(true).open(segment(&dir, last - 1)).unwrap();
            file.set_len(20_000).unwrap();
        }),
        ("grown", &|| {
            let mut bytes = fs::read(segment(&dir, last)).unwrap();
            bytes.extend([7; 100]);
            fs::write(segment(&dir, last), bytes).unwrap();
        }),
    ];
    for (name, harm) in harms {
        fresh();
        harm();
        for args in [&["timeline", "DIR"][..], &["timeline", "DIR", "none"]] {
            let (output, seen) = (run(args, &dir), run(&["inspect", "DIR"], &dir));
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(seen.status.code(), Some(4), "{name}: inspect");
            assert_eq!(output.status.code(), Some(4), "{name} {args:?}: {said}");
            assert!(said.contains("next: wal inspect"), "{name} {args:?}: {said}");
        }
    }
}

/// A record that the comparison itself could not read is no difference between two logs.
#[test]
fn a_comparison_that_met_an_unreadable_record_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (made, dir) = (home.path().join("made"), home.path().join("log"));
    sessions(&made);
    let last = |lsn: u64| {
        let report = wal(&["inspect", text(&made), "--format", "json"]);
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        report["segments"][lsn as usize]["last_lsn"].as_u64().unwrap()
    };
    // The first of all, one in a body, the last of a segment.
    for lsn in [1, 12, last(0), last(1)] {
        let _ = fs::remove_dir_all(&dir);
        copy(&made, &dir);
        rot(&dir, lsn);
        for pair in [[&made, &dir], [&dir, &made], [&dir, &dir]] {
            let output = wal(&["diff", text(pair[0]), text(pair[1])]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(4), "LSN {lsn}: {said}");
            assert!(said.contains(&format!("{} is damaged", text(&dir))), "LSN {lsn}: {said}");
            assert!(!said.contains(&format!("{} is damaged", text(&made))), "LSN {lsn}: {said}");
        }
    }
    // What was salvaged has a placeholder, and is whole.
    let new = home.path().join("new");
    assert_eq!(wal(&["salvage", text(&dir), "--to", text(&new)]).status.code(), Some(0));
    assert_eq!(wal(&["diff", text(&made), text(&new)]).status.code(), Some(1));
    // Segment 1 ends in a record that is gone, and nothing follows but an open record.
    let short = home.path().join("short");
    let log = Options::new().segment_bytes(64 << 10).open(&short).unwrap();
    let mut lsn = 0;
    while log.stats().rotations < 1 {
        lsn = log.append(vec![b'x'; 3000]).unwrap().get();
    }
    drop(log);
    rot(&short, lsn - 1);
    assert_eq!(wal(&["diff", text(&short), text(&short)]).status.code(), Some(4));
}
