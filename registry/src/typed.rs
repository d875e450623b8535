//! Typed updates: a struct changes its members of a JSON document and leaves all others alone.
//!
//! Never here: how texts are merged ([`crate::merge`]). Invariant: what is written reads back as
//! what the closure left; otherwise nothing is written ([`crate::ErrorKind::NotMergeable`]).
//! Next room: [`crate::merge`].

use annals_wal::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::{Outcome, TxResult};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::merge;
use crate::registry::Registry;
use crate::tx::Tx;
use crate::value::Value;

/// What an update did.
#[must_use = "a key that is not there is not an error: look whether there was one"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Updated {
    /// The document was changed.
    Written,
    /// The closure changed nothing, and nothing is written.
    Unchanged,
    /// There is no such key; the closure was not called.
    Absent,
}

impl Tx<'_> {
    /// Decodes the JSON document of `key` as `T`, lets `change` change it, and writes back what
    /// differs: a member that `T` dropped goes, one that differs or is new is written, one that `T`
    /// does not know stays byte for byte. Objects are merged member by member; an array or a scalar
    /// that differs is replaced whole.
    ///
    /// # Errors
    /// `Decode` if the document is no `T`; `NotMergeable` if it has a member twice, or if merged it
    /// would read back as something else; `Restart`: see [`Tx`].
    pub fn update_json<T: DeserializeOwned + Serialize>(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut T),
    ) -> Result<Updated> {
        let Some(value) = self.get(key)? else { return Ok(Updated::Absent) };
        let mut decoded: T = value.decode_json()?;
        let before = text_of(&decoded)?;
        change(&mut decoded);
        let after = text_of(&decoded)?;
        let document = std::str::from_utf8(value.bytes())
            .map_err(|_| Error::decode("JSON", "the text is not UTF-8"))?;
        let merged = merge::merge(document, &before, &after).map_err(Error::not_mergeable)?;
        let Some(merged) = merged else { return Ok(Updated::Unchanged) };
        if !reads_back::<T>(&merged, &after) {
            return Err(Error::not_mergeable("merged it would read back as something else"));
        }
        self.put_same_lease(key, Value::new(merged.into_bytes(), Codec::JSON))?;
        Ok(Updated::Written)
    }
}

impl Registry {
    /// [`Tx::update_json`] as one transaction. Durable on return.
    ///
    /// # Errors
    /// As [`Tx::update_json`] and [`Registry::transact`].
    ///
    /// ```
    /// use annals_registry::{Codec, Key, Outcome, Registry, Updated, Value};
    /// # use annals_wal::Log;
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Agent {
    ///     status: String,
    /// }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let key = Key::new("agents/A7")?;
    /// let stored = r#"{"status":"working","cost":1.50}"#; // another program's member
    /// registry.put(&key, Value::new(stored.as_bytes(), Codec::JSON))?;
    ///
    /// let outcome = registry.update_json(&key, |agent: &mut Agent| agent.status = "done".into())?;
    /// assert!(matches!(outcome, Outcome::Done { value: Updated::Written, .. }));
    /// let merged = registry.get(&key).unwrap();
    /// assert_eq!(merged.value.bytes(), br#"{"status":"done","cost":1.50}"#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn update_json<T: DeserializeOwned + Serialize>(
        &self,
        key: &Key,
        mut change: impl FnMut(&mut T),
    ) -> Result<Outcome<Updated, std::convert::Infallible>> {
        self.transact(|tx| -> TxResult<Updated> { Ok(tx.update_json(key, &mut change)?) })
    }
}

fn text_of<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|_| Error::encode("JSON", "its Serialize refused or a map key is no text"))
}

/// Whether the merged document means what the closure left.
fn reads_back<T: DeserializeOwned + Serialize>(merged: &str, after: &str) -> bool {
    let Ok(again) = serde_json::from_str::<T>(merged) else { return false };
    let Ok(again) = serde_json::to_string(&again) else { return false };
    // A hash map serializes in another order each time.
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    again == after || value(&again).is_some_and(|again| Some(again) == value(after))
}
