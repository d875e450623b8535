//! Folded stacks: where the time went, as `session;agent;tool microseconds` lines for flame graphs.
//!
//! The time of a stack is its own: that of the calls inside it is theirs. Where calls ran in
//! parallel inside one, their sum may exceed it; its own time is then zero and not below.
//! Invariant: a call whose parent is not in the log stands right below its session.

use std::collections::BTreeMap;
use std::io::Write;

use super::calls::{Calls, label, nanos};
use super::{ExportError, Exported};
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::SessionId;
use crate::kind::CallKind;
use crate::read::StoredEntry;

/// A call on its stack.
#[derive(Debug)]
struct Frame {
    stack: String,
    children_ns: u64,
}

/// Writes one line for each distinct stack, in the order of their names.
///
/// # Errors
/// Of the first entry that cannot be read, or of the output.
pub fn write(
    entries: impl IntoIterator<Item = Result<StoredEntry>>,
    to: &mut impl Write,
) -> std::result::Result<Exported, ExportError> {
    let mut exported = Exported::default();
    let mut calls: Calls<Frame> = Calls::new();
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for stored in entries {
        let stored = stored?;
        exported.entries += 1;
        if let Some(kind) = stored.entry.kind.starts() {
            let stack = stack(&mut calls, &stored.entry, kind);
            calls.start(kind, stored, Frame { stack, children_ns: 0 });
        } else if let Some(kind) = stored.entry.kind.ends()
            && let Some(open) = calls.end(kind, &stored.entry)
        {
            let whole = nanos(&open.start.entry, &stored.entry);
            let own = whole.saturating_sub(open.kept.children_ns);
            *stacks.entry(open.kept.stack).or_default() += own;
            let start = &open.start.entry;
            let parent = start.parent_span.map(|span| (start.session.clone(), span.get()));
            if let Some((session, span)) = parent
                && let Some(parent) = calls.of_span(&session, span)
            {
                parent.kept.children_ns = parent.kept.children_ns.saturating_add(whole);
            }
        }
    }
    for (stack, nanos) in &stacks {
        writeln!(to, "{stack} {}", nanos / 1000)?;
        exported.written += 1;
    }
    exported.unfinished = calls.into_open().count() as u64;
    to.flush()?;
    Ok(exported)
}

fn stack(calls: &mut Calls<Frame>, entry: &Entry, kind: CallKind) -> String {
    let parent = entry.parent_span.map(|span| span.get());
    let parent = parent.and_then(|span| calls.of_span(&entry.session, span));
    let below = match parent {
        Some(open) => open.kept.stack.clone(),
        None => frame(entry.session.as_ref().map_or("(no session)", SessionId::as_str)),
    };
    format!("{below};{}", frame(&label(entry, kind)))
}

/// A name without what would end a frame or a line.
fn frame(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }).collect()
}
