//! Mutants: one line of the code left out at a time, to see which proof dies of it
//! (`cargo xtask mutants`, `docs/MUTANTS.md`).
//!
//! Only a build with `--cfg annals_mutants` knows them; `ANNALS_MUTANT` in the environment chooses
//! one. In every other build each question below is the constant *no*, and the branch behind it is
//! gone. Registry and observer compile this same file.
//! Never here: what a mutant does; that stands where the line is that it removes, and is one or two
//! lines long. Invariants: a mutant's name says what is missing; every name used in the sources is
//! in the table of `xtask/src/mutants/table.rs` and the other way round (its test compares them).

/// Whether this mutant is chosen.
#[cfg(not(annals_mutants))]
#[inline(always)]
pub(crate) const fn is(_name: &str) -> bool {
    false
}

/// Whether the mutant of this group for this member (a sync point, a row) is chosen.
#[cfg(not(annals_mutants))]
#[inline(always)]
#[allow(dead_code, reason = "the log alone has groups")]
pub(crate) fn is_one_of(_group: &str, _member: &dyn std::fmt::Debug) -> bool {
    false
}

#[cfg(annals_mutants)]
pub(crate) fn is(name: &str) -> bool {
    chosen() == Some(name)
}

#[cfg(annals_mutants)]
#[allow(dead_code, reason = "the log alone has groups")]
pub(crate) fn is_one_of(group: &str, member: &dyn std::fmt::Debug) -> bool {
    let of_group = chosen().and_then(|name| name.strip_prefix(group)?.strip_prefix(':'));
    of_group.is_some_and(|name| name == format!("{member:?}"))
}

/// The one global of the crate, and of this build alone: the same for the whole process.
#[cfg(annals_mutants)]
fn chosen() -> Option<&'static str> {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("ANNALS_MUTANT").ok()).as_deref()
}
