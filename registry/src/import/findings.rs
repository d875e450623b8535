//! What does not fit: counts that disagree with what is listed, and two files that disagree.
//!
//! Never here: repairs. A finding names what each side says; which of them is right only people
//! know. Next room: [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::Result;
use crate::key::{Key, Prefix};
use crate::tx::Tx;
use crate::value::Value;

use super::document::{Document, Group, Whose, text_member};
use super::{escaped, unescaped};

/// One thing in a JSON registry that does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A count that disagrees with what is listed.
    Count {
        /// The registry: `tasks/TASK` or `global`.
        place: String,
        /// The member that counts.
        member: String,
        /// What it says.
        says: u64,
        /// How many are listed that it counts.
        listed: u64,
        /// How many are listed in all.
        of: u64,
        /// What they are, as a clause after the number.
        what: &'static str,
    },
    /// An agent that one file lists and the other does not.
    Missing {
        /// The agent.
        agent: String,
        /// Where it is listed.
        listed: String,
        /// Where it is not.
        missing: String,
    },
    /// An agent whose status is not the same in both files.
    Status {
        /// The agent.
        agent: String,
        /// What the task's registry says.
        task_says: String,
        /// What the global one says.
        global_says: String,
    },
    /// A task that agents belong to and that the global registry does not list.
    UnknownTask {
        /// The task.
        task: String,
        /// Who says so.
        listed: String,
    },
    /// A member that has a list's name and is no list of objects; it was imported whole, as one
    /// value.
    NotAList {
        /// The registry.
        place: String,
        /// The member.
        member: String,
        /// What in it is no object.
        why: String,
    },
    /// An agent or task that a list names twice; the last entry is the one under the key. An export
    /// has both.
    Twice {
        /// The registry.
        place: String,
        /// The id.
        id: String,
    },
    /// An agent that another one names and that is not listed.
    Dangling {
        /// The registry.
        place: String,
        /// Who is named.
        agent: String,
        /// As what.
        role: &'static str,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Count { place, member, says, listed, of, what } => {
                let is = if *listed == 1 { "is" } else { "are" };
                let whom = if member.contains("task") { "tasks" } else { "agents" };
                write!(f, "{place}: {member} says {says}, but {listed} ")?;
                match *what {
                    "listed" => write!(f, "{whom} {is} listed"),
                    what => write!(f, "of the {of} {whom} listed {is} {what}"),
                }
            }
            Finding::Missing { agent, listed, missing } => {
                write!(f, "agent {agent}: listed in {listed} and not in {missing}")
            }
            Finding::Status { agent, task_says, global_says } => write!(
                f,
                "agent {agent}: its task's registry says {task_says}, the global one {global_says}"
            ),
            Finding::UnknownTask { task, listed } => {
                write!(f, "task {task}: named in {listed} and not listed in global/tasks")
            }
            Finding::Twice { place, id } => {
                write!(f, "{place}: {id} is listed twice; the last entry is the one under its key")
            }
            Finding::NotAList { place, member, why } => {
                write!(
                    f,
                    "{place}: {member} is no list of objects ({why}); it is kept as one value"
                )
            }
            Finding::Dangling { place, agent, role } => {
                write!(f, "{place}: {agent} is named as {role} and is not listed")
            }
        }
    }
}

/// A status after which an agent, or a task, is at its end.
const ENDS: [&str; 14] = [
    "completed",
    "complete",
    "done",
    "finished",
    "failed",
    "error",
    "errored",
    "terminated",
    "killed",
    "cancelled",
    "canceled",
    "stopped",
    "aborted",
    "archived",
];
const COMPLETED: [&str; 4] = ["completed", "complete", "done", "finished"];

/// What a document is compared with.
#[derive(Default)]
pub(super) struct Others {
    /// For a task's registry: the global one's agents of this task; for the global one: all agents
    /// of the tasks that were imported. Ids and texts.
    agents: BTreeMap<(String, String), String>,
    /// The tasks whose registry is here, and whether the global one is.
    tasks: BTreeSet<String>,
    global_tasks: Option<BTreeSet<String>>,
}

impl Others {
    pub(super) fn read(tx: &mut Tx<'_>, document: &Document<'_>) -> Result<Others> {
        let mut others = Others::default();
        match &document.whose {
            Whose::Global => others.read_tasks(tx)?,
            Whose::Task(task) => others.read_global(tx, task)?,
        }
        Ok(others)
    }

    fn read_tasks(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        for (key, value) in tx.scan(&Prefix::new("tasks")?)? {
            let parts: Vec<&str> = key.as_str().split('/').collect();
            match parts[..] {
                [_, task, "agents", agent] => {
                    let id = (unescaped(task), unescaped(agent));
                    self.agents.insert(id, text(&value));
                }
                [_, task, super::LAYOUT] => {
                    self.tasks.insert(unescaped(task));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_global(&mut self, tx: &mut Tx<'_>, task: &str) -> Result<()> {
        if tx.get(&Key::new(format!("global/{}", super::LAYOUT))?)?.is_none() {
            return Ok(());
        }
        let tasks = tx.scan(&Prefix::new("global/tasks")?)?;
        self.global_tasks = Some(tasks.iter().filter_map(|(key, _)| listed(key)).collect());
        for (key, value) in tx.scan(&Prefix::new("global/agents")?)? {
            let text = text(&value);
            if text_member(&text, "task_id").as_deref() == Some(task)
                && let Some(agent) = listed(&key)
            {
                self.agents.insert((task.to_owned(), agent), text);
            }
        }
        Ok(())
    }
}

/// The id of an entry of a list of the global registry; what lies deeper is somebody else's.
fn listed(key: &Key) -> Option<String> {
    match key.as_str().split('/').collect::<Vec<_>>()[..] {
        [_, _, id] => Some(unescaped(id)),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.bytes()).into_owned()
}

fn status(text: &str) -> Option<String> {
    text_member(text, "status").or_else(|| text_member(text, "state"))
}

fn is(status: Option<&str>, of: &[&str]) -> bool {
    status.is_some_and(|status| of.contains(&status.to_ascii_lowercase().as_str()))
}

/// Everything that does not fit, in the document and between it and the others.
pub(super) fn of(document: &Document<'_>, others: &Others) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = match &document.whose {
        Whose::Task(task) => format!("tasks/{}", escaped(task)),
        Whose::Global => "global".to_owned(),
    };
    findings.extend(document.no_lists.iter().map(|(member, why)| {
        let (place, member) = (place.clone(), (*member).to_owned());
        Finding::NotAList { place, member, why: why.clone() }
    }));
    counts(document, &place, &mut findings);
    for name in ["agents", "tasks"] {
        let twice = document.group(name).into_iter().flat_map(Group::twice);
        findings.extend(twice.map(|id| Finding::Twice { place: place.clone(), id: id.clone() }));
    }
    let Some(agents) = document.group("agents") else { return findings };
    named(document, agents, &place, &mut findings);
    match &document.whose {
        Whose::Task(task) if others.global_tasks.is_some() => {
            let listed = others.global_tasks.as_ref();
            if listed.is_some_and(|tasks| !tasks.contains(task)) {
                let (task, listed) = (task.clone(), place.clone());
                findings.push(Finding::UnknownTask { task, listed });
            }
            let global = others.agents.iter();
            let global = global.map(|((_, id), text)| (id.as_str(), text.as_str())).collect();
            between(&all(agents), &global, task, &mut findings);
        }
        Whose::Task(_) => {}
        Whose::Global => of_global(document, agents, others, &mut findings),
    }
    findings
}

type Agents<'a> = BTreeMap<&'a str, &'a str>;

fn all<'a>(agents: &'a Group<'_>) -> Agents<'a> {
    agents.items.iter().map(|(id, text)| (id.as_str(), *text)).collect()
}

fn of_global(
    document: &Document<'_>,
    agents: &Group<'_>,
    others: &Others,
    findings: &mut Vec<Finding>,
) {
    let mut by_task: BTreeMap<String, Agents<'_>> = BTreeMap::new();
    for (id, text) in &agents.items {
        if let Some(task) = text_member(text, "task_id") {
            by_task.entry(task).or_default().insert(id, text);
        }
    }
    if let Some(tasks) = document.group("tasks") {
        for task in by_task.keys().filter(|task| tasks.text(task).is_none()) {
            let (task, listed) = (task.clone(), "global/agents".to_owned());
            findings.push(Finding::UnknownTask { task, listed });
        }
        for task in others.tasks.iter().filter(|task| tasks.text(task).is_none()) {
            let listed = format!("tasks/{}", escaped(task));
            findings.push(Finding::UnknownTask { task: task.clone(), listed });
        }
    }
    for task in &others.tasks {
        let own = others.agents.iter().filter(|((of, _), _)| of == task);
        let own = own.map(|((_, id), text)| (id.as_str(), text.as_str())).collect();
        between(&own, by_task.get(task).unwrap_or(&Agents::new()), task, findings);
    }
}

/// A task's registry and what the global one says of its agents.
fn between(own: &Agents<'_>, global: &Agents<'_>, task: &str, findings: &mut Vec<Finding>) {
    let task = format!("tasks/{}", escaped(task));
    let missing = |agent: &str, listed: &str, missing: &str| Finding::Missing {
        agent: agent.to_owned(),
        listed: listed.to_owned(),
        missing: missing.to_owned(),
    };
    for (agent, text) in own {
        match global.get(agent) {
            None => findings.push(missing(agent, &task, "global")),
            Some(other) => {
                let (task_says, global_says) = (status(text), status(other));
                if task_says != global_says {
                    let said = |status: Option<String>| status.unwrap_or_else(|| "nothing".into());
                    let (task_says, global_says) = (said(task_says), said(global_says));
                    let agent = (*agent).to_owned();
                    findings.push(Finding::Status { agent, task_says, global_says });
                }
            }
        }
    }
    for agent in global.keys().filter(|agent| !own.contains_key(*agent)) {
        findings.push(missing(agent, "global", &task));
    }
}

fn counts(document: &Document<'_>, place: &str, findings: &mut Vec<Finding>) {
    const ACTIVE: &str = "active";
    const LISTED: &str = "listed";
    const DONE: &str = "completed";
    let table: [(&str, &[&str], &'static str); 7] = [
        ("agents", &["active_count", "active_agents"], ACTIVE),
        ("agents", &["completed_count", "completed_agents"], DONE),
        ("agents", &["total_spawned", "total_agents_spawned", "total_agents"], LISTED),
        ("tasks", &["active_tasks"], ACTIVE),
        ("tasks", &["completed_tasks"], DONE),
        ("tasks", &["total_tasks", "task_count"], LISTED),
        ("agents", &["agent_count"], LISTED),
    ];
    for (name, members, what) in table {
        let Some(group) = document.group(name) else { continue };
        let of = group.len() as u64;
        let states = group.items.iter().map(|(_, text)| status(text));
        let listed = match what {
            ACTIVE => states.filter(|state| !is(state.as_deref(), &ENDS)).count() as u64,
            DONE => states.filter(|state| is(state.as_deref(), &COMPLETED)).count() as u64,
            _ => of,
        };
        for member in members {
            if let Some(says) = document.number(member).filter(|says| *says != listed) {
                let (place, member) = (place.to_owned(), (*member).to_owned());
                findings.push(Finding::Count { place, member, says, listed, of, what });
            }
        }
    }
}

/// Parents and children that are named.
fn named(document: &Document<'_>, agents: &Group<'_>, place: &str, findings: &mut Vec<Finding>) {
    let mut dangling = BTreeSet::new();
    for (_, text) in &agents.items {
        if let Some(parent) = text_member(text, "parent")
            && parent != "orchestrator"
            && agents.text(&parent).is_none()
        {
            dangling.insert((parent, "a parent"));
        }
    }
    let hierarchy = document.members.iter().find(|(name, _)| name == "agent_hierarchy");
    let hierarchy = hierarchy
        .and_then(|(_, text)| serde_json::from_str::<BTreeMap<String, Vec<String>>>(text).ok());
    for child in hierarchy.iter().flat_map(BTreeMap::values).flatten() {
        if agents.text(child).is_none() {
            dangling.insert((child.clone(), "a child in agent_hierarchy"));
        }
    }
    let place = place.to_owned();
    findings.extend(dangling.into_iter().map(|(agent, role)| Finding::Dangling {
        place: place.clone(),
        agent,
        role,
    }));
}
