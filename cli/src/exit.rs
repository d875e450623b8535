//! How a run ends: exit codes and the error behind one.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use annals_wal::ErrorKind;
use annals_wal::inspect::State;

/// The documented exit codes. 2 (usage) is clap's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Clean = 0,
    Failed = 1,
    Usage = 2,
    TornTail = 3,
    Corrupt = 4,
    Unsupported = 5,
    Locked = 6,
    NotALog = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<State> for Exit {
    fn from(state: State) -> Exit {
        match state {
            State::Clean | State::Live | State::Unclean => Exit::Clean,
            State::TornTail => Exit::TornTail,
            State::Corrupt | State::Unfinished => Exit::Corrupt,
            State::Unsupported => Exit::Unsupported,
        }
    }
}

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    /// Damage that ended a reading verb: where it is explained.
    pub(crate) fn then_inspect(mut self, dir: &Path) -> Failure {
        if self.exit == Exit::Corrupt {
            // Not only the seals: those may all be whole.
            let dir = crate::damage::shown(dir);
            self.message.push_str(&format!("; next: wal inspect {dir} --deep"));
        }
        self
    }

    /// What it kept from being done.
    pub(crate) fn during(self, what: &str) -> Failure {
        Failure { message: format!("{what}: {}", self.message), ..self }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}

impl From<annals_wal::Error> for Failure {
    fn from(error: annals_wal::Error) -> Failure {
        let mut message = error.to_string();
        if error.kind() == ErrorKind::Untrusted
            && let Some(at) = message.find(", or ask for it with Options::")
        {
            // What a program may ask for, this tool does not.
            message.truncate(at);
        }
        Failure::new(exit_of(&error), message)
    }
}

impl From<annals_observer::Error> for Failure {
    fn from(error: annals_observer::Error) -> Failure {
        let exit = error.log_error().map_or(Exit::Failed, exit_of);
        Failure::new(exit, error.to_string())
    }
}

impl From<annals_observer::export::ExportError> for Failure {
    fn from(error: annals_observer::export::ExportError) -> Failure {
        match error {
            annals_observer::export::ExportError::Read(error) => error.into(),
            other => Failure::new(Exit::Failed, other.to_string()),
        }
    }
}

impl From<annals_registry::Error> for Failure {
    fn from(error: annals_registry::Error) -> Failure {
        let exit = error.log_error().map_or(Exit::Failed, exit_of);
        Failure::new(exit, error.to_string())
    }
}

fn exit_of(error: &annals_wal::Error) -> Exit {
    match error.kind() {
        ErrorKind::Corrupt => Exit::Corrupt,
        ErrorKind::Unsupported => Exit::Unsupported,
        ErrorKind::Locked => Exit::Locked,
        ErrorKind::NotALog => Exit::NotALog,
        _ => Exit::Failed,
    }
}
