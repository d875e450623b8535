//! The README's example; a test compares the two.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use annals_observer::{JsonText, Observer};
use annals_registry::{Expected, Key, Registry, Value};
use annals_wal::Log;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = Log::open("runs")?;
    let registry = Registry::on(log.clone())?;
    let observer = Observer::on(log)?;
    let mut tool = observer.session("s-1")?.tool("search").start()?; // durable on return
    tool.end_ok(JsonText::string("3 hits"))?;
    let owner = Key::new("tasks/T1/owner")?;
    let won = registry.compare_and_swap(&owner, Expected::Absent, Value::json("agent-7")?)?;
    println!("{won:?}"); // Done(revision), or Conflict { current }: a lost race is a value
    Ok(())
}
