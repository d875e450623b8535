//! A SQLite database: one row an entry, in the table and with the columns of the seeds' store.
//!
//! Feature `sqlite`. Never here: a second writer; the file must not be there yet. Invariant: the
//! rows are one transaction, so a database that was broken off has none.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::{ExportError, Exported};
use crate::entry::duration_nanos;
use crate::error::Result;
use crate::json::JsonText;
use crate::read::StoredEntry;

const SCHEMA: &str = "
CREATE TABLE protocol_entries (
    lsn INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    event_type TEXT NOT NULL,
    session_id TEXT,
    agent_name TEXT,
    agent_id TEXT,
    tool_name TEXT,
    model TEXT,
    name TEXT,
    run_id TEXT,
    call_id TEXT,
    input_data TEXT,
    output_data TEXT,
    tokens_in INTEGER,
    tokens_out INTEGER,
    tokens_used INTEGER,
    duration_ms REAL,
    trace_id TEXT,
    span_id TEXT,
    parent_span_id TEXT,
    metadata TEXT,
    error TEXT,
    entry_json TEXT NOT NULL
);
CREATE INDEX idx_protocol_session ON protocol_entries(session_id);
CREATE INDEX idx_protocol_event ON protocol_entries(event_type);
CREATE INDEX idx_protocol_agent ON protocol_entries(agent_name);
CREATE INDEX idx_protocol_tool ON protocol_entries(tool_name);
";

const INSERT: &str = "INSERT INTO protocol_entries (lsn, id, timestamp, event_type, session_id, \
agent_name, tool_name, model, name, run_id, call_id, input_data, output_data, tokens_in, \
tokens_out, tokens_used, duration_ms, span_id, parent_span_id, metadata, error, entry_json) \
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
?20, ?21, ?22)";

/// Makes the database and writes each entry as one row.
///
/// # Errors
/// Of the first entry that cannot be read, or of the database; `Write` with `AlreadyExists` if the
/// file is there.
pub fn write(
    entries: impl IntoIterator<Item = Result<StoredEntry>>,
    to: &Path,
) -> std::result::Result<Exported, ExportError> {
    // Made by us and by nobody before: SQLite alone would go on in a file that is there.
    drop(std::fs::File::create_new(to)?);
    let mut database = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut exported = Exported::default();
    let rows = database.transaction()?;
    rows.execute_batch(SCHEMA)?;
    {
        let mut insert = rows.prepare(INSERT)?;
        for stored in entries {
            let StoredEntry { lsn, entry } = stored?;
            let whole = JsonText::of(&entry)?;
            let text = |text: &Option<JsonText>| text.as_ref().map(|t| t.as_str().to_owned());
            let tokens = match (entry.tokens_in, entry.tokens_out) {
                (None, None) => None,
                (one, two) => Some(one.unwrap_or(0).saturating_add(two.unwrap_or(0))),
            };
            insert.execute(params![
                integer(lsn.get()),
                entry.ticket.to_string(),
                entry.wall.to_string(),
                entry.kind.to_string(),
                entry.session.as_ref().map(|id| id.as_str()),
                entry.agent,
                entry.tool,
                entry.model,
                entry.name,
                entry.run.as_ref().map(|id| id.as_str()),
                entry.call_id.as_ref().map(|id| id.as_str()),
                text(&entry.input),
                text(&entry.output),
                entry.tokens_in.map(integer),
                entry.tokens_out.map(integer),
                tokens.map(integer),
                entry.duration.map(|duration| duration_nanos(duration) as f64 / 1e6),
                entry.span.map(|span| span.to_string()),
                entry.parent_span.map(|span| span.to_string()),
                text(&entry.metadata),
                entry.error_shown().map(|error| error.as_str().to_owned()),
                whole.as_str(),
            ])?;
            exported.entries += 1;
            exported.written += 1;
        }
    }
    rows.commit()?;
    Ok(exported)
}

/// SQLite counts to 2^63.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
