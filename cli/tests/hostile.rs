//! Hostile payloads and names, verb by verb: nothing that a terminal obeys gets out unescaped, neither
//! on a pipe (text, JSON and pages) nor on a terminal, where exports are escaped too.
//!
//! The terminal is a pty of this test's own. What goes to a pipe from `export` is exact by contract and
//! is compared, not searched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use annals_observer::{
    CallId, Entry, EntryKind, JsonText, SessionId, SpanId, WallTime, encode_entry,
};
use annals_wal::{Codec, Log, Lsn, Options, Record};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// OSC (title, clipboard, link), CSI, C1, bidi, CR, NUL, DEL, zero width, tags, separators; and what
/// the tool sends itself: its colours, and what its progress line is cleared with.
const HOSTILE: &str = "\u{1b}[31mred\u{1b}[0m\r\u{1b}[2K\u{1b}[1A\u{1b}[1B\
                       \u{1b}]0;owned\u{7}\u{1b}]52;c;eA==\u{1b}\\\u{1b}[2J\u{9b}31m\u{9d}0;x\u{9c}\
                       \u{202e}\u{2066}\r\0\u{7f}\u{200b}\u{2028}\u{feff}\u{e0041}\u{8}end";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn segment(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:020}.wal"))
}

fn wal(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

/// A terminal of our own: our end and the tool's.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(ours), theirs)
}

fn read_all(mut ours: File) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    // EIO: nobody has the other end any more.
    while let Ok(read @ 1..) = ours.read(&mut piece) {
        all.extend_from_slice(&piece[..read]);
    }
    all
}

/// The same on terminals, one for stdout and one for stderr: all that each gets.
fn on_terminals(args: &[&str], colours: bool) -> (Vec<u8>, Vec<u8>) {
    let ((out, to_out), (err, to_err)) = (terminal(), terminal());
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
    command.args(args).stdin(Stdio::null()).env_remove("NO_COLOR").env("TERM", "xterm");
    if !colours {
        command.env("NO_COLOR", "1");
    }
    let mut child = command.stdout(to_out).stderr(to_err).spawn().unwrap();
    drop(command);
    let err = std::thread::spawn(|| read_all(err));
    let read = (read_all(out), err.join().unwrap());
    child.wait().unwrap();
    read
}

fn is_obeyed(c: char) -> bool {
    let format = matches!(u32::from(c),
        0xAD | 0x061C | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF
            | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F);
    c.is_control() && !"\n\t".contains(c) || format
}

/// What a terminal got, its own line ends made plain again; nothing else is taken out.
fn lines(printed: &[u8], what: &str) -> String {
    let text = std::str::from_utf8(printed).unwrap_or_else(|_| panic!("{what}: not UTF-8"));
    text.replace("\r\n", "\n")
}

fn check_plain(text: &str, what: &str) {
    let at = text.find(is_obeyed);
    assert_eq!(at, None, "{what}: {:?}", at.map(|at| &text[at..]).map(cut));
}

/// Our colours around one word each, and nothing else that is obeyed.
fn check_coloured(printed: &[u8], what: &str) {
    let text = lines(printed, what);
    let mut rest = text.as_str();
    while let Some(at) = rest.find(is_obeyed) {
        check_plain(&rest[..at], what);
        let begun = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"]
            .into_iter()
            .find_map(|colour| rest[at..].strip_prefix(colour));
        let word = begun.and_then(|rest| rest.split_once("\u{1b}[0m"));
        let (word, after) = word.unwrap_or_else(|| panic!("{what}: {:?}", cut(&rest[at..])));
        check_plain(word, what);
        rest = after;
    }
}

/// Progress as the tool draws it, and nothing else that is obeyed: a bar of 30 cells between figures
/// and words, the rest of the line blank, then back to its beginning and cleared.
fn check_progress(printed: &[u8], what: &str) -> usize {
    let (text, mut drawn) = (lines(printed, what), 0);
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("\r\u{1b}[2K") {
        let (messages, bar) = before.rsplit_once('\n').unwrap_or(("", before));
        check_plain(messages, what);
        let cell = |c: char| ('\u{2588}'..='\u{258f}').contains(&c) || c == '\u{2591}';
        let cells: Vec<usize> =
            bar.chars().enumerate().filter(|(_, c)| cell(*c)).map(|(at, _)| at).collect();
        let whole = cells.len() == 30 && cells[29] - cells[0] == 29;
        let plain =
            |c: char| cell(c) || c == ' ' || c.is_ascii_alphanumeric() || "./:-".contains(c);
        assert!(bar.is_empty() || whole && bar.chars().all(plain), "{what}: {:?}", cut(before));
        drawn += usize::from(!bar.is_empty());
        rest = after;
    }
    check_plain(rest, what);
    drawn
}

fn check_pipe(printed: &[u8], what: &str) {
    let text = std::str::from_utf8(printed).unwrap_or_else(|_| panic!("{what}: not UTF-8"));
    let at = text.find(is_obeyed);
    assert_eq!(at, None, "{what}: {:?}", at.map(|at| cut(text.split_at(at).1)));
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

fn put(log: &Log, entry: &Entry) {
    let session = entry.session.as_ref().unwrap();
    let record = Record::new(encode_entry(entry).unwrap()).codec(Codec::BINCODE);
    log.append_batch(annals_wal::Batch::from(
        record.kind(entry.kind.record_kind()).stream(session.stream()),
    ))
    .unwrap();
}

/// A log whose every text is hostile; segment 1 is damaged afterwards if asked for.
fn hostile_log(path: &Path, session: &str) {
    let log = Options::new().segment_bytes(4 << 20).open(path).unwrap();
    let raw = |kind: u16, payload: &[u8]| {
        let record = Record::new(payload.to_vec()).kind(annals_wal::Kind::new(kind).unwrap());
        log.append_batch(annals_wal::Batch::from(record)).unwrap();
    };
    let json = |text: &str| Some(JsonText::parse(text).unwrap());
    let call = |kind: EntryKind, n: u64| {
        let mut entry = Entry::new(kind);
        entry.session = Some(SessionId::new(session).unwrap());
        entry.span = SpanId::new(n);
        entry.call_id = Some(CallId::new(HOSTILE).unwrap());
        entry.agent = Some(HOSTILE.to_owned());
        entry.tool = Some(HOSTILE.to_owned());
        entry.model = Some(HOSTILE.to_owned());
        entry.name = Some(HOSTILE.to_owned());
        entry.wall = WallTime(1_700_000_000_000_000_000 + n as i64 * 1_000_000);
        entry
    };
    let mut n = 0;
    for kind in EntryKind::all() {
        n += 1;
        let mut entry = call(kind, n);
        entry.input = Some(JsonText::string(HOSTILE));
        entry.output = json("{\"lone\":\"\\ud800\",\t\"c1\":\"\u{9b}31m\u{202e}\"}");
        entry.error = Some(JsonText::string(HOSTILE));
        entry.metadata = Some(JsonText::string(HOSTILE));
        entry.duration = Some(Duration::from_millis(n));
        put(&log, &entry);
    }
    let mut long = call(EntryKind::ToolStart, 1000);
    long.tool = Some(HOSTILE.repeat(16_000));
    long.input = Some(JsonText::string(&"\u{9b}1m".repeat(300_000)));
    put(&log, &long);
    raw(0, HOSTILE.as_bytes());
    // A lone surrogate as some encoders write it, and other bytes that are no text.
    raw(0, b"\xed\xa0\x80\x1b]0;x\x07\xff\xfe\x9b31m");
    raw(0x1234, &HOSTILE.as_bytes().repeat((1 << 20) / HOSTILE.len()));
    // An entry's kind with a payload that is none, and a transaction that is none.
    raw(EntryKind::ToolStart.record_kind().get(), HOSTILE.as_bytes());
    raw(0x0100, HOSTILE.as_bytes());
    let value = Record::new(format!("{{\"a\":\t\"{}\"}}", "\u{9b}31m\u{202e}")).codec(Codec::JSON);
    log.append_batch(annals_wal::Batch::from(value)).unwrap();
    // A transaction on a key with a bidirectional control in its name.
    raw(0x0100, b"\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0\0a\xe2\x80\xae");
    log.set_hold("\u{9b}\u{202e}\u{1b}]0;x\u{7}", Lsn::FIRST).unwrap();
    log.close().unwrap();
}

fn damage(path: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(segment(path, 1)).unwrap();
    file.write_all_at(HOSTILE.as_bytes(), at).unwrap();
}

#[test]
fn nothing_that_a_terminal_obeys_comes_out_of_any_verb() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (whole, damaged, broken) = (path("whole"), path("damaged"), path("broken"));
    for dir in [&whole, &damaged, &broken] {
        hostile_log(dir, HOSTILE);
    }
    damage(&damaged, 3000);
    damage(&broken, 0);
    // A second session, so that they are listed.
    let two = path("two");
    hostile_log(&two, &format!("{HOSTILE}-1"));
    let log = Log::open(&two).unwrap();
    let mut entry = Entry::new(EntryKind::Error);
    entry.session = Some(SessionId::new(format!("{HOSTILE}-2")).unwrap());
    put(&log, &entry);
    log.close().unwrap();
    let odd = path(&HOSTILE.replace(['\0', '/'], "")).with_extension("jsonl");
    fs::write(&odd, format!("not json {HOSTILE}\n")).unwrap();
    let outputs = path("out");
    fs::create_dir(&outputs).unwrap();
    let shown = String::from_utf8(wal(&["cat", text(&whole)]).stderr).unwrap();
    assert_eq!(shown.lines().count(), 2, "all but two of the records decode: {shown}");
    let (mut runs, mut files, mut bars) = (0, 0, 0);
    let verbs: &[&[&str]] = &[
        &["inspect", "LOG", "--deep", "--hex", "--map", "--svg", "NEW", "--html", "NEW"],
        &["inspect", "LOG", "--format", "json"],
        &["verify", "LOG"],
        &["verify", "LOG", "--format", "json"],
        &["cat", "LOG"],
        &["cat", "LOG", "--format", "json"],
        &["cat", "LOG", "--width", "100000", "--errors"],
        &["tail", "LOG", "-n", "100"],
        &["tail", "LOG", "-n", "100", "--format", "json"],
        &["stats", "LOG", "--top", "100"],
        &["stats", "LOG", "--format", "json"],
        &["timeline", "LOG"],
        &["timeline", "LOG", "--html", "NEW"],
        &["timeline", "LOG", "no\u{1b}]0;such\u{7}"],
        &["salvage", "LOG", "--dry-run"],
        &["salvage", "LOG", "--dry-run", "--format", "json"],
        &["salvage", "LOG", "--to", "NEW"],
        &["diff", "LOG", "OTHER"],
        &["diff", "LOG", "OTHER", "--format", "json"],
        &["repair", "LOG", "--plan", "NEW"],
        &["bundle", "LOG", "--to", "NEW"],
        &["backup", "LOG", "--to", "NEW", "--dry-run"],
        &["trim", "LOG", "--before", "9", "--dry-run"],
        &["registry", "get", "LOG", "a\u{202e}"],
        &["registry", "get", "LOG", "a\u{202e}", "--format", "json"],
        &["registry", "list", "LOG"],
        &["registry", "history", "LOG", "a\u{202e}"],
        &["registry", "watch", "LOG", "--once"],
        &["import", "LOG", "ODD"],
        &["archive", "LOG", "--to", "NEW"],
        &["inspect", "no\u{1b}]0;such\u{7}\u{9b}\u{202e}"],
        &["cat", "LOG", "--kind", "\u{1b}]0;such\u{7}"],
    ];
    for verb in verbs {
        for (name, log) in
            [("whole", &whole), ("damaged", &damaged), ("broken", &broken), ("two", &two)]
        {
            for kind in ["pipe", "terminal", "colours"] {
                let mut made = Vec::new();
                let args: Vec<String> = verb
                    .iter()
                    .map(|arg| match *arg {
                        "LOG" => text(log).to_owned(),
                        "OTHER" => text(&whole).to_owned(),
                        "ODD" => text(&odd).to_owned(),
                        "NEW" => {
                            files += 1;
                            made.push(outputs.join(format!("{files}")));
                            text(&made[made.len() - 1]).to_owned()
                        }
                        other => other.to_owned(),
                    })
                    .collect();
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let what = format!("{verb:?} of {name}, {kind}");
                if kind != "pipe" {
                    let (out, err) = on_terminals(&args, kind == "colours");
                    if kind == "colours" {
                        check_coloured(&out, &what);
                    } else {
                        check_plain(&lines(&out, &what), &what);
                    }
                    bars += check_progress(&err, &what);
                } else {
                    let output = wal(&args);
                    check_pipe(&output.stdout, &what);
                    check_pipe(&output.stderr, &what);
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
                }
                for file in made.iter().filter(|file| file.is_file()) {
                    check_pipe(&fs::read(file).unwrap(), &format!("{what}: its file"));
                }
                runs += 1;
            }
        }
    }
    println!("{runs} runs, {bars} drawings of progress");
    assert!(bars > 10, "{bars} drawings of progress: is there a terminal?");
}

/// Exact bytes into a pipe; on a terminal what can be seen of them.
#[test]
fn an_export_is_exact_to_a_pipe_and_escaped_to_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    hostile_log(&log, HOSTILE);
    for format in ["jsonl", "otlp", "chrome-trace", "folded"] {
        let args = ["export", text(&log), "--format", format];
        let file = home.path().join(format);
        wal(&[&args[..], &["-o", text(&file)]].concat());
        let piped = wal(&args).stdout;
        assert!(piped == fs::read(&file).unwrap(), "{format}: a pipe gets what a file gets");
        let (seen, _) = on_terminals(&args, true);
        check_plain(&lines(&seen, format), format);
        assert!(seen.len() > 1000 || format == "folded", "{format}: {} bytes", seen.len());
        if format == "jsonl" {
            // The same values, read back from the terminal.
            let seen = String::from_utf8(seen).unwrap();
            let values = |text: &str| -> Vec<serde_json::Value> {
                let json = text.lines().filter(|line| line.starts_with('{'));
                // A lone surrogate is JSON and no string of serde's.
                let json = json.map(|line| line.replace("\\ud800", "?"));
                json.map(|line| serde_json::from_str(&line).unwrap()).collect()
            };
            let due = values(std::str::from_utf8(&piped).unwrap());
            let agents = |lines: &[serde_json::Value]| -> Vec<serde_json::Value> {
                lines.iter().map(|line| line["agent"].clone()).collect()
            };
            assert_eq!(agents(&values(&seen)), agents(&due));
        }
    }
    // The same door for what other verbs print as it is stored.
    let keys = home.path().join("keys");
    let value = "\"\u{9b}31m \u{202e}\u{2066} \u{7f}\"";
    let put = wal(&["registry", "put", text(&keys), "a", value]);
    assert!(put.status.success(), "{put:?}");
    for verb in [&["export", text(&keys)][..], &["get", text(&keys), "a"]] {
        let args = [&["registry"], verb].concat();
        let (seen, _) = on_terminals(&args, true);
        check_plain(&lines(&seen, "keys"), &format!("{args:?}"));
        assert!(String::from_utf8(seen).unwrap().contains("9b"), "{args:?}");
    }
    assert_eq!(
        wal(&["registry", "export", text(&keys)]).stdout,
        format!("{{\"a\":{value}}}\n").as_bytes()
    );
}

/// A segment's name may lead anywhere; what stands there is not ours to show or to send.
#[test]
fn no_link_is_followed_by_a_hexdump_or_a_bundle() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    for _ in 0..60 {
        made.append(vec![7; 3000]).unwrap();
    }
    made.close().unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "the secret of somebody else".repeat(100)).unwrap();
    fs::remove_file(segment(&log, 2)).unwrap();
    symlink(&secret, segment(&log, 2)).unwrap();
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let output = wal(&["inspect", text(&log), "--deep", "--hex"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{printed}");
    let hidden = |text: &str| !text.replace(['[', ']', ' '], "").contains(&hex("secret"));
    assert!(hidden(&printed) && !printed.contains("secret of"), "{printed}");
    let report = home.path().join("report.json");
    wal(&["bundle", text(&log), "--to", text(&report)]);
    let sent = fs::read_to_string(&report).unwrap_or_default();
    assert!(hidden(&sent) && !sent.contains("secret of"), "{sent}");
}

/// Where a segment's header should stand may be a payload's bytes.
#[test]
fn a_bundle_holds_no_header_that_is_none() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    for _ in 0..60 {
        made.append(b"a secret of 25 characters".repeat(100)).unwrap();
    }
    made.close().unwrap();
    let file = OpenOptions::new().write(true).open(segment(&log, 2)).unwrap();
    file.write_all_at(&b"a secret of 25 characters".repeat(6)[..128], 0).unwrap();
    let report = home.path().join("report.json");
    let output = wal(&["bundle", text(&log), "--to", text(&report)]);
    assert!(output.status.success(), "{output:?}");
    let sent = fs::read_to_string(&report).unwrap();
    let secret: String = b"secret".iter().map(|b| format!("{b:02x}")).collect();
    assert!(!sent.contains(&secret) && !sent.contains("secret"), "a payload is in the report");
    let value: serde_json::Value = serde_json::from_str(&sent).unwrap();
    let headers: Vec<bool> =
        value["segments"].as_array().unwrap().iter().map(|s| s["header"].is_string()).collect();
    assert!(headers[0] && !headers[1], "{headers:?}");
}

/// Clocks that jump from one end of time to the other draw a picture and no panic.
#[test]
fn hostile_clocks_are_drawn() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let log = Log::open(&path).unwrap();
    for (n, wall) in [i64::MAX, i64::MIN, 0, i64::MIN, i64::MAX].into_iter().enumerate() {
        for kind in [EntryKind::ToolStart, EntryKind::ToolEnd] {
            let mut entry = Entry::new(kind);
            entry.session = Some(SessionId::new("s").unwrap());
            entry.span = SpanId::new(n as u64 + 1);
            entry.wall =
                WallTime(if kind == EntryKind::ToolEnd { wall.wrapping_neg() } else { wall });
            entry.duration = (kind == EntryKind::ToolEnd).then_some(Duration::MAX);
            put(&log, &entry);
        }
    }
    log.close().unwrap();
    let page = home.path().join("page.html");
    for args in [
        vec!["timeline", text(&path)],
        vec!["timeline", text(&path), "--html", text(&page)],
        vec!["stats", text(&path)],
        vec!["cat", text(&path), "--since", "1h"],
    ] {
        let output = wal(&args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    }
    assert!(fs::read_to_string(page).unwrap().contains("</html>"));
}
