//! `wal completions` and `wal man`: both made from the arguments, so that they cannot drift.
//!
//! Never here: text of their own. Next room: [`crate::args`].

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::exit::{Exit, Failure};
use crate::out::Out;

#[derive(clap::Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ManArgs {
    /// The directory, which must exist; wal.1, wal-inspect.1 and so on are written into it,
    /// in place of older ones.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, out: &mut Out) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "wal", &mut text);
    out.line(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Clean)
}

pub(crate) fn man(args: &ManArgs, out: &mut Out) -> Result<Exit, Failure> {
    let mut command = Args::command();
    command.build();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    let pages: Vec<clap::Command> = std::iter::once(command.clone())
        .chain(verbs.map(|verb| {
            let name = format!("wal-{}", verb.get_name());
            verb.name(name)
        }))
        .collect();
    for page in pages {
        let name = format!("{}.1", page.get_name());
        let mut text = Vec::new();
        clap_mangen::Man::new(page).render(&mut text)?;
        let file = args.to.join(&name);
        // A newer page takes an older one's place: that is what it is for.
        std::fs::write(&file, text).map_err(|e| {
            let why = format!("{} cannot be written: {e}", file.display());
            Failure::new(Exit::Failed, why)
        })?;
        out.line(&name)?;
    }
    Ok(Exit::Clean)
}
