//! Do spans become calls, with their nesting, tokens and errors, on any thread?
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use annals_observer::tracing_layer::ObserverLayer;
use annals_observer::{Entry, EntryKind, JsonText, Observer, entries};
use annals_wal::Log;
use annals_wal::fs::mem::MemDir;
use tracing_subscriber::prelude::*;

fn recorded(work: impl FnOnce()) -> Vec<Entry> {
    let log: Log = annals_wal::Options::new().open_in(MemDir::new(1).dir()).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let layer = ObserverLayer::new(&observer, "s-1").unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    observer.flush().unwrap();
    entries(&log).unwrap().map(|stored| stored.unwrap().entry).collect()
}

#[test]
fn an_agent_s_spans_become_calls_inside_one_another() {
    let entries = recorded(|| {
        let agent = tracing::info_span!("invoke_agent", gen_ai.agent.name = "planner");
        let _in_agent = agent.enter();
        let _plain = tracing::info_span!("http request").entered(); // passed by
        let chat = tracing::info_span!(
            "whatever",
            gen_ai.operation.name = "chat",
            gen_ai.request.model = "model-x",
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
            temperature = 0.5
        );
        chat.record("gen_ai.usage.input_tokens", 120u64);
        chat.record("gen_ai.usage.output_tokens", 7u64);
        drop(chat);
        let tool = tracing::info_span!(
            "execute_tool",
            gen_ai.tool.name = "search",
            gen_ai.tool.call.id = "c-1",
            gen_ai.tool.call.arguments = r#"{"q": 1}"#
        );
        tool.in_scope(|| {
            tracing::info!("not an error");
            tracing::error!(code = 7, "no network");
        });
    });
    let kinds: Vec<String> = entries.iter().map(|entry| entry.kind.to_string()).collect();
    let expected = "agent_start llm_start llm_end tool_start error tool_end agent_end";
    assert_eq!(kinds.join(" "), expected);
    let of = |kind| entries.iter().find(|entry| entry.kind == kind).unwrap();
    let agent = of(EntryKind::AgentStart);
    for kind in [EntryKind::LlmStart, EntryKind::ToolStart] {
        assert_eq!(of(kind).parent_span, agent.span);
        assert_eq!(of(kind).agent.as_deref(), Some("planner"));
    }
    let llm = of(EntryKind::LlmEnd);
    assert_eq!((llm.tokens_in, llm.tokens_out), (Some(120), Some(7)));
    assert_eq!(llm.model.as_deref(), Some("model-x"));
    assert!(of(EntryKind::LlmStart).metadata.as_ref().unwrap().as_str().contains("temperature"));
    let tool = of(EntryKind::ToolStart);
    assert_eq!(tool.call_id.as_ref().unwrap().as_str(), "c-1");
    assert_eq!(tool.input, Some(JsonText::parse(r#"{"q": 1}"#).unwrap()));
    assert_eq!(of(EntryKind::ToolEnd).error, Some(JsonText::string("no network")));
    assert!(entries.iter().all(|entry| entry.session.as_ref().unwrap().as_str() == "s-1"));
}

#[test]
fn spans_of_many_threads_keep_their_own_calls() {
    let entries = recorded(|| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::scope(|scope| {
            for n in 0..8u64 {
                let dispatch = dispatch.clone();
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        for _ in 0..50 {
                            let id = format!("c-{n}");
                            drop(tracing::info_span!(
                                "execute_tool",
                                gen_ai.tool.name = n,
                                gen_ai.tool.call.result = id.as_str()
                            ));
                        }
                    });
                });
            }
        });
    });
    assert_eq!(entries.len(), 800);
    for end in entries.iter().filter(|entry| entry.kind == EntryKind::ToolEnd) {
        let said = format!("c-{}", end.tool.as_deref().unwrap());
        assert_eq!(end.output, Some(JsonText::string(&said)), "each end says its own");
        let starts = entries.iter().filter(|e| e.kind == EntryKind::ToolStart);
        assert_eq!(starts.filter(|start| start.span == end.span).count(), 1);
    }
}
