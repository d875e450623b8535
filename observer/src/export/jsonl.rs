//! JSON lines: an entry a line, with its LSN.
//!
//! Invariant: JSON texts stand in the line as they stand in the log, digit for digit.

use std::io::Write;

use super::{ExportError, Exported};
use crate::error::Result;
use crate::read::StoredEntry;

/// Writes each entry as one line.
///
/// # Errors
/// Of the first entry that cannot be read, or of the output.
///
/// ```
/// use annals_observer::{Observer, entries, export};
///
/// # let dir = tempfile::tempdir()?;
/// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let _call = observer.session("s-1")?.tool("search").start()?;
/// let mut lines = Vec::new();
/// let exported = export::jsonl::write(entries(observer.log())?, &mut lines)?;
/// assert_eq!(exported.written, 1);
/// assert!(lines.starts_with(br#"{"lsn":1,"kind":"tool_start""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    entries: impl IntoIterator<Item = Result<StoredEntry>>,
    to: &mut impl Write,
) -> std::result::Result<Exported, ExportError> {
    let mut exported = Exported::default();
    for stored in entries {
        let stored = stored?;
        let entry = serde_json::to_string(&stored.entry).map_err(std::io::Error::from)?;
        // The entry is an object, and never an empty one: its kind is always there.
        let members = entry.strip_prefix('{').unwrap_or(&entry);
        writeln!(to, "{{\"lsn\":{},{members}", stored.lsn)?;
        exported.entries += 1;
        exported.written += 1;
    }
    to.flush()?;
    Ok(exported)
}
