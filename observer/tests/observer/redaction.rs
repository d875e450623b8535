//! Does any secret of the built-in shapes reach the disk, and is what only looks like one left
//! alone?

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use annals_observer::{
    CallId, CallKind, Entry, Field, JsonText, Level, Observer, Options, Outcome, PANICKED, RunId,
    entries, session_entries,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Batch, Before, Joint, Log, Record};

use crate::common::{all, open};

/// The same numbers every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn of(&mut self, alphabet: &str, length: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        let pick = |dice: &mut Dice| letters[dice.next() as usize % letters.len()];
        (0..length).map(|_| pick(self)).collect()
    }

    /// Letters of both cases and digits, some of each.
    fn key(&mut self, length: usize) -> String {
        format!("a7Z{}", self.of(ALPHANUMERIC, length - 3))
    }
}

const ALPHANUMERIC: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const HEX: &str = "0123456789abcdef";

/// A text with a secret in it, and what of it must not be on the disk.
fn secrets() -> Vec<(String, String)> {
    let mut dice = Dice(20_261_121);
    let mut all = Vec::new();
    for n in 0..8 {
        let mut put = |before: &str, secret: String, after: &str| {
            all.push((format!("{before}{secret}{after}"), secret));
        };
        put("", format!("sk-{}", dice.key(48)), "");
        put("key: ", format!("sk-proj-{}", dice.key(60)), " ok");
        put("x=", format!("sk-ant-api03-{}", dice.key(90)), ";");
        put("", format!("ghp_{}", dice.key(36)), "");
        put("(", format!("github_pat_{}", dice.key(70)), ")");
        put("", format!("xoxb-{}-{}", dice.of("0123456789", 12), dice.key(24)), "");
        put("id ", format!("AKIA7{}", dice.of(UPPER, 15)), "");
        put("", format!("AIza{}", dice.key(35)), "");
        put("", format!("glpat-{}", dice.key(20)), "");
        put("stripe ", format!("sk_live_{}", dice.key(24)), "");
        put("", format!("npm_{}", dice.key(36)), "");
        put("", format!("hf_{}", dice.key(34)), "");
        put("", format!("SG.{}.{}", dice.key(22), dice.key(43)), "");
        put("Authorization: Bearer ", dice.key(40), "");
        put("authorization: bearer ", format!("{}==", dice.key(30)), "\n");
        put("Authorization: Basic ", format!("{}==", dice.key(22)), "");
        put("jwt ", format!("eyJ{}.eyJ{}.{}", dice.key(20), dice.key(60), dice.key(43)), "");
        let mut pem = String::new();
        for _ in 0..4 {
            writeln!(pem, "{}", dice.key(64)).unwrap();
        }
        let kind = ["", "RSA ", "EC ", "OPENSSH "][n % 4];
        all.push((
            format!("-----BEGIN {kind}PRIVATE KEY-----\n{pem}-----END {kind}PRIVATE KEY-----\n"),
            pem.lines().next().unwrap().to_owned(),
        ));
        let mut put = |before: &str, secret: String, after: &str| {
            all.push((format!("{before}{secret}{after}"), secret));
        };
        put("postgres://app:", dice.key(16), "@db.internal:5432/app");
        put("mongodb+srv://root:", format!("{}!", dice.key(12)), "@cluster0.mongodb.net/?w=1");
        put("redis://:", dice.key(20), "@cache:6379/0");
        put("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=", dice.key(86), "==;");
        put("Server=db;Database=x;User Id=sa;Password=", dice.key(14), ";");
        put("export API_KEY=", dice.key(32), "");
        put("aws_secret_access_key = ", dice.key(40), "");
    }
    assert_eq!(all.len(), 200);
    all
}

/// What a coding agent says all day and is no secret.
fn look_alikes() -> Vec<String> {
    let mut dice = Dice(7);
    let mut all = Vec::new();
    let words = [
        "sk-learn-pipeline-with-long-names-of-steps",
        "the bearer of this certificate",
        "Basic understanding of internationalization is enough",
        "password: optional, see docs",
        "token: the current token of the lexer",
        "let secret = load_secret_from_vault();",
        "https://example.com:8080/path?token=abc",
        "postgres://localhost:5432/app",
        "postgres://user:password@localhost/app",
        "mysql://root:$DB_PASSWORD@db/app",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "set API_KEY=your_api_key_here",
        "api_key = os.environ['API_KEY']",
        "ghp_ is the prefix of a token",
        "the key AKIA... was rotated",
        "Bearer <token>",
        "git@github.com:owner/repository.git",
        "ssh://git@github.com:22/owner/repo",
        "tokens: 12345678",
        "max_tokens=4096000000",
        "password=********",
        "PASSWORD=${PASSWORD}",
        "secret_manager::fetch(client_v2)",
        "xoxb is a bot token, xoxp a user token",
    ];
    all.extend(words.into_iter().map(str::to_owned));
    for _ in 0..25 {
        all.push(format!("commit {}", dice.of(HEX, 40)));
        all.push(format!("sha256:{}", dice.of(HEX, 64)));
        let part = |dice: &mut Dice, n| dice.of(HEX, n);
        let uuid: Vec<String> = [8, 4, 4, 4, 12].into_iter().map(|n| part(&mut dice, n)).collect();
        all.push(format!("request {} done", uuid.join("-")));
        all.push(format!("https://cdn.example.com/assets/app.{}.js", dice.of(HEX, 20)));
        all.push(format!("data:image/png;base64,iVBOR{}", dice.key(60)));
        all.push(format!("call_{} toolu_{}", dice.key(24), dice.key(24)));
        all.push(format!("at 0x{}: error E{}", dice.of(HEX, 16), dice.of("0123456789", 4)));
    }
    assert_eq!(all.len(), 200);
    all
}

fn files_of(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    bytes
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == needle[0]) {
        if bytes[from + at..].starts_with(needle) {
            return true;
        }
        from += at + 1;
    }
    false
}

/// Writes each text into every place an entry has.
fn record_everywhere(observer: &Observer, texts: &[String], as_ids: bool) {
    for (n, text) in texts.iter().enumerate() {
        let id = if as_ids { text.clone() } else { format!("s-{n}") };
        let level = if n % 2 == 0 { Level::Batched } else { Level::Ordered };
        let session = observer.session(id.clone()).unwrap().level(level);
        let session = session.run(RunId::new(id.clone()).unwrap());
        let nested = JsonText::of(&serde_json::json!({ "deep": [{ "text": text, (text): 1 }] }));
        let start = session.tool(id.clone()).call_id(CallId::new(id.clone()).unwrap());
        let start = start.by_agent(id.clone()).input(nested.unwrap());
        let mut call = start.metadata(JsonText::string(text)).start().unwrap();
        call.metadata(JsonText::of(&[text]).unwrap());
        call.error(JsonText::string(text)).unwrap();
        call.end_ok(JsonText::string(&format!("before {text} after"))).unwrap();
        let mut failed = session.llm(id.clone()).start().unwrap();
        failed.end_error(JsonText::string(&format!("{text}\n{text}"))).unwrap();
        session.handoff(id.clone(), id).unwrap();
    }
    observer.flush().unwrap();
}

#[test]
fn no_secret_of_the_corpus_is_in_any_file_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let observer = Observer::on(Log::open(&path).unwrap()).unwrap();
    let secrets = secrets();
    let texts: Vec<String> = secrets.iter().map(|(text, _)| text.clone()).collect();
    record_everywhere(&observer, &texts, true);
    let bytes = files_of(&path);
    let leaked: Vec<&String> =
        secrets.iter().map(|(_, secret)| secret).filter(|secret| holds(&bytes, secret)).collect();
    assert!(leaked.is_empty(), "{} of 200 leaked: {leaked:?}", leaked.len());
    // The proof that the search finds what is there.
    let control = JsonText::string(&secrets[0].1);
    let bare = Options::new().without_built_in_redactors().on(observer.log().clone()).unwrap();
    bare.session("s").unwrap().error(control).unwrap();
    assert!(holds(&files_of(&path), &secrets[0].1));
}

#[test]
fn at_most_five_of_two_hundred_look_alikes_are_touched() {
    let log = open(&MemDir::new(1));
    let observer = Observer::on(log.clone()).unwrap();
    let texts = look_alikes();
    record_everywhere(&observer, &texts, false);
    let touched: Vec<&String> = texts
        .iter()
        .enumerate()
        .filter(|(n, text)| {
            let first = session_entries(&log, &format!("s-{n}")).unwrap().next().unwrap().unwrap();
            first.entry.metadata != Some(JsonText::string(text))
        })
        .map(|(_, text)| text)
        .collect();
    assert!(touched.len() <= 5, "{} touched: {touched:#?}", touched.len());
}

#[test]
fn an_escaped_secret_is_found_and_numbers_keep_every_digit() {
    let log = open(&MemDir::new(2));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let input = r#"{"n": 1.50e400, "u": "postgres:\/\/app:s3cr3tPassw0rd@db\/x", "p": {"password": "Tr0ub4dor3"}}"#;
    drop(session.tool("t").input(JsonText::parse(input).unwrap()).start().unwrap());
    let entry = all(&log).pop().unwrap();
    let expected = r#"{"n": 1.50e400, "u": "[redacted:connection-string]", "p": {"password": "[redacted:named-secret]"}}"#;
    assert_eq!(entry.input.as_ref().unwrap().as_str(), expected);
    assert_eq!(entry.notes.get(Field::Input).unwrap().redactions, 2);
}

/// Arguments of a tool are often JSON in a string, or that in a string once more.
#[test]
fn a_password_in_json_inside_of_a_string_is_found() {
    let log = open(&MemDir::new(7));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut nested = r#"{"user": "app", "password": "Tr0ub4dor3x"}"#.to_owned();
    for depth in 1..4 {
        nested = serde_json::json!({ "arguments": nested }).to_string();
        drop(session.tool("t").input(JsonText::parse(&nested).unwrap()).start().unwrap());
        let entry = all(&log).pop().unwrap();
        let kept = entry.input.unwrap();
        assert!(!kept.as_str().contains("Tr0ub4dor3x"), "{depth}: {}", kept.as_str());
        assert!(kept.as_str().contains("user"), "the rest stays: {}", kept.as_str());
    }
}

/// Half of an emoji, as a cut leaves it, is valid in JSON and in no string: what stood beside it was
/// once written as it was.
#[test]
fn a_secret_beside_half_an_emoji_is_found() {
    let log = open(&MemDir::new(11));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let secret = format!("ghp_{}", Dice(4).key(36));
    for half in [r"\ud83d", r"\ude00", r"\ud83d\u0041", r"\ud83d\n"] {
        for text in [format!(r#"{{"a": "{half} {secret}"}}"#), format!(r#""{half}\n{secret}""#)] {
            session.error(JsonText::parse(&text).unwrap()).unwrap();
            let kept = all(&log).pop().unwrap().error.unwrap();
            assert!(!kept.as_str().contains(&secret), "{text} is kept as {}", kept.as_str());
            assert!(kept.as_str().contains("[redacted:api-key]"));
        }
    }
}

/// A candidate that is no secret was looked at again from each of its bytes on, to its end.
#[test]
fn long_texts_of_near_secrets_are_looked_at_in_time() {
    let log = open(&MemDir::new(8));
    let observer = Options::new().inline_bytes_max(1 << 20).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let letters = "ghp_".to_owned() + &"a".repeat(36) + "-";
    for near in ["token=", "sk-", "ab://x:pass@", "a.", &letters, "bearer ", "-----BEGIN "] {
        let text = JsonText::string(&near.repeat((512 << 10) / near.len()));
        session.error(text.clone()).unwrap();
        assert_eq!(all(&log).pop().unwrap().error, Some(text), "{near}");
    }
}

/// What is bounded is the look, not what is replaced.
#[test]
fn a_secret_longer_than_the_look_is_replaced_to_its_end() {
    let log = open(&MemDir::new(9));
    let observer = Options::new().inline_bytes_max(1 << 20).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let tail = Dice(3).key(2_000);
    for (before, after) in [
        ("ghp_", " ok"),
        ("token=", ", ok"),
        ("sk-", " ok"),
        ("postgres://app:s3cr3tPassw0rd@db/", " ok"),
        ("Bearer ", " ok"),
    ] {
        session.error(JsonText::string(&format!("{before}{tail}{after}"))).unwrap();
        let kept = all(&log).pop().unwrap().error.unwrap();
        let kept = kept.as_str();
        assert!(kept.len() < 60 && kept.ends_with(&format!("{after}\"")), "{before}: {kept}");
    }
}

/// An end has the ids that its start was written with: they are not hashed once more.
#[test]
fn an_id_that_was_replaced_is_not_replaced_again_with_the_end() {
    let log = open(&MemDir::new(10));
    let digits = |text: &str| {
        let found = text.bytes().any(|byte| byte.is_ascii_digit());
        found.then(|| "[digits]".to_owned())
    };
    let observer = Options::new().redactor(digits).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let agent = session.agent("agent 7").start().unwrap();
    let start = |id: &str| {
        session.tool("tool 1").within(&agent).call_id(CallId::new(id).unwrap()).start().unwrap()
    };
    let mut call = start("call_1");
    call.error(JsonText::string("e")).unwrap();
    call.end_ok(JsonText::string("ok")).unwrap();
    drop(start("call_2"));
    let outcome = Outcome::Ok(JsonText::string("ok"));
    let id = CallId::new("call_2").unwrap();
    session.end_by_call_id(CallKind::Tool, id, outcome).unwrap();
    drop(session.tool("t").call_id(CallId::new("call_3").unwrap()).begin().unwrap());
    observer.flush().unwrap();
    let entries = all(&log);
    let ids = |entry: &Entry| (entry.session.clone(), entry.call_id.clone(), entry.tool.clone());
    assert_eq!(ids(&entries[1]), ids(&entries[2]), "an error inside of the call");
    assert_eq!(ids(&entries[1]), ids(&entries[3]));
    assert_eq!(entries[0].agent, entries[1].agent);
    assert_eq!(ids(&entries[4]), ids(&entries[5]));
    assert!(entries[5].duration.is_some(), "the table knows the start by the id that was given");
    assert_eq!(ids(&entries[6]), ids(&entries[7]), "an intent that was given up");
}

#[test]
fn a_value_is_redacted_whole_and_then_cut_on_a_character_boundary() {
    let log = open(&MemDir::new(3));
    let observer = Options::new().field_bytes_max(25).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    // Cut first, the key would be too short to be known as one.
    let output = format!("öööööööö ghp_{}", Dice(5).key(36));
    session.tool("t").start().unwrap().end_ok(JsonText::string(&output)).unwrap();
    let entry = all(&log).pop().unwrap();
    let whole = JsonText::string("öööööööö [redacted:api-key]");
    assert_eq!(entry.output, Some(JsonText::string("öööööööö [redacte")));
    let original = entry.notes.get(Field::Output).unwrap().original.unwrap();
    assert_eq!(original.bytes, whole.as_str().len() as u64);
    let short = session.tool("t").start().unwrap().end_ok(JsonText::string("ö")).unwrap();
    assert!(short.lsn.is_some());
    assert!(all(&log).pop().unwrap().notes.is_empty(), "what is as it was has no note");
    let odd = Options::new().field_bytes_max(4).on(log.clone()).unwrap();
    odd.session("s-1").unwrap().error(JsonText::string("aööö")).unwrap();
    assert_eq!(all(&log).pop().unwrap().error, Some(JsonText::string("aö")));
}

#[test]
fn a_redactor_that_panics_costs_the_value_and_not_the_entry() {
    let log = open(&MemDir::new(4));
    let panicking = |text: &str| -> Option<String> {
        assert!(!text.contains("boom"), "the redactor fails");
        None
    };
    let observer = Options::new().redactor(panicking).on(log.clone()).unwrap();
    observer.session("s-1").unwrap().error(JsonText::string("boom")).unwrap();
    observer.session("s-1").unwrap().error(JsonText::string("calm")).unwrap();
    let entries = all(&log);
    assert_eq!(entries[0].error, Some(JsonText::string(PANICKED)));
    assert_eq!(entries[1].error, Some(JsonText::string("calm")));
}

#[test]
fn a_redactor_may_record_and_flush_while_it_runs() {
    let log = open(&MemDir::new(5));
    let side = Arc::new(Observer::on(log.clone()).unwrap());
    let calls = Arc::new(AtomicU64::new(0));
    let seen = calls.clone();
    let redactor = move |_: &str| -> Option<String> {
        if seen.fetch_add(1, SeqCst) == 0 {
            side.session("side").unwrap().error(JsonText::string("inside")).unwrap();
            assert!(side.force_flush(std::time::Duration::from_secs(60)).is_flushed());
        }
        None
    };
    let observer = Options::new().redactor(redactor).on(log.clone()).unwrap();
    observer.session("s-1").unwrap().error(JsonText::string("outside")).unwrap();
    assert_eq!(all(&log).len(), 2);
}

#[test]
fn an_id_that_is_a_secret_is_the_same_hash_everywhere_and_still_pairs() {
    let log = open(&MemDir::new(6));
    let secret = format!("ghp_{}", Dice(9).key(36));
    for _ in 0..2 {
        let observer = Options::new().id_key([7; 16]).on(log.clone()).unwrap();
        let session = observer.session(secret.clone()).unwrap();
        let mut call = session.tool("t").call_id(CallId::new(secret.clone()).unwrap()).start();
        call.as_mut().unwrap().end_ok(JsonText::string("ok")).unwrap();
    }
    let stored: Vec<_> = entries(&log).unwrap().map(|stored| stored.unwrap().entry).collect();
    let name = stored[0].session.as_ref().unwrap().as_str();
    assert!(name.starts_with("redacted-"), "{name}");
    assert_eq!(session_entries(&log, name).unwrap().count(), 4);
    assert!(stored.iter().all(|entry| entry.call_id == stored[0].call_id));
}

/// A commit with a record of its own, as a registry's transaction is.
struct WithRecord<'l>(&'l Log, &'static str);

impl Joint for WithRecord<'_> {
    type Done = ();
    type Failure = annals_wal::Error;

    fn commit(self, before: &mut dyn Before) -> annals_wal::Result<()> {
        let mut batch = Batch::new();
        before.push_to(&mut batch);
        batch.push(Record::new(self.1));
        let lsns = self.0.append_batch(batch)?;
        before.ordered(*lsns.start()..=*lsns.start());
        Ok(())
    }
}

/// `docs/adr/0020`: what the entry of a joint commit says is redacted as every entry is; what the
/// commit writes is its own affair, byte by byte.
#[test]
fn the_entry_of_a_joint_commit_is_redacted_and_the_commits_own_record_is_not() {
    const KEY: &str = "sk-proj-a7Zq8RtY2uPw9LmKx4NvB6hJ3cDf5GsQ1eWzXoTi";
    let log = open(&MemDir::new(31));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let secret = || JsonText::string(&format!("the key is {KEY}"));
    let outcomes = [Outcome::Ok(secret()), Outcome::Error(secret())];
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let mut call =
            session.tool("t").call_id(CallId::new(format!("c-{n}")).unwrap()).start().unwrap();
        call.metadata(secret());
        assert!(call.end_with(outcome.clone(), WithRecord(&log, KEY)).unwrap().end.is_some());
        drop(session.tool("t").call_id(CallId::new(KEY).unwrap()).start().unwrap());
        let id = CallId::new(KEY).unwrap();
        let end = session.end_by_call_id_with(CallKind::Tool, id, outcome, WithRecord(&log, KEY));
        assert!(end.unwrap().end.is_some());
    }
    let (mut entries, mut plain) = (0, 0);
    for record in log.range(..).unwrap().map(Result::unwrap) {
        if annals_observer::EntryKind::of_record(record.kind).is_some() {
            assert!(!holds(&record.payload, KEY), "LSN {}", record.lsn);
            entries += 1;
        } else {
            assert_eq!(record.payload, KEY.as_bytes(), "LSN {}", record.lsn);
            plain += 1;
        }
    }
    assert_eq!((entries, plain), (8, 4));
}
