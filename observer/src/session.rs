//! A session: where calls start, and what belongs to no call.
//!
//! Never here: a table of open calls. What an end must know travels in the [`Call`] itself, so two
//! calls can never be taken for each other. Invariant: a start that was refused wrote nothing, and
//! there is no `Call`. Next room: [`crate::call`].

use std::sync::Arc;

use crate::call::Call;
use crate::clock::MonoTime;
use crate::drain::Handle;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::ids::{CallId, RunId, SessionId, SpanId};
use crate::json::JsonText;
use crate::kind::{CallKind, EntryKind};
use crate::observer::{Level, Receipt};
use crate::open_starts::OpenStart;
use crate::queue::Place;
use crate::record::{Coming, Opening, Recorded};

/// Records the entries of one session. Cheap to clone; clones are the same session.
#[derive(Clone, Debug)]
pub struct Session {
    pub(crate) handle: Arc<Handle>,
    pub(crate) id: SessionId,
    pub(crate) run: Option<RunId>,
    pub(crate) level: Level,
    intents_required: bool,
}

impl Session {
    pub(crate) fn new(handle: Arc<Handle>, id: SessionId) -> Session {
        Session { handle, id, run: None, level: Level::Durable, intents_required: false }
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

    /// The same session, as a run in which every tool start is durable before its tool runs. Says
    /// so in the log, durably: from then on a call that has no start never ran. Give the run an id
    /// first ([`Session::run`]) and use the session that is returned for all of it.
    ///
    /// # Errors
    /// `Invalid` without a run id; else as [`Start::start`].
    pub fn require_intents(mut self) -> Result<Session> {
        let mut entry = self.intents_entry()?;
        self.record(&mut entry, Level::Durable, Place::Kept)?;
        self.intents_required = true;
        Ok(self)
    }

    /// [`Session::require_intents`] for async code: holds no thread while it waits. Dropped before it
    /// is ready, the log may say so or not, and nobody has a session that keeps to it: declare it
    /// again before the run's first tool.
    ///
    /// # Errors
    /// As [`Session::require_intents`].
    pub async fn require_intents_async(mut self) -> Result<Session> {
        let mut entry = self.intents_entry()?;
        self.handle.record_async(&mut entry, Level::Durable, Place::Kept).await?;
        self.intents_required = true;
        Ok(self)
    }

    fn intents_entry(&self) -> Result<Entry> {
        if self.run.is_none() {
            return Err(Error::invalid(
                "a run needs an id to declare something about itself: call Session::run first",
            ));
        }
        let mut entry = self.entry(EntryKind::RunStart);
        entry.metadata = Some(JsonText::parse(r#"{"intents":"required"}"#)?);
        Ok(entry)
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

    /// A whole trace, by its name. Written by [`Start::start`].
    pub fn trace(&self, name: impl Into<String>) -> Start {
        self.call(CallKind::Trace, |entry| entry.name = Some(name.into()))
    }

    /// A stretch of work of any meaning, by its name. Written by [`Start::start`].
    pub fn span(&self, name: impl Into<String>) -> Start {
        self.call(CallKind::Span, |entry| entry.name = Some(name.into()))
    }

    /// Records that one agent hands over to another: [`Entry::agent`] is the one that goes,
    /// [`Entry::name`] the one that comes.
    ///
    /// # Errors
    /// As [`Start::start`].
    pub fn handoff(&self, from: impl Into<String>, to: impl Into<String>) -> Result<Receipt> {
        let mut entry = self.entry(EntryKind::Handoff);
        (entry.agent, entry.name) = (Some(from.into()), Some(to.into()));
        self.record(&mut entry, self.level, Place::Any)
    }

    /// Records a failure that belongs to no call. One inside a call: [`Call::error`].
    ///
    /// # Errors
    /// As [`Start::start`].
    pub fn error(&self, error: JsonText) -> Result<Receipt> {
        let mut entry = self.entry(EntryKind::Error);
        entry.error = Some(error);
        self.record(&mut entry, self.level, Place::Kept)
    }

    /// [`Session::handoff`] for async code: holds no thread while it waits.
    ///
    /// # Errors
    /// As [`Start::start`].
    pub async fn handoff_async(
        &self,
        from: impl Into<String>,
        to: impl Into<String>,
    ) -> Result<Receipt> {
        let mut entry = self.entry(EntryKind::Handoff);
        (entry.agent, entry.name) = (Some(from.into()), Some(to.into()));
        self.handle.record_async(&mut entry, self.level, Place::Any).await
    }

    /// [`Session::error`] for async code: holds no thread while it waits.
    ///
    /// # Errors
    /// As [`Start::start`].
    ///
    /// ```
    /// # use annals_observer::{JsonText, Observer};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?;
    /// let agent = session.agent("planner").start_async().await?;
    /// agent.error_async(JsonText::string("the model repeats itself")).await?;
    /// session.handoff_async("planner", "writer").await?;
    /// let told = session.error_async(JsonText::string("no more credit")).await?;
    /// assert!(told.lsn.is_some(), "durable, as the session's level is");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn error_async(&self, error: JsonText) -> Result<Receipt> {
        let mut entry = self.entry(EntryKind::Error);
        entry.error = Some(error);
        self.handle.record_async(&mut entry, self.level, Place::Kept).await
    }

    pub(crate) fn entry(&self, kind: EntryKind) -> Entry {
        let mut entry = Entry::new(kind);
        entry.session = Some(self.id.clone());
        entry.run = self.run.clone();
        entry
    }

    fn call(&self, kind: CallKind, name: impl FnOnce(&mut Entry)) -> Start {
        let mut entry = self.entry(kind.start());
        let span = self.handle.new_span();
        entry.span = Some(span);
        name(&mut entry);
        let must_be_durable = self.intents_required && kind == CallKind::Tool;
        Start { handle: self.handle.clone(), kind, level: self.level, span, entry, must_be_durable }
    }

    pub(crate) fn record(&self, entry: &mut Entry, level: Level, place: Place) -> Result<Receipt> {
        let encoded = self.handle.prepare(entry)?;
        let recorded = self.handle.record(encoded, level, place)?;
        self.handle.receipt(recorded, level)
    }
}

/// A call about to start. Nothing is written before [`Start::start`].
#[must_use = "nothing is recorded before start() is called"]
#[derive(Clone, Debug)]
pub struct Start {
    pub(crate) handle: Arc<Handle>,
    kind: CallKind,
    pub(crate) level: Level,
    span: SpanId,
    entry: Entry,
    /// The run has declared that its tool starts are durable.
    must_be_durable: bool,
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

    /// [`Start::within`] a call of which only the end entry is at hand, and in its session.
    #[cfg(feature = "tracing")]
    pub(crate) fn inside_of(mut self, end: &Entry) -> Start {
        (self.entry.session, self.entry.run) = (end.session.clone(), end.run.clone());
        (self.entry.parent_span, self.entry.agent) = (end.span, end.agent.clone());
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
    /// [`Level::Ordered`], queued (or dropped, see [`Receipt::dropped`]) at [`Level::Batched`].
    ///
    /// # Errors
    /// `Closed` after a shutdown, `TooLarge` for an entry over the log's record cap, `Log` for
    /// whatever the log says, `Invalid` for a tool start that is not durable in a run that requires
    /// it. Unless [`crate::Error::outcome_unknown`], nothing was recorded.
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
        self.check_level()?;
        let encoded = self.prepare()?;
        let coming = Coming::next(&self.handle)?;
        let recorded = self.handle.record(encoded, self.level, Place::Start)?;
        let (ticket, lsn) = match &recorded {
            Recorded::Submitted(submitted) => (submitted.ticket.sequence, submitted.lsn),
            Recorded::Queued(ticket) | Recorded::Dropped(ticket) => (*ticket, None),
        };
        let reserved = matches!(recorded, Recorded::Queued(_));
        let end = Arc::new(self.end());
        let (end_entry, floor, started) = (end.clone(), coming.floor, self.entry.mono);
        let open = OpenStart { end: end_entry, started, lsn, floor, reserved, ending: false };
        let mut opening = match recorded {
            Recorded::Dropped(_) => None,
            _ => Some(Opening::of(&self.handle, ticket, open)),
        };
        let started = self.handle.clock().mono(); // after the wait for room
        opening.iter_mut().for_each(|opening| opening.enter(started));
        drop(coming); // it is in the table
        match self.handle.receipt(recorded, self.level) {
            Ok(receipt) => Ok(self.opened(opening, end, receipt, started)),
            Err(error) => {
                opening.into_iter().for_each(Opening::refused);
                Err(error)
            }
        }
    }

    /// [`Start::start`] for async code: holds no thread while it waits for room or, at
    /// [`Level::Durable`], for the sync. Dropped before it is ready, the start may be recorded or
    /// not; there is then no [`Call`]: [`Session::end_by_call_id`] may still end it, and past the age
    /// limit it is written off like any other open start.
    ///
    /// # Errors
    /// As [`Start::start`].
    pub async fn start_async(mut self) -> Result<Call> {
        self.check_level()?;
        let encoded = self.prepare()?;
        let coming = Coming::next(&self.handle)?;
        let offered = self.handle.offer_async(encoded, self.level, Place::Start).await?;
        let end = Arc::new(self.end());
        let open = OpenStart {
            end: end.clone(),
            started: self.entry.mono,
            lsn: None,
            floor: coming.floor,
            reserved: true,
            ending: false,
        };
        // In the table before the wait for the sync: this future may be dropped there.
        // Declared after what waits for it, so dropped before that: it sees whether it was refused.
        let mut opening = match offered.dropped {
            true => None,
            false => Some(Opening::of(&self.handle, offered.ticket, open)),
        };
        let started = self.handle.clock().mono(); // after the wait for room
        opening.iter_mut().for_each(|opening| opening.enter(started));
        drop(coming); // it is in the table
        match self.handle.receipt_async(offered, self.level).await {
            Ok(receipt) => Ok(self.opened(opening, end, receipt, started)),
            Err(error) => {
                opening.into_iter().for_each(Opening::refused);
                Err(error)
            }
        }
    }

    pub(crate) fn check_level(&self) -> Result<()> {
        if self.must_be_durable && self.level != Level::Durable {
            return Err(Error::invalid(
                "this run has declared that its tool starts are durable: use Start::begin, or the \
                 level Durable",
            ));
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<crate::codec::EncodedEntry> {
        let span = self.span;
        self.entry.call_id.get_or_insert_with(|| CallId::of_span(span));
        self.handle.prepare(&mut self.entry)
    }

    /// The end entry as far as the start knows it, its names and ids as they were written.
    fn end(&self) -> Entry {
        let mut end = Entry::new(self.kind.end());
        end.session = self.entry.session.clone();
        end.run = self.entry.run.clone();
        end.span = Some(self.span);
        end.parent_span = self.entry.parent_span;
        end.call_id = self.entry.call_id.clone();
        end.agent = self.entry.agent.clone();
        end.tool = self.entry.tool.clone();
        end.model = self.entry.model.clone();
        end.name = self.entry.name.clone();
        end
    }

    /// The call, whose time begins now: its caller can go on. The start's own stamp is older.
    fn opened(
        self,
        opening: Option<Opening>,
        end: Arc<Entry>,
        start: Receipt,
        queued: MonoTime,
    ) -> Call {
        let waited = self.level != Level::Batched;
        let started = if waited { self.handle.clock().mono() } else { queued };
        if let Some(opening) = opening {
            opening.done(waited.then_some((started, start.lsn)));
        }
        let call_id = end.call_id.clone().unwrap_or_else(|| CallId::of_span(self.span));
        Call {
            handle: self.handle,
            level: self.level,
            started,
            call_id,
            span: self.span,
            start,
            tokens: None,
            metadata: None,
            ended: false,
            unsaid: None,
            end,
        }
    }
}
