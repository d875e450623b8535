//! A child made by fork has copies of locks that some thread of its parent held at that moment. It
//! is refused before it touches one.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use annals_registry::{Outcome, TxResult};
use annals_wal::ErrorKind;
use annals_wal::fs::Dir;
use annals_wal::fs::mem::MemDir;

use crate::support::{json, key, open_log};

/// Longer than any answer takes, and only a failing test waits so long.
const NEVER: Duration = Duration::from_secs(30);

#[test]
fn a_forked_child_is_refused_though_its_parent_held_the_queue() {
    let disk = MemDir::new(1);
    let log = open_log(&disk);
    let registry = annals_registry::Registry::on(log.clone()).unwrap();
    registry.put(&key("a"), json(1)).unwrap();
    let parent = disk.pid();
    let answers = log.ordered(|_| {
        // The queue lock is held here, as it may be at the moment of a fork.
        disk.set_pid(parent + 1);
        let (sender, receiver) = channel();
        let child = registry.clone();
        thread::spawn(move || {
            let put = child.put(&key("a"), json(2)).map(drop);
            let transacted = child.transact(|tx| -> TxResult<()> {
                tx.put(&key("b"), json(3));
                Ok(())
            });
            let transacted = transacted.map(|outcome| matches!(outcome, Outcome::Done { .. }));
            let _ = sender.send((put, transacted));
        });
        let answers = receiver.recv_timeout(NEVER);
        disk.set_pid(parent);
        Ok(answers)
    });
    let (put, transacted) = answers.unwrap().value.expect("the child waits for its parent's lock");
    for error in [put.unwrap_err(), transacted.unwrap_err()] {
        assert_eq!(error.log_error().map(annals_wal::Error::kind), Some(ErrorKind::Locked));
    }
    registry.put(&key("a"), json(4)).unwrap();
}
