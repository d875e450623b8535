//! `wal registry`: a registry on the command line.
//!
//! Never here: what a registry does. Reading verbs take no lock and write nothing; the others own
//! the log while they work, or join the processes that share it, close it, and say the revision that they made. Next room: [`args`].

pub(crate) mod args;
mod import;
mod show;

use std::path::Path;

use annals_registry::{
    After, Cas, Codec, Event, Expected, Key, Options, Prefix, Registry, RegistryReader, Trim, Value,
};
use annals_wal::Sharing;

use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::{Out, message};
use crate::registry::args::{RegistryArgs, RegistryVerb};

pub(crate) fn registry(args: &RegistryArgs, out: &mut Out) -> Result<Exit, Failure> {
    match &args.verb {
        RegistryVerb::Get { dir, key, format } => show::get(dir, key, *format, out),
        RegistryVerb::List { dir, prefix, as_of } => show::list(dir, prefix, *as_of, out),
        RegistryVerb::History { dir, key } => show::history(dir, key, out),
        RegistryVerb::Export { dir, root } => show::export(dir, root.as_ref(), out),
        RegistryVerb::Watch { dir, prefix, after, once } => {
            watch(dir, prefix, after.map_or(After::Start, After::Revision), *once, out)
        }
        RegistryVerb::Put { dir, key, json } => {
            let value = value(json)?;
            owning(dir, Options::new(), |registry| {
                out.line(&format!("revision {}", registry.put(key, value)?))?;
                Ok(Exit::Clean)
            })
        }
        RegistryVerb::Cas { dir, key, expected, json } => {
            let value = value(json)?;
            existing(dir)?;
            owning(dir, Options::new(), |registry| cas(registry, key, *expected, value, out))
        }
        RegistryVerb::Delete { dir, key } => {
            existing(dir)?;
            owning(dir, Options::new(), |registry| delete(registry, key, out))
        }
        RegistryVerb::Import { dir, files, replace } => import::import(dir, files, *replace, out),
        RegistryVerb::Compact { dir, trim } => {
            existing(dir)?;
            let trim = if *trim { Trim::ToHolds } else { Trim::OwnRecords };
            owning(dir, Options::new().trim(trim), |registry| compact(registry, out))
        }
    }
}

/// Opens the log for writing, and closes it whatever becomes of the call.
fn owning(
    dir: &Path,
    options: Options,
    call: impl FnOnce(&Registry) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    // Beside the processes that have it open, if it was made for several.
    let log = annals_wal::Options::new().sharing(Sharing::AsMade).open(dir)?;
    let registry = options.on(log)?;
    let log = registry.log().clone();
    let made = call(&registry);
    drop(registry);
    let closed = log.close();
    let exit = made?;
    closed?;
    Ok(exit)
}

/// A verb that changes what is there must not make a log where there is none.
fn existing(dir: &Path) -> Result<(), Failure> {
    annals_wal::LogReader::open(dir)?;
    Ok(())
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
    // Another process may change it between the look and the deletion.
    while let Some(entry) = registry.get(key) {
        if let Cas::Done(revision) = registry.compare_and_delete(key, entry.revision)? {
            out.line(&format!("revision {revision}"))?;
            return Ok(Exit::Clean);
        }
    }
    Err(show::no_such(key))
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
    let reader = RegistryReader::open(dir)?;
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
