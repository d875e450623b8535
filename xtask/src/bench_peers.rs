//! `cargo xtask bench-peers [...]`: builds and runs `bench/peers` with these arguments.
//!
//! Never here: a measurement. `bench/peers` is a workspace of its own, because its engines are
//! heavy; it is built in release with its own committed lock file and its own target directory, so
//! that no other build ever waits for it. Next room: `bench/peers/src/main.rs`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{cargo, run, say};

const MANIFEST: &str = "bench/peers/Cargo.toml";
/// How its C code is compiled. Cargo looks for this beside the caller, not beside the manifest.
const CONFIG: &str = "bench/peers/.cargo/config.toml";

/// Hands the arguments after the verb through; `--help` is the bench's own.
pub(crate) fn command(args: &[String]) -> ExitCode {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target).join("peers"),
        None => PathBuf::from("bench/peers/target"),
    };
    let Some(target) = target.to_str() else {
        say("bench-peers: the target directory is not UTF-8");
        return ExitCode::FAILURE;
    };
    let mut command = cargo(target, "");
    command.args(["--config", CONFIG, "run", "--release", "--locked"]);
    command.args(["--manifest-path", MANIFEST, "--"]).args(args);
    if run(&mut command) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
