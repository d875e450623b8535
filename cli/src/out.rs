//! Where output goes: results to stdout, messages and progress to stderr.
//!
//! Never here: `println!`, which panics when the reader goes away.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shield::shielded;

/// Buffered stdout, or memory.
pub(crate) struct Out {
    to: To,
    colour: bool,
    /// Whether somebody's terminal gets it.
    terminal: bool,
    /// The reader of our output went away (`| head`): nothing more is printed, and that is no
    /// failure. Whatever is being done besides printing goes on.
    gone: bool,
}

enum To {
    Stdout(BufWriter<io::Stdout>),
    Memory(Vec<u8>),
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            To::Stdout(stdout) => stdout.write(bytes),
            To::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            To::Stdout(stdout) => stdout.flush(),
            To::Memory(_) => Ok(()),
        }
    }
}

/// A colour that means something, beside the word that says it.
#[derive(Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Notice,
    Bad,
}

impl Out {
    pub(crate) fn stdout() -> Out {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal();
        let to = To::Stdout(BufWriter::with_capacity(64 << 10, io::stdout()));
        Out { to, colour: !plain && terminal, terminal, gone: false }
    }

    /// What would be printed, kept: without colours, as off a terminal.
    pub(crate) fn memory() -> Out {
        Out { to: To::Memory(Vec::new()), colour: false, terminal: false, gone: false }
    }

    /// What was kept.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        match self.to {
            To::Stdout(_) => Vec::new(),
            To::Memory(memory) => memory,
        }
    }

    /// Whether a terminal gets it, and not a pipe or a file.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line, or several. To a pipe or a file as it is.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let line: Cow<'_, str> =
            if self.terminal { shielded(line).into() } else { Cow::Borrowed(line) };
        let written = self.to.write_all(line.as_bytes()).and_then(|()| self.to.write_all(b"\n"));
        self.unless_gone(written)
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    fn unless_gone(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            Err(e) => Err(io::Error::new(e.kind(), format!("writing the output failed: {e}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Columns of the terminal, if there is one.
    pub(crate) fn width(&self) -> Option<usize> {
        match self.to {
            To::Stdout(_) => {
                console::Term::stdout().size_checked().map(|(_, columns)| columns.into())
            }
            To::Memory(_) => None,
        }
    }

    /// A word in a tone, on a terminal; elsewhere the word.
    pub(crate) fn toned(&self, tone: Tone, word: &str) -> String {
        if !self.colour {
            return word.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Notice => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let flushed = self.to.flush();
        self.unless_gone(flushed)
    }

    /// The last flush. Output that did not arrive is a failure, unless nobody wanted it.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

/// A message for a person. A stderr that is gone is nobody to tell.
pub(crate) fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", shielded(text));
}

/// Progress in bytes, drawn on stderr if that is a terminal.
pub(crate) fn bytes_progress(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// Progress in steps with a label.
pub(crate) fn steps_progress(total: u64, label: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(label);
    bar
}
