//! Exhaustive sweeps: a script is stopped, and made to fail, at every one of its operations; the
//! opening that follows at every one of its own; and the one after that too.
//!
//! Never here: the scripts ([`mod@scripts`]), the model. Invariants: every operation of the script is
//! a crash point and an error point; a state that was reached before (same disk, same model) is
//! not gone through again, so that what is counted is different states and not repetitions.
//! Deterministic: no seed but those made from the operation's number.

mod explore;
pub mod scripts;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pin;

pub use explore::{Depth, sweep};
pub use scripts::{Script, scripts};

/// What a sweep went through.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Operations of the scripts, undisturbed.
    pub ops: u64,
    /// Crashes tried: in a script, in the opening after, in the one after that.
    pub crashes: [u64; 3],
    /// Errors tried, the same.
    pub errors: [u64; 3],
    /// Different states that were opened and checked.
    pub states: u64,
    /// What went wrong, each with all that is needed to see it again.
    pub violations: Vec<String>,
}

impl Swept {
    fn add(&mut self, other: Swept) {
        self.ops += other.ops;
        for level in 0..3 {
            self.crashes[level] += other.crashes[level];
            self.errors[level] += other.errors[level];
        }
        self.states += other.states;
        self.violations.extend(other.violations);
    }
}

/// Sweeps these scripts, on so many threads; `told` is called after each.
pub fn sweep_all(
    scripts: &[Script],
    depth: Depth,
    threads: usize,
    told: &(dyn Fn(&Script, &Swept) + Sync),
) -> Swept {
    let (next, whole) = (AtomicUsize::new(0), Mutex::new(Swept::default()));
    std::thread::scope(|scope| {
        let begin = |worker| {
            let (next, whole) = (&next, &whole);
            scope.spawn(move || {
                pin::to_core(worker);
                while let Some(script) = scripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let swept = sweep(script, depth);
                    told(script, &swept);
                    whole.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(swept);
                }
            })
        };
        let workers: Vec<_> = (0..threads.max(1)).map(begin).collect();
        for worker in workers {
            // The scope alone does not wait until what a thread keeps for itself (the file that an import
            // reads) is gone (rust-lang/rust#116237).
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    whole.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
