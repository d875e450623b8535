//! The page: a table of the mutants and what killed each.
//!
//! Never here: an opinion; what the proofs said, shortened.

use super::hunt::Fate;
use super::table::Mutant;

const HEAD: &str = "# Mutants

Made by `cargo xtask mutants`; not edited by hand. Each mutant is the code with one thing left out.
A mutant is killed when the conformance suite of the directory seam (`wal/tests/seam.rs`), the test
of real threads (`wal/tests/threads.rs`, for what wakes and prepares), the registry's tests (for the
registry), a sweep (`xtask/src/sweep/scripts.rs`) or the simulation finds something wrong. They run
in this order, the cheap ones first, so the table shows the first to find it and not the only one.
What a seed stands for is in `xtask/src/world/generate.rs`.
";

/// How many characters of what was seen are shown.
const SEEN_MAX: usize = 150;

pub(crate) fn page(mutants: &[&Mutant], fates: &[Fate]) -> String {
    let killed = fates.iter().filter(|fate| matches!(fate, Fate::Killed { .. })).count();
    let mut page = format!("{HEAD}\n{killed} of {} mutants killed.\n\n", fates.len());
    page += "| mutant | what is left out | where | killed by | how it showed |\n";
    page += "|---|---|---|---|---|\n";
    for (mutant, fate) in mutants.iter().zip(fates) {
        let (by, saw) = match fate {
            Fate::Killed { by, saw } => (by.as_str(), saw.as_str()),
            Fate::Survived(how) => ("**nothing**", how.as_str()),
        };
        let (name, removed, file) = (mutant.name, mutant.removed, mutant.file);
        page += &format!("| `{name}` | {removed} | {file} | {} | {} |\n", cell(by), cell(saw));
    }
    page
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    let mut short: String = text.chars().take(SEEN_MAX).collect();
    if short.len() < text.len() {
        short.push_str(" ...");
    }
    short.replace('|', "\\|").replace(['<', '>'], "").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_survives_is_shown() {
        let mutant = Mutant { name: "a:b", removed: "nothing", file: "x.rs" };
        let killed = Fate::Killed { by: "sweep: x".into(), saw: "a | b\nc".into() };
        let made = page(&[&mutant, &mutant], &[killed, Fate::Survived("all passed".into())]);
        assert!(made.contains("1 of 2 mutants killed"), "{made}");
        assert!(made.contains("| `a:b` | nothing | x.rs | sweep: x | a \\| b c |"), "{made}");
        assert!(made.contains("| **nothing** | all passed |"), "{made}");
    }
}
