//! The mutants: what each leaves out, and where.
//!
//! Never here: what kills them; that is found out. Invariant: this table and the names that the
//! sources ask for are the same set (the test below reads them).

/// One line of the code left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// What the code then does not do.
    pub(crate) removed: &'static str,
    /// Where the line is, from the root of the repository.
    pub(crate) file: &'static str,
}

const DISK: &str = "wal/src/fs/mem/disk.rs (what the point's call does)";
const SEAM: &str = "wal/src/fs/mod.rs";
const DIRS: &str = "wal/src/fs/os.rs, wal/src/fs/mem/mod.rs";
const APPLY: &str = "wal/src/recover/apply.rs";
const DECIDE: &str = "wal/src/recover/decide.rs";
const SET: &str = "wal/src/recover/set.rs";
const FACTS: &str = "wal/src/recover/facts.rs";
const WRITER: &str = "wal/src/writer.rs";
const COMMIT: &str = "wal/src/commit.rs";
pub(crate) const LATCH: &str = "wal/src/latch.rs";
pub(crate) const PREPARE: &str = "wal/src/prepare.rs";
pub(crate) const SPARE: &str = "wal/src/spare.rs";
const JUDGE: &str = "wal/src/scan/judge.rs";
const SURVEY: &str = "wal/src/survey.rs";
const FORMAT: &str = "wal/src/format.rs";
const TRIM: &str = "wal/src/trim.rs";
const REGISTRY: &str = "registry/src/shared.rs";
const SWEEPER: &str = "registry/src/sweep.rs";
const WRITERS: &str = "registry/src/writer.rs";
const CHECKPOINTS: &str = "registry/src/checkpoint.rs";
const BEGIN: &str = "wal/src/share/begin.rs";
const CATCH_UP: &str = "wal/src/share/catch_up.rs";
const CONTROL: &str = "wal/src/control.rs";
const TURN: &str = "wal/src/share/turn.rs";
const JOIN: &str = "wal/src/share/open.rs";
const ARCHIVE: &str = "observer/src/archive/mod.rs";
const BRING: &str = "observer/src/archive/bring.rs";
const DRAIN: &str = "observer/src/drain.rs";

const fn m(name: &'static str, file: &'static str, removed: &'static str) -> Mutant {
    Mutant { name, removed, file }
}

/// All of them.
pub(crate) const TABLE: &[Mutant] = &[
    // Syncs.
    m("sync:Parent", DISK, "the sync of the parent, after the directory was made"),
    m("sync:DirectoryBeforeWrite", DISK, "the directory sync before an opening's first write"),
    m("sync:Prepared", DISK, "the sync of a prepared segment, before it has its name"),
    m("sync:Published", DISK, "the directory sync after a segment got its name"),
    m("sync:Kept", DISK, "the sync of what rows A and A' rewrite"),
    m("sync:Cut", DISK, "row B's first sync, of what is kept and zeroed"),
    m("sync:RecoverySeal", DISK, "the sync of the seal that recovery appends"),
    m("sync:OpenRecord", DISK, "the sync of a new segment's open record"),
    m("sync:Group", DISK, "the sync of a group"),
    m("sync:Seal", DISK, "the sync of a seal written alone"),
    m("sync:Trimmed", DISK, "the directory sync after a trim's unlinks"),
    m("sync:Leftovers", DISK, "the directory sync after leftovers were removed"),
    m("sync:Evidence", DISK, "the syncs of the copy of what was cut"),
    m("sync:BackupParent", DISK, "the sync of a backup's parent"),
    m("sync:BackupMark", DISK, "the sync of what a backup's mark says"),
    m("sync:BackupMarked", DISK, "the sync of a backup's mark"),
    m("sync:BackupFile", DISK, "the sync of a backup's file"),
    m("sync:BackupNames", DISK, "the sync of a backup's names"),
    m("sync:BackupDone", DISK, "the sync that ends a backup"),
    m("sync:SnapshotFile", DISK, "the sync of a registry snapshot"),
    m("sync:SnapshotName", DISK, "the directory sync after a registry snapshot got its name"),
    m("sync:ArchiveParent", DISK, "the sync of the parent of an archive"),
    m("sync:ArchivedSegment", DISK, "the sync of a segment before its link in an archive"),
    m("sync:ArchiveCopy", DISK, "the sync of a segment copied to an archive"),
    m("sync:ArchiveNames", DISK, "the sync of an archive's names, before its manifest lists them"),
    m("sync:ArchiveManifest", DISK, "the sync of an archive's manifest, before it has its name"),
    m("sync:ArchiveListed", DISK, "the directory sync behind a manifest, before the hold moves"),
    // What recovery writes.
    m("rewrite:A", APPLY, "row A rewrites what no witness covers"),
    m("rewrite:APrime", APPLY, "row A' rewrites what no witness covers"),
    m("rewrite:B", APPLY, "row B rewrites what no witness covers"),
    m("zeros:Spare", APPLY, "a spare that recovery goes on in is zeroed again"),
    m("zeros:APrime", APPLY, "row A' zeroes the rest of the segment"),
    m("zeros:B", APPLY, "row B zeroes the rest of the segment"),
    m("order:removals-last", APPLY, "leftovers go only after the next open record is durable"),
    m("leftovers:kept", APPLY, "leftovers are removed"),
    m("evidence:not-kept", APPLY, "what is cut is copied first"),
    m("evidence:overwritten", APPLY, "an older copy of what was cut is never replaced"),
    m("control:before-the-first-segment", APPLY, "a new log's control block waits for a segment"),
    m("control:claim-not-carried", "wal/src/control.rs", "the trusted claim is carried forward"),
    m("generation:not-bumped", DECIDE, "an unclean end begins a new generation"),
    // Publishing and rotation.
    m("publish:in-place", PREPARE, "a segment is made under another name and linked"),
    m("link:replaces", DIRS, "a hard link never replaces"),
    m("salt:the-neighbours", PREPARE, "a salt differs from its neighbour's"),
    m("rotation:no-seal", WRITER, "a segment ends with a seal"),
    m("order:seal-before-next", WRITER, "the seal is durable before the next segment's first byte"),
    m("order:place-before-lsn", "wal/src/queue.rs", "an LSN is given only with a place"),
    m(
        "rotation:open-record-left-out",
        WRITER,
        "a segment's first group begins with an open record",
    ),
    m("stamp:own-records-count", WRITER, "the log's own records consume no LSN"),
    m("prepare:synced-before-the-zeros", PREPARE, "zeros are synced, not the header alone"),
    m("prepare:hurry-takes-no-room", PREPARE, "a hurried spare takes its space at once"),
    m("spare:a-caller-waits-for-zeros", SPARE, "a caller who needs a segment waits for no zeros"),
    m("spare:nobody-hurries-it", SPARE, "a spare that is wanted soon is hurried"),
    m("reserve:for-records-too", "wal/src/queue.rs", "records stay out of the reserve"),
    // Writing and failing.
    m("write:short-is-whole", SEAM, "a short write is a failure"),
    m("write:interrupted-fails", SEAM, "an interrupted write is tried again"),
    m("read:short-is-the-end", SEAM, "a short read is read on"),
    m("read:interrupted-fails", SEAM, "an interrupted read is tried again"),
    m("ack:before-the-sync", "wal/src/pending.rs", "nobody is told before the sync"),
    m("written:before-the-write", WRITER, "nobody is told that it is written before the write"),
    m("written:only-when-durable", WRITER, "who waits for the write does not wait for the sync"),
    m(
        "written:a-failure-is-not-told",
        "wal/src/cohort.rs",
        "a failure reaches who waits for a write",
    ),
    m("room:always", "wal/src/room.rs", "a full queue lets nobody in"),
    m(
        "close:futures-forgotten",
        "wal/src/log.rs",
        "a close wakes the futures that wait for a segment",
    ),
    m("room:futures-forgotten", COMMIT, "a commit wakes the futures that wait for room"),
    m(
        "room:wakers-left-behind",
        "wal/src/append_async.rs",
        "a future that gives up takes its waker along",
    ),
    m("control:before-the-sync", WRITER, "the control block says so only after the sync"),
    m("lag:claims-too-much", WRITER, "a frame claims no more than was durable"),
    m("sync:retried-and-believed", WRITER, "a failed sync is final"),
    m("poison:write", COMMIT, "a failed write poisons"),
    m("poison:sync", COMMIT, "a failed sync poisons"),
    m("poison:the-queue-is-told-ok", COMMIT, "who waits behind a failure is told of it"),
    // Waking.
    m("latch:nobody-is-woken", LATCH, "whoever sleeps on a group's end is woken"),
    m("latch:the-second-half-is-left", LATCH, "of a large group the first woken wakes the others"),
    // Owners and names.
    m("lock:nobody-is-refused", DIRS, "a lock that is held is not given"),
    m("lock:let-go", "wal/src/open.rs", "the lock is held as long as the log is open"),
    m("watch:segment", "wal/src/watch.rs", "after a sync the segment's name is looked at"),
    m("watch:lock", "wal/src/watch.rs", "before and after a write the lock's name is looked at"),
    m("fork:any-process", "wal/src/fork.rs", "a forked child is refused"),
    m("claim:anybody", "wal/src/claim.rs", "a second registry on one log is refused"),
    // Trims, readers, backups.
    m("holds:ignored", TRIM, "the head stays at or below the lowest hold"),
    m("head:past-the-end", TRIM, "the head stays at or below the LSN after the durable one"),
    m("head:goes-back", TRIM, "the head never goes back"),
    m("order:trim-record-before-unlink", TRIM, "the trim record is durable before an unlink"),
    m("readers:no-bound", "wal/src/view.rs", "readers stop where durability is proven"),
    m("readers:all-is-unproven", "wal/src/view.rs", "damage below what is proven is corruption"),
    m("backup:any-end", "wal/src/backup.rs", "a backup ends where the log is sound"),
    m("backup:no-mark", "wal/src/backup.rs", "a half-made backup is marked"),
    // Witnesses.
    m("witness:frames", SURVEY, "a frame proves that what it calls durable was"),
    m("witness:control", DECIDE, "the control block proves the same"),
    m("witness:snapshot", DECIDE, "a registry snapshot proves that its LSN was durable"),
    m("control:any-file", FACTS, "a control block is believed only in its own inode"),
    m("control:any-segment-file", SET, "and only about the inode that it names"),
    // The recovery table's refusals.
    m("row-c:impossible-is-torn", DECIDE, "what no crash can make is corruption"),
    m("row-c:any-head", DECIDE, "a head beyond the end is refused"),
    m("row-e:any-seal", SET, "the seal is the one that the next open record names"),
    m("row-e:another-segments-seal", SET, "a seal stands in its own segment"),
    m("row-f:any-version", FORMAT, "a newer version is refused"),
    m("row-f:any-feature", FORMAT, "an unknown incompatible feature is refused"),
    m("row-f:any-flag", FORMAT, "an unknown flag is refused"),
    m("row-f:any-kind", FORMAT, "an unknown own record is refused"),
    m("row-f:any-field", FORMAT, "an unknown field of an own record is refused"),
    m("row-g:any-name", SET, "a header's number is its file name's"),
    m("row-g:any-log", SET, "segments are of one log"),
    m("row-g:any-snapshot", SET, "snapshots are of the same log"),
    m("row-g:any-predecessor", DECIDE, "a first segment has no predecessor, a later one has"),
    m("row-g:gap", SET, "sequences have no gap"),
    m("row-g:start", SET, "the log reaches down to its head"),
    m("row-g:lost-segment", SET, "a segment that the control block vouches for must be there"),
    m("row-g:lsns-break", SET, "LSNs go on from segment to segment"),
    // The index in a seal, and what of the active segment is kept in memory.
    m("index:not-of-the-frames", WRITER, "the index says what is in the segment"),
    m("index:of-one-session", APPLY, "a session that goes on in a segment goes on with its index"),
    m("index:batch-without-end", SURVEY, "a cut batch is in no index"),
    m("index:passes-over-what-is-wanted", "wal/src/filter.rs", "a block that holds it is read"),
    m("tail:all-released", SURVEY, "what nothing vouches for stays in memory"),
    // Lengths.
    m("length:segment-header", FORMAT, "a file may be shorter than a segment header"),
    m("length:control", FORMAT, "a control block may be cut short"),
    m("length:snapshot-header", FORMAT, "a snapshot may be shorter than its header"),
    m("length:field-head", FORMAT, "an own record may end inside a field's head"),
    m("length:field", FORMAT, "a field may say that it is longer than its record"),
    m("length:hold-name", FORMAT, "a hold's name has 1 to 32 bytes"),
    m("length:holds", FORMAT, "a log has at most 64 holds"),
    m("length:own-record", FACTS, "an own record asks for no more memory than it can have"),
    m("length:header-in-file", "wal/src/scan/mod.rs", "a file may end inside a frame header"),
    m("length:frame-in-file", JUDGE, "a file may end inside a frame"),
    m("length:frame-in-segment", JUDGE, "a frame stays in its part of the segment"),
    m("length:file-over-capacity", SET, "a file is not longer than its capacity"),
    m("length:extension", "wal/src/open.rs", "a forged capacity does not fill the disk"),
    // Frames.
    m("checksum:segment-header", FORMAT, "a segment header's checksum"),
    m("checksum:frame-header", FORMAT, "a frame header's checksum"),
    m("checksum:payload", JUDGE, "a payload's checksum"),
    m(
        "checksum:of-what-is-delivered",
        "wal/src/cursor/step.rs",
        "only what is skipped goes unverified",
    ),
    m("checksum:control", FORMAT, "the control block's checksum"),
    m("checksum:no-salt", FORMAT, "the segment's salt in a frame's checksum"),
    m("checksum:no-offset", FORMAT, "the frame's place in its checksum"),
    m("padding:anything", JUDGE, "padding is zeros"),
    m("lag:impossible", JUDGE, "a lag that points before the first frame is impossible"),
    m("lsn:any", JUDGE, "LSNs follow one another"),
    m("flags:own-record", JUDGE, "an own record has no batch flags"),
    m("batch:begin", JUDGE, "a batch has a beginning"),
    m("batch:end", SURVEY, "half a batch is not kept"),
    // Several processes.
    m("share:append-for-everybody", "wal/src/share/append.rs", "a turn is one process's"),
    m("share:any-append-file", BEGIN, "a turn looks whether its lock files still have their names"),
    m("share:mark-overlooked", BEGIN, "a turn that another left unfinished is recovered"),
    m("share:no-catch-up", BEGIN, "a turn begins where the others ended"),
    m("share:looks-past-the-sync", BEGIN, "a look stops where a sync has covered everything"),
    m("share:no-mark", CONTROL, "a turn marks the control block before it writes"),
    m("share:any-control-block", CONTROL, "a control block is believed in its own inode only"),
    m("share:others-are-not-told", WRITER, "nobody is told of what other processes cannot see"),
    m("share:nobody-listens", CATCH_UP, "a registry is told of others' records"),
    m("share:any-seal", CATCH_UP, "another's seal is that of the frames before it"),
    m("share:any-predecessor", CATCH_UP, "another's open record names the seal before it"),
    m("share:any-successor", CATCH_UP, "another's segment is the next one of this log"),
    m("share:half-a-batch", CATCH_UP, "another's batch has an end"),
    m("share:control-outlives-its-members", JOIN, "who finds nobody alive recovers"),
    m("share:a-reader-is-a-member", "wal/src/lock.rs", "who joins asks twice whether it is alone"),
    m("share:joins-a-marked-log", JOIN, "who joins recovers what a member left unfinished"),
    m("share:a-turn-leaves-its-groups", TURN, "a turn lasts until its groups are written"),
    m("share:anybody-is-last", TURN, "the log's end is written when the last member goes"),
    // Registry and observer.
    m("registry:read-set", REGISTRY, "a transaction whose reads have changed does not commit"),
    m("registry:applied-before-the-push", REGISTRY, "effects wait for a place in the log"),
    m("registry:promoted-before-durable", REGISTRY, "plain reads see durable transactions only"),
    m("registry:unknown-is-not-done", "registry/src/error.rs", "an unknown outcome is told so"),
    m("lease:no-ttl", SWEEPER, "a lease lasts its whole ttl"),
    m("lease:renewal-overlooked", SWEEPER, "a renewal that commits first saves the lease"),
    m("writer:any-sequence", WRITERS, "a writer's sequences follow one another"),
    m("writer:any-request", WRITERS, "a retry is the same request"),
    m("snapshot:nothing-put-aside", "registry/src/state/shot.rs", "a snapshot is of one moment"),
    m("snapshot:half-a-state", "registry/src/rebuild.rs", "a state is rebuilt whole or not at all"),
    m("snapshot:hold-after-the-newest", CHECKPOINTS, "the older snapshot keeps its log"),
    m("snapshot:anybodys-directory", CHECKPOINTS, "a snapshot owns the directory to its last step"),
    m("snapshot:failed-ones-stay", CHECKPOINTS, "a snapshot that fails takes its files with it"),
    m("watch:skips-one", "registry/src/watch.rs", "a watch has no gap"),
    m("fork:threads-are-waited-for", "registry/src/process.rs", "a forked child awaits no thread"),
    m("registry:a-read-takes-commits", "registry/src/view.rs", "a commit inside a read is refused"),
    m("lease:granted-is-seen", SWEEPER, "a sweep looks at the clock after the leases"),
    m("import:any-key", "registry/src/import.rs", "an import changes no key that no import made"),
    m("export:keys-left-out", "registry/src/import/export.rs", "an export says all or refuses"),
    m(
        "archive:no-hold-before-the-directory",
        ARCHIVE,
        "the log waits for a target from its first call",
    ),
    m("archive:hold-before-the-manifest", ARCHIVE, "a hold says that a manifest is there"),
    m("archive:released-first", ARCHIVE, "the last hold is there before the first goes"),
    m("archive:hold-before-the-segment", ARCHIVE, "a hold moves past what a manifest lists"),
    m("archive:copied-in-place", BRING, "a segment has its name when it is whole"),
    m("archive:leftovers-stay", BRING, "what a hand-over left that was broken off is replaced"),
    m("archive:manifest-in-place", BRING, "a manifest takes the place of a whole one, whole"),
    m("observer:flush-does-not-wait", DRAIN, "a flush waits for the sync"),
    m("observer:tickets-twice", DRAIN, "a ticket is given once"),
    m(
        "observer:durable-does-not-wait",
        "observer/src/observer.rs",
        "a durable call waits for the sync",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use annals_wal::fs::SyncPoint;

    use super::TABLE;

    /// String literals inside the calls of `mutant::is`.
    fn asked_for(source: &str, names: &mut BTreeSet<String>) {
        for call in source.split("mutant::is(").skip(1) {
            let arguments = call.split(')').next().unwrap_or_default();
            names.extend(arguments.split('"').skip(1).step_by(2).map(str::to_owned));
        }
        for call in source.split("mutant::is_one_of(").skip(1) {
            let group = call.split('"').nth(1).unwrap_or_default();
            match group {
                "sync" => names.extend(SyncPoint::ALL.map(|point| format!("sync:{point:?}"))),
                "zeros" => names.extend(["zeros:APrime", "zeros:B"].map(str::to_owned)),
                _ => names.extend(["A", "APrime", "B"].map(|row| format!("{group}:{row}"))),
            }
        }
    }

    fn read(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, names);
            } else if path.file_name().is_some_and(|name| name != "mutant.rs") {
                asked_for(&std::fs::read_to_string(&path).unwrap(), names);
            }
        }
    }

    #[test]
    fn the_table_has_what_the_sources_ask_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut asked = BTreeSet::new();
        for room in ["wal/src", "registry/src", "observer/src"] {
            read(&root.join(room), &mut asked);
        }
        let table: BTreeSet<String> = TABLE.iter().map(|mutant| mutant.name.to_owned()).collect();
        assert_eq!(table, asked);
        assert_eq!(table.len(), TABLE.len(), "a name stands there twice");
        for mutant in TABLE {
            let file = mutant.file.split([',', ' ']).next().unwrap();
            assert!(root.join(file).is_file(), "{}: no file {file}", mutant.name);
        }
    }
}
