//! Whether a directory, and the files in it that an opening would write to, are safe to write to.
//!
//! Never here: writing, mending a mode, or anything for readers, who may read what they like.
//! Invariants: asked before the first byte is written and again of nothing later (what changes
//! under a living owner is [`crate::watch`]'s); every refusal says what was found and what to do
//! about it, and can be overruled by one [`Options`] method that names it. Reasons and rejected
//! ways: `docs/adr/0007-trust-in-the-directory.md`. Next room: [`crate::lock`].

use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind, Result};
use crate::format;
use crate::fs::{Dir, DirLock, FileSystem, Standing, Status};
use crate::ids::Sequence;
use crate::options::Options;
use crate::recover::Facts;

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;

/// The directory of a log: who may change it, and where its locks and syncs end.
pub(crate) fn check_directory(dir: &dyn Dir, options: &Options) -> Result<()> {
    let standing = standing(dir)?;
    check_users(dir, &standing, options)?;
    match standing.file_system {
        FileSystem::Network(name) if !options.allow_network_file_system => Err(refused(
            dir,
            format_args!(
                "is on a {name} file system, where a lock may not keep other machines out and a \
                 sync may not reach a disk: use a local directory, or ask for it with \
                 Options::allow_network_file_system"
            ),
        )),
        _ => Ok(()),
    }
}

/// The directory of a backup: it holds the same secrets, but no lock guards it, and a sync that
/// lies costs a copy and not the log.
pub(crate) fn check_target(dir: &dyn Dir, options: &Options) -> Result<()> {
    check_users(dir, &standing(dir)?, options)
}

/// Whoever can make names in the directory can plant a segment or take the lock file away; the
/// sticky bit prevents only the latter, so it changes nothing. A foreign owner can do both; and
/// files that root makes in a user's directory lock that user out.
fn check_users(dir: &dyn Dir, standing: &Standing, options: &Options) -> Result<()> {
    let Standing { mode, owner, user, .. } = *standing;
    if mode & (WRITABLE_BY_GROUP | WRITABLE_BY_ALL) != 0 && !options.allow_writable_by_others {
        let who = if mode & WRITABLE_BY_ALL != 0 { "everybody" } else { "its group" };
        let path = dir.path().display();
        return Err(refused(
            dir,
            format_args!(
                "can be written by {who} (mode {mode:04o}): run `chmod go-w {path}`, or ask for it \
                 with Options::allow_writable_by_others"
            ),
        ));
    }
    if owner != user && !options.allow_foreign_owner {
        return Err(refused(
            dir,
            format_args!(
                "belongs to user {owner} and this process acts as user {user}: run it as that \
                 user, or ask for it with Options::allow_foreign_owner"
            ),
        ));
    }
    Ok(())
}

/// A lock file just locked, before anything is written into it. Returns which file it is.
pub(crate) fn check_lock(
    dir: &dyn Dir,
    name: &str,
    lock: &dyn DirLock,
    options: &Options,
) -> Result<Status> {
    let status = lock.status().map_err(|e| asking(dir, name, e))?;
    check_file(dir, name, &status, 1, options)?;
    Ok(status)
}

/// The files that the opening would write to: the control block, the active segment, and what was
/// prepared after it.
pub(crate) fn check_files(dir: &dyn Dir, facts: &Facts, options: &Options) -> Result<()> {
    match dir.status(format::CONTROL_NAME) {
        Ok(status) => check_file(dir, format::CONTROL_NAME, &status, 1, options)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(asking(dir, format::CONTROL_NAME, e)),
    }
    let from = facts.active.as_ref().map_or(0, |active| active.index);
    for segment in &facts.segments[from..] {
        check_segment(dir, segment.sequence, options)?;
    }
    Ok(())
}

/// A segment is published by a second name; a crash right then leaves both, and that is no one
/// else's file.
fn check_segment(dir: &dyn Dir, sequence: Sequence, options: &Options) -> Result<()> {
    let name = format::segment_name(sequence);
    let status = dir.status(&name).map_err(|e| asking(dir, &name, e))?;
    let tmp = dir.status(&format::segment_tmp_name(sequence));
    let published_twice = tmp.is_ok_and(|tmp| tmp.is_same_file(&status));
    check_file(dir, &name, &status, if published_twice { 2 } else { 1 }, options)
}

/// A file of ours has one name and our user as its owner. Writing to one with a name elsewhere
/// would change whatever that name is taken for.
fn check_file(
    dir: &dyn Dir,
    name: &str,
    status: &Status,
    links: u64,
    options: &Options,
) -> Result<()> {
    let path = dir.path().join(name);
    let path = path.display();
    if status.links > links {
        return Err(untrusted(format!(
            "{path} has {} names (hard links), and writing to it would change the file behind the \
             others too: remove those, or put a copy in its place",
            status.links
        )));
    }
    let user = standing(dir)?.user;
    if status.owner != user && !options.allow_foreign_owner {
        return Err(untrusted(format!(
            "{path} belongs to user {} and this process acts as user {user}: run `chown {user} \
             {path}`, or ask for it with Options::allow_foreign_owner",
            status.owner
        )));
    }
    Ok(())
}

fn standing(dir: &dyn Dir) -> Result<Standing> {
    dir.standing()
        .map_err(|e| Error::io(format!("asking who may change {}", dir.path().display()), e))
}

fn asking(dir: &dyn Dir, name: &str, e: io::Error) -> Error {
    Error::io(format!("looking at {}", dir.path().join(name).display()), e)
}

fn refused(dir: &dyn Dir, why: fmt::Arguments<'_>) -> Error {
    untrusted(format!("{} {why}", dir.path().display()))
}

fn untrusted(message: String) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}
