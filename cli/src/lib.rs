//! The rooms of the binary `wal`: `main.rs` calls [`main`] and nothing else.
//!
//! A library so that the fuzz target `json` reaches what is printed of a record and of a report
//! ([`cat_record`], [`print_report`]) without a process and a file; it is no interface for others.
//! Never here: what the libraries decide. Invariants: results go to stdout, progress and messages
//! to stderr, exit codes are in [`exit`]; reading verbs never write a byte into the directory they
//! are pointed at. Next room: [`args`].

#![allow(rustdoc::private_intra_doc_links, reason = "module docs name the next room")]

mod absent;
mod archive;
mod archived;
mod args;
mod bundle;
mod cat;
mod damage;
mod decode;
mod demo;
mod end;
mod escape;
mod exit;
mod export;
mod filter;
mod hexdump;
mod import;
mod inspect;
mod keep;
mod manual;
mod map;
mod opening;
mod out;
mod picture;
mod place;
mod registry;
mod salvage;
mod shield;
mod stats;
mod tail;
mod target;
mod timeline;
mod walk;
mod waterfall;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Verb};
use crate::exit::Exit;
use crate::out::Out;

pub use crate::args::Format;
pub use crate::cat::cat_record;
pub use crate::inspect::print_report;

/// The whole tool: reads the process's arguments, does the verb, says how it ended.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = Out::stdout();
    let outcome = match &args.verb {
        Verb::Inspect(verb) => inspect::inspect(verb, &mut out),
        Verb::Verify(verb) => inspect::verify(verb, &mut out),
        Verb::Cat(verb) => {
            let read = cat::cat(verb, &mut out);
            end::explained(&verb.dir, read, &mut out)
        }
        Verb::Tail(verb) => {
            let read = tail::tail(verb, &mut out);
            end::explained(&verb.dir, read, &mut out)
        }
        Verb::Stats(verb) => {
            let read = stats::stats(verb, &mut out);
            end::explained(&verb.dir, read, &mut out)
        }
        Verb::Timeline(verb) => {
            let read = timeline::timeline(verb, &mut out);
            end::explained(&verb.dir, read, &mut out)
        }
        Verb::Completions(verb) => manual::completions(verb, &mut out),
        Verb::Man(verb) => manual::man(verb, &mut out),
        Verb::Salvage(verb) => salvage::salvage(verb, &mut out),
        Verb::Diff(verb) => salvage::diff(verb, &mut out),
        Verb::Repair(verb) => salvage::repair(verb, &mut out),
        Verb::Bundle(verb) => bundle::bundle(verb, &mut out),
        Verb::Backup(verb) => keep::backup(verb, &mut out),
        Verb::Trim(verb) => keep::trim(verb, &mut out),
        Verb::Import(verb) => import::import(verb, &mut out),
        Verb::Registry(verb) => registry::registry(verb, &mut out),
        Verb::Export(verb) => {
            let exported = export::export(verb, &mut out);
            end::or_damaged(&verb.dir, exported, &mut out)
        }
        Verb::Archive(verb) => archive::archive(verb, &mut out),
        Verb::Demo(verb) => demo::demo(verb, &mut out),
        Verb::DemoFleet(verb) => demo::fleet::run(verb),
        Verb::DemoCheck(verb) => demo::check::run(verb, &mut out),
    };
    let exit = outcome.unwrap_or_else(|error| {
        // Paths and names in it are as untrusted as any payload.
        out::message(&format!("wal: {}", escape::escape(&error.to_string())));
        error.exit()
    });
    match out.finish() {
        Err(error) if exit == Exit::Clean => {
            out::message(&format!("wal: {error}"));
            Exit::Failed.into()
        }
        _ => exit.into(),
    }
}
