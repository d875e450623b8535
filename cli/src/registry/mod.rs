//! `wal registry`: a registry on the command line.
//!
//! Never here: what a registry does. Reading verbs take no lock and write nothing; the others own
//! the log while they work, or join those who share it, close it, and say the revision that they
//! made. Next rooms: [`args`], [`crate::opening`].

pub(crate) mod args;
mod import;
mod show;

use std::path::Path;

use annals_registry::{
    After, Cas, Codec, Event, Expected, Key, Options, Prefix, Registry, Trim, Value,
};
use annals_wal::Log;

use crate::end::or_damaged;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::{Out, message};
use crate::registry::args::{RegistryArgs, RegistryVerb};
use crate::{opening, place};

pub(crate) fn registry(args: &RegistryArgs, out: &mut Out) -> Result<Exit, Failure> {
    match &args.verb {
        RegistryVerb::Get { dir, key, format } => {
            let got = show::get(dir, key, *format, out);
            or_damaged(dir, got, out)
        }
        RegistryVerb::List { dir, prefix, as_of } => {
            let listed = show::list(dir, prefix, *as_of, out);
            or_damaged(dir, listed, out)
        }
        RegistryVerb::History { dir, key } => {
            let told = show::history(dir, key, out);
            or_damaged(dir, told, out)
        }
        RegistryVerb::Export { dir, root } => {
            let exported = show::export(dir, root.as_ref(), out);
            or_damaged(dir, exported, out)
        }
        RegistryVerb::Watch { dir, prefix, after, once } => {
            let after = after.map_or(After::Start, After::Revision);
            let watched = watch(dir, prefix, after, *once, out);
            or_damaged(dir, watched, out)
        }
        RegistryVerb::Put { dir, key, json, shared } => {
            let value = value(json)?;
            with(opening::or_new(dir, *shared)?, Options::new(), |registry| {
                out.line(&format!("revision {}", registry.put(key, value)?))?;
                Ok(Exit::Clean)
            })
        }
        RegistryVerb::Cas { dir, key, expected, json } => {
            let value = value(json)?;
            let log = opening::existing(dir)?;
            with(log, Options::new(), |registry| cas(registry, key, *expected, value, out))
        }
        RegistryVerb::Delete { dir, key } => {
            with(opening::existing(dir)?, Options::new(), |registry| delete(registry, key, out))
        }
        RegistryVerb::Import { dir, files, replace, shared } => {
            import::import(files, *replace, || opening::or_new(dir, *shared), out)
        }
        RegistryVerb::Compact { dir, trim } => {
            let trim = if *trim { Trim::ToHolds } else { Trim::OwnRecords };
            let options = Options::new().trim(trim);
            with(opening::existing(dir)?, options, |registry| compact(registry, out))
        }
    }
}

/// A registry on the open log, which is closed whatever becomes of the call.
fn with(
    log: Log,
    options: Options,
    call: impl FnOnce(&Registry) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    opening::closing(log, |log| {
        let registry = options.on(log.clone())?;
        let made = call(&registry);
        drop(registry);
        made
    })
}

/// A JSON text, as it was given.
fn value(json: &str) -> Result<Value, Failure> {
    let value = Value::new(json.trim().as_bytes(), Codec::JSON);
    value.decode_json::<serde_json::Value>().map_err(|_| {
        Failure::new(Exit::Failed, "the value is no JSON: a text needs its quotes, '\"like this\"'")
    })?;
    Ok(value)
}

fn cas(
    registry: &Registry,
    key: &Key,
    expected: Expected,
    value: Value,
    out: &mut Out,
) -> Result<Exit, Failure> {
    match registry.compare_and_swap(key, expected, value)? {
        Cas::Done(revision) => {
            out.line(&format!("revision {revision}"))?;
            Ok(Exit::Clean)
        }
        Cas::Conflict { current } => {
            let is = match current {
                Some(entry) => format!("it has revision {}", entry.revision),
                None => "it is absent".to_owned(),
            };
            message(&format!("wal: {}: not as expected: {is}", escape(key.as_str())));
            Ok(Exit::Failed)
        }
    }
}

fn delete(registry: &Registry, key: &Key, out: &mut Out) -> Result<Exit, Failure> {
    // Another process that shares the log may change the key in between: then it is looked at again.
    loop {
        let Some(entry) = registry.get(key) else { return Err(show::no_such(key)) };
        if let Cas::Done(revision) = registry.compare_and_delete(key, entry.revision)? {
            out.line(&format!("revision {revision}"))?;
            return Ok(Exit::Clean);
        }
    }
}

fn compact(registry: &Registry, out: &mut Out) -> Result<Exit, Failure> {
    let before = registry.log().head_lsn();
    let made = registry.checkpoint()?;
    match made.revision {
        None => out.line("no transaction, so no snapshot")?,
        Some(revision) if made.bytes == 0 => {
            out.line(&format!("the snapshot at revision {revision} is the newest there can be"))?;
        }
        Some(revision) => {
            out.line(&format!("snapshot at revision {revision}, {} bytes", made.bytes))?;
        }
    }
    let head = registry.log().head_lsn();
    out.line(&format!("hold at LSN {}, head {before} -> {head}", made.hold))?;
    if head < made.hold {
        message(
            "wal: older records stay: other rooms' stand among them (--trim drops those that no \
             hold keeps), or they share a segment with what is needed",
        );
    }
    Ok(Exit::Clean)
}

fn watch(
    dir: &Path,
    prefix: &Prefix,
    after: After,
    once: bool,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let reader = place::registry(dir)?;
    let mut watch = reader.watch(prefix.clone(), after)?;
    loop {
        let event = if once { watch.try_next()? } else { watch.next().transpose()? };
        match event {
            Some(Event::Changed { revision, note, changes }) => {
                for change in &changes {
                    out.line(&show::change(revision, change, note.as_ref()))?;
                }
            }
            Some(Event::Progress(_)) if once => return Ok(Exit::Clean),
            Some(Event::Progress(_)) => {}
            Some(Event::Lagged { last }) => {
                let last = last.map_or_else(|| "the start".to_owned(), |last| last.to_string());
                message(&format!("wal: the log was trimmed past this watch, which was at {last}"));
                return Ok(Exit::Failed);
            }
            None => return Ok(Exit::Clean),
        }
        if !once {
            out.flush()?;
        }
        if out.is_gone() {
            return Ok(Exit::Clean);
        }
    }
}
