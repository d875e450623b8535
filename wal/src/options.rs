//! Settings of a log: plain data, each with its default, its bounds and what a change costs.
//!
//! Never here: parts (file systems, clocks). Those go to [`Options::open_in`].
//! Next room: [`crate::log`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format;
use crate::fs::{Dir, os::OsDir};
use crate::log::Log;

/// How many processes may have a log open for writing at once. A log is made for the one or the
/// other, for good; opening it otherwise is [`crate::ErrorKind::Sharing`], with nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Sharing {
    /// One: the default, and the fastest.
    #[default]
    Exclusive,
    /// Several, on one machine. Each writes in turns, alone while its turn lasts, and reads first
    /// what the others wrote; every promise holds as for one (`docs/adr/0021`).
    Processes,
    /// As the log was made; a new one for one process. For tools.
    AsMade,
}

/// How to open a log. Settings bind this opening only; the files carry what readers need.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) segment_bytes: u64,
    pub(crate) segments_grow: bool,
    pub(crate) segment_bytes_max: u64,
    pub(crate) record_bytes_max: u32,
    pub(crate) queue_bytes_max: u64,
    pub(crate) sharing: Sharing,
    pub(crate) lock_timeout: Duration,
    pub(crate) create: bool,
    pub(crate) allow_writable_by_others: bool,
    pub(crate) allow_foreign_owner: bool,
    pub(crate) allow_network_file_system: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 1 << 20,
            segments_grow: true,
            segment_bytes_max: 64 << 20,
            record_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            sharing: Sharing::Exclusive,
            lock_timeout: Duration::from_secs(5),
            create: true,
            allow_writable_by_others: false,
            allow_foreign_owner: false,
            allow_network_file_system: false,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// Capacity in bytes of the segments made from now on, all of them; a multiple of 4096 from
    /// 64 KiB to [`Options::segment_bytes_max`]. Larger segments rotate less often, take longer to
    /// prepare and to recover, and are trimmed in larger pieces. A batch that needs more gets a
    /// larger segment by itself. Default: [`Options::segment_bytes_first`] of 1 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self.segments_grow = false;
        self
    }

    /// Capacity in bytes of a log's first segment, bounds as for [`Options::segment_bytes`], and of
    /// what an opening has to make anew; each further one is twice as large as the one before it if that
    /// was more than half used, up to [`Options::segment_bytes_max`]. Default 1 MiB: a small log
    /// takes little, a busy one rotates seldom.
    pub fn segment_bytes_first(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self.segments_grow = true;
        self
    }

    /// The largest segment that growth makes and that a large batch may ask for. Default 64 MiB; a
    /// multiple of 4096, at most 32 GiB. A batch that does not fit one of these is `TooLarge`.
    pub fn segment_bytes_max(mut self, bytes: u64) -> Options {
        self.segment_bytes_max = bytes;
        self
    }

    /// Cap on one record's payload in bytes. Default 16 MiB. It binds writers only: a log written
    /// under a larger cap stays readable.
    pub fn record_bytes_max(mut self, bytes: u32) -> Options {
        self.record_bytes_max = bytes;
        self
    }

    /// How many bytes may wait for their sync before `append` and `submit` wait for room.
    /// Default 64 MiB. One batch is always admitted to an empty queue.
    pub fn queue_bytes_max(mut self, bytes: u64) -> Options {
        self.queue_bytes_max = bytes;
        self
    }

    /// Whether other processes may write the log at the same time. Default [`Sharing::Exclusive`].
    pub fn sharing(mut self, sharing: Sharing) -> Options {
        self.sharing = sharing;
        self
    }

    /// How long a call waits for its turn on a shared log while other processes write, before it is
    /// `Locked`; the handle stays usable. Default 5 s. The waits within one process do not count.
    /// Other processes take turns in rows of up to 50 ms, and for half of this time a call waits in
    /// line behind them; then it takes what is free. It is tried at least once. Set no less than
    /// 100 ms for each process that writes at the same time: below that calls may be refused under
    /// mere load.
    pub fn lock_timeout(mut self, timeout: Duration) -> Options {
        self.lock_timeout = timeout;
        self
    }

    /// Whether to create a log where the directory holds none. Default true; with false such a
    /// directory is `NotALog` and stays as it is.
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// Whether to write in a directory that its group or everybody may write in, the sticky bit or
    /// not. Default false: `Untrusted`. Whoever can make names there can plant segments and take
    /// the lock file away.
    pub fn allow_writable_by_others(mut self, yes: bool) -> Options {
        self.allow_writable_by_others = yes;
        self
    }

    /// Whether to write in a directory, and to files, that belong to another user than the one this
    /// process acts as. Default false, also for root: `Untrusted`. Files that root makes there lock
    /// the directory's owner out, until somebody gives them to that user.
    pub fn allow_foreign_owner(mut self, yes: bool) -> Options {
        self.allow_foreign_owner = yes;
        self
    }

    /// Whether to write on a file system that is not known to be local
    /// ([`FileSystem::of_magic`](crate::fs::FileSystem::of_magic) has the list: NFS, SMB, FUSE, 9p
    /// and others). Default false: `Untrusted`. There two machines may both believe that they hold
    /// the lock, and a sync may return before anything is on a disk.
    pub fn allow_network_file_system(mut self, yes: bool) -> Options {
        self.allow_network_file_system = yes;
        self
    }

    /// Opens the log in `path` for writing, creating or recovering it as needed.
    ///
    /// # Errors
    /// `Locked` if another owner has it, `Sharing` if it was made the other way, `Corrupt` or `Unsupported` with nothing changed,
    /// `Untrusted` if others may change the directory or it is not on a local file system,
    /// `NotALog`, `Full`, `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Log> {
        let dir = OsDir::new(path.as_ref());
        self.open_in(Arc::new(dir))
    }

    /// [`Options::open`] on any file system behind the [`Dir`] seam.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_in(self, dir: Arc<dyn Dir>) -> Result<Log> {
        self.check()?;
        crate::open::open(dir, self)
    }

    fn check(&self) -> Result<()> {
        let capacity = |name: &str, bytes: u64| match format::check_capacity(bytes) {
            Ok(()) => Ok(()),
            Err(why) => Err(Error::invalid(format!("Options::{name} is {bytes}: {why}"))),
        };
        capacity("segment_bytes", self.segment_bytes)?;
        capacity("segment_bytes_max", self.segment_bytes_max)?;
        if self.segment_bytes > self.segment_bytes_max {
            return Err(Error::invalid(format!(
                "Options::segment_bytes ({}) is over Options::segment_bytes_max ({}): raise the \
                 latter or lower the former",
                self.segment_bytes, self.segment_bytes_max
            )));
        }
        Ok(())
    }
}
