//! `wal bundle`: what a bug report needs and nothing that is private: headers, maps, checksums, the
//! bytes around each damage with every payload byte blanked.
//!
//! Never here: a byte of a payload. Of the log's own bytes shown are segment headers and the 32 bytes
//! of frame headers, each where its checksum holds; names of sessions, keys and tools stand in payloads. Next room:
//! [`crate::inspect`].

use std::path::{Path, PathBuf};

use annals_wal::diagnose::{Diagnosis, Scope, SpanKind};
use annals_wal::format::{FRAME_HEADER_LEN, HeaderVerdict, SegmentHeader};
use annals_wal::fs::{Access, Dir, os::OsDir, read_full};
use annals_wal::inspect::Depth;
use annals_wal::salvage::repair::file_marks;
use annals_wal::scan::{Step, Walker};
use serde_json::{Value, json};

use crate::damage::{file_name, shown};
use crate::escape::{escape_pretty, hex};
use crate::exit::{Exit, Failure};
use crate::out::Out;
use crate::{place, target};

/// Frames listed from each segment: so many at its beginning, and so many around each damage.
const FRAMES: usize = 8;
/// Segments larger than this have no frames listed.
const SEGMENT_MAX: u64 = 256 << 20;

#[derive(clap::Args, Debug)]
pub(crate) struct BundleArgs {
    /// The log's directory; it is only read.
    dir: PathBuf,
    /// The file to write, JSON, which must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(crate) fn bundle(args: &BundleArgs, out: &mut Out) -> Result<Exit, Failure> {
    target::outside(&args.dir, &args.to)?;
    let scope = Scope { depth: Depth::Everything, maps: true, threads: 2 };
    let diagnosis = place::diagnose(&args.dir, scope, &mut |_| ())?;
    let mut segments = Vec::new();
    for map in diagnosis.maps.iter().filter(|map| map.present) {
        let name = file_name(map.segment);
        segments.push(segment(&args.dir, &name, &diagnosis, map.segment)?);
    }
    let files = file_marks(&args.dir)?;
    let value = json!({
        "schema": "wal.bundle/1",
        "wal": env!("CARGO_PKG_VERSION"),
        "note": "every payload byte is blanked; headers, lengths and checksums are as they are",
        "diagnosis": crate::inspect::as_json(Path::new("."), &diagnosis, "wal.verify/2"),
        "files": files.iter()
            .map(|f| json!({ "name": f.name, "bytes": f.bytes, "crc32": format!("{:08x}", f.crc32) }))
            .collect::<Vec<_>>(),
        "segments": segments,
    });
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    target::write(&args.to, &escape_pretty(&text))?;
    let to = shown(&args.to);
    out.line(&format!(
        "{to}: {} files, {} damages; no payload byte is in it",
        files.len(),
        diagnosis.damages.len()
    ))?;
    out.line(&format!("  next: look at {to}, then send it with your report"))?;
    Ok(Exit::Clean)
}

fn segment(
    dir: &Path,
    name: &str,
    diagnosis: &Diagnosis,
    sequence: annals_wal::Sequence,
) -> Result<Value, Failure> {
    // As the log opens it: no link is followed, so no file outside can be read into a report.
    let file = OsDir::new(dir).open(name, Access::Read)?;
    let len = file.len()?;
    let mut head = vec![0; 128.min(len) as usize];
    let read = read_full(&*file, &mut head, 0)?;
    head.truncate(read);
    let map = diagnosis.maps.iter().find(|map| map.segment == sequence);
    let spans: Vec<Value> = map
        .into_iter()
        .flat_map(|map| &map.spans)
        .map(|span| {
            let kind = match span.kind {
                SpanKind::Header => "header",
                SpanKind::Data => "data",
                SpanKind::Unread => "unread",
                SpanKind::Free => "free",
                SpanKind::Bad(class) => class.name(),
            };
            json!({ "from_byte": span.from, "to_byte": span.to, "kind": kind })
        })
        .collect();
    let mut frames = Vec::new();
    // What stands where no header is may be a payload's bytes.
    let header_hex =
        matches!(SegmentHeader::decode(&head), HeaderVerdict::Good(_)).then(|| hex(&head));
    if let HeaderVerdict::Good(header) = SegmentHeader::decode(&head)
        && len <= SEGMENT_MAX
    {
        let around: Vec<(u64, u64)> = diagnosis
            .damages
            .iter()
            .filter(|damage| damage.segment == Some(sequence))
            .filter_map(|damage| damage.bytes)
            .collect();
        let mut bytes = vec![0; len as usize];
        let read = read_full(&*file, &mut bytes, 0)?;
        bytes.truncate(read);
        frames = list(&bytes, &header, &around)?;
    }
    // The last four bytes are a checksum; the rest names the log and says its sizes.
    Ok(
        json!({ "file": name, "bytes": len, "header": header_hex, "spans": spans, "frames": frames }),
    )
}

/// Headers of the first frames and of those next to a damage.
fn list(
    bytes: &[u8],
    header: &SegmentHeader,
    around: &[(u64, u64)],
) -> Result<Vec<Value>, Failure> {
    let mut walker = Walker::new(bytes, header);
    let mut steps = Vec::new();
    let mut met = Vec::new();
    while let Some(step) = walker.step()? {
        met.push(step);
    }
    for (index, step) in met.iter().enumerate() {
        let (from, to, what) = match step {
            Step::Frame(frame) => {
                (frame.offset, frame.end(), frame.trouble.as_ref().map(|t| format!("{t:?}")))
            }
            Step::Unreadable { from, to, why } => (*from, *to, Some((*why).to_owned())),
            Step::Zeros { from, to } => (*from, *to, Some("zeros to the end".to_owned())),
        };
        let near = around
            .iter()
            .any(|(bad, end)| from <= end.saturating_add(4096) && to.saturating_add(4096) >= *bad);
        if index >= FRAMES && !near && what.is_none() {
            continue;
        }
        let raw = bytes.get(from as usize..from as usize + FRAME_HEADER_LEN);
        let header = matches!(step, Step::Frame(_)).then(|| raw.map(hex)).flatten();
        steps.push(json!({ "from_byte": from, "to_byte": to, "header": header, "what": what }));
        if steps.len() > 400 {
            break;
        }
    }
    Ok(steps)
}
