//! A word that is set once and that any number of threads wait for: the end of one group.
//!
//! Never here: a lock that a woken thread would have to take again. A condition variable hands all
//! its waiters to one mutex, one after the other; here each reads the word and is gone, and nobody
//! calls the kernel to wake nobody. Invariant: a value once set stays; who waits later finds it (no
//! lost wake-up: fwdai/fletch#194). Under shuttle, whose scheduler sees no futex, and off
//! Linux a mutex and a condition variable stand in. Next room: [`crate::cohort`].

pub(crate) use chosen::Latch;

#[cfg(all(target_os = "linux", not(annals_shuttle)))]
mod chosen {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::thread::futex;

    /// Not set, and nobody asked the kernel to be woken.
    const UNSET: u32 = 0;
    /// Not set, and somebody may sleep.
    const AWAITED: u32 = 1;
    /// A value is stored as itself and this.
    const SET: u32 = 2;

    /// Set once to a small number.
    #[derive(Debug, Default)]
    pub(crate) struct Latch(AtomicU32);

    impl Latch {
        /// The value, if it was set.
        pub(crate) fn get(&self) -> Option<u32> {
            self.0.load(Ordering::Acquire).checked_sub(SET)
        }

        /// Sets the value and wakes everybody. Called once.
        pub(crate) fn set(&self, value: u32) {
            if self.0.swap(value.saturating_add(SET), Ordering::AcqRel) == AWAITED {
                // Fails for a bad address only, and this one is a reference.
                let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
            }
        }

        /// Waits for the value.
        pub(crate) fn wait(&self) -> u32 {
            loop {
                let order = Ordering::Acquire;
                match self.0.compare_exchange(UNSET, AWAITED, order, order) {
                    // Returns at once if the word changed meanwhile, and now and then for nothing:
                    // the word is read again either way.
                    Ok(_) | Err(AWAITED) => {
                        let _ = futex::wait(&self.0, futex::Flags::PRIVATE, AWAITED, None);
                    }
                    Err(set) => return set.saturating_sub(SET),
                }
            }
        }
    }
}

#[cfg(any(annals_shuttle, not(target_os = "linux")))]
mod chosen {
    use crate::sync::{Condvar, Mutex, PoisonError};

    /// Set once to a small number.
    #[derive(Debug, Default)]
    pub(crate) struct Latch {
        value: Mutex<Option<u32>>,
        set: Condvar,
    }

    impl Latch {
        pub(crate) fn get(&self) -> Option<u32> {
            *self.value.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn set(&self, value: u32) {
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            self.set.notify_all();
        }

        pub(crate) fn wait(&self) -> u32 {
            let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(value) = *value {
                    return value;
                }
                value = self.set.wait(value).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
