//! The fleet: agents that write through the libraries until they are killed. Never ends by itself.
//!
//! Every line goes out in one write, so that the parent sees whole lines in order; a line is sent
//! before an append begins and after it has returned.

use std::io::{self, Write};
use std::time::Instant;

use annals_observer::{CallId, JsonText, Observer, Receipt, Session};
use annals_registry::{Key, Outcome, Registry, TxResult};

use super::record::Line;
use super::story;
use crate::args::FleetArgs;
use crate::exit::{Exit, Failure};
use crate::opening;

pub(crate) fn run(args: &FleetArgs) -> Result<Exit, Failure> {
    let log = opening::or_new(&args.dir, false)?;
    let observer = Observer::on(log.clone())?;
    let registry = Registry::on(log)?;
    say(Line::Ready)?;
    std::thread::scope(|scope| {
        let agents: Vec<_> = (0..args.agents)
            .map(|agent| {
                let agent =
                    Agent { round: args.round, agent, observer: &observer, registry: &registry };
                scope.spawn(move || agent.run())
            })
            .collect();
        for agent in agents {
            match agent.join() {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => return Err(failure),
                Err(_) => return Err(Failure::new(Exit::Failed, "an agent panicked")),
            }
        }
        Ok(Exit::Clean)
    })
}

fn say(line: Line) -> io::Result<()> {
    // Not buffered: what is not in the pipe when the kill comes was never said.
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.text().as_bytes())?;
    stdout.flush()
}

struct Agent<'a> {
    round: u32,
    agent: u32,
    observer: &'a Observer,
    registry: &'a Registry,
}

impl Agent<'_> {
    fn run(&self) -> Result<(), Failure> {
        let session = self.observer.session(story::session(self.round, self.agent))?;
        let mut step = 0;
        loop {
            self.step(&session, step)?;
            step += 1;
            self.count(step)?;
        }
    }

    /// A model call and a tool call: four entries, each durable before the next begins.
    fn step(&self, session: &Session, step: u64) -> Result<(), Failure> {
        let n = step * story::ENTRIES_A_STEP;
        for (start, n) in [(session.llm("demo-model"), n), (session.tool("demo-tool"), n + 2)] {
            let mut call = None;
            self.entry(n, |text| {
                let id = CallId::new(story::call_id(self.round, self.agent, n))?;
                let started = start.call_id(id).input(text).start()?;
                let receipt = started.start_receipt();
                call = Some(started);
                Ok(receipt)
            })?;
            if let Some(mut call) = call {
                self.entry(n + 1, |text| Ok(call.end_ok(text)?))?;
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        n: u64,
        append: impl FnOnce(JsonText) -> Result<Receipt, Failure>,
    ) -> Result<(), Failure> {
        let agent = self.agent;
        let text = JsonText::string(&story::text(self.round, agent, n));
        say(Line::Begin { agent, n })?;
        let start = Instant::now();
        let receipt = append(text)?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let lsn = receipt.lsn.map_or(0, annals_wal::Lsn::get);
        let hash = story::hash_due(self.round, agent, n);
        say(Line::Done { agent, n, lsn, hash, micros })?;
        Ok(())
    }

    /// The agent's count and the fleet's total, both or neither.
    fn count(&self, n: u64) -> Result<(), Failure> {
        let agent = self.agent;
        let own = Key::new(story::agent_key(self.round, agent))?;
        let total = Key::new(story::total_key(self.round))?;
        say(Line::BeginChange { agent, n })?;
        let outcome = self.registry.transact(|tx| -> TxResult<()> {
            let sum: u64 = tx.get_json(&total)?.unwrap_or(0);
            tx.put_json(&own, &n)?;
            tx.put_json(&total, &(sum + 1))?;
            Ok(())
        })?;
        match outcome {
            Outcome::Done { .. } => say(Line::DoneChange { agent, n })?,
            Outcome::Aborted(never) => match never {},
            // So many agents at one total that it gave up: try again, which it says by itself.
            Outcome::Conflict { .. } => return self.count(n),
        }
        Ok(())
    }
}
