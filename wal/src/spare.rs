//! The spare: which segment comes next, how large it is, who prepares it and when.
//!
//! A thread of the log's own prepares it once the active segment is half full, a piece at a time and
//! slower than it could, so that a rotation stalls no commit and the preparation's own syncs stall
//! few. A caller who needs the spare before it is there waits for that thread, which then hurries,
//! or prepares it by itself.
//!
//! Never here: how a segment is made ([`crate::prepare`]), the change to it ([`crate::queue`]).
//! Invariants: one preparation at a time; whoever waits for one learns how it ended; a preparation
//! in the background fails nobody who does not need it. Locks: queue. Next room: [`crate::prepare`].

use std::sync::Arc;
use std::time::Duration;

use crate::commit::{Core, Guard};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, CAPACITY_STEP};
use crate::ids::Sequence;
use crate::mutant;
use crate::options::{Options, Sharing};
use crate::prepare::{Go, Order, PrepareFailed, Prepared, Step, Stop, prepare};
use crate::queue::{Mode, Queue, Tail};
use crate::sync::{PoisonError, sleep, thread};

/// After a piece the background waits this many times as long as the piece took.
const PAUSES: u32 = 2;
/// And never longer: a caller who begins to wait meanwhile waits this long at worst.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Once only so small a part of the active segment is left, the spare is wanted soon.
const SOON_PART: u64 = 8;

/// Growth of a shared log's segments ends here.
const SHARED_MAX: u64 = 8 << 20;

/// Who prepares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// A caller who cannot go on without.
    Caller,
    /// The log's own thread.
    Background,
}

impl Core {
    /// Makes a spare ready that holds this many bytes of frames, or waits for whoever is at it.
    pub(crate) fn prepare_spare(&self, frame_bytes: u64) -> Result<()> {
        self.prepare_next(frame_bytes, By::Caller)
    }

    /// Has the spare prepared once half of the active segment is used: asked once a segment, so that
    /// a full disk is not asked again and again. Nobody is told if there is no thread: a caller will
    /// prepare.
    pub(crate) fn see_to_the_spare(self: &Arc<Self>, queue: &mut Queue) {
        let tail = queue.tail;
        let due = tail.offset > tail.capacity / 2 && queue.spare_asked != Some(tail.sequence);
        let possible =
            queue.spare.is_none() && !queue.preparing && matches!(queue.mode, Mode::Open);
        // A member's segments are made in the turn that needs them.
        let possible = possible && self.member.is_none();
        if !due || !possible || !self.shared.dir.has_background() {
            return;
        }
        queue.spare_asked = Some(tail.sequence);
        let _ = self.call_the_preparer(queue);
    }

    fn call_the_preparer(self: &Arc<Self>, queue: &mut Queue) -> std::io::Result<()> {
        if !queue.preparer {
            let core = self.clone();
            let thread = thread::Builder::new().name("annals-preparer".to_owned());
            thread.spawn(move || preparer(core))?;
            queue.preparer = true;
        }
        queue.spare_wanted = true;
        self.ahead.notify_one();
        Ok(())
    }

    /// Has a spare prepared that holds this many bytes of frames, for a caller who may neither
    /// prepare it nor wait. `asked` is that caller's memory from one try to the next: if the
    /// preparation that it asked for has failed since, it is told so, and may ask again.
    pub(crate) fn ask_for_a_spare(
        self: &Arc<Self>,
        queue: &mut Queue,
        frame_bytes: u64,
        asked: &mut Option<u64>,
    ) -> Result<()> {
        if asked.take().is_some_and(|before| before != queue.preparations_failed) {
            let error = queue.preparation_error.clone();
            return Err(error.unwrap_or_else(Error::closed));
        }
        // What can never be is told at once.
        capacity_for(frame_bytes, queue.tail, &self.options)?;
        next_sequence(queue)?;
        *asked = Some(queue.preparations_failed);
        // Whoever prepares now tells of its end, and then this caller asks again if it must.
        if !queue.preparing {
            queue.spare_bytes = queue.spare_bytes.max(frame_bytes);
            self.call_the_preparer(queue)
                .map_err(|e| Error::io("starting the preparer thread", e))?;
        }
        Ok(())
    }

    fn prepare_next(&self, frame_bytes: u64, by: By) -> Result<()> {
        let mut queue = self.queue();
        if queue.preparing {
            let failed_before = queue.preparations_failed;
            while queue.preparing {
                queue = self.wait_room(queue);
            }
            // A preparation that was given up because the log ended is no answer; that it ended is.
            queue.check_mode()?;
            if queue.preparations_failed == failed_before {
                return Ok(());
            }
            let error = queue.preparation_error.clone();
            return Err(error.unwrap_or_else(Error::closed));
        }
        queue.check_mode()?;
        if by == By::Background && queue.is_over() {
            return Ok(());
        }
        // Whoever prepared a moment ago may have prepared for us too.
        let fits = |spare: &Prepared| spare.holds(frame_bytes);
        if queue.spare.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let order = capacity_for(frame_bytes, queue.tail, &self.options)
            .and_then(|capacity| Ok((capacity, next_sequence(&queue)?)));
        let (capacity, sequence) = match order {
            Ok(order) => order,
            Err(error) => {
                // Whoever asked from afar looks again, and is told the same.
                drop(queue);
                self.tell_of_room();
                return Err(error);
            }
        };
        // Out of the queue while it is replaced: nobody may be given a place in it.
        let replaced = queue.spare.take();
        queue.preparing = true;
        let order = Order {
            log_id: self.shared.log_id,
            shared: self.member.is_some(),
            sequence,
            capacity,
            salts_taken: [queue.tail.salt, replaced.as_ref().map_or(0, |s| s.header.salt)],
            replaces: true,
        };
        drop(queue);
        let guard = Guard { core: self, died: "preparing a segment panicked", prepared: true };
        let prepared = self.prepare_or_smaller(order, frame_bytes, by);
        std::mem::forget(guard);
        self.prepared(prepared, replaced)
    }

    /// On a full disk a segment that would have grown is tried in smaller sizes: growing alone refuses
    /// nobody. What a try took is given back before the next.
    fn prepare_or_smaller(
        &self,
        mut order: Order,
        frame_bytes: u64,
        by: By,
    ) -> std::result::Result<Prepared, PrepareFailed> {
        let mut replaced_is_gone = false;
        loop {
            let failed = match prepare(&*self.shared.dir, order, &mut |step| self.pace(by, step)) {
                Ok(prepared) => return Ok(prepared),
                Err(failed) => failed,
            };
            // Whatever the next try does, a name that is gone stays gone.
            replaced_is_gone |= failed.replaced_is_gone;
            let failed = PrepareFailed { replaced_is_gone, ..failed };
            let smaller = order.capacity / 2 / CAPACITY_STEP * CAPACITY_STEP;
            let smaller = smaller.max(self.options.segment_bytes);
            let enough = smaller < order.capacity && holds(smaller, frame_bytes);
            if failed.error.kind() != ErrorKind::Full || failed.poison || !enough {
                return Err(failed);
            }
            order.capacity = smaller;
        }
    }

    /// What a preparation asks on its way. Before a name is made or removed: whether the directory
    /// is still ours, for one that is not may be somebody's, and a preparation in pieces takes its
    /// time. Between two pieces the background leaves the disk to commits for a while, unless it is
    /// late. It hurries when somebody waits for it or soon will, a caller always, so that no commit
    /// waits for zeros; and it gives up when the log ends.
    fn pace(&self, by: By, step: Step) -> std::result::Result<Go, Stop> {
        let Step::Piece { took, done, capacity } = step else {
            return self.watch.lock_stands().map_err(Stop::NotOurs).map(|()| Go::On);
        };
        if self.member.is_some() {
            // Nobody may be told to hurry under `APPEND`: first writes to allocated space would
            // make every later sync of all processes slower.
            return Ok(Go::On);
        }
        if by == By::Caller && !mutant::is("spare:a-caller-waits-for-zeros") {
            return Ok(Go::Hurry);
        }
        let queue = self.queue();
        let awaited = queue.waiting_for_room > 0 || queue.room_wakers.len() > 0;
        let (tail, over) = (queue.tail, queue.is_over());
        drop(queue);
        if over {
            return Err(Stop::Over);
        }
        if mutant::is("spare:nobody-hurries-it") {
            return Ok(Go::On);
        }
        if awaited || tail.offset > tail.capacity - tail.capacity / SOON_PART {
            return Ok(Go::Hurry);
        }
        // Late if a larger part of what the tail had left is used than of the spare is written.
        let half = tail.capacity / 2;
        let used = u128::from(tail.offset.saturating_sub(half)) * u128::from(capacity);
        if used <= u128::from(done) * u128::from(half) {
            sleep((took * PAUSES).min(PAUSE_MAX));
        }
        Ok(Go::On)
    }

    /// Puts the outcome of a preparation where everybody who waits for it finds it.
    fn prepared(
        &self,
        prepared: std::result::Result<Prepared, PrepareFailed>,
        replaced: Option<Prepared>,
    ) -> Result<()> {
        let mut queue = self.queue();
        queue.preparing = false;
        let failed = match prepared {
            Ok(spare) => {
                queue.spare = Some(spare);
                // What failed before is over: nobody is told of it any more.
                queue.tried = None;
                None
            }
            Err(failed) => {
                // At once: nobody may prepare, and sync the directory again, before it is told.
                if failed.poison && matches!(queue.mode, Mode::Open) {
                    queue.mode =
                        Mode::Poisoned(failed.error.clone().with_kind(ErrorKind::Poisoned));
                }
                queue.preparations_failed += 1;
                queue.preparation_error = Some(failed.error.clone());
                // The smaller spare still has its name: it serves smaller batches as before.
                queue.spare = replaced.filter(|_| !failed.replaced_is_gone);
                Some(failed)
            }
        };
        drop(queue);
        self.tell_of_room();
        let Some(failed) = failed else { return Ok(()) };
        if failed.poison {
            self.poison(failed.error.clone().with_kind(ErrorKind::Poisoned));
        }
        Err(failed.error)
    }
}

fn next_sequence(queue: &Queue) -> Result<Sequence> {
    let next = queue.tail.sequence.next();
    next.ok_or_else(|| Error::invalid("the log has used its last segment number"))
}

fn holds(capacity: u64, frame_bytes: u64) -> bool {
    let used = format::FRAMES_START + format::reserve_bytes(capacity);
    used.checked_add(frame_bytes).is_some_and(|needed| needed <= capacity)
}

/// Twice the active segment's capacity if more than half of it is used, or what the options fix; and
/// for a large batch the next power of two that holds it.
fn capacity_for(frame_bytes: u64, tail: Tail, options: &Options) -> Result<u64> {
    let mut capacity = options.segment_bytes;
    if options.segments_grow {
        let filled = tail.offset > tail.capacity / 2;
        let grown = if filled { tail.capacity.saturating_mul(2) } else { tail.capacity };
        // Of a shared log everybody waits while a turn makes one.
        let most = if options.sharing == Sharing::Processes { SHARED_MAX } else { u64::MAX };
        let most = most.clamp(options.segment_bytes, options.segment_bytes_max);
        capacity = grown.clamp(options.segment_bytes, most);
    }
    while !holds(capacity, frame_bytes) {
        if capacity >= options.segment_bytes_max {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "a batch of {frame_bytes} bytes does not fit a segment of the largest size \
                     ({} bytes): split it, or raise Options::segment_bytes_max",
                    options.segment_bytes_max
                ),
            ));
        }
        capacity = (capacity + 1).next_power_of_two().min(options.segment_bytes_max);
    }
    Ok(capacity)
}

/// The log's own preparer. It owns a share of the directory's lock until it returns.
fn preparer(core: Arc<Core>) {
    loop {
        let frame_bytes = {
            let mut queue = core.queue();
            while !queue.is_over() && !queue.spare_wanted {
                queue = core.ahead.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_over() {
                return;
            }
            queue.spare_wanted = false;
            std::mem::take(&mut queue.spare_bytes)
        };
        // A failure is for whoever needs the spare: that caller tries again and is told.
        let _ = core.prepare_next(frame_bytes, By::Background);
    }
}
