//! `wal`: the tool beside the library. It reads arguments, calls the libraries and prints; the
//! libraries do the work.
//!
//! Results go to stdout, progress and messages to stderr. Exit codes are in [`exit`]. Reading verbs
//! never write a byte into the directory they are pointed at.

mod args;
mod cat;
mod decode;
mod demo;
mod escape;
mod exit;
mod import;
mod inspect;
mod out;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Verb};
use crate::exit::Exit;
use crate::out::Out;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = Out::stdout();
    let outcome = match &args.verb {
        Verb::Inspect(verb) => inspect::inspect(verb, &mut out),
        Verb::Verify(verb) => inspect::verify(verb, &mut out),
        Verb::Cat(verb) => cat::cat(verb, &mut out),
        Verb::Import(verb) => import::import(verb, &mut out),
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
            out::message(&format!("wal: writing the output failed: {error}"));
            Exit::Failed.into()
        }
        _ => exit.into(),
    }
}
