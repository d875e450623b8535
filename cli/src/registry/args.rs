//! The arguments of `wal registry`. Never here: work.

use std::path::PathBuf;

use annals_registry::{Expected, Key, Lsn, Prefix, RegistryReader, Revision};
use clap::Subcommand;

use crate::args::Format;

/// A registry in a log: keys, JSON values, and what became of them.
#[derive(clap::Args, Debug)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    pub(crate) verb: RegistryVerb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum RegistryVerb {
    /// Print the value of a key. Writes nothing.
    #[command(before_help = "Example:\n  wal registry get runs tasks/T1/agents/A7")]
    Get {
        /// The log's directory.
        dir: PathBuf,
        /// The key, such as tasks/T1/agents/A7.
        key: Key,
        /// The value alone, or one JSON object with its revision.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Give a key a JSON value; prints the new revision.
    #[command(before_help = "Example:\n  wal registry put runs tasks/T1/active_count 3")]
    Put {
        /// The log's directory; made if it is absent.
        dir: PathBuf,
        /// The key.
        key: Key,
        /// The value, as JSON text.
        json: String,
        /// Make the log for several processes at once, if it is made. One that is there is opened as
        /// it was made; one that was made for one process is refused.
        #[arg(long)]
        shared: bool,
    },
    /// Give a key a JSON value if it is as expected; a lost race is exit code 1.
    #[command(before_help = "Example:\n  wal registry cas runs tasks/T2/owner absent '\"A7\"'")]
    Cas {
        /// The log's directory.
        dir: PathBuf,
        /// The key.
        key: Key,
        /// `absent`, `any`, or the revision it must have.
        #[arg(value_parser = expected)]
        expected: Expected,
        /// The value, as JSON text.
        json: String,
    },
    /// Remove a key; prints the revision.
    #[command(before_help = "Example:\n  wal registry delete runs tasks/T1/agents/A7")]
    Delete {
        /// The log's directory.
        dir: PathBuf,
        /// The key.
        key: Key,
    },
    /// Print the keys, one a line. Writes nothing.
    #[command(before_help = "Example:\n  wal registry list runs tasks/T1")]
    List {
        /// The log's directory.
        dir: PathBuf,
        /// Only keys at and below this path.
        #[arg(default_value = "", value_parser = prefix)]
        prefix: Prefix,
        /// As the registry was after this revision.
        #[arg(long, value_parser = revision)]
        as_of: Option<Revision>,
    },
    /// Print the versions of a key, oldest first. Writes nothing.
    #[command(before_help = "Example:\n  wal registry history runs tasks/T1/agents/A7")]
    History {
        /// The log's directory.
        dir: PathBuf,
        /// The key.
        key: Key,
    },
    /// Print what changes, as it becomes durable. Writes nothing.
    #[command(before_help = "Example:\n  wal registry watch runs tasks/T1 --once")]
    Watch {
        /// The log's directory.
        dir: PathBuf,
        /// Only keys at and below this path.
        #[arg(default_value = "", value_parser = prefix)]
        prefix: Prefix,
        /// Begin after this revision; by default with all that the log has kept.
        #[arg(long, value_parser = revision)]
        after: Option<Revision>,
        /// End when everything there is was printed.
        #[arg(long)]
        once: bool,
    },
    /// Print an imported registry as JSON again. Writes nothing.
    #[command(before_help = "Example:\n  wal registry export runs tasks/T1 | jq .")]
    Export {
        /// The log's directory.
        dir: PathBuf,
        /// `global` or tasks/TASK; by default all there is.
        #[arg(value_parser = prefix)]
        root: Option<Prefix>,
    },
    /// Bring JSON registries (a task's AGENT_REGISTRY.json, a GLOBAL_REGISTRY.json) into a log, and
    /// say what in them does not fit.
    #[command(
        before_help = "Example:\n  wal registry import runs AGENT_REGISTRY.json GLOBAL_REGISTRY.json"
    )]
    Import {
        /// The log's directory; made if it is absent.
        dir: PathBuf,
        /// The JSON files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Replace what was imported of the same task, or of the global registry, before: the keys
        /// of that import and no others.
        #[arg(long)]
        replace: bool,
        /// Make the log for several processes at once, if it is made. One that is there is opened as
        /// it was made; one that was made for one process is refused.
        #[arg(long)]
        shared: bool,
    },
    /// Write a snapshot, and trim what two snapshots hold. The first one trims nothing.
    #[command(before_help = "Example:\n  wal registry compact runs")]
    Compact {
        /// The log's directory.
        dir: PathBuf,
        /// Trim other rooms' records too, as far as no hold keeps them.
        #[arg(long)]
        trim: bool,
    },
}

fn prefix(text: &str) -> Result<Prefix, String> {
    Prefix::new(text.trim_end_matches('/')).map_err(|error| error.to_string())
}

fn revision(text: &str) -> Result<Revision, String> {
    let number = text.parse().ok().and_then(Lsn::new);
    let lsn =
        number.ok_or_else(|| format!("`{text}` is not a revision: those are numbers from 1"))?;
    Ok(RegistryReader::revision_at(lsn))
}

fn expected(text: &str) -> Result<Expected, String> {
    match text {
        "absent" => Ok(Expected::Absent),
        "any" => Ok(Expected::Any),
        number => revision(number)
            .map(Expected::At)
            .map_err(|_| format!("`{text}` is neither `absent`, nor `any`, nor a revision")),
    }
}
