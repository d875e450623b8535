//! The command line: verbs, flags, help. Never here: work.

use std::path::PathBuf;

use annals_wal::Lsn;
use clap::{Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit codes: 0 clean (also a healthy log in use), 1 the tool failed or part \
of the input was bad, 2 usage, 3 torn tail, 4 corruption, 5 unsupported version, 6 locked by \
another process, 7 not a log. Treat any other code as a failure.";

/// Inspect, verify, read, rescue and fill Annals logs.
#[derive(Parser, Debug)]
#[command(name = "wal", version, before_help = "Examples:\n  wal inspect runs\n  wal tail runs -f\n  wal salvage runs --to runs.salvaged", after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Say what a log holds, how it ended and what is wrong with it. Writes nothing.
    #[command(
        before_help = "Examples:\n  wal inspect runs\n  wal inspect runs --deep --hex --map\n  wal inspect runs --html map.html\n  wal inspect runs --format json | jq .state"
    )]
    Inspect(InspectArgs),
    /// Read every byte of a log and check it. Writes nothing.
    #[command(
        before_help = "Examples:\n  wal verify runs && echo whole\n  wal verify runs --sample 5%"
    )]
    Verify(VerifyArgs),
    /// Print records. Writes nothing.
    #[command(
        before_help = "Examples:\n  wal cat runs --session s-1\n  wal cat runs --from 100 --to 120\n  wal cat runs --since 15m --errors\n  \
                      wal cat runs --kind tool_end --format json | jq .entry.output"
    )]
    Cat(CatArgs),
    /// Print the last records, and with -f those that come. Writes nothing. 4 on damage.
    #[command(
        before_help = "Examples:\n  wal tail runs -n 20\n  wal tail runs -f --errors\n  wal tail runs -f --format json | jq .entry.tool"
    )]
    Tail(crate::tail::TailArgs),
    /// Count records, bytes, errors and tokens, with latencies, by session, agent, tool or kind.
    #[command(
        before_help = "Examples:\n  wal stats runs\n  wal stats runs --by tool --format json"
    )]
    Stats(crate::stats::StatsArgs),
    /// Show a run as a waterfall of agent, model and tool calls.
    #[command(
        before_help = "Examples:\n  wal timeline runs\n  wal timeline runs s-1 --html run.html"
    )]
    Timeline(crate::timeline::TimelineArgs),
    /// Print completions for a shell.
    #[command(
        before_help = "Example:\n  wal completions bash > ~/.local/share/bash-completion/completions/wal"
    )]
    Completions(crate::manual::CompletionsArgs),
    /// Write a man page for every verb into a directory.
    #[command(before_help = "Example:\n  wal man --to ~/.local/share/man/man1")]
    Man(crate::manual::ManArgs),
    /// Copy everything readable of a damaged log into a new one; the source is only read.
    #[command(
        before_help = "Examples:\n  wal salvage runs --dry-run\n  wal salvage runs --to runs.salvaged"
    )]
    Salvage(crate::salvage::SalvageArgs),
    /// Compare two logs record by record, as far as each can be read. 1 if they differ, 4 if one of them is
    /// damaged.
    #[command(before_help = "Example:\n  wal diff runs runs.salvaged")]
    Diff(crate::salvage::DiffArgs),
    /// Repair a log in two steps: a plan to read, then that plan. Every damaged byte is kept.
    #[command(
        before_help = "Examples:\n  wal repair runs --plan plan.json\n  wal repair runs --apply plan.json"
    )]
    Repair(crate::salvage::RepairArgs),
    /// Write a bug report: headers, maps and checksums, every payload byte blanked.
    #[command(before_help = "Example:\n  wal bundle runs --to report.json")]
    Bundle(crate::bundle::BundleArgs),
    /// Copy what is durable into a new directory that opens as a log of its own.
    #[command(
        before_help = "Examples:\n  wal backup runs --to runs.backup --dry-run\n  wal backup runs --to runs.backup"
    )]
    Backup(crate::keep::BackupArgs),
    /// Drop whole segments below an LSN, as far as the holds allow.
    #[command(
        before_help = "Examples:\n  wal trim runs --before 1000 --dry-run\n  wal trim runs --before 1000"
    )]
    Trim(crate::keep::TrimArgs),
    /// Bring JSON lines (.jsonl), SWE-agent trajectories (.traj) and SQLite protocol stores (.db,
    /// .sqlite; in a build with `--features sqlite`) into a log.
    #[command(before_help = "Example:\n  wal import runs agents/*.jsonl trajectories/*.traj")]
    Import(ImportArgs),
    /// Read and change a registry: keys and JSON values in a log.
    #[command(before_help = "Examples:\n  wal registry import runs AGENT_REGISTRY.json\n  \
                      wal registry list runs tasks\n  wal registry get runs tasks/T1/agents/A7\n  \
                      wal registry put runs tasks/T1/active_count 3")]
    Registry(crate::registry::args::RegistryArgs),
    /// Write a log's entries in a form that other tools read. Writes nothing into the log.
    #[command(
        before_help = "Examples:\n  wal export runs --format chrome-trace -o runs.json  # open in Perfetto\n  \
                      wal export runs --format otlp --session s-1 -o spans.jsonl\n  \
                      wal export runs --format jsonl | jq .tool"
    )]
    Export(ExportArgs),
    /// Hand the sealed segments of a log over to an archive directory, durably, and hold what is
    /// not there yet.
    #[command(before_help = "Example:\n  wal archive runs --to runs.archive --name nightly")]
    Archive(ArchiveArgs),
    /// Kill a fleet of agents in the middle of their writes and show that nothing is lost.
    #[command(
        before_help = "Examples:\n  wal demo\n  wal demo crash-test --agents 8 --seconds 0.3 --rounds 200"
    )]
    Demo(DemoArgs),
    /// The fleet of `demo`: writes until it is killed.
    #[command(hide = true)]
    DemoFleet(FleetArgs),
    /// The fresh process of `demo`: reads the log back and compares.
    #[command(hide = true)]
    DemoCheck(CheckArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct InspectArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// Text for people or one JSON object for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Read every byte, as `verify` does, and not only headers, seals and the last segment.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Show the bytes of each damage, the bad ones marked.
    #[arg(long)]
    pub(crate) hex: bool,
    /// Draw the segments: a cell for so many bytes, a letter for each sort of damage.
    #[arg(long)]
    pub(crate) map: bool,
    /// Write the map as a picture into this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write map and findings as one page that loads nothing into this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// Text for people or one JSON object for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Read the bodies of so many of a hundred sealed segments only, others at each run; headers,
    /// seals and the last segment are read in any case.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) sample: Option<u8>,
    /// How many threads read; default: as many as processors, at most 4.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CatArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) filters: crate::filter::Filters,
    /// Characters in a line of text; default: the terminal's, else 200.
    #[arg(long, value_name = "COLUMNS")]
    pub(crate) width: Option<usize>,
    /// Text for people or one JSON object a line for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ImportArgs {
    /// The log's directory; made if it is absent.
    pub(crate) dir: PathBuf,
    /// .jsonl, .traj, .db, .sqlite and .sqlite3 files.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Stop at the first bad line; nothing of its file is imported.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Import content that is in the log already once more.
    #[arg(long)]
    pub(crate) again: bool,
    /// Keep secrets that the built-in redactors would replace.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Make the log for several processes at once, if it is made. One that is there is opened as it
    /// was made; one that was made for one process is refused.
    #[arg(long)]
    pub(crate) shared: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ExportArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// The file to make; it must not exist. Default: standard output.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Only entries of this session.
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Inputs and outputs too, in an OTLP export.
    #[arg(long)]
    pub(crate) contents: bool,
}

/// What `export` writes.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExportFormat {
    /// A JSON object a line.
    Jsonl,
    /// OTLP/JSON lines: OpenTelemetry spans.
    Otlp,
    /// Chrome trace events, for Perfetto.
    ChromeTrace,
    /// Folded stacks, for flame graphs.
    Folded,
    /// A SQLite database; needs --output.
    Sqlite,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ArchiveArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// The archive's directory; made if it is absent.
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// The name of the archive's hold in the log.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Copy the segments even where a hard link would do.
    #[arg(long)]
    pub(crate) copy: bool,
    /// Ask the log to drop what every hold allows afterwards.
    #[arg(long)]
    pub(crate) trim: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DemoArgs {
    /// Where to put the log; default: a new directory in the system's temporary directory.
    pub(crate) dir: Option<PathBuf>,
    /// How many agents write at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) agents: u32,
    /// The fleet is killed at a random moment between 5 ms and this long.
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How often to kill and read back, on the same log.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Where the random moments come from; printed, so that a run can be repeated.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct FleetArgs {
    pub(crate) dir: PathBuf,
    pub(crate) agents: u32,
    pub(crate) round: u32,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    pub(crate) dir: PathBuf,
    pub(crate) agents: u32,
    pub(crate) round: u32,
}

/// How results are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// `5%` or `5`.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
    number
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| format!("`{text}` is not between 1% and 100%"))
}

pub(crate) fn lsn(text: &str) -> Result<Lsn, String> {
    let number: u64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    Lsn::new(number).ok_or_else(|| "LSN 0 does not exist: the first record is LSN 1".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if (0.005..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0.005 and 3600 seconds".to_owned())
    }
}
