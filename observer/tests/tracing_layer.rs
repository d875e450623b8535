//! Do spans become calls, with their nesting, tokens and errors, on any thread?
#![cfg(feature = "tracing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

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

/// What is switched off is not written by another way: as an event's fields, or as metadata.
#[test]
fn what_is_not_captured_is_nowhere() {
    let log: Log = annals_wal::Options::new().open_in(MemDir::new(2).dir()).unwrap();
    let options = annals_observer::Options::new().detail(annals_observer::Detail::Full);
    let options = options.include_prompts(false).include_output(false);
    let observer = options.on(log.clone()).unwrap();
    let layer = ObserverLayer::new(&observer, "s-1").unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let chat = tracing::info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            gen_ai.input.messages = "the prompt",
            gen_ai.output.messages = "the answer",
            gen_ai.tool.call.result = "the result",
            error = "it failed"
        );
        chat.in_scope(|| {
            tracing::debug!(event.name = "gen_ai.user.message", content = "the prompt");
            tracing::info!(event.name = "gen_ai.choice", message = "the answer");
        });
    });
    observer.flush().unwrap();
    for stored in entries(&log).unwrap() {
        let entry = stored.unwrap().entry;
        let texts = [&entry.input, &entry.output, &entry.error, &entry.metadata];
        for said in texts.into_iter().flatten().map(JsonText::as_str) {
            let bad = ["the prompt", "the answer", "the result"].iter().any(|t| said.contains(t));
            assert!(!bad, "{}: {said}", entry.kind);
        }
    }
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

/// With a limit on the time of the work, as a lock that is taken twice would never give it back.
fn within_time(work: impl FnOnce() -> Vec<Entry> + Send + 'static) -> Vec<Entry> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(work()).unwrap());
    receive.recv_timeout(std::time::Duration::from_secs(60)).expect("it waits for itself")
}

#[test]
fn events_named_by_the_conventions_are_recorded_and_others_are_not() {
    let entries = recorded(|| {
        tracing::info!(event.name = "gen_ai.evaluation.result", score = 0.5, "outside");
        let chat = tracing::info_span!("chat", gen_ai.request.model = "model-x");
        chat.in_scope(|| {
            tracing::debug!(event.name = "gen_ai.user.message", content = "who is it");
            tracing::info!(name: "gen_ai.choice", index = 0, message = "it is me");
            tracing::info!(event.name = "http.request", "not of ours");
            tracing::debug!("gen_ai. in a text");
        });
    });
    let of: Vec<(EntryKind, Option<&str>)> =
        entries.iter().map(|entry| (entry.kind, entry.name.as_deref())).collect();
    let (start, end) = (EntryKind::SpanStart, EntryKind::SpanEnd);
    assert_eq!(
        of,
        [
            (start, Some("gen_ai.evaluation.result")),
            (end, Some("gen_ai.evaluation.result")),
            (EntryKind::LlmStart, None),
            (start, Some("gen_ai.user.message")),
            (end, Some("gen_ai.user.message")),
            (start, Some("gen_ai.choice")),
            (end, Some("gen_ai.choice")),
            (EntryKind::LlmEnd, None),
        ]
    );
    let input = |at: usize| entries[at].input.as_ref().unwrap().as_str().to_owned();
    assert!(input(0).contains("0.5") && input(0).contains("outside"), "{}", input(0));
    assert!(input(3).contains("who is it"));
    assert!(input(5).contains("it is me"));
    assert_eq!(entries[3].parent_span, entries[2].span);
}

#[test]
fn an_error_keeps_all_of_its_fields() {
    let entries = recorded(|| {
        tracing::info_span!("execute_tool", gen_ai.tool.name = "t").in_scope(|| {
            tracing::error!(code = 7, path = "/x", "no network");
            tracing::error!("alone");
        });
    });
    let errors: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Error)
        .map(|entry| entry.error.as_ref().unwrap().as_str())
        .collect();
    assert!(errors[0].contains("no network") && errors[0].contains("/x"), "{}", errors[0]);
    assert!(errors[0].contains("\"code\""), "{}", errors[0]);
    assert_eq!(errors[1], "\"alone\"");
}

#[test]
fn a_span_that_says_it_failed_has_failed() {
    let entries = recorded(|| {
        let span = || {
            tracing::info_span!(
                "execute_tool",
                gen_ai.tool.name = "t",
                gen_ai.tool.call.result = tracing::field::Empty,
                error = tracing::field::Empty,
                error.type = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
                otel.status_description = tracing::field::Empty,
            )
        };
        span().record("error", "it broke");
        span().record("error", true);
        span().record("error", false);
        span().record("otel.status_code", "ERROR").record("otel.status_description", "why");
        span().record("otel.status_code", "OK");
        span().record("error.type", "timeout").record("gen_ai.tool.call.result", "half of it");
        let both = span();
        both.record("error.type", "timeout");
        both.in_scope(|| tracing::error!("took too long"));
    });
    let ends: Vec<&Entry> = entries.iter().filter(|e| e.kind == EntryKind::ToolEnd).collect();
    let errors: Vec<Option<&str>> =
        ends.iter().map(|end| end.error.as_ref().map(JsonText::as_str)).collect();
    assert_eq!(errors[0], Some("\"it broke\""));
    assert!(errors[1].is_some() && errors[2].is_none() && errors[4].is_none(), "{errors:?}");
    assert_eq!(errors[3], Some("\"why\""));
    assert_eq!(errors[5], Some("\"timeout\""));
    let both = errors[6].unwrap();
    assert!(both.contains("timeout") && both.contains("took too long"), "{both}");
    let kept = ends[5].metadata.as_ref().expect("what it gave until then").as_str();
    assert!(kept.contains("half of it"), "{kept}");
}

#[test]
fn a_span_with_two_results_keeps_both() {
    let entries = recorded(|| {
        drop(tracing::info_span!(
            "execute_tool",
            gen_ai.tool.call.result = "the result",
            gen_ai.output.messages = "the messages"
        ));
    });
    let end = &entries[1];
    assert_eq!(end.output, Some(JsonText::string("the result")));
    assert!(end.metadata.as_ref().unwrap().as_str().contains("the messages"));
}

/// A redactor of the caller, or a field's own `Debug`, may trace: inside of the same span.
#[test]
fn a_redactor_and_a_field_that_trace_do_not_wait_for_themselves() {
    struct Loud;
    impl std::fmt::Debug for Loud {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::error!("from inside of a field");
            f.write_str("loud")
        }
    }
    let entries = within_time(|| {
        let log: Log = annals_wal::Options::new().open_in(MemDir::new(2).dir()).unwrap();
        let redactor = |text: &str| {
            if text == "outer" {
                tracing::error!("from inside of a redactor");
            }
            None
        };
        let observer = annals_observer::Options::new().redactor(redactor).on(log.clone()).unwrap();
        let layer = ObserverLayer::new(&observer, "s-1").unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("execute_tool", said = tracing::field::Empty);
            span.in_scope(|| {
                tracing::error!("outer");
                span.record("said", tracing::field::debug(Loud));
            });
        });
        observer.flush().unwrap();
        entries(&log).unwrap().map(|stored| stored.unwrap().entry).collect()
    });
    assert!(entries.iter().any(|entry| entry.kind == EntryKind::ToolEnd));
}
