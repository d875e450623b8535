//! Runs a test command, shows what it prints, and ends with one line that counts.
//!
//! Never here: which tests. Invariant: `N passed, N failed` is the last line on stdout, also when
//! nothing could be built, and the exit code agrees with it.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

/// The value that follows an option.
pub(crate) fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip(2);
    args.find(|arg| arg == name)?;
    args.next()
}

/// Runs it and counts its `test result:` lines.
pub(crate) fn tally(command: &mut Command) -> ExitCode {
    let (passed, failed, success) = run(command).unwrap_or((0, 0, false));
    say(&format!("{passed} passed, {failed} failed"));
    if success && failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(command: &mut Command) -> std::io::Result<(u64, u64, bool)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let (mut passed, mut failed) = (0, 0);
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line?;
            if let Some(result) = line.strip_prefix("test result:") {
                passed += before(result, "passed");
                failed += before(result, "failed");
            }
            say(&line);
        }
    }
    Ok((passed, failed, child.wait()?.success()))
}

/// The number before a word.
fn before(text: &str, word: &str) -> u64 {
    let words: Vec<_> = text.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    let pair = words.windows(2).find(|pair| pair[1] == word);
    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[expect(clippy::print_stdout, reason = "what the tests found is the result")]
fn say(line: &str) {
    println!("{line}");
}
