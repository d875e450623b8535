//! A SWE-agent trajectory becomes one agent call with an LLM call and a tool call for each step.
//!
//! Never here: files, the log, times (a trajectory has none). Invariant: every member of the file
//! and of each step is in exactly one entry, except `history` messages, which are in the agent
//! start and again, where they can be told, in the input of the LLM call that saw them.
//! Next room: [`super::history`], for files that have only messages.

use std::path::Path;
use std::time::Duration;

use serde_json::value::RawValue;

use super::history::Messages;
use super::members::{Members, as_list};
use super::origin::Origin;
use super::{BadLine, Reason};
use crate::entry::Entry;
use crate::ids::{CallId, SessionId, SpanId};
use crate::json::JsonText;
use crate::kind::CallKind;

/// The entries of one line or step, or why there are none.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) line: u64,
    pub(crate) entries: Result<Vec<Entry>, Reason>,
    /// Whether it is a line or step, and not what surrounds them.
    pub(crate) counts: bool,
}

impl Item {
    pub(crate) fn step(line: u64, entries: Result<Vec<Entry>, Reason>) -> Item {
        Item { line, entries, counts: true }
    }

    fn around(line: u64, entry: Entry) -> Item {
        Item { line, entries: Ok(vec![entry]), counts: false }
    }
}

/// A parsed trajectory, still as raw text.
#[derive(Debug)]
pub(crate) struct Trajectory<'a> {
    /// The file's members without those that have a field of their own here.
    around: Members<'a>,
    info: Option<JsonText>,
    steps: Vec<&'a RawValue>,
    messages: Messages<'a>,
}

impl<'a> Trajectory<'a> {
    /// Reads the whole file's text.
    pub(crate) fn parse(text: &'a str) -> Result<Trajectory<'a>, Reason> {
        let mut around = Members::of(text)?;
        let list = |name| around.get(name).and_then(as_list);
        let (steps, messages) = (list("trajectory"), list("history"));
        if steps.is_none() && messages.is_none() {
            return Err(Reason::NotATrajectory);
        }
        let steps = steps.unwrap_or_default();
        // What becomes calls is not kept a second time: the steps, or, where there are none, the
        // messages.
        around.take(if steps.is_empty() { "history" } else { "trajectory" });
        let info = around.take("info");
        let messages = Messages::of(messages.unwrap_or_default());
        Ok(Trajectory { around, info, steps, messages })
    }

    /// All entries in order: agent start, steps, agent end.
    pub(crate) fn items(&self, origin: &Origin, session: Option<&SessionId>) -> Vec<Item> {
        let agent = self.messages.agent();
        let run = Run { origin, session, agent, root: origin.span(0, 0) };
        let calls =
            if self.steps.is_empty() { self.messages.items(&run) } else { self.step_items(&run) };
        let mut items = vec![Item::around(0, self.start(&run))];
        let after = calls.len() as u64 + 1;
        items.extend(calls);
        items.push(Item::around(after, self.end(&run)));
        items
    }

    /// The first step that is bad.
    pub(crate) fn first_bad(&self, file: &Path) -> Option<BadLine> {
        let judged = self.steps.iter().map(|step| Members::of(step.get()).err());
        let (line, reason) = (1..).zip(judged).find_map(|(line, bad)| Some((line, bad?)))?;
        Some(BadLine { file: file.to_owned(), line, reason })
    }

    fn start(&self, run: &Run<'_>) -> Entry {
        let (mut start, _) = run.call(CallKind::Agent, 0, 0);
        start.metadata = self.around.object();
        start
    }

    fn end(&self, run: &Run<'_>) -> Entry {
        let (_, mut end) = run.call(CallKind::Agent, 0, 0);
        if let Some(info) = &self.info {
            (end.tokens_in, end.tokens_out) = tokens(info);
        }
        end.output = self.info.clone();
        if self.steps.is_empty() {
            end.metadata = self.messages.unanswered();
        }
        end
    }

    fn step_items(&self, run: &Run<'_>) -> Vec<Item> {
        let aligned = self.messages.aligned(&self.steps);
        let item = |(index, step): (usize, &&RawValue)| {
            let line = index as u64 + 1;
            let seen = if index < aligned { self.messages.seen_by(index) } else { None };
            Item::step(line, step_entries(run, line, step, seen))
        };
        self.steps.iter().enumerate().map(item).collect()
    }
}

fn step_entries(
    run: &Run<'_>,
    line: u64,
    step: &RawValue,
    seen: Option<JsonText>,
) -> Result<Vec<Entry>, Reason> {
    let mut members = Members::of(step.get())?;
    let duration = members.get("execution_time").and_then(seconds);
    let (action, observation) = (members.take("action"), members.take("observation"));
    let (mut llm_start, mut llm_end) = run.call(CallKind::Llm, line, 0);
    llm_start.input = members.take("query").or(seen);
    llm_end.output = members.take("response");
    llm_end.metadata = members.object();
    let mut entries = vec![llm_start, llm_end];
    if action.is_some() || observation.is_some() {
        let (mut tool_start, mut tool_end) = run.call(CallKind::Tool, line, 1);
        tool_start.input = action;
        tool_end.output = observation;
        tool_end.duration = duration;
        entries.extend([tool_start, tool_end]);
    }
    Ok(entries)
}

/// What all entries of one trajectory share.
pub(crate) struct Run<'r> {
    origin: &'r Origin,
    session: Option<&'r SessionId>,
    agent: Option<String>,
    root: SpanId,
}

impl Run<'_> {
    /// Start and end of a call, paired by a span made from its place.
    pub(crate) fn call(&self, kind: CallKind, line: u64, number: u32) -> (Entry, Entry) {
        let span = self.origin.span(line, number);
        let mut start = Entry::new(kind.start());
        start.session = self.session.cloned();
        start.agent = self.agent.clone();
        start.span = Some(span);
        start.parent_span = if span == self.root { None } else { Some(self.root) };
        start.call_id = Some(CallId::of_span(span));
        let mut end = start.clone();
        end.kind = kind.end();
        (start, end)
    }
}

/// A number of seconds as a duration; `None` for what cannot be one.
fn seconds(raw: &RawValue) -> Option<Duration> {
    let seconds = serde_json::from_str::<f64>(raw.get()).ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// What `info.model_stats` counts.
fn tokens(info: &JsonText) -> (Option<u64>, Option<u64>) {
    let count = |name: &str| {
        let info = Members::of(info.as_str()).ok()?;
        let stats = Members::of(info.get("model_stats")?.get()).ok()?;
        serde_json::from_str(stats.get(name)?.get()).ok()
    };
    (count("tokens_sent"), count("tokens_received"))
}
