//! The shapes of JSON registries: which members are lists of agents and tasks, and whose registry
//! it is.
//!
//! Never here: keys. A list is an array of objects that say their id, or an object of objects by id.
//! What is no list of that kind is a member like any other, and a finding says so. Next room:
//! [`super::findings`].

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::key::Prefix;
use crate::merge::members_of;

use super::escaped;

/// The names under which a list's objects say their id, in this order.
const AGENT_IDS: [&str; 4] = ["id", "agent_id", "agentId", "name"];
const TASK_IDS: [&str; 4] = ["task_id", "id", "taskId", "name"];

/// The members that are taken apart.
const GROUPS: [(&str, [&str; 4]); 2] = [("agents", AGENT_IDS), ("tasks", TASK_IDS)];

/// How a list was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// An array of objects that say their id.
    Array,
    /// An object, by id.
    Object,
}

/// A list of agents or tasks: ids and texts, in their order.
#[derive(Debug)]
pub(crate) struct Group<'t> {
    pub(crate) form: Form,
    /// Each id once: of several entries the last one counts.
    pub(crate) items: Vec<(String, &'t str)>,
    /// The ids as the document has them.
    pub(crate) order: Vec<String>,
    /// Where the document has entries that a later one of the same id stands for, and their texts.
    pub(crate) earlier: BTreeMap<usize, &'t str>,
}

impl Group<'_> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Ids that come more than once.
    pub(crate) fn twice(&self) -> impl Iterator<Item = &String> {
        self.earlier.keys().filter_map(|at| self.order.get(*at))
    }

    pub(crate) fn text(&self, id: &str) -> Option<&str> {
        self.items.iter().find(|(known, _)| known == id).map(|(_, text)| *text)
    }
}

/// Whose registry it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    Task(String),
    Global,
}

#[derive(Debug)]
pub(crate) struct Document<'t> {
    pub(crate) whose: Whose,
    /// Names and texts, in their order.
    pub(crate) members: Vec<(String, &'t str)>,
    groups: Vec<(&'static str, Group<'t>)>,
    /// Members with a list's name that are none, and why.
    pub(crate) no_lists: Vec<(&'static str, String)>,
}

impl<'t> Document<'t> {
    pub(crate) fn parse(name: &str, text: &'t str) -> Result<Document<'t>> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::import(name, format!("it is no JSON, at line {line} column {column}"))
        })?;
        let members = members_of(raw.get())
            .map_err(|why| Error::import(name, why))?
            .ok_or_else(|| Error::import(name, "it is JSON, but no object"))?;
        let (mut groups, mut no_lists) = (Vec::new(), Vec::new());
        for (group, ids) in GROUPS {
            if let Some((_, text)) = members.iter().find(|(name, _)| name == group) {
                match list(name, group, text, &ids)? {
                    Ok(items) => groups.push((group, items)),
                    Err(why) => no_lists.push((group, why)),
                }
            }
        }
        if groups.is_empty() {
            let why = "it lists neither agents nor tasks: an `agents` or `tasks` member is an array \
                       of objects that have an id, or an object by id";
            return Err(Error::import(name, why));
        }
        let whose = whose(name, &members, &groups)?;
        Ok(Document { whose, members, groups, no_lists })
    }

    pub(crate) fn root(&self) -> Result<Prefix> {
        match &self.whose {
            Whose::Task(task) => Prefix::new(format!("tasks/{}", escaped(task))),
            Whose::Global => Prefix::new("global"),
        }
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group<'t>> {
        self.groups.iter().find(|(known, _)| *known == name).map(|(_, group)| group)
    }

    /// A member that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let (_, text) = self.members.iter().find(|(known, _)| known == name)?;
        serde_json::from_str(text).ok()
    }
}

/// A registry of one task names it; one that lists tasks does not, whatever else it says.
fn whose(
    name: &str,
    members: &[(String, &str)],
    groups: &[(&'static str, Group<'_>)],
) -> Result<Whose> {
    if groups.iter().any(|(group, _)| *group == "tasks") {
        return Ok(Whose::Global);
    }
    let said = ["task_id", "taskId", "id"].iter().find_map(|id| {
        let (_, text) = members.iter().find(|(known, _)| known == id)?;
        // A number names a task as it names an agent.
        let number = || serde_json::from_str::<serde_json::Number>(text).ok();
        let said = serde_json::from_str::<String>(text).ok();
        said.or_else(|| number().map(|number| number.to_string())).filter(|id| !id.is_empty())
    });
    if let Some(task) = said {
        return Ok(Whose::Task(task));
    }
    // The agents of a global registry say whose they are.
    let agents = groups.iter().flat_map(|(_, group)| &group.items);
    let mut tasks = agents.filter_map(|(_, text)| text_member(text, "task_id"));
    if tasks.next().is_some() {
        return Ok(Whose::Global);
    }
    let path = std::path::Path::new(name);
    let directory = path.parent().and_then(|parent| parent.file_name()?.to_str());
    let why = "it names no task (`task_id`), and neither does its directory";
    directory.map(|task| Whose::Task(task.to_owned())).ok_or_else(|| Error::import(name, why))
}

/// The id that an entry of this list's array says.
pub(crate) fn said_id(group: &str, entry: &str) -> Option<String> {
    let (_, ids) = GROUPS.iter().find(|(known, _)| *known == group)?;
    ids.iter().find_map(|id| text_member(entry, id))
}

/// The inner error is why it is no list of objects.
fn list<'t>(
    name: &str,
    group: &str,
    text: &'t str,
    ids: &[&str],
) -> Result<std::result::Result<Group<'t>, String>> {
    let bad = |why: String| Error::import(name, why);
    let mut items: Vec<(String, &'t str)> = Vec::new();
    let form = if text.starts_with('[') {
        let raw: Vec<&'t RawValue> =
            serde_json::from_str(text).map_err(|_| bad(format!("its `{group}` is no array")))?;
        for (n, item) in raw.into_iter().enumerate() {
            let text = item.get();
            if !text.starts_with('{') {
                return Ok(Err(format!("entry {} is no object", n + 1)));
            }
            let id = ids.iter().find_map(|id| text_member(text, id)).ok_or_else(|| {
                bad(format!("entry {} of `{group}` has no id ({})", n + 1, ids.join(", ")))
            })?;
            items.push((id, text));
        }
        Form::Array
    } else if let Some(members) = members_of(text).map_err(|why| bad(why.to_owned()))? {
        if let Some((id, _)) = members.iter().find(|(_, text)| !text.starts_with('{')) {
            return Ok(Err(format!("its member {id} is no object")));
        }
        items = members;
        Form::Object
    } else {
        return Ok(Err("it is neither an array nor an object".to_owned()));
    };
    Ok(Ok(grouped(form, items)))
}

fn grouped(form: Form, items: Vec<(String, &str)>) -> Group<'_> {
    let order: Vec<String> = items.iter().map(|(id, _)| id.clone()).collect();
    let last: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(at, id)| (&**id, at)).collect();
    let is_last = |at: usize| last.get(&*order[at]) == Some(&at);
    let all = items.iter().enumerate();
    let earlier = all.filter(|(at, _)| !is_last(*at)).map(|(at, (_, text))| (at, *text)).collect();
    let kept = items.iter().enumerate().filter(|(at, _)| is_last(*at));
    let items = kept.map(|(_, item)| item.clone()).collect();
    Group { form, items, order, earlier }
}

/// A member of an object that is a text.
pub(crate) fn text_member(object: &str, name: &str) -> Option<String> {
    let members = members_of(object).ok().flatten()?;
    let (_, text) = members.into_iter().find(|(known, _)| known == name)?;
    match serde_json::from_str(text).ok()? {
        serde_json::Value::String(text) if !text.is_empty() => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
