//! rig's own mock model drives rig's own agent: is every call recorded before and after, paired by
//! its id, with its failure, and is what cannot be recorded not done?

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use annals_observer::{Entry, EntryKind, Level, Observer, Session, entries};
use annals_observer_rig::Recording;
use annals_wal::Log;
use annals_wal::fs::mem::{Keep, MemDir};
use futures_util::StreamExt;
use rig_agent::AgentBuilder;
use rig_agent::tool::{Tool, ToolContext, ToolExecutionError};
use rig_core::message::{AssistantContent, ToolCall, ToolFunction, ToolName};
use rig_core::test_utils::{MockCompletionModel, MockStreamEvent, MockTurn};
use serde_json::json;
use tokio::sync::Barrier;

fn open(disk: &MemDir) -> Log {
    annals_wal::Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap()
}

struct Rooms {
    disk: MemDir,
    log: Log,
    observer: Observer,
    session: Session,
}

fn rooms() -> Rooms {
    let disk = MemDir::new(1);
    let log = open(&disk);
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    Rooms { disk, log, observer, session }
}

impl Rooms {
    fn hook(&self) -> Recording {
        Recording::of(&self.observer, self.session.clone())
    }

    fn all(&self) -> Vec<Entry> {
        self.observer.flush().unwrap();
        entries(&self.log).unwrap().map(|stored| stored.unwrap().entry).collect()
    }
}

/// Waits until as many run as it was made for, so that calls really run at once; looks at what a
/// crash would leave while it runs.
#[derive(Clone)]
struct Work {
    together: Arc<Barrier>,
    ran: Arc<AtomicUsize>,
    disk: MemDir,
}

#[derive(serde::Deserialize)]
struct Args {
    tag: String,
}

impl Tool for Work {
    const NAME: &'static str = "work";
    type Args = Args;
    type Output = String;
    type Error = ToolExecutionError;

    fn description(&self) -> String {
        "works".into()
    }

    fn parameters(&self) -> serde_json::Value {
        json!({"type": "object", "properties": {"tag": {"type": "string"}}})
    }

    async fn call(&self, _: &mut ToolContext, args: Args) -> Result<String, Self::Error> {
        self.ran.fetch_add(1, SeqCst);
        self.together.wait().await;
        let crashed = open(&self.disk.crash(Keep::Nothing));
        let tag = format!("\"{}\"", args.tag);
        let durable = entries(&crashed).unwrap().map(|stored| stored.unwrap().entry).any(|entry| {
            entry.kind == EntryKind::ToolStart
                && entry.input.is_some_and(|input| input.as_str().contains(&tag))
        });
        assert!(durable, "the start of {} was not durable when the tool ran", args.tag);
        if args.tag.starts_with("bad") {
            return Err(ToolExecutionError::other("the disk is on fire"));
        }
        Ok(format!("done {}", args.tag))
    }
}

fn work(rooms: &Rooms, together: usize) -> Work {
    let ran = Arc::new(AtomicUsize::new(0));
    Work { together: Arc::new(Barrier::new(together)), ran, disk: rooms.disk.clone() }
}

fn call(id: &str, tag: &str) -> AssistantContent {
    let name = ToolName::new("work".to_owned()).unwrap();
    AssistantContent::ToolCall(ToolCall::from_wire(
        id,
        ToolFunction::new(name, json!({"tag": tag})),
    ))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it hangs")
}

#[tokio::test]
async fn parallel_tools_and_a_failing_one_are_paired_by_their_ids() {
    let rooms = rooms();
    let tags = ["a", "bad b", "c", "d"];
    let calls = tags.iter().enumerate().map(|(n, tag)| call(&format!("tc-{n}"), tag));
    let model =
        MockCompletionModel::from_turns([MockTurn::from_contents(calls), MockTurn::text("79")]);
    let tool = work(&rooms, tags.len());
    let agent =
        AgentBuilder::new(model).name("planner").tool(tool.clone()).add_hook(rooms.hook()).build();
    let response = within(agent.prompt("go").max_turns(3).tool_concurrency(4).run()).await.unwrap();
    assert_eq!((response.output().as_str(), tool.ran.load(SeqCst)), ("79", 4));
    let all = rooms.all();
    let of = |kind| all.iter().filter(|entry| entry.kind == kind).collect::<Vec<_>>();
    assert_eq!(all.len(), 2 + 2 * 2 + 2 * 4);
    let (starts, ends) = (of(EntryKind::ToolStart), of(EntryKind::ToolEnd));
    let agent = of(EntryKind::AgentStart)[0];
    assert_eq!(agent.agent.as_deref(), Some("planner"));
    for start in &starts {
        let end = ends.iter().find(|end| end.span == start.span).unwrap();
        assert_eq!(end.call_id, start.call_id);
        assert_eq!(start.parent_span, agent.span);
        assert!(start.run.is_some() && start.run == agent.run);
        let input: serde_json::Value =
            serde_json::from_str(start.input.as_ref().unwrap().as_str()).unwrap();
        let tag = input["tag"].as_str().unwrap();
        let n = tags.iter().position(|one| *one == tag).unwrap();
        let id = start.call_id.as_ref().unwrap().as_str();
        assert!(id.contains(&format!("tc-{n}")), "{id} is not the runtime's own id");
        if tag.starts_with("bad") {
            assert!(end.error.as_ref().unwrap().as_str().contains("on fire"));
        } else {
            assert!(end.output.as_ref().unwrap().as_str().contains(&format!("done {tag}")));
            assert!(end.error.is_none());
        }
    }
    assert_eq!(of(EntryKind::LlmEnd).len(), 2);
    let end = of(EntryKind::AgentEnd)[0];
    assert_eq!(end.output.as_ref().unwrap().as_str(), "\"79\"");
    assert_eq!(rooms.observer.health().open_starts, 0);
}

#[tokio::test]
async fn a_stream_is_recorded_like_an_answer() {
    let rooms = rooms();
    let model = MockCompletionModel::from_stream_turns([
        vec![
            MockStreamEvent::tool_call("tc-1", "work", json!({"tag": "streamed"})),
            MockStreamEvent::final_response_with_total_tokens(3),
        ],
        vec![
            MockStreamEvent::text("seventy"),
            MockStreamEvent::text("-nine"),
            MockStreamEvent::final_response_with_total_tokens(5),
        ],
    ]);
    let agent = AgentBuilder::new(model).tool(work(&rooms, 1)).add_hook(rooms.hook()).build();
    let mut stream = agent.prompt("go").max_turns(3).stream();
    while let Some(item) = within(stream.next()).await {
        drop(item.unwrap());
    }
    drop(stream);
    let kinds: Vec<String> = rooms.all().iter().map(|entry| entry.kind.to_string()).collect();
    let llm = ["llm_start", "llm_end"];
    let expected =
        [&["agent_start"][..], &llm, &["tool_start", "tool_end"], &llm, &["agent_end"]].concat();
    assert_eq!(kinds, expected);
    let all = rooms.all();
    assert!(all[6].output.as_ref().unwrap().as_str().contains("seventy-nine"));
    assert!(all[7].output.as_ref().unwrap().as_str().contains("seventy-nine"));
}

#[tokio::test]
async fn a_model_that_fails_is_an_end_with_its_error() {
    let rooms = rooms();
    let model = MockCompletionModel::from_turns([MockTurn::error("no credit left")]);
    let agent = AgentBuilder::new(model).add_hook(rooms.hook()).build();
    assert!(within(agent.prompt("go").run()).await.is_err());
    let all = rooms.all();
    let kinds: Vec<String> = all.iter().map(|entry| entry.kind.to_string()).collect();
    assert_eq!(kinds, ["agent_start", "llm_start", "llm_end", "agent_end"]);
    for end in &all[2..] {
        assert!(end.error.as_ref().unwrap().as_str().contains("no credit left"), "{end:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let rooms = rooms();
    let model = MockCompletionModel::from_turns([
        MockTurn::from_contents([call("tc-1", "never")]),
        MockTurn::text("79"),
    ]);
    let tool = work(&rooms, 1);
    // The observer is shut down while the model answers: its answer's tool call must not run.
    struct Closes(Observer);
    impl rig_agent::AgentHook for Closes {
        async fn on_outcome(
            &self,
            _: &rig_agent::HookContext,
            event: rig_agent::agent::OutcomeEvent<'_>,
        ) -> rig_agent::agent::OutcomeAction {
            if event.completion().is_some() {
                self.0.shutdown().unwrap();
            }
            rig_agent::agent::OutcomeAction::Proceed
        }
    }
    let agent = AgentBuilder::new(model)
        .tool(tool.clone())
        .add_hook(Closes(rooms.observer.clone()))
        .add_hook(rooms.hook())
        .build();
    let error = within(agent.prompt("go").max_turns(3).run()).await.unwrap_err();
    assert!(error.to_string().contains("could not be recorded"), "{error}");
    assert_eq!(tool.ran.load(SeqCst), 0);
    let agent = AgentBuilder::new(MockCompletionModel::text("79")).add_hook(rooms.hook()).build();
    let error = within(agent.prompt("go").run()).await.unwrap_err();
    assert!(error.to_string().contains("could not be recorded"), "{error}");
}

#[tokio::test]
async fn a_run_that_is_dropped_ends_its_calls_as_cancelled() {
    let rooms = rooms();
    let model = MockCompletionModel::from_turns([MockTurn::from_contents([call("tc-1", "slow")])]);
    let tool = work(&rooms, 2); // waits for a second one that never comes
    let agent = AgentBuilder::new(model).tool(tool.clone()).add_hook(rooms.hook()).build();
    let running = tokio::spawn(async move { agent.prompt("go").max_turns(3).run().await });
    within(async {
        while tool.ran.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.abort();
    assert!(within(running).await.is_err());
    let all = rooms.all();
    let cancelled = |kind| {
        let end = all.iter().find(|entry| entry.kind == kind);
        end.is_some_and(|end| end.error.as_ref().unwrap().as_str().contains("cancelled"))
    };
    assert!(cancelled(EntryKind::ToolEnd) && cancelled(EntryKind::AgentEnd), "{all:#?}");
}
