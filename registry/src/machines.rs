//! Two tables that most runtimes need: an agent's life and an agent's turn.
//!
//! Never here: behaviour. A runtime with other states writes its own [`Machine`]; these are
//! examples that can be used as they are. Next room: [`crate::registry`].

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Where an agent is in its life.
///
/// ```text
/// registered -> starting      -> working, failed, terminated
/// working    -> blocked, reviewing, completed, failed, terminated
/// blocked    -> working, failed, terminated
/// reviewing  -> working, completed, failed, terminated
/// registered -> terminated
/// completed, failed, terminated: the end
/// ```
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum AgentLife {
    /// It has an entry, and no process yet.
    Registered,
    /// Its process is being started.
    Starting,
    /// It works.
    Working,
    /// It waits for somebody.
    Blocked,
    /// Its result is being looked at.
    Reviewing,
    /// It ended with a result.
    Completed,
    /// It ended by itself without one.
    Failed,
    /// It was ended.
    Terminated,
}

impl AgentLife {
    /// Whether an agent in this state counts as active: it has begun and has not ended.
    pub fn is_active(self) -> bool {
        use AgentLife::{Blocked, Reviewing, Starting, Working};
        matches!(self, Starting | Working | Blocked | Reviewing)
    }

    /// Whether nothing follows.
    pub fn is_end(self) -> bool {
        matches!(self, AgentLife::Completed | AgentLife::Failed | AgentLife::Terminated)
    }
}

/// The table of [`AgentLife`].
///
/// ```
/// use annals_registry::{AgentLife, agent_life};
///
/// let life = agent_life();
/// assert!(life.allows(&AgentLife::Working, &AgentLife::Completed));
/// assert!(!life.allows(&AgentLife::Terminated, &AgentLife::Working), "no ghosts");
/// ```
pub fn agent_life() -> Machine<AgentLife> {
    use AgentLife::{
        Blocked, Completed, Failed, Registered, Reviewing, Starting, Terminated, Working,
    };
    let table = [
        (Registered, Starting),
        (Registered, Terminated),
        (Starting, Working),
        (Starting, Failed),
        (Starting, Terminated),
        (Working, Blocked),
        (Working, Reviewing),
        (Working, Completed),
        (Working, Failed),
        (Working, Terminated),
        (Blocked, Working),
        (Blocked, Failed),
        (Blocked, Terminated),
        (Reviewing, Working),
        (Reviewing, Completed),
        (Reviewing, Failed),
        (Reviewing, Terminated),
    ];
    Machine::new("agent", table)
}

/// Where an agent is in one turn of its conversation.
///
/// ```text
/// user_input     -> assistant
/// assistant      -> tool_execution, response
/// tool_execution -> assistant, response
/// response       -> user_input
/// ```
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[serde(rename_all = "snake_case")]
pub enum AgentTurn {
    /// It waits for the user, or has just heard him.
    UserInput,
    /// The model thinks.
    Assistant,
    /// Tools run.
    ToolExecution,
    /// The answer is given.
    Response,
}

/// The table of [`AgentTurn`].
///
/// ```
/// use annals_registry::{AgentTurn, agent_turn};
///
/// let next: Vec<_> = agent_turn().next(&AgentTurn::UserInput).copied().collect();
/// assert_eq!(next, [AgentTurn::Assistant]);
/// ```
pub fn agent_turn() -> Machine<AgentTurn> {
    use AgentTurn::{Assistant, Response, ToolExecution, UserInput};
    let table = [
        (UserInput, Assistant),
        (Assistant, ToolExecution),
        (Assistant, Response),
        (ToolExecution, Assistant),
        (ToolExecution, Response),
        (Response, UserInput),
    ];
    Machine::new("turn", table)
}
