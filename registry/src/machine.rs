//! State machines: a table of allowed transitions over any serde enum, and the one call that makes
//! a transition or says why not.
//!
//! Never here: what a state means. Invariant: a transition that the table does not have is refused
//! before anything is read or written, and the refusal names those it has. Next room:
//! [`crate::machines`].

use std::fmt;

use annals_wal::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::{Abort, Outcome, TxResult};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::merge;
use crate::registry::Registry;
use crate::tx::Tx;
use crate::value::{Revision, Value};

/// Which transitions there are between the states of `S`, and where in a value the state stands.
///
/// ```
/// use annals_registry::{ErrorKind, Key, Machine, Registry, Transition};
/// # use annals_wal::Log;
///
/// #[derive(serde::Serialize, serde::Deserialize, Clone, Copy, PartialEq, Debug)]
/// #[serde(rename_all = "snake_case")]
/// enum Job {
///     Queued,
///     Running,
///     Done,
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
/// let jobs = Machine::new("job", [(Job::Queued, Job::Running), (Job::Running, Job::Done)]);
/// let key = Key::new("jobs/1")?;
/// registry.put_json(&key, &Job::Queued)?;
///
/// assert!(matches!(
///     registry.transition(&jobs, &key, Job::Queued, Job::Running)?,
///     Transition::Done(_)
/// ));
/// let lost = registry.transition(&jobs, &key, Job::Queued, Job::Running)?;
/// assert_eq!(lost, Transition::Elsewhere { current: Some(Job::Running) });
/// let refused = registry.transition(&jobs, &key, Job::Queued, Job::Done).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::NotAllowed);
/// assert!(refused.to_string().contains("from `queued` it goes to `running`"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Machine<S> {
    name: String,
    allowed: Vec<(S, S)>,
    member: Option<String>,
}

/// What became of a transition.
#[must_use = "a state that is another one is not an error: look whether the transition was made"]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transition<S> {
    /// Made and durable.
    Done(Revision),
    /// The state was not the one to go from; nothing was changed.
    Elsewhere {
        /// What it was; durable. `None` if there is no such key.
        current: Option<S>,
    },
}

impl<S: Serialize + DeserializeOwned + PartialEq + Clone> Machine<S> {
    /// The table: pairs of *from* and *to*. `name` is for messages.
    pub fn new(name: impl Into<String>, allowed: impl IntoIterator<Item = (S, S)>) -> Machine<S> {
        Machine { name: name.into(), allowed: allowed.into_iter().collect(), member: None }
    }

    /// The state is this member of a JSON object, whose other members stay byte for byte. Without
    /// this the state is the whole value.
    pub fn in_member(mut self, member: impl Into<String>) -> Machine<S> {
        self.member = Some(member.into());
        self
    }

    /// The states that may follow this one.
    pub fn next(&self, from: &S) -> impl Iterator<Item = &S> {
        self.allowed.iter().filter(move |(state, _)| state == from).map(|(_, to)| to)
    }

    /// Whether the table has this transition.
    pub fn allows(&self, from: &S, to: &S) -> bool {
        self.next(from).any(|next| next == to)
    }

    /// The table again.
    pub fn transitions(&self) -> &[(S, S)] {
        &self.allowed
    }

    /// Refuses a transition that the table does not have.
    ///
    /// # Errors
    /// `NotAllowed`, which names those it has.
    pub fn check(&self, from: &S, to: &S) -> Result<()> {
        if self.allows(from, to) {
            return Ok(());
        }
        let next: Vec<String> = self.next(from).map(name_of).collect();
        let (name, from, to) = (&self.name, name_of(from), name_of(to));
        let goes = if next.is_empty() {
            format!("nothing follows {from}")
        } else {
            format!("from {from} it goes to {}", next.join(", "))
        };
        Err(Error::not_allowed(format!("{name}: it does not go from {from} to {to}: {goes}")))
    }

    fn state(&self, value: &Value) -> Result<S> {
        let Some(member) = &self.member else { return value.decode_json() };
        let text = merge::member_text(text_of(value)?, member)
            .map_err(|why| Error::decode("JSON", why))?
            .ok_or_else(|| Error::decode("JSON", "the member of the state is not there"))?;
        Value::new(text.as_bytes(), Codec::JSON).decode_json()
    }

    fn with_state(&self, value: &Value, state: &S) -> Result<Value> {
        let new = Value::json(state)?;
        let Some(member) = &self.member else { return Ok(new) };
        let merged = merge::set_member(text_of(value)?, member, text_of(&new)?)
            .map_err(Error::not_mergeable)?;
        Ok(Value::new(merged.into_bytes(), Codec::JSON))
    }
}

impl Tx<'_> {
    /// Takes the state of `key` from `from` to `to`, as part of this transaction. The state it had
    /// is `Err` if that is another one; `None` if there is no such key.
    ///
    /// # Errors
    /// `NotAllowed` if the machine has no such transition, whatever the state is; `Decode` if the
    /// value holds no state; `NotMergeable`; `Restart`: see [`Tx`].
    pub fn transition<S: Serialize + DeserializeOwned + PartialEq + Clone>(
        &mut self,
        machine: &Machine<S>,
        key: &Key,
        from: &S,
        to: &S,
    ) -> Result<std::result::Result<(), Option<S>>> {
        machine.check(from, to)?;
        let Some(value) = self.get(key)? else { return Ok(Err(None)) };
        let current = machine.state(&value)?;
        if current != *from {
            return Ok(Err(Some(current)));
        }
        self.put_same_lease(key, machine.with_state(&value, to)?)?;
        Ok(Ok(()))
    }
}

impl Registry {
    /// Takes the state of `key` from `from` to `to` in one transaction. Durable on return.
    ///
    /// # Errors
    /// As [`Tx::transition`] and [`Registry::transact`]; `GaveUp`.
    pub fn transition<S: Serialize + DeserializeOwned + PartialEq + Clone>(
        &self,
        machine: &Machine<S>,
        key: &Key,
        from: S,
        to: S,
    ) -> Result<Transition<S>> {
        let outcome = self.transact(|tx| -> TxResult<(), Option<S>> {
            tx.transition(machine, key, &from, &to)?.map_err(Abort::Because)
        })?;
        match outcome {
            Outcome::Done { revision: Some(revision), .. } => Ok(Transition::Done(revision)),
            Outcome::Aborted(current) => Ok(Transition::Elsewhere { current }),
            Outcome::Conflict { attempts, .. } => Err(Error::gave_up(attempts)),
            Outcome::Done { revision: None, .. } => Err(Error::gave_up(0)), // it writes: not met
        }
    }
}

impl<S: Serialize> fmt::Display for Machine<S> {
    /// The table, one transition a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.name)?;
        for (from, to) in &self.allowed {
            writeln!(f, "  {} -> {}", name_of(from), name_of(to))?;
        }
        Ok(())
    }
}

/// A state as JSON says it, without the quotes.
fn name_of<S: Serialize>(state: &S) -> String {
    let text = serde_json::to_string(state).unwrap_or_else(|_| "?".to_owned());
    format!("`{}`", text.trim_matches('"'))
}

fn text_of(value: &Value) -> Result<&str> {
    if value.codec() != Codec::JSON {
        return Err(Error::decode("JSON", format!("it is stored with codec {}", value.codec().0)));
    }
    std::str::from_utf8(value.bytes()).map_err(|_| Error::decode("JSON", "it is not UTF-8"))
}
