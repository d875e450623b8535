//! The page: what was done across what it was called, and every miss with its reason.
//!
//! Never here: an opinion. Next room: [`super::judge`].

use std::collections::BTreeMap;

use annals_wal::diagnose::Class;

use super::harm::Act;
use super::{Case, judge};

const HEAD: &str = "# Damage and what it is called

Made by `cargo xtask damage-table --seeds 1000`; not edited by hand. Each seed makes a log of three
to six segments, closed or not, damages it once in a way that knows nothing of the format
(`xtask/src/damage_table/harm.rs`), and has it diagnosed. Half are damaged where they were written,
half after a copy, whose control block counts for nothing. *clean* means that `wal verify` would say
so; *no log* that not one segment was left under its name.

A row is what was done, a column the class that the diagnosis gave: the expected one if any damage
found has it, else that of the first. Expected classes are in bold.
";

/// What a case came to.
pub(crate) struct Row {
    pub(crate) seed: u64,
    pub(crate) act: Act,
    pub(crate) in_place: bool,
    pub(crate) called: String,
    pub(crate) expected: bool,
    pub(crate) reason: Option<&'static str>,
    pub(crate) flip_named: bool,
    pub(crate) failure: Option<String>,
}

impl Row {
    pub(crate) fn of(case: &Case) -> Row {
        let expected = judge::expected(case.act);
        let damages = case.diagnosis.as_ref().map(|d| d.damages.as_slice()).unwrap_or_default();
        let hit = damages.iter().find(|damage| expected.contains(&damage.class));
        let called = hit.or(damages.first()).map(|damage| damage.class);
        let reason = if hit.is_some() { None } else { judge::reason(case, called) };
        let name = match (&case.diagnosis, called) {
            (Err(_), _) => "no log",
            (Ok(_), Some(class)) => class.name(),
            (Ok(_), None) => "clean",
        };
        let silent = case.lost > 0 && called.is_none() && case.diagnosis.is_ok();
        let failure = if case.wrong > 0 {
            Some(format!("{} records were delivered wrong: {}", case.wrong, case.what))
        } else if hit.is_none() && reason.is_none() {
            Some(format!(
                "{} was called {name}, no reason known ({}): {}",
                case.act.name(),
                if case.in_place { "in place" } else { "copy" },
                case.what
            ))
        } else if silent && !reason.is_some_and(|reason| reason.starts_with("residue")) {
            Some(format!("{} records were lost without a word: {}", case.lost, case.what))
        } else {
            None
        };
        Row {
            seed: case.seed,
            act: case.act,
            in_place: case.in_place,
            called: name.to_owned(),
            expected: hit.is_some(),
            reason,
            flip_named: damages.iter().any(|damage| damage.flip.is_some()),
            failure,
        }
    }
}

pub(crate) fn page(rows: &[Row]) -> String {
    let mut columns: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
    columns.extend(["clean", "no log"]);
    columns.retain(|column| rows.iter().any(|row| row.called == *column));
    let mut page = format!("{HEAD}\n| done | {} | all |\n", columns.join(" | "));
    page += &format!("|---|{}---|\n", "---|".repeat(columns.len()));
    for act in Act::ALL {
        let of_act: Vec<&Row> = rows.iter().filter(|row| row.act == act).collect();
        page += &format!("| {} |", act.name());
        for column in &columns {
            let count = of_act.iter().filter(|row| row.called == *column).count();
            let bold = judge::expected(act).iter().any(|class| class.name() == *column);
            page += &match (count, bold) {
                (0, _) => " |".to_owned(),
                (count, true) => format!(" **{count}** |"),
                (count, false) => format!(" {count} |"),
            };
        }
        page += &format!(" {} |\n", of_act.len());
    }
    let hits = rows.iter().filter(|row| row.expected).count();
    let in_place = rows.iter().filter(|row| row.in_place).count();
    page += &format!(
        "\n{} damages, {in_place} of them in place; {hits} called by their name. Records delivered \
         wrong: 0 (a run that finds one fails).\n",
        rows.len()
    );
    let flips = rows.iter().filter(|row| row.act == Act::FlipOneBit && row.called == "bit_rot");
    let (named, all) = (flips.clone().filter(|row| row.flip_named).count(), flips.count());
    page += &format!("Of {all} single flips that were noticed, the bit was named in {named}.\n");
    page += "\n## The others\n\n| done | called | why | seeds |\n|---|---|---|---|\n";
    let mut misses: BTreeMap<(Act, &str, &str), Vec<u64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.expected) {
        let why = row.reason.unwrap_or("**not explained**");
        misses.entry((row.act, &row.called, why)).or_default().push(row.seed);
    }
    for ((act, called, why), seeds) in misses {
        let shown: Vec<String> = seeds.iter().take(3).map(u64::to_string).collect();
        let more = if seeds.len() > 3 { ", ..." } else { "" };
        let seeds = format!("{}: {}{more}", seeds.len(), shown.join(", "));
        page += &format!("| {} | {called} | {why} | {seeds} |\n", act.name());
    }
    page
}
