//! The OpenTelemetry GenAI names of our fields: the one table.
//!
//! Every one of these names is still in development; the conventions moved to a repository of their
//! own after v1.41 and rename there. So the log keeps our names, and an export says which version
//! it speaks ([`SEMCONV`]).

use crate::kind::CallKind;

/// The version of the semantic conventions that the names below follow.
pub const SEMCONV: &str = "https://opentelemetry.io/schemas/1.41.0";

/// `gen_ai.operation.name`: what a span does.
pub const OPERATION: &str = "gen_ai.operation.name";
/// `gen_ai.conversation.id`: the session, on every span.
pub const CONVERSATION: &str = "gen_ai.conversation.id";
/// `gen_ai.agent.name`: the agent.
pub const AGENT: &str = "gen_ai.agent.name";
/// `gen_ai.tool.name`: the tool.
pub const TOOL: &str = "gen_ai.tool.name";
/// `gen_ai.tool.call.id`: the call id of a tool call.
pub const TOOL_CALL_ID: &str = "gen_ai.tool.call.id";
/// `gen_ai.tool.call.arguments`: a tool's input.
pub const TOOL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";
/// `gen_ai.tool.call.result`: a tool's output.
pub const TOOL_RESULT: &str = "gen_ai.tool.call.result";
/// `gen_ai.request.model`: the model.
pub const MODEL: &str = "gen_ai.request.model";
/// `gen_ai.input.messages`: what a model or agent was given.
pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
/// `gen_ai.output.messages`: what a model or agent answered.
pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
/// `gen_ai.usage.input_tokens`.
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// `gen_ai.usage.output_tokens`.
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// `gen_ai.workflow.name`: the trace.
pub const WORKFLOW: &str = "gen_ai.workflow.name";
/// `error.type`: on what failed.
pub const ERROR_TYPE: &str = "error.type";

/// Our own names, for what the conventions have none for.
pub mod own {
    /// The LSN of the start.
    pub const START_LSN: &str = "annals.start_lsn";
    /// The LSN of the end.
    pub const END_LSN: &str = "annals.end_lsn";
    /// The run inside the session.
    pub const RUN: &str = "annals.run";
    /// The call id of what is no tool call.
    pub const CALL_ID: &str = "annals.call_id";
    /// Metadata of the start, as JSON text.
    pub const METADATA: &str = "annals.metadata";
    /// True on a span whose end is not in the log.
    pub const UNFINISHED: &str = "annals.unfinished";
    /// On a handoff event: from whom.
    pub const HANDOFF_FROM: &str = "handoff.from_agent";
    /// On a handoff event: to whom.
    pub const HANDOFF_TO: &str = "handoff.to_agent";
}

/// The operation of a call, and the number of its OTLP span kind (1 internal, 3 client).
pub fn operation(kind: CallKind) -> (Option<&'static str>, u32) {
    match kind {
        CallKind::Agent => (Some("invoke_agent"), 1),
        CallKind::Llm => (Some("chat"), 3),
        CallKind::Tool => (Some("execute_tool"), 1),
        CallKind::Trace => (Some("invoke_workflow"), 1),
        CallKind::Span => (None, 1),
    }
}

/// The attribute that the name of a call goes to.
pub fn name_attribute(kind: CallKind) -> Option<&'static str> {
    match kind {
        CallKind::Agent => Some(AGENT),
        CallKind::Llm => Some(MODEL),
        CallKind::Tool => Some(TOOL),
        CallKind::Trace => Some(WORKFLOW),
        CallKind::Span => None,
    }
}
