//! A session: where calls start, and what belongs to no call.
//!
//! Never here: a table of open calls. What an end must know travels in the [`Call`] itself, so two
//! calls can never be taken for each other. Invariant: a start that was refused wrote nothing, and
//! there is no `Call`. Next room: [`crate::call`].

use std::sync::Arc;

use crate::call::{Call, Outcome};
use crate::drain::Drain;
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::{CallId, RunId, SessionId, SpanId};
use crate::json::JsonText;
use crate::kind::{CallKind, EntryKind};
use crate::observer::{Level, Receipt, receipt};

/// Records the entries of one session. Cheap to clone; clones are the same session.
#[derive(Clone, Debug)]
pub struct Session {
    drain: Arc<Drain>,
    id: SessionId,
    run: Option<RunId>,
    level: Level,
}

impl Session {
    pub(crate) fn new(drain: Arc<Drain>, id: SessionId) -> Session {
        Session { drain, id, run: None, level: Level::Durable }
    }

    /// The same session, its entries marked with this run.
    pub fn run(mut self, run: RunId) -> Session {
        self.run = Some(run);
        self
    }

    /// The same session, its calls at this level unless they say otherwise. Default
    /// [`Level::Durable`].
    pub fn level(mut self, level: Level) -> Session {
        self.level = level;
        self
    }

    /// The session's id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// An agent's work, by the agent's name. Written by [`Start::start`].
    pub fn agent(&self, name: impl Into<String>) -> Start {
        self.call(CallKind::Agent, |entry| entry.agent = Some(name.into()))
    }

    /// A question to a model, by the model's name. Written by [`Start::start`].
    pub fn llm(&self, model: impl Into<String>) -> Start {
        self.call(CallKind::Llm, |entry| entry.model = Some(model.into()))
    }

    /// A call of a tool, by the tool's name. Written by [`Start::start`].
    pub fn tool(&self, name: impl Into<String>) -> Start {
        self.call(CallKind::Tool, |entry| entry.tool = Some(name.into()))
    }

    /// Records a failure that belongs to no call. One inside a call: [`Call::error`].
    ///
    /// # Errors
    /// As [`Start::start`].
    pub fn error(&self, error: JsonText) -> Result<Receipt> {
        let mut entry = self.entry(EntryKind::Error);
        entry.error = Some(error);
        self.record(&mut entry)
    }

    /// Records the end of a call whose [`Call`] is not at hand: in another process, after a
    /// restart. The entry has no duration and no span, because nobody here knows them; readers
    /// pair it by the call id.
    ///
    /// # Errors
    /// As [`Start::start`].
    pub fn end_by_call_id(
        &self,
        kind: CallKind,
        call_id: CallId,
        outcome: Outcome,
    ) -> Result<Receipt> {
        let mut entry = self.entry(kind.end());
        entry.call_id = Some(call_id);
        outcome.put(&mut entry);
        self.record(&mut entry)
    }

    fn entry(&self, kind: EntryKind) -> Entry {
        let mut entry = Entry::new(kind);
        entry.session = Some(self.id.clone());
        entry.run = self.run.clone();
        entry
    }

    fn call(&self, kind: CallKind, name: impl FnOnce(&mut Entry)) -> Start {
        let mut entry = self.entry(kind.start());
        let span = self.drain.new_span();
        entry.span = Some(span);
        name(&mut entry);
        Start { drain: self.drain.clone(), kind, level: self.level, span, entry }
    }

    fn record(&self, entry: &mut Entry) -> Result<Receipt> {
        receipt(&self.drain, self.drain.submit_now(entry)?, self.level)
    }
}

/// A call about to start. Nothing is written before [`Start::start`].
#[must_use = "nothing is recorded before start() is called"]
#[derive(Clone, Debug)]
pub struct Start {
    drain: Arc<Drain>,
    kind: CallKind,
    level: Level,
    span: SpanId,
    entry: Entry,
}

impl Start {
    /// The id that the runtime gave the call. Without one the call is named after its span.
    pub fn call_id(mut self, call_id: CallId) -> Start {
        self.entry.call_id = Some(call_id);
        self
    }

    /// Puts the call inside another: its parent span, and its agent where none is named.
    pub fn within(mut self, parent: &Call) -> Start {
        self.entry.parent_span = Some(parent.span());
        self.entry.agent = self.entry.agent.or_else(|| parent.agent().map(str::to_owned));
        self
    }

    /// The agent that makes the call.
    pub fn by_agent(mut self, name: impl Into<String>) -> Start {
        self.entry.agent = Some(name.into());
        self
    }

    /// What goes in: the arguments of a tool, the messages for a model.
    pub fn input(mut self, input: JsonText) -> Start {
        self.entry.input = Some(input);
        self
    }

    /// Anything else about the call.
    pub fn metadata(mut self, metadata: JsonText) -> Start {
        self.entry.metadata = Some(metadata);
        self
    }

    /// The level of the call's start and end.
    pub fn level(mut self, level: Level) -> Start {
        self.level = level;
        self
    }

    /// Records the start. On return it is durable at [`Level::Durable`], ordered at
    /// [`Level::Ordered`].
    ///
    /// # Errors
    /// `Closed` after a shutdown, `TooLarge` for an entry over the log's record cap, `Log` for
    /// whatever the log says. Unless [`crate::Error::outcome_unknown`], nothing was recorded.
    ///
    /// ```
    /// use annals_observer::{CallId, JsonText, Level, Observer};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?;
    /// let agent = session.agent("planner").start()?;
    /// let mut read = session
    ///     .tool("read_file")
    ///     .within(&agent)
    ///     .call_id(CallId::new("call_7")?)
    ///     .input(JsonText::parse(r#"{"path": "src/lib.rs"}"#)?)
    ///     .level(Level::Ordered)
    ///     .start()?;
    /// read.end_error(JsonText::string("no such file"))?;
    /// observer.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(mut self) -> Result<Call> {
        let span = self.span;
        let call_id = self.entry.call_id.take().unwrap_or_else(|| CallId::of_span(span));
        self.entry.call_id = Some(call_id.clone());
        let submitted = self.drain.submit_now(&mut self.entry)?;
        let started = self.entry.mono;
        let receipt = receipt(&self.drain, submitted, self.level)?;
        let mut end = Entry::new(self.kind.end());
        end.session = self.entry.session;
        end.run = self.entry.run;
        end.span = Some(span);
        end.parent_span = self.entry.parent_span;
        end.call_id = Some(call_id.clone());
        end.agent = self.entry.agent;
        end.tool = self.entry.tool;
        end.model = self.entry.model;
        Ok(Call::new(self.drain, self.level, end, started, call_id, span, receipt))
    }
}
