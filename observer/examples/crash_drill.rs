//! A process that is killed between intent and outcome, and what the next one makes of it.
//!
//! `cargo run -p annals-observer --example crash_drill`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::Command;

use annals_observer::{CallId, CallKind, JsonText, Observer, Outcome, call_state};
use annals_wal::Log;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    if let Some(dir) = args.next() {
        return child(&dir);
    }
    let dir = std::env::temp_dir().join(format!("annals-drill-{}", std::process::id()));
    let died = Command::new(std::env::current_exe()?).arg(&dir).status()?;
    println!("the first process ended with {died}");

    let observer = Observer::on(Log::open(&dir)?)?;
    let recovered = observer.recover()?;
    for call in &recovered.open {
        println!("LSN {}: {:?} may have run", call.start_lsn, call.start.tool);
    }
    for id in ["mailed", "charged", "never"] {
        println!("{id}: {:?}", call_state(observer.log(), "s-1", CallKind::Tool, id)?);
    }
    // Somebody asked the bank. An end settles the call, whatever was written about it before.
    let outcome = Outcome::Ok(JsonText::string("charged once, says the bank"));
    observer.session("s-1")?.end_by_call_id(CallKind::Tool, CallId::new("charged")?, outcome)?;
    println!("charged: {:?}", call_state(observer.log(), "s-1", CallKind::Tool, "charged")?);
    Ok(())
}

fn child(dir: &std::ffi::OsStr) -> Result<(), Box<dyn std::error::Error>> {
    let observer = Observer::on(Log::open(dir)?)?;
    let session = observer.session("s-1")?;
    let mail = session.tool("mail").call_id(CallId::new("mailed")?).begin()?;
    mail.enter().end_ok(JsonText::string("sent"))?;
    let charge = session.tool("charge").call_id(CallId::new("charged")?).begin()?;
    let _running = charge.enter();
    std::process::abort(); // the card is charged, or it is not
}
