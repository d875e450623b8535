//! What an entry says happened, as a name and as the kind of its record.
//!
//! Never here: the list of every kind there will ever be. A number that this version does not know
//! stays [`EntryKind::Other`] and is delivered, not refused. Invariants: numbers are never reused;
//! an entry's kind stands in its record's header and nowhere else; record kinds from 0x0300 on
//! belong to the observer but are no entries: 0x0300 is a payload record.
//! Next room: [`crate::entry`].

use std::fmt;
use std::ops::RangeInclusive;

use annals_wal::Kind;
use serde::{Serialize, Serializer};

/// A piece of a field that was too large for its entry; it stands before it in the same batch.
pub(crate) const PAYLOAD_RECORD_KIND: u16 = 0x0300;

/// Record kinds 0x0200 to 0x02FF are entries: 0x0200 plus the entry kind's number.
const FIRST_RECORD_KIND: u16 = 0x0200;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum EntryKind {
    /// An agent began to work.
    AgentStart,
    /// An agent ended, with its output or its error.
    AgentEnd,
    /// A model was asked.
    LlmStart,
    /// A model answered or failed.
    LlmEnd,
    /// A tool was called.
    ToolStart,
    /// A tool returned or failed.
    ToolEnd,
    /// A trace began.
    TraceStart,
    /// A trace ended.
    TraceEnd,
    /// A span of some other meaning began.
    SpanStart,
    /// A span of some other meaning ended.
    SpanEnd,
    /// One agent handed over to another.
    Handoff,
    /// Something failed, inside a call or outside any.
    Error,
    /// A JSON line of any shape; the entry's name is what the line calls itself.
    Imported,
    /// An import of a file began. Entries with its content hash and round follow.
    ImportBegin,
    /// An import of a file ended: everything of it is in the log.
    ImportDone,
    /// A start was written off: its process died, or it stayed open too long. Provisional: any end
    /// of the same call wins over it.
    Abandoned,
    /// Entries that were taken and then dropped: which tickets, and how many of which kind.
    Dropped,
    /// A recorded intent that was given up before its tool was entered.
    NotRun,
    /// A run began and says what holds for it, such as that every tool start is durable.
    RunStart,
    /// A kind of a newer version. Its entry is decoded like any other.
    Other(u8),
}

/// Every known kind with its number and name. Numbers are for ever.
const TABLE: [(EntryKind, u8, &str); 19] = [
    (EntryKind::AgentStart, 1, "agent_start"),
    (EntryKind::AgentEnd, 2, "agent_end"),
    (EntryKind::LlmStart, 3, "llm_start"),
    (EntryKind::LlmEnd, 4, "llm_end"),
    (EntryKind::ToolStart, 5, "tool_start"),
    (EntryKind::ToolEnd, 6, "tool_end"),
    (EntryKind::TraceStart, 7, "trace_start"),
    (EntryKind::TraceEnd, 8, "trace_end"),
    (EntryKind::SpanStart, 9, "span_start"),
    (EntryKind::SpanEnd, 10, "span_end"),
    (EntryKind::Handoff, 11, "handoff"),
    (EntryKind::Error, 12, "error"),
    (EntryKind::Imported, 13, "imported"),
    (EntryKind::ImportBegin, 14, "import_begin"),
    (EntryKind::ImportDone, 15, "import_done"),
    (EntryKind::Abandoned, 16, "abandoned"),
    (EntryKind::Dropped, 17, "dropped"),
    (EntryKind::NotRun, 18, "not_run"),
    (EntryKind::RunStart, 19, "run_start"),
];

impl EntryKind {
    /// The kind's number, the same in every version.
    pub fn number(self) -> u8 {
        match self {
            EntryKind::Other(number) => number,
            known => TABLE.iter().find(|row| row.0 == known).map_or(0, |row| row.1),
        }
    }

    /// The kind with this number; [`EntryKind::Other`] if this version does not know it.
    pub fn from_number(number: u8) -> EntryKind {
        TABLE.iter().find(|row| row.1 == number).map_or(EntryKind::Other(number), |row| row.0)
    }

    /// The kind with this name, such as `tool_end`. `None` for a name that is not in the table.
    pub fn from_name(name: &str) -> Option<EntryKind> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// Every kind that this version knows.
    pub fn all() -> impl Iterator<Item = EntryKind> {
        TABLE.iter().map(|row| row.0)
    }

    /// The call that such an entry starts, if it starts one.
    pub fn starts(self) -> Option<CallKind> {
        CallKind::ALL.into_iter().find(|kind| kind.start() == self)
    }

    /// The call that such an entry ends, if it ends one.
    pub fn ends(self) -> Option<CallKind> {
        CallKind::ALL.into_iter().find(|kind| kind.end() == self)
    }

    /// The kinds of all records that hold entries, for a filter.
    pub fn record_kinds() -> RangeInclusive<Kind> {
        let (first, last) = (EntryKind::Other(0), EntryKind::Other(u8::MAX));
        first.record_kind()..=last.record_kind()
    }

    /// The kind of the record that holds such an entry.
    pub fn record_kind(self) -> Kind {
        // 0x02FF at most, so the top bit, which a Kind may not have, is never set.
        Kind::new(FIRST_RECORD_KIND + u16::from(self.number())).unwrap_or(Kind::UNTYPED)
    }

    /// The entry kind of a record; `None` if its record is no entry.
    pub fn of_record(kind: Kind) -> Option<EntryKind> {
        let number = kind.get().checked_sub(FIRST_RECORD_KIND)?;
        u8::try_from(number).ok().map(EntryKind::from_number)
    }
}

/// The name from the table; `other-57` for a kind that this version does not know.
impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TABLE.iter().find(|row| row.0 == *self) {
            Some(row) => f.write_str(row.2),
            None => write!(f, "other-{}", self.number()),
        }
    }
}

impl Serialize for EntryKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What has a start and an end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CallKind {
    /// An agent's work.
    Agent,
    /// A question to a model.
    Llm,
    /// A call of a tool.
    Tool,
    /// A whole trace: what an agent framework groups runs by.
    Trace,
    /// A stretch of work of some other meaning.
    Span,
}

impl CallKind {
    const ALL: [CallKind; 5] =
        [CallKind::Agent, CallKind::Llm, CallKind::Tool, CallKind::Trace, CallKind::Span];

    /// The kind of its start entry.
    pub fn start(self) -> EntryKind {
        match self {
            CallKind::Agent => EntryKind::AgentStart,
            CallKind::Llm => EntryKind::LlmStart,
            CallKind::Tool => EntryKind::ToolStart,
            CallKind::Trace => EntryKind::TraceStart,
            CallKind::Span => EntryKind::SpanStart,
        }
    }

    /// The kind of its end entry.
    pub fn end(self) -> EntryKind {
        match self {
            CallKind::Agent => EntryKind::AgentEnd,
            CallKind::Llm => EntryKind::LlmEnd,
            CallKind::Tool => EntryKind::ToolEnd,
            CallKind::Trace => EntryKind::TraceEnd,
            CallKind::Span => EntryKind::SpanEnd,
        }
    }
}
