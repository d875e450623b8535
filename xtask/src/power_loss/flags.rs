//! Flags of the heavy proofs: `--name value` and `--name`.
//!
//! Never here: what they mean. An unknown flag is an error that names it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::say;

pub(crate) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// `valued` take a word, `bare` do not.
    pub(crate) fn parse(args: &[String], valued: &[&str], bare: &[&str]) -> Result<Flags, String> {
        let mut flags = BTreeMap::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").unwrap_or(arg);
            let value = if valued.contains(&name) {
                args.next().ok_or_else(|| format!("{arg} wants a value"))?.clone()
            } else if bare.contains(&name) {
                String::new()
            } else {
                let known: Vec<_> = valued.iter().chain(bare).map(|f| format!("--{f}")).collect();
                return Err(format!("{arg} is unknown; known are {}", known.join(" ")));
            };
            flags.insert(name.to_owned(), value);
        }
        Ok(Flags(flags))
    }

    /// The flags of a verb that also knows `--help`; where there is nothing to run, its exit code, and
    /// its usage was printed.
    pub(crate) fn or_usage(
        args: &[String],
        valued: &[&str],
        bare: &[&str],
        usage: &str,
    ) -> Result<Flags, ExitCode> {
        match Flags::parse(args, valued, &[bare, &["help"]].concat()) {
            Ok(flags) if !flags.has("help") => Ok(flags),
            Ok(_) => {
                say(usage);
                Err(ExitCode::SUCCESS)
            }
            Err(e) => {
                say(&format!("{e}\n{usage}"));
                Err(ExitCode::from(2))
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("--{name} {text} is no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_unknown_ones_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let flags = Flags::parse(&words("--cuts 7 --lossy"), &["cuts"], &["lossy"]).unwrap();
        assert_eq!(flags.number("cuts"), Ok(Some(7)));
        assert!(flags.has("lossy") && flags.text("fs").is_none());
        for bad in ["--cut 7", "--cuts", "7"] {
            assert!(Flags::parse(&words(bad), &["cuts"], &["lossy"]).is_err(), "{bad}");
        }
        assert!(Flags::parse(&words("--cuts x"), &["cuts"], &[]).unwrap().number("cuts").is_err());
    }
}
