//! `wal`: the tool beside the library. It reads arguments, calls the libraries and prints; the
//! libraries do the work. The rooms are in `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    annals_cli::main()
}
