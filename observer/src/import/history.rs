//! Messages of a model's conversation: the history of a trajectory, or all there is of one.
//!
//! Never here: an answer that nobody gave. A tool call whose result is not in the file is a start
//! without an end. Invariant: each assistant message is one LLM call whose input is the messages
//! since the one before; each tool call is paired by its id, or, where the file has no ids, with
//! the next message. Next room: [`super::writer`].

use serde_json::value::RawValue;

use super::members::{Members, array, as_list, as_string, json};
use super::trajectory::{Item, Run};
use crate::entry::Entry;
use crate::ids::CallId;
use crate::json::JsonText;
use crate::kind::CallKind;

#[derive(Debug)]
struct Message<'a> {
    raw: &'a RawValue,
    members: Members<'a>,
}

/// The messages in order, and which of them the model wrote.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    all: Vec<Message<'a>>,
    answers: Vec<usize>,
}

impl<'a> Messages<'a> {
    /// A message that is no object is kept, as something that the model saw.
    pub(crate) fn of(raw: Vec<&'a RawValue>) -> Messages<'a> {
        let message = |raw: &'a RawValue| Message {
            raw,
            members: Members::of(raw.get()).unwrap_or_default(),
        };
        let all: Vec<Message<'a>> = raw.into_iter().map(message).collect();
        let is_answer = |message: &Message<'_>| {
            message.members.string("role").as_deref() == Some("assistant")
                && message.members.get("is_demo").map(RawValue::get) != Some("true")
        };
        let answers = (0..all.len()).filter(|at| all.get(*at).is_some_and(is_answer)).collect();
        Messages { all, answers }
    }

    /// The agent's name: the first that a message gives.
    pub(crate) fn agent(&self) -> Option<String> {
        self.all.iter().find_map(|message| message.members.string("agent"))
    }

    /// How many of the first steps are the first answers: as long as their actions are the same.
    pub(crate) fn aligned(&self, steps: &[&RawValue]) -> usize {
        let same = |(step, at): &(&&RawValue, &usize)| {
            let action = Members::of(step.get()).ok().and_then(|step| step.string("action"));
            let answered = self.all.get(**at).and_then(|answer| answer.members.string("action"));
            action.is_some() && action == answered
        };
        steps.iter().zip(&self.answers).take_while(same).count()
    }

    /// The messages between an answer and the one before it.
    pub(crate) fn seen_by(&self, answer: usize) -> Option<JsonText> {
        let end = *self.answers.get(answer)?;
        let start = match answer.checked_sub(1) {
            Some(before) => self.answers.get(before)? + 1,
            None => 0,
        };
        self.list(start..end)
    }

    /// An LLM call for each answer, with the tool calls it asked for.
    pub(crate) fn items(&self, run: &Run<'_>) -> Vec<Item> {
        let item = |answer: usize| {
            let line = answer as u64 + 1;
            Item::step(line, Ok(self.answer_entries(run, line, answer)))
        };
        (0..self.answers.len()).map(item).collect()
    }

    /// Messages after the last answer that no tool call took, as an object; `None` if there are
    /// none.
    pub(crate) fn unanswered(&self) -> Option<JsonText> {
        let last = self.answers.last().copied();
        let taken = last.map(|at| self.results(at)).unwrap_or_default();
        let start = last.map_or(0, |at| at + 1);
        let rest: Vec<&RawValue> = (start..self.all.len())
            .filter(|at| !taken.iter().any(|call| call.result == Some(*at)))
            .filter_map(|at| self.all.get(at).map(|message| message.raw))
            .collect();
        if rest.is_empty() {
            return None;
        }
        Some(JsonText::checked(format!("{{\"history\":{}}}", array(&rest).as_str())))
    }

    fn answer_entries(&self, run: &Run<'_>, line: u64, answer: usize) -> Vec<Entry> {
        let Some(at) = self.answers.get(answer).copied() else { return Vec::new() };
        let mut members = self.all.get(at).map(|m| m.members.clone()).unwrap_or_default();
        let (mut start, mut end) = run.call(CallKind::Llm, line, 0);
        start.input = self.seen_by(answer);
        end.output = members.take("content");
        end.metadata = members.object();
        let mut entries = vec![start, end];
        for (number, call) in (1..).zip(self.results(at)) {
            let (mut start, mut end) = run.call(CallKind::Tool, line, number);
            start.call_id = call.id.or(start.call_id);
            start.tool = call.tool;
            start.input = Some(call.input);
            (end.call_id, end.tool) = (start.call_id.clone(), start.tool.clone());
            entries.push(start);
            if let Some(result) = call.result.and_then(|at| self.all.get(at)) {
                let mut members = result.members.clone();
                end.output = members.take("content");
                end.metadata = members.object();
                entries.push(end);
            }
        }
        entries
    }

    /// The tool calls of the answer at this place, each with its result's place.
    fn results(&self, at: usize) -> Vec<ToolCall> {
        let Some(answer) = self.all.get(at) else { return Vec::new() };
        let mut calls = tool_calls(&answer.members);
        let next = self.answers.iter().copied().find(|next| *next > at).unwrap_or(self.all.len());
        let alone = calls.len() == 1;
        for call in &mut calls {
            let by_id = (at + 1..next).find(|at| self.answers_call(*at, call.id.as_ref()));
            let by_place = || {
                let fits = alone && at + 1 < next && self.names_no_call(at + 1);
                if fits { Some(at + 1) } else { None }
            };
            call.result = by_id.or_else(by_place);
        }
        calls
    }

    fn answers_call(&self, at: usize, id: Option<&CallId>) -> bool {
        id.is_some_and(|id| self.call_ids(at).iter().any(|answered| answered == id.as_str()))
    }

    fn names_no_call(&self, at: usize) -> bool {
        self.call_ids(at).is_empty()
    }

    /// The calls that a message says it answers.
    fn call_ids(&self, at: usize) -> Vec<String> {
        let Some(message) = self.all.get(at) else { return Vec::new() };
        let list = message.members.get("tool_call_ids").and_then(as_list).unwrap_or_default();
        let one = message.members.string("tool_call_id");
        list.into_iter().filter_map(as_string).chain(one).collect()
    }

    fn list(&self, places: std::ops::Range<usize>) -> Option<JsonText> {
        let raw: Vec<&RawValue> = self.all.get(places)?.iter().map(|message| message.raw).collect();
        if raw.is_empty() { None } else { Some(array(&raw)) }
    }
}

#[derive(Debug)]
struct ToolCall {
    id: Option<CallId>,
    tool: Option<String>,
    input: JsonText,
    result: Option<usize>,
}

/// The tool calls of an answer, or its action where it has none.
fn tool_calls(answer: &Members<'_>) -> Vec<ToolCall> {
    let listed = answer.get("tool_calls").and_then(as_list).unwrap_or_default();
    if listed.is_empty() {
        let action = answer.get("action").filter(|action| action.get() != "null");
        let call = |raw| ToolCall { id: None, tool: None, input: json(raw), result: None };
        return action.map(call).into_iter().collect();
    }
    listed.into_iter().map(tool_call).collect()
}

/// The arguments are its input; of a call in a shape unknown to us, the whole of it.
fn tool_call(raw: &RawValue) -> ToolCall {
    let call = Members::of(raw.get()).unwrap_or_default();
    let function = call.get("function").and_then(|function| Members::of(function.get()).ok());
    let function = function.unwrap_or_default();
    ToolCall {
        id: call.string("id").and_then(CallId::stored),
        tool: function.string("name"),
        input: json(function.get("arguments").unwrap_or(raw)),
        result: None,
    }
}
