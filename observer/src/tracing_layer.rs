//! A `tracing` layer: spans named by the GenAI conventions become calls, errors inside them
//! entries, and events named by the conventions short spans.
//!
//! Feature `tracing`. A span is recorded if it has `gen_ai.operation.name`, or is called
//! `invoke_agent`, `chat` or `execute_tool`; others are passed by. Its state lives in the span's
//! own extensions and never under its id, which is used again after it closed. Never here: a wait
//! for a sync; entries are batched, and a failure to record is in [`crate::Health`]. Invariants: a
//! span that closes leaves an end, with an error if it recorded `error`, `error.type`, the status
//! `ERROR` or an event at ERROR; nothing of a caller (a redactor, a clock, a field's `Debug`) runs
//! while a span's extensions are held, because it may trace inside of the same span.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Level as Severity, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::call::{Call, Outcome};
use crate::capture::Capture;
use crate::drain::Handle;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::export::names;
use crate::ids::CallId;
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::observer::{Level, Observer};
use crate::queue::Place;
use crate::session::{Session, Start};

/// Records spans and their errors on an observer.
///
/// ```
/// use annals_observer::tracing_layer::ObserverLayer;
/// use annals_observer::{Observer, entries};
/// use tracing_subscriber::prelude::*;
///
/// # let dir = tempfile::tempdir()?;
/// let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let layer = ObserverLayer::new(&observer, "s-1")?;
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
///     let tool = tracing::info_span!("execute_tool", gen_ai.tool.name = "search");
///     tool.in_scope(|| tracing::error!("no network"));
/// });
/// observer.flush()?;
/// let kinds = entries(observer.log())?.map(|stored| stored.map(|s| s.entry.kind.to_string()));
/// assert_eq!(kinds.collect::<Result<Vec<_>, _>>()?, ["tool_start", "error", "tool_end"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ObserverLayer {
    observer: Observer,
    session: Session,
}

/// What a recorded span keeps in its extensions.
#[derive(Debug)]
struct Recorded {
    call: Call,
    later: Fields,
    error: Option<String>,
}

/// A recorded span, as far as what happens inside of it must know.
struct Around {
    handle: Arc<Handle>,
    end: Arc<Entry>,
}

impl Around {
    fn of(recorded: &Recorded) -> Around {
        Around { handle: recorded.call.handle.clone(), end: recorded.call.end.clone() }
    }

    /// As [`Call::error`], which cannot be had without the span's extensions.
    fn error(&self, error: JsonText) -> Result<()> {
        let mut entry = (*self.end).clone();
        (entry.kind, entry.error) = (EntryKind::Error, Some(error));
        let encoded = self.handle.prepare(&mut entry)?;
        let recorded = self.handle.record(encoded, Level::Batched, Place::Kept)?;
        self.handle.receipt(recorded, Level::Batched).map(drop)
    }
}

/// How the name of an event of the conventions begins.
const EVENT_PREFIX: &str = "gen_ai.";
/// Where an event has its name, if not in its metadata.
const EVENT_NAME: &str = "event.name";
const ERROR: &str = "error";
const STATUS_CODE: &str = "otel.status_code";
/// What a status says in words: the convention's field, and that of `tracing-opentelemetry`.
const STATUS_TEXT: [&str; 2] = ["otel.status_description", "otel.status_message"];

impl ObserverLayer {
    /// A layer whose spans belong to this session unless they name another
    /// (`gen_ai.conversation.id`).
    ///
    /// # Errors
    /// `Invalid` if the id is empty.
    pub fn new(observer: &Observer, session: impl Into<String>) -> Result<ObserverLayer> {
        let session = observer.session(session)?.level(Level::Batched);
        Ok(ObserverLayer { observer: observer.clone(), session })
    }

    /// The start of a span that is to be recorded; `None` for another span.
    fn start(&self, span_name: &str, fields: &mut Fields) -> Option<Start> {
        let operation = fields.take(names::OPERATION);
        let known = ["invoke_agent", "chat", "execute_tool"].contains(&span_name);
        if operation.is_none() && !known {
            return None;
        }
        let session =
            fields.take(names::CONVERSATION).and_then(|id| self.observer.session(id).ok());
        let session = session.map_or_else(|| self.session.clone(), |s| s.level(Level::Batched));
        let agent = fields.take(names::AGENT);
        let mut name = |field: &str| fields.take(field).unwrap_or_else(|| span_name.to_owned());
        let start = match operation.as_deref().unwrap_or(span_name) {
            "invoke_agent" => session.agent(agent.as_deref().unwrap_or(span_name)),
            "chat" | "generate_content" | "text_completion" => session.llm(name(names::MODEL)),
            "execute_tool" => session.tool(name(names::TOOL)),
            "invoke_workflow" => session.trace(name(names::WORKFLOW)),
            other => session.span(other),
        };
        let start = match agent {
            Some(agent) => start.by_agent(agent),
            None => start,
        };
        let id = fields.take(names::TOOL_CALL_ID).and_then(|id| CallId::new(id).ok());
        Some(match id {
            Some(id) => start.call_id(id),
            None => start,
        })
    }

    /// An event of the conventions: a span of no length, inside of the one around it.
    fn event(&self, name: String, fields: &Fields, around: Option<Around>) {
        let mut start = self.session.span(name);
        if let Some(around) = around {
            start = start.inside_of(&around.end);
        }
        // They may be a prompt or an answer.
        let capture = &self.session.handle.options.capture;
        let whole = capture.takes_prompts() && capture.takes_output();
        if let Some(fields) = fields.as_json().filter(|_| whole) {
            start = start.input(fields);
        }
        let ended = start.start().and_then(|mut call| {
            call.finish(Outcome::Ok(JsonText::string("")), Level::Batched, Place::Forced)
        });
        if let Err(error) = ended {
            self.failed(error);
        }
    }

    fn failed(&self, error: Error) {
        self.session.handle.note_error(error);
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for ObserverLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let Some(mut start) = self.start(span.name(), &mut fields) else { return };
        for parent in span.scope().skip(1) {
            if let Some(around) = parent.extensions().get::<Recorded>() {
                start = start.within(&around.call);
                break;
            }
        }
        if let Some(input) = fields.take(names::TOOL_ARGUMENTS) {
            start = start.input(json(input));
        } else if let Some(input) = fields.take(names::INPUT_MESSAGES) {
            start = start.input(json(input));
        }
        let capture = &self.session.handle.options.capture;
        fields.leave_out(capture);
        let later = fields.split_off();
        if let Some(metadata) = fields.as_json() {
            start = start.metadata(metadata);
        }
        match start.start() {
            Ok(call) => {
                span.extensions_mut().insert(Recorded { call, later, error: None });
            }
            Err(error) => self.failed(error),
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if span.extensions().get::<Recorded>().is_none() {
            return;
        }
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(recorded) = span.extensions_mut().get_mut::<Recorded>() {
            recorded.later.0.append(&mut fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let about = event.metadata();
        let is_error = *about.level() == Severity::ERROR;
        let named = about.name().starts_with(EVENT_PREFIX);
        if !is_error && !named && about.fields().field(EVENT_NAME).is_none() {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = || context.event_scope(event).into_iter().flatten();
        if !is_error {
            let name = fields.0.get(EVENT_NAME).map_or(about.name(), String::as_str).to_owned();
            if name.starts_with(EVENT_PREFIX) {
                let around =
                    spans().find_map(|span| span.extensions().get::<Recorded>().map(Around::of));
                self.event(name, &fields, around);
            }
            return;
        }
        let message = fields.0.get("message").cloned().unwrap_or_else(|| ERROR.to_owned());
        let error = match fields.0.len() {
            0 | 1 => JsonText::string(&message),
            _ => fields.as_json().unwrap_or_else(|| JsonText::string(&message)),
        };
        for span in spans() {
            // What is recorded runs outside of this guard.
            let around = span.extensions_mut().get_mut::<Recorded>().map(|recorded| {
                recorded.error.get_or_insert_with(|| message.clone());
                Around::of(recorded)
            });
            if let Some(around) = around {
                if let Err(error) = around.error(error) {
                    self.failed(error);
                }
                return;
            }
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(Recorded { mut call, mut later, error }) = span.extensions_mut().remove() else {
            return;
        };
        let tokens = |later: &mut Fields, name| later.take(name).and_then(|n| n.parse().ok());
        let read = tokens(&mut later, names::INPUT_TOKENS);
        let wrote = tokens(&mut later, names::OUTPUT_TOKENS);
        if read.is_some() || wrote.is_some() {
            call.tokens(read.unwrap_or(0), wrote.unwrap_or(0));
        }
        // What a failed call gave until then, and a second result, stay in the metadata.
        let outcome = match later.failure(error) {
            Some(error) => Outcome::Error(error),
            None => {
                let result = later.take(names::TOOL_RESULT);
                let output = result.or_else(|| later.take(names::OUTPUT_MESSAGES));
                Outcome::Ok(output.map_or_else(|| JsonText::string(""), json))
            }
        };
        later.leave_out(&self.session.handle.options.capture);
        if let Some(metadata) = later.as_json() {
            call.metadata(metadata);
        }
        let ended = call.finish(outcome, Level::Batched, Place::Forced);
        if let Err(error) = ended {
            self.failed(error);
        }
    }
}

/// JSON where the text is JSON, else the text as a JSON string.
fn json(text: String) -> JsonText {
    let string = JsonText::string(&text);
    JsonText::parse(text).unwrap_or(string)
}

/// Fields of a span as texts.
#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// What is not to be captured is no metadata either.
    fn leave_out(&mut self, capture: &Capture) {
        if !capture.takes_prompts() {
            self.take(names::INPUT_MESSAGES);
            self.take(names::TOOL_ARGUMENTS);
        }
        if !capture.takes_output() {
            self.take(names::TOOL_RESULT);
            self.take(names::OUTPUT_MESSAGES);
        }
    }

    /// Those that the end says.
    fn split_off(&mut self) -> Fields {
        const LATER: [&str; 9] = [
            names::INPUT_TOKENS,
            names::OUTPUT_TOKENS,
            names::TOOL_RESULT,
            names::OUTPUT_MESSAGES,
            names::ERROR_TYPE,
            ERROR,
            STATUS_CODE,
            STATUS_TEXT[0],
            STATUS_TEXT[1],
        ];
        let later = self.0.iter().filter(|(name, _)| LATER.contains(name));
        let later = Fields(later.map(|(name, value)| (*name, value.clone())).collect());
        self.0.retain(|name, _| !LATER.contains(name));
        later
    }

    /// Why the span failed, if it did: in the words of an event or of its own, and of what type.
    fn failure(&mut self, event: Option<String>) -> Option<JsonText> {
        let kind = self.take(names::ERROR_TYPE);
        let said = self.take(ERROR).filter(|error| error != "false");
        let code = self
            .take(STATUS_CODE)
            .filter(|code| code.eq_ignore_ascii_case("error") || code.starts_with("Error"));
        if kind.is_none() && said.is_none() && code.is_none() && event.is_none() {
            return None;
        }
        let text = STATUS_TEXT.into_iter().find_map(|name| self.take(name));
        let message = event.or(said.clone().filter(|said| said != "true")).or(text);
        Some(match (message, kind) {
            (Some(message), Some(kind)) => {
                let both = BTreeMap::from([("message", &message), ("type", &kind)]);
                JsonText::of(&both).unwrap_or_else(|_| JsonText::string(&message))
            }
            (one, other) => JsonText::string(one.as_deref().or(other.as_deref()).unwrap_or(ERROR)),
        })
    }

    fn as_json(&self) -> Option<JsonText> {
        if self.0.is_empty() { None } else { JsonText::of(&self.0).ok() }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
