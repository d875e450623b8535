//! An agent that plans, calls two tools at once, fails, and shuts its observer down on that path
//! too.
//!
//! `cargo run -p annals-observer --example simulated_agent`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use annals_observer::{Call, Level, Observer, Session, entries};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("annals-agent-{}", std::process::id()));
    let observer = Observer::on(annals_wal::Log::open(&dir)?)?;
    let session = observer.session("s-1")?.level(Level::Batched);
    // Whatever the agent does: the end of the run is recorded, and everything is durable after
    // this.
    let outcome = session.agent("planner").run(|agent| work(&session, agent))?;
    let flushed = observer.force_flush(Duration::from_secs(5));
    observer.shutdown()?;
    println!("the agent said {outcome:?}; {flushed:?}");
    for stored in entries(observer.log())? {
        let stored = stored?;
        println!("{}", serde_json::to_string(&stored.entry)?);
    }
    println!("the log is {}", dir.display());
    Ok(())
}

fn work(session: &Session, agent: &Call) -> Result<u32, String> {
    let tool = |name: &str| session.tool(name).within(agent);
    let hits = std::thread::scope(|scope| {
        let search = scope.spawn(|| tool("search").run(|_| Ok::<u32, String>(79)));
        let read = scope.spawn(|| tool("read_file").run(|_| Err::<u32, _>("no such file")));
        let failed = read.join().map_err(|_| "the reader panicked")?;
        failed.map_err(|e| e.to_string())?.map_err(str::to_owned)?;
        search.join().map_err(|_| "the searcher panicked".to_owned())?.map_err(|e| e.to_string())?
    })?;
    Ok(hits)
}
