//! One thread records, another follows the log as a second process would.
//!
//! `cargo run -p annals-observer --example live_tail`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use annals_observer::{EntryKind, Observer, Query, Tail};
use annals_wal::{Log, LogReader, Lsn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("annals-tail-{}", std::process::id()));
    let observer = Observer::on(Log::open(&dir)?)?;
    let reader = LogReader::open(&dir)?;
    let query = Query::new().session("s-1")?.kind(EntryKind::ToolEnd);
    let mut tail = Tail::from(&reader, Lsn::FIRST, query)?;
    let session = observer.session("s-1")?;
    let recording = std::thread::spawn(move || -> annals_observer::Result<()> {
        for name in ["search", "read_file", "write_file"] {
            let _result = session.tool(name).run(|_| Ok::<_, String>("ok"))?;
        }
        Ok(())
    });
    for _ in 0..3 {
        match tail.next_timeout(Duration::from_secs(5))? {
            Some(stored) => println!("LSN {}: {:?} ended", stored.lsn, stored.entry.tool),
            None => println!("nothing came"),
        }
    }
    match recording.join() {
        Ok(recorded) => recorded?,
        Err(_) => println!("the recording thread panicked"),
    }
    Ok(())
}
