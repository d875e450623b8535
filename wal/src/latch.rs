//! A word that is set once and that any number of threads wait for: the end of one group.
//!
//! Never here: a lock that a woken thread would have to take again. A condition variable hands all
//! its waiters to one mutex, one after the other; here each reads the word and is gone, and nobody
//! calls the kernel to wake nobody. Waking is the waker's work, a microsecond or two for each thread,
//! so of a large group the first who is woken wakes the second half, on another processor if there is
//! one (64 writers on two cores: p99 down by a quarter). Invariant: a value once set stays; who waits later finds it (no
//! lost wake-up: fwdai/fletch#194). Under shuttle, whose scheduler sees no futex, and off
//! Linux a mutex and a condition variable stand in. Next room: [`crate::cohort`].

pub(crate) use chosen::Latch;

#[cfg(all(target_os = "linux", not(annals_shuttle)))]
mod chosen {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::thread::futex;

    use crate::mutant;

    /// Not set, and nobody asked the kernel to be woken.
    const UNSET: u32 = 0;
    /// Not set, and somebody may sleep.
    const AWAITED: u32 = 1;
    /// Set, and some may still sleep: the first who was woken wakes them.
    const MORE: u32 = 2;
    /// Added to a value, so that each is told from the three above without its flag.
    const SET: u32 = 4;

    /// Set once to a small number.
    #[derive(Debug, Default)]
    pub(crate) struct Latch(AtomicU32);

    impl Latch {
        /// The value, if it was set.
        pub(crate) fn get(&self) -> Option<u32> {
            value(self.0.load(Ordering::Acquire))
        }

        /// Sets the value and wakes everybody: so many of them here, and the others from the first of
        /// these, so that two processors share the work. Called once.
        pub(crate) fn set(&self, value: u32, here: u32) {
            let set = value.saturating_add(1).saturating_mul(SET);
            // Whoever finds the word set does not go to sleep. So those who sleep now are all, and if
            // any are left after this call, one of those it woke finds the flag.
            let awaited = self.0.swap(set | MORE, Ordering::AcqRel) == AWAITED;
            if awaited && !mutant::is("latch:nobody-is-woken") {
                self.wake(here.max(1));
            }
        }

        /// Wakes so many sleepers at most.
        fn wake(&self, at_most: u32) {
            // Fails for a bad address only, and this one is a reference.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, at_most);
        }

        /// Waits for the value.
        pub(crate) fn wait(&self) -> u32 {
            let mut slept = false;
            loop {
                let order = Ordering::Acquire;
                match self.0.compare_exchange(UNSET, AWAITED, order, order) {
                    // Returns at once if the word changed meanwhile, and now and then for nothing:
                    // the word is read again either way.
                    Ok(_) | Err(AWAITED) => {
                        let _ = futex::wait(&self.0, futex::Flags::PRIVATE, AWAITED, None);
                        slept = true;
                    }
                    Err(set) => {
                        if slept {
                            self.wake_the_others();
                        }
                        return value(set).unwrap_or_default();
                    }
                }
            }
        }

        /// Called by each who slept, on its way out. The first wakes whom the setter left.
        fn wake_the_others(&self) {
            let order = Ordering::AcqRel;
            if mutant::is("latch:the-second-half-is-left") {
                return;
            }
            if self.0.load(Ordering::Acquire) & MORE != 0
                && self.0.fetch_and(!MORE, order) & MORE != 0
            {
                self.wake(i32::MAX as u32);
            }
        }
    }

    fn value(word: u32) -> Option<u32> {
        (word / SET).checked_sub(1)
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

        pub(crate) fn set(&self, value: u32, _here: u32) {
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
