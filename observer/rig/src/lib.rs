//! # annals-observer-rig: what a rig agent does, recorded before and after
//!
//! A hook for [`rig_agent`] 0.44. Each run becomes an agent call of an observer's session; each
//! completion a model call and each tool call a tool call inside of it. A start is recorded when the
//! effect is about to be dispatched, its end when it has resolved, so a crash in between leaves a
//! start without an end, and [`annals_observer::Observer::recover`] says so.
//!
//! ```
//! use annals_observer::{Observer, session_entries};
//! use annals_observer_rig::Recording;
//! use rig_agent::AgentBuilder;
//! use rig_core::test_utils::MockCompletionModel;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
//! let agent = AgentBuilder::new(MockCompletionModel::text("79"))
//!     .name("planner")
//!     .add_hook(Recording::of(&observer, observer.session("s-1")?))
//!     .build();
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! assert_eq!(agent.prompt("How many hits?").run().await?.output(), "79");
//! # Ok::<(), rig_agent::completion::PromptError>(())
//! # })?;
//! observer.flush()?;
//! let kinds: Result<Vec<String>, _> = session_entries(observer.log(), "s-1")?
//!     .map(|stored| stored.map(|stored| stored.entry.kind.to_string()))
//!     .collect();
//! assert_eq!(kinds?, ["agent_start", "llm_start", "llm_end", "agent_end"]);
//! # Ok(())
//! # }
//! ```
//!
//! **It fails closed.** A tool whose start cannot be made durable is not called: the run is
//! cancelled with the observer's reason. So is a run whose model call or own start cannot be
//! recorded. An end that cannot be recorded changes nothing that has happened; it is in the
//! observer's health.
//!
//! **Never here:** a rewritten prompt, request or answer; a wait on the runtime's thread; a table of
//! runs. What is open is in the run's own scratchpad: a run that is dropped ends its calls as
//! `cancelled`. Invariants: calls are paired by the dispatch's id; a tool's start is durable before
//! the tool runs, whatever the session's level. Add it as the last hook: what a later hook denies has
//! a start and an end with the denial, and what a later hook rewrites is recorded as it was before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_observer::{
    CallGuard, CallId, InstanceId, JsonText, Level, Observer, Outcome, RunId, Session,
};
use rig_agent::agent::{
    AgentHook, DispatchAction, DispatchEvent, HookContext, OutcomeAction, OutcomeEvent, RunSettled,
    RunStart, RunStartAction, hook::SettledOutcome,
};
use rig_core::effect::{EffectKind, Outcome as Answer};
use rig_core::error::ErrorReport;

/// Records each run of the agents that it is a hook of, in one session.
#[derive(Clone, Debug)]
pub struct Recording {
    session: Session,
    /// rig numbers its runs in each process anew; with this a run's id is nobody else's.
    instance: InstanceId,
}

/// What is open of one run, in its scratchpad. Guards: dropped with the run, they end as cancelled.
#[derive(Debug)]
struct Run {
    session: Session,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    agent: Option<CallGuard>,
    /// By the id of the dispatch.
    calls: BTreeMap<u64, CallGuard>,
}

impl Run {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the start of an effect, durably if it is a tool's.
    async fn start(&self, event: DispatchEvent<'_>) -> annals_observer::Result<()> {
        let start = match event.kind {
            EffectKind::Completion { request, .. } => {
                let model = request.model.as_deref().unwrap_or("default");
                self.session.llm(model).input(json(request))
            }
            EffectKind::ToolCall { name, args } => {
                let input =
                    JsonText::parse(args.as_str()).unwrap_or_else(|_| JsonText::string(args));
                let start = self.session.tool(name).input(input).level(Level::Durable);
                match event.call_id {
                    Some(id) => start.call_id(CallId::new(id.to_string())?),
                    None => start,
                }
            }
            _ => return Ok(()),
        };
        let start = match &self.open().agent {
            Some(agent) => start.within(agent),
            None => start,
        };
        let guard = start.guard_async().await?;
        self.open().calls.insert(event.id.as_u64(), guard);
        Ok(())
    }

    /// Records the end of an effect. The answer is what it is: a failure is in the health.
    async fn end(&self, event: OutcomeEvent<'_>) {
        let Some(mut call) = self.open().calls.remove(&event.id.as_u64()) else { return };
        let outcome = match event.outcome {
            Ok(Answer::Completion(response)) => {
                let usage = &response.usage;
                if usage.input_tokens.is_some() || usage.output_tokens.is_some() {
                    let count = |tokens: Option<u64>| tokens.unwrap_or(0);
                    call.tokens(count(usage.input_tokens), count(usage.output_tokens));
                }
                match &response.error {
                    Some(error) => Outcome::Error(JsonText::string(error)),
                    None => Outcome::Ok(json(&response.choice)),
                }
            }
            Ok(Answer::ToolResult { result }) => {
                match result.error().or_else(|| result.refusal()) {
                    Some(error) => Outcome::Error(JsonText::string(error.message())),
                    None => Outcome::Ok(json(result)),
                }
            }
            Ok(other) => Outcome::Ok(json(other)),
            Err(report) => Outcome::Error(JsonText::string(&report.message)),
        };
        // Nothing can be undone any more; the observer keeps the reason.
        let _ = call.end_async(outcome).await;
    }
}

impl Recording {
    /// A hook that records in this session of this observer, at the session's level; tool starts
    /// are durable at every level. Nothing is written before a run starts.
    pub fn of(observer: &Observer, session: Session) -> Recording {
        Recording { session, instance: observer.instance() }
    }
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> JsonText {
    JsonText::of(value).unwrap_or_else(|_| JsonText::string("[cannot be written as JSON]"))
}

fn run_of(context: &HookContext) -> Option<Arc<Run>> {
    context.scratchpad().get::<Arc<Run>>()
}

impl AgentHook for Recording {
    async fn on_run_start(&self, context: &HookContext, event: RunStart<'_>) -> RunStartAction {
        let run = RunId::new(format!("{}-{}", self.instance, context.run_id()));
        let session = match run {
            Ok(run) => self.session.clone().run(run),
            Err(_) => self.session.clone(),
        };
        let start = session.agent(context.agent_name().unwrap_or("agent"));
        match start.input(json(event.prompt)).guard_async().await {
            Ok(agent) => {
                let open = Mutex::new(Open { agent: Some(agent), calls: BTreeMap::new() });
                context.scratchpad().insert(Arc::new(Run { session, open }));
                RunStartAction::Continue
            }
            Err(error) => RunStartAction::Stop(format!("the run could not be recorded: {error}")),
        }
    }

    async fn on_dispatch(&self, context: &HookContext, event: DispatchEvent<'_>) -> DispatchAction {
        let Some(run) = run_of(context) else {
            return not_recorded("its run was not started through this hook");
        };
        match run.start(event).await {
            Ok(()) => DispatchAction::Proceed,
            Err(error) => not_recorded(&error.to_string()),
        }
    }

    async fn on_outcome(&self, context: &HookContext, event: OutcomeEvent<'_>) -> OutcomeAction {
        if let Some(run) = run_of(context) {
            run.end(event).await;
        }
        OutcomeAction::Proceed
    }

    async fn on_run_settled(&self, context: &HookContext, event: RunSettled<'_>) {
        let Some(run) = context.scratchpad().remove::<Arc<Run>>() else { return };
        let (agent, calls) = {
            let mut open = run.open();
            (open.agent.take(), std::mem::take(&mut open.calls))
        };
        // rig tells the run, and not its hooks, of some failures of a model.
        let why = match event.outcome {
            SettledOutcome::Error(error) => error,
            SettledOutcome::Response(_) => "the run has ended without its outcome",
        };
        for mut call in calls.into_values() {
            let _ = call.end_async(Outcome::Error(JsonText::string(why))).await; // as above
        }
        let Some(mut agent) = agent else { return };
        let outcome = match event.outcome {
            SettledOutcome::Response(response) => {
                let usage = response.usage();
                if let (Some(read), Some(written)) = (usage.input_tokens, usage.output_tokens) {
                    agent.tokens(read, written);
                }
                Outcome::Ok(JsonText::string(&response.output()))
            }
            SettledOutcome::Error(error) => Outcome::Error(JsonText::string(error)),
        };
        let _ = agent.end_async(outcome).await; // as above
    }
}

/// Cancels the run: what is not recorded must not happen.
fn not_recorded(why: &str) -> DispatchAction {
    let what = format!("the call could not be recorded, so it is not made: {why}");
    DispatchAction::Deny(ErrorReport::new(rig_core::error::ErrorKind::Cancelled, what))
}
