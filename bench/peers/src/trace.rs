//! Counts syncs in what strace wrote: the ones between the two marks of the window.
//!
//! Never here: a process. Invariants: a call counts when it begins (its arguments are in that
//! line); a write counts as a sync if its descriptor was opened with O_SYNC or O_DSYNC, or it says
//! so itself; `sync_file_range` is counted apart, because it flushes no disk cache and no metadata
//! (its manual page). Next room: [`crate::rounds`].

use std::collections::{BTreeMap, HashMap};

use crate::child::{BEGIN, END};
use crate::engine::Outcome;

/// The system calls that strace is asked for.
pub(crate) const CALLS: &str = "open,openat,openat2,fsync,fdatasync,sync_file_range,msync,syncfs,\
     sync,write,pwrite64,writev,pwritev,pwritev2,io_uring_enter";

/// What a window called.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    /// Calls that make data durable, by name; a write through O_SYNC or O_DSYNC is `dsync_write`.
    pub(crate) durable: BTreeMap<String, u64>,
    /// Calls of `sync_file_range`.
    pub(crate) ranges: u64,
    /// Calls of `io_uring_enter`: their syncs would be invisible here.
    pub(crate) rings: u64,
}

impl Syncs {
    pub(crate) fn total(&self) -> u64 {
        self.durable.values().sum()
    }

    /// Which calls there were.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<&str> = self.durable.keys().map(String::as_str).collect();
        let others = [("sync_file_range", self.ranges), ("io_uring_enter", self.rings)];
        names.extend(others.iter().filter(|(_, count)| *count > 0).map(|(name, _)| *name));
        names.join("+")
    }
}

/// Reads a trace of `strace -f -o`: lines `PID CALL(ARGUMENTS) = RESULT`, where a call that was
/// interrupted by another thread's line is `<unfinished ...>` and later `<... CALL resumed>`.
///
/// # Errors
/// The marks are not there: what was traced was not a window.
pub(crate) fn parse(text: &str) -> Outcome<Syncs> {
    let (begin, end) = (BEGIN.trim_end(), END.trim_end());
    let mut syncs = Syncs::default();
    let mut through: HashMap<u64, bool> = HashMap::new();
    let mut opening: HashMap<&str, bool> = HashMap::new();
    let (mut inside, mut ended) = (false, false);
    for line in text.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(resumed) = call.strip_prefix("<... ") {
            if resumed.starts_with("open")
                && let (Some(sync), Some(fd)) = (opening.remove(pid), result(resumed))
            {
                through.insert(fd, sync);
            }
            continue;
        }
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if name == "write" && arguments.contains(begin) {
            inside = true;
        } else if name == "write" && arguments.contains(end) {
            (inside, ended) = (false, true);
        } else if name.starts_with("open") {
            let sync = arguments.contains("O_SYNC") || arguments.contains("O_DSYNC");
            match result(arguments) {
                Some(fd) => drop(through.insert(fd, sync)),
                None => drop(opening.insert(pid, sync)),
            }
        } else if inside {
            count(&mut syncs, name, arguments, &through);
        }
    }
    if !ended {
        return Err("the trace has no window in it".into());
    }
    Ok(syncs)
}

fn count(syncs: &mut Syncs, name: &str, arguments: &str, through: &HashMap<u64, bool>) {
    let durable = match name {
        "fsync" | "fdatasync" | "sync" | "syncfs" => Some(name),
        "msync" => arguments.contains("MS_SYNC").then_some(name),
        "sync_file_range" => {
            syncs.ranges += 1;
            None
        }
        "io_uring_enter" => {
            syncs.rings += 1;
            None
        }
        _ => {
            let fd = arguments.split(',').next().and_then(|fd| fd.trim().parse().ok());
            let opened = fd.and_then(|fd: u64| through.get(&fd)).copied().unwrap_or(false);
            let asked = arguments.contains("RWF_SYNC") || arguments.contains("RWF_DSYNC");
            (opened || asked).then_some("dsync_write")
        }
    };
    if let Some(name) = durable {
        *syncs.durable.entry(name.to_owned()).or_default() += 1;
    }
}

/// The result at the end of a line, if it is a descriptor.
fn result(line: &str) -> Option<u64> {
    line.rsplit_once("= ")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
10 openat(AT_FDCWD, \"a\", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 5
10 openat(AT_FDCWD, \"b\", O_WRONLY|O_DSYNC|O_CLOEXEC <unfinished ...>
11 fdatasync(5)                         = 0
10 <... openat resumed>)                = 6
10 write(2, \"annals-peers-begin\\n\", 19) = 19
11 pwrite64(5, \"abc\"..., 128, 0)       = 128
12 fdatasync(5 <unfinished ...>
11 pwrite64(6, \"abc\"..., 128, 0)       = 128
12 <... fdatasync resumed>)             = 0
12 fsync(5)                             = 0
11 msync(0x7f0000000000, 4096, MS_ASYNC) = 0
11 msync(0x7f0000000000, 4096, MS_SYNC) = 0
11 sync_file_range(5, 0, 128, SYNC_FILE_RANGE_WAIT_BEFORE) = 0
11 pwritev2(5, [{iov_base=\"a\", iov_len=1}], 1, 0, RWF_DSYNC) = 1
10 write(2, \"annals-peers-end\\n\", 17)   = 17
10 fdatasync(5)                         = 0
";

    #[test]
    fn what_syncs_between_the_marks_is_counted() {
        let syncs = parse(TRACE).unwrap();
        let expected = [("dsync_write", 2), ("fdatasync", 1), ("fsync", 1), ("msync", 1)];
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(syncs.durable, expected);
        assert_eq!((syncs.total(), syncs.ranges, syncs.rings), (5, 1, 0));
        assert_eq!(syncs.names(), "dsync_write+fdatasync+fsync+msync+sync_file_range");
    }

    #[test]
    fn a_descriptor_that_was_opened_again_is_judged_again() {
        let trace = TRACE.replace(
            "10 write(2, \"annals-peers-begin",
            "10 openat(AT_FDCWD, \"c\", O_RDONLY) = 6\n10 write(2, \"annals-peers-begin",
        );
        assert_eq!(parse(&trace).unwrap().durable.get("dsync_write"), Some(&1));
    }

    #[test]
    fn a_trace_without_a_window_is_an_error() {
        assert!(parse("10 fdatasync(5) = 0\n").is_err());
    }
}
