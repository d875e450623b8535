//! States and steps of the protocol of `docs/adr/0021-several-processes.md`.
//!
//! A log is a list of increments of one counter; an increment's value is the counter that its
//! process saw, plus one. The page cache shows every record; a record is on the disk, on its way
//! there, or only in the cache because its sync failed (and later syncs say nothing of it).
//! `CONTROL` lives in the cache alone. Segments, frames and the salt are left out: recovery's rows
//! A' and B are one step here, and are swept elsewhere (`cargo xtask crash-sweep`).
//! Next room: [`super::check`].

use std::fmt;

use stateright::{Model, Property};

/// A rule left out on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// A holder validates against what it saw at its last turn.
    NoCatchUp,
    /// `APPEND` is given back, its mark cleared, before the sync.
    ReleaseBeforeSync,
    /// Who finds a mark takes what the cache shows, and does not write it again.
    NoRewrite,
    /// No mark is set before a write.
    NoMark,
    /// Who was not able to tell `CONTROL` of its record is told all the same that it is durable.
    Unpublished,
}

impl Broken {
    /// All of them; the first three are the issue's.
    pub const ALL: [Broken; 5] = [
        Broken::NoCatchUp,
        Broken::ReleaseBeforeSync,
        Broken::NoRewrite,
        Broken::NoMark,
        Broken::Unpublished,
    ];
}

/// How much may happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bounds {
    /// Processes.
    pub processes: u8,
    /// Increments that each wants acknowledged.
    pub increments: u8,
    /// Processes killed, at any step.
    pub kills: u8,
    /// The machine stops, at any step.
    pub power_cuts: u8,
    /// Syncs that fail.
    pub sync_errors: u8,
    /// Writes of `CONTROL` that fail: of the mark, of what is durable, of the mark's end.
    pub control_errors: u8,
}

impl Bounds {
    /// Two processes, and much that goes wrong.
    pub const TWO: Bounds = Bounds {
        processes: 2,
        increments: 2,
        kills: 1,
        power_cuts: 1,
        sync_errors: 1,
        control_errors: 1,
    };
    /// Three processes, and one of each.
    pub const THREE: Bounds = Bounds {
        processes: 3,
        increments: 1,
        kills: 1,
        power_cuts: 1,
        sync_errors: 1,
        control_errors: 1,
    };
}

/// Where a record is besides the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Store {
    /// On its way: the next sync brings it to the disk, or fails to.
    Dirty,
    /// Nowhere: its sync failed, and the cache calls it clean.
    Lost,
    /// On the disk.
    Disk,
}

/// Who wrote it, and its how-many-eth try that was.
pub type Id = (u8, u8);

/// One increment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    /// The counter after it.
    pub value: u8,
    /// Which one.
    pub id: Id,
    /// Whether all of it is there.
    pub whole: bool,
    /// Where.
    pub store: Store,
}

/// What `CONTROL` says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Control {
    /// Somebody may have written and not synced.
    pub mark: bool,
    /// So many records are durable.
    pub end: u8,
}

/// Where a process is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Not running.
    Dead,
    /// Has `APPEND`, to open the log; `LOCK` said whether nobody else lives.
    Opening {
        /// It had `LOCK` alone.
        alone: bool,
    },
    /// Recovers: has set the mark.
    Recovering,
    /// Has written again what nothing vouches for.
    Rewritten,
    /// A member between turns.
    Idle,
    /// Has `APPEND`, and a clean mark.
    Entered,
    /// Has set the mark.
    Marked,
    /// Has read what others wrote, and orders.
    CaughtUp,
    /// Has written.
    Written,
    /// Has synced.
    Synced,
    /// Has told `CONTROL`, and its caller.
    Published,
    /// Only where a rule is left out: has given `APPEND` back and not synced.
    WrittenAndReleased,
}

impl Phase {
    /// Whether it has `APPEND`.
    pub fn holds_append(self) -> bool {
        !matches!(self, Phase::Dead | Phase::Idle | Phase::WrittenAndReleased)
    }

    /// Whether it is a member that has read the log.
    pub fn has_a_view(self) -> bool {
        !matches!(self, Phase::Dead | Phase::Opening { .. } | Phase::Recovering | Phase::Rewritten)
    }
}

/// One process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    /// Where it is.
    pub phase: Phase,
    /// So many records it has read, or had acknowledged.
    pub seen: u8,
    /// Increments that it still wants acknowledged.
    pub left: u8,
    /// Counts its writes.
    pub tries: u8,
}

/// A state of the whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// What the page cache shows.
    pub records: Vec<Record>,
    /// Of the cache too.
    pub control: Control,
    /// The processes.
    pub procs: Vec<Process>,
    /// Who was told that its record is durable: its place and which one.
    pub acknowledged: Vec<(u8, Id)>,
    /// A member found a mark while others lived.
    pub recovered_while_shared: bool,
    /// What may still go wrong.
    pub kills: u8,
    /// Power cuts left.
    pub power_cuts: u8,
    /// Failing syncs left.
    pub sync_errors: u8,
    /// Failing writes of `CONTROL` left.
    pub control_errors: u8,
}

/// What becomes of a record that was on its way when the power went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It arrived.
    Kept,
    /// A part of it did, or nothing.
    Torn,
}

/// One step of one process, or of fate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "`stands_for` says what each is")]
pub enum Action {
    TakeToOpen(u8),
    Join(u8),
    BeginRecovery(u8),
    Rewrite(u8),
    SyncRecovery(u8, bool),
    Take(u8),
    CatchUp(u8),
    Mark(u8, bool),
    Write(u8),
    Sync(u8, bool),
    Publish(u8, bool),
    Release(u8, bool),
    ReleaseEarly(u8),
    Peek(u8),
    Kill(u8),
    KillInWrite(u8),
    PowerCut { fates: Vec<Fate>, control: bool },
}

impl Action {
    /// The code, or the part of the world, that it stands for.
    pub fn stands_for(&self) -> &'static str {
        match self {
            Action::TakeToOpen(_) => "share::open: Append::take, then LOCK tried alone",
            Action::Join(_) => "share::open::join",
            Action::BeginRecovery(_) => {
                "share::open, Core::recover_after_another: ControlBlock::open, marked"
            }
            Action::Rewrite(_) => "recover::apply (rows A' and B): Repair::settle",
            Action::SyncRecovery(..) => "recover::apply: SyncPoint::Kept or Cut, Writer::new",
            Action::Take(_) => "share::begin: Append::take, ControlBlock::read_back",
            Action::CatchUp(_) => "share::begin: Core::read_to, catch_up",
            Action::Mark(..) => "ControlBlock::mark",
            Action::Write(_) => "Queue::admit, Writer::commit: write_once",
            Action::Sync(..) => "Writer::commit: SyncPoint::Group",
            Action::Publish(..) => "Writer::commit: ControlBlock::publish, Core::committed",
            Action::Release(..) => "share::turn: Core::see_to_the_turn, ControlBlock::clear",
            Action::ReleaseEarly(_) => "nothing: the rule that is left out",
            Action::Peek(_) => "Core::look, View::refreshed: a reader of CONTROL's durable end",
            Action::Kill(_) | Action::KillInWrite(_) => "SIGKILL: the cache stays, locks are free",
            Action::PowerCut { .. } => "a power cut: the cache is gone",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} [{}]", self.stands_for())
    }
}

/// The model: its bounds, and a rule left out or none.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How much may happen.
    pub bounds: Bounds,
    /// The rule left out.
    pub broken: Option<Broken>,
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let b = self.bounds;
        let process = Process { phase: Phase::Dead, seen: 0, left: b.increments, tries: 0 };
        vec![State {
            records: Vec::new(),
            control: Control::default(),
            procs: vec![process; usize::from(b.processes)],
            acknowledged: Vec::new(),
            recovered_while_shared: false,
            kills: b.kills,
            power_cuts: b.power_cuts,
            sync_errors: b.sync_errors,
            control_errors: b.control_errors,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let free = !state.procs.iter().any(|process| process.phase.holds_append());
        for (p, process) in (0..).zip(&state.procs) {
            self.steps_of(state, p, process, free, actions);
            if process.phase != Phase::Dead && state.kills > 0 {
                actions.push(Action::Kill(p));
                if process.phase == Phase::CaughtUp {
                    actions.push(Action::KillInWrite(p));
                }
            }
        }
        if state.power_cuts > 0 {
            power_cuts(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.step(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        super::check::properties()
    }
}

impl Protocol {
    fn steps_of(&self, s: &State, p: u8, process: &Process, free: bool, out: &mut Vec<Action>) {
        let fails = |left: u8, make: fn(u8, bool) -> Action, out: &mut Vec<Action>| {
            out.push(make(p, true));
            if left > 0 {
                out.push(make(p, false));
            }
        };
        match process.phase {
            Phase::Dead if free && process.left > 0 => out.push(Action::TakeToOpen(p)),
            Phase::Opening { alone } if alone || s.control.mark => {
                out.push(Action::BeginRecovery(p));
            }
            Phase::Opening { .. } => out.push(Action::Join(p)),
            Phase::Recovering => out.push(Action::Rewrite(p)),
            Phase::Rewritten => fails(s.sync_errors, Action::SyncRecovery, out),
            Phase::Idle => {
                if free && process.left > 0 {
                    out.push(Action::Take(p));
                }
                if s.control.end > process.seen {
                    out.push(Action::Peek(p));
                }
            }
            Phase::Entered if s.control.mark => out.push(Action::BeginRecovery(p)),
            Phase::Entered => fails(s.control_errors, Action::Mark, out),
            Phase::Marked => out.push(Action::CatchUp(p)),
            Phase::CaughtUp => out.push(Action::Write(p)),
            Phase::Written if self.broken == Some(Broken::ReleaseBeforeSync) => {
                out.push(Action::ReleaseEarly(p));
            }
            Phase::Written | Phase::WrittenAndReleased => fails(s.sync_errors, Action::Sync, out),
            Phase::Synced => fails(s.control_errors, Action::Publish, out),
            Phase::Published => fails(s.control_errors, Action::Release, out),
            Phase::Dead => {}
        }
    }

    fn step(&self, s: &mut State, action: Action) {
        match action {
            Action::TakeToOpen(p) => {
                let alone = s.procs.iter().all(|process| process.phase == Phase::Dead);
                s.procs[at(p)].phase = Phase::Opening { alone };
            }
            Action::Join(p) => self.catch_up(s, p, Phase::Idle),
            Action::BeginRecovery(p) => {
                let mut others = (0..).zip(&s.procs).filter(|(other, _)| *other != p);
                s.recovered_while_shared |= others.any(|(_, o)| o.phase != Phase::Dead);
                s.control.mark = true;
                s.procs[at(p)].phase = Phase::Recovering;
            }
            Action::Rewrite(p) => self.rewrite(s, p),
            Action::SyncRecovery(p, works) => self.sync_recovery(s, p, works),
            Action::Take(p) => s.procs[at(p)].phase = Phase::Entered,
            Action::CatchUp(p) if self.broken == Some(Broken::NoCatchUp) => {
                s.procs[at(p)].phase = Phase::CaughtUp;
            }
            Action::CatchUp(p) => self.catch_up(s, p, Phase::CaughtUp),
            Action::Mark(p, true) => {
                s.control.mark = self.broken != Some(Broken::NoMark);
                s.procs[at(p)].phase = Phase::Marked;
            }
            Action::Mark(p, false) => {
                // Nothing was ordered; the call fails and APPEND is given back.
                s.control_errors -= 1;
                s.procs[at(p)].phase = Phase::Idle;
            }
            Action::Write(p) => self.write(s, p, true),
            Action::Sync(p, works) => self.sync(s, p, works),
            Action::Publish(p, works) => self.publish(s, p, works),
            Action::Release(p, works) => {
                if works {
                    s.control.mark = false;
                } else {
                    s.control_errors -= 1;
                }
                s.procs[at(p)].phase = Phase::Idle;
            }
            Action::ReleaseEarly(p) => {
                s.control.mark = false;
                s.procs[at(p)].phase = Phase::WrittenAndReleased;
            }
            Action::Peek(p) => s.procs[at(p)].seen = s.control.end,
            Action::Kill(p) => kill(s, p),
            Action::KillInWrite(p) => {
                self.write(s, p, false);
                kill(s, p);
            }
            Action::PowerCut { fates, control } => power_cut(s, &fates, control),
        }
    }

    /// Reads on from where it stood, as far as there is anything.
    fn catch_up(&self, s: &mut State, p: u8, then: Phase) {
        let process = &mut s.procs[at(p)];
        let whole = s.records.iter().take_while(|record| record.whole).count();
        process.seen = process.seen.max(byte(whole));
        process.phase = then;
    }

    /// Rows A' and B: whole records stay, from memory and dirty again; the rest is cut.
    fn rewrite(&self, s: &mut State, p: u8) {
        let whole = s.records.iter().take_while(|record| record.whole).count();
        s.records.truncate(whole);
        for record in s.records.iter_mut().skip(usize::from(s.control.end)) {
            // The same bytes over those that the disk has change nothing there.
            if record.store == Store::Lost && self.broken != Some(Broken::NoRewrite) {
                record.store = Store::Dirty;
            }
        }
        s.procs[at(p)].phase = Phase::Rewritten;
    }

    fn sync_recovery(&self, s: &mut State, p: u8, works: bool) {
        sync_file(s, works);
        if !works {
            s.sync_errors -= 1;
            // The opening fails, or the member is poisoned; the mark stays.
            return leave(s, p);
        }
        s.control = Control { mark: false, end: byte(s.records.len()) };
        self.catch_up(s, p, Phase::Idle);
    }

    fn write(&self, s: &mut State, p: u8, whole: bool) {
        let process = &mut s.procs[at(p)];
        process.tries += 1;
        let seen = usize::from(process.seen);
        let value = process.seen.checked_sub(1).and_then(|last| s.records.get(usize::from(last)));
        let value = value.map_or(0, |record| record.value) + 1;
        let record = Record { value, id: (p, process.tries), whole, store: Store::Dirty };
        // At the end as this process knows it.
        if seen < s.records.len() {
            s.records[seen] = record;
        } else {
            s.records.push(record);
        }
        process.phase = Phase::Written;
    }

    fn sync(&self, s: &mut State, p: u8, works: bool) {
        sync_file(s, works);
        if !works {
            s.sync_errors -= 1;
            // Poisoned: its waiters learn *unknown*, the mark stays, it must open the log again.
            return leave(s, p);
        }
        if s.procs[at(p)].phase == Phase::WrittenAndReleased {
            self.publish(s, p, true);
            s.procs[at(p)].phase = Phase::Idle;
        } else {
            s.procs[at(p)].phase = Phase::Synced;
        }
    }

    fn publish(&self, s: &mut State, p: u8, works: bool) {
        if !works {
            s.control_errors -= 1;
            if self.broken != Some(Broken::Unpublished) {
                // Poisoned, as by a failed sync.
                return leave(s, p);
            }
        }
        let process = &mut s.procs[at(p)];
        s.acknowledged.push((process.seen, (p, process.tries)));
        s.acknowledged.sort_unstable();
        process.seen += 1;
        process.left -= 1;
        process.phase = Phase::Published;
        if works {
            s.control.end = process.seen;
        }
    }
}

/// One file's dirty pages, whoever made them dirty.
fn sync_file(s: &mut State, works: bool) {
    let then = if works { Store::Disk } else { Store::Lost };
    let dirty = s.records.iter_mut().filter(|record| record.store == Store::Dirty);
    dirty.for_each(|record| record.store = then);
}

fn kill(s: &mut State, p: u8) {
    s.kills -= 1;
    leave(s, p);
}

fn leave(s: &mut State, p: u8) {
    let process = &mut s.procs[at(p)];
    process.phase = Phase::Dead;
    process.seen = 0;
}

/// Every fate of the records on their way, and `CONTROL` as it was or gone.
fn power_cuts(state: &State, actions: &mut Vec<Action>) {
    let dirty = state.records.iter().filter(|record| record.store == Store::Dirty).count();
    for choice in 0..1_u32 << dirty {
        let fate = |n: usize| if choice >> n & 1 == 0 { Fate::Kept } else { Fate::Torn };
        let fates: Vec<Fate> = (0..dirty).map(fate).collect();
        for control in [true, false] {
            actions.push(Action::PowerCut { fates: fates.clone(), control });
        }
    }
}

fn power_cut(s: &mut State, fates: &[Fate], control: bool) {
    s.power_cuts -= 1;
    let mut fates = fates.iter();
    for record in &mut s.records {
        record.whole &= match record.store {
            Store::Disk => true,
            Store::Lost => false,
            Store::Dirty => fates.next() == Some(&Fate::Kept),
        };
        record.store = Store::Disk;
    }
    // Never synced: what a cut leaves of it says too little at most, and a mark may be missing.
    if !control {
        s.control = Control::default();
    }
    for p in 0..byte(s.procs.len()) {
        leave(s, p);
    }
}

fn at(p: u8) -> usize {
    usize::from(p)
}

/// The bounds keep everything counted here far below 256.
fn byte(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}
