//! `cargo xtask classify`: kill -9 in the middle of a run of tools, and every call classified.
//!
//! A child runs tools from four threads and says over a pipe, before each step, what it is about to
//! do: `begin`, `ran` (inside of the tool), `ended` (the end is durable). The parent kills it
//! somewhere, reads the pipe to its end, recovers the log and compares each call's class with what
//! it was told. Two runs write at once: one that requires intents, and one whose starts are only
//! queued, so that a tool may have run without a trace.
//!
//! Never here: a call that the parent was not told of. Invariant: a class is wrong if it contradicts
//! what was told; where the kill came between a step and its word, both classes are right.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use annals_observer::{
    CallId, CallKind, CallState, JsonText, Level, Observer, RunId, Session, call_state_in_run,
};
use annals_wal::{Log, Options};

use crate::power_loss::dice::Dice;
use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{Res, Scratch};
use crate::power_loss::verdict;
use crate::say;

const USAGE: &str = "cargo xtask classify [--runs N] [--seed S] [--dir DIR]
  --runs N     kills (default 100; a few of them meet too few of some class, and that is an error)
  --dir DIR    where the logs go (default /var/tmp); a real file system, not memory";
/// The verb of the child.
pub(crate) const WRITER: &str = "classify-writer";
const THREADS: u64 = 4;
const SESSION: &str = "killed";
/// Calls of this run have durable starts.
const REQUIRED: &str = "required";
/// Calls of this one have queued starts.
const QUEUED: &str = "queued";

pub(crate) fn command(args: &[String]) -> ExitCode {
    let flags = match Flags::parse(args, &["runs", "seed", "dir"], &["help"]) {
        Ok(flags) if !flags.has("help") => flags,
        Ok(_) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            say(&format!("{e}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match all(&flags) {
        Ok((passed, failed)) => verdict(Ok(None), passed, failed),
        Err(e) => verdict(Err(e), 0, 0),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn all(flags: &Flags) -> Res<(u64, u64)> {
    let runs = flags.number("runs")?.unwrap_or(100);
    let seed = flags.number("seed")?.unwrap_or(1);
    let scratch = Scratch::below(Path::new(flags.text("dir").unwrap_or("/var/tmp")), "classify")?;
    say(&format!("{runs} runs from seed {seed} in {}", scratch.path().display()));
    let (mut failed, mut seen) = (0, Tally::default());
    for run in 0..runs {
        let dir = scratch.path().join(format!("log-{run}"));
        let told = killed(&dir, seed.wrapping_add(run))?;
        match judge(&dir, &told, &mut seen) {
            Ok(()) => {}
            Err(why) => {
                failed += 1;
                say(&format!("run {run} (seed {}): {why}", seed.wrapping_add(run)));
            }
        }
        std::fs::remove_dir_all(&dir).map_err(text)?;
    }
    say(&format!("{seen:?}"));
    if let Some(short) = seen.short(runs) {
        return Err(short);
    }
    Ok((runs - failed, failed))
}

/// What the child said of one call.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    begun: bool,
    ran: bool,
    ended: bool,
    gave_up: bool,
}

#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    ran_and_cut: u64,
    never_started: u64,
    ambiguous: u64,
    settled: u64,
    queued_ran_without_a_trace: u64,
}

impl Tally {
    /// A class that was hardly met: the runs would have said nothing of it. The least counts are far
    /// below what is usual.
    fn short(&self, runs: u64) -> Option<String> {
        let least = [
            ("calls", self.calls, 20 * runs),
            ("that ran and had no end", self.ran_and_cut, runs),
            ("never started", self.never_started, runs),
            ("ambiguous", self.ambiguous, runs),
            ("settled", self.settled, 10 * runs),
            ("queued that ran without a trace", self.queued_ran_without_a_trace, runs / 20),
        ];
        let short = least.into_iter().find(|(_, met, least)| met < least || *met == 0)?;
        let (what, met, least) = short;
        Some(format!("{met} calls {what} in {runs} runs, less than {}", least.max(1)))
    }
}

/// Runs a child and kills it after so many words; everything that it said.
fn killed(dir: &Path, seed: u64) -> Res<BTreeMap<(String, String), Told>> {
    let exe = std::env::current_exe().map_err(text)?;
    let mut command = Command::new(exe);
    command.arg(WRITER).arg(dir).arg(seed.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(text)?;
    let out = child.stdout.take().ok_or("the child has no pipe")?;
    let words = 20 + usize::try_from(Dice::new(seed).below(600)).map_err(text)?;
    let mut told: BTreeMap<(String, String), Told> = BTreeMap::new();
    for (n, line) in BufReader::new(out).lines().enumerate() {
        let line = line.map_err(text)?;
        if let [word, run, call] = line.split(' ').collect::<Vec<_>>()[..] {
            let call = told.entry((run.to_owned(), call.to_owned())).or_default();
            match word {
                "begin" => call.begun = true,
                "ran" => call.ran = true,
                "ended" => call.ended = true,
                "gave-up" => call.gave_up = true,
                _ => return Err(format!("the child said {word}")),
            }
        }
        if n + 1 == words {
            child.kill().map_err(text)?; // SIGKILL; what it has said is still in the pipe
        }
    }
    let status = child.wait().map_err(text)?;
    if status.code().is_some() {
        return Err(format!("the child ended by itself: {status}"));
    }
    Ok(told)
}

fn judge(dir: &Path, told: &BTreeMap<(String, String), Told>, seen: &mut Tally) -> Res<()> {
    let log = Log::open(dir).map_err(text)?;
    let observer = Observer::on(log.clone()).map_err(text)?;
    let recovered = observer.recover().map_err(text)?;
    let mut open: Vec<(String, String)> = Vec::new();
    for call in &recovered.open {
        let id = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let run = id(call.start.run.as_ref().map(RunId::as_str));
        open.push((run, id(call.start.call_id.as_ref().map(CallId::as_str))));
    }
    for ((run, call), told) in told {
        let state = call_state_in_run(&log, SESSION, run, CallKind::Tool, call).map_err(text)?;
        let required = run == REQUIRED;
        let is_open = open.contains(&(run.clone(), call.clone()));
        let wrong = match state {
            // It did not run, and the log can know: only where starts are durable, or given up.
            CallState::NeverStarted => told.ran || told.ended || is_open || !required,
            CallState::Settled => !told.ran || is_open,
            CallState::Ambiguous => required && (told.ended || !is_open),
        };
        // A tool that ran and whose end was acknowledged is settled; unless its end was only queued.
        let lost = told.ended && required && state != CallState::Settled;
        if wrong || lost {
            return Err(format!(
                "{run}/{call} is {state:?}, open {is_open}, and {told:?} was told"
            ));
        }
        seen.calls += 1;
        seen.ran_and_cut += u64::from(told.ran && !told.ended);
        match state {
            CallState::NeverStarted => seen.never_started += 1,
            CallState::Ambiguous => seen.ambiguous += 1,
            CallState::Settled => seen.settled += 1,
        }
        seen.queued_ran_without_a_trace +=
            u64::from(!required && told.ran && state == CallState::Ambiguous && !is_open);
    }
    let unknown = open.iter().find(|call| !told.contains_key(*call));
    if let Some((run, call)) = unknown {
        return Err(format!("{run}/{call} is open and was never begun"));
    }
    let again = observer.recover().map_err(text)?;
    if (again.written_off, again.open.len()) != (0, open.len()) {
        return Err("a second recovery says something else".into());
    }
    Ok(())
}

/// The child: tools until somebody kills it.
pub(crate) fn writer(args: &[String]) -> ExitCode {
    let [dir, seed] = args else { return ExitCode::from(2) };
    let seed = seed.parse().unwrap_or(0);
    match write(Path::new(dir), seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("error {e}"));
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path, seed: u64) -> Res<()> {
    let log = Options::new().segment_bytes(256 << 10).open(dir).map_err(text)?;
    let observer = Observer::on(log).map_err(text)?;
    let session = observer.session(SESSION).map_err(text)?;
    let run = |name: &str| Ok::<_, String>(session.clone().run(RunId::new(name).map_err(text)?));
    let required = run(REQUIRED)?.require_intents().map_err(text)?;
    let queued = run(QUEUED)?.level(Level::Batched);
    let out = Mutex::new(std::io::stdout());
    // One write each, so that no line is torn by another's.
    let said = |word: &str, run: &str, call: &str| {
        let line = format!("{word} {run} {call}\n");
        let mut out = out.lock().map_err(text)?;
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(text)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (required, queued, said) = (&required, &queued, &said);
                scope.spawn(move || tools(thread, seed, required, queued, said))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err("a panic".into())))
    })
}

fn tools(
    thread: u64,
    seed: u64,
    required: &Session,
    queued: &Session,
    said: &impl Fn(&str, &str, &str) -> Res<()>,
) -> Res<()> {
    let mut dice = Dice::of(&[seed, thread]);
    for n in 0u64.. {
        let name = format!("call-{thread}-{n}");
        let id = CallId::new(name.clone()).map_err(text)?;
        let input = JsonText::string(&"x".repeat(dice.index(2_000)));
        if dice.percent(30) {
            said("begin", QUEUED, &name)?;
            let start = queued.tool("t").call_id(id).input(input).start();
            let mut call = start.map_err(text)?;
            said("ran", QUEUED, &name)?;
            if dice.percent(80) {
                call.end_ok(JsonText::string("done")).map_err(text)?;
                said("ended", QUEUED, &name)?;
            }
            continue;
        }
        said("begin", REQUIRED, &name)?;
        let intent = required.tool("t").call_id(id).input(input).begin().map_err(text)?;
        if dice.percent(10) {
            drop(intent);
            said("gave-up", REQUIRED, &name)?;
            continue;
        }
        let mut call = intent.enter();
        said("ran", REQUIRED, &name)?; // this is the tool
        let output = JsonText::string("done");
        let ended = if dice.percent(20) { call.end_error(output) } else { call.end_ok(output) };
        ended.map_err(text)?;
        said("ended", REQUIRED, &name)?;
    }
    Ok(())
}
