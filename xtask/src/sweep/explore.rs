//! One script, disturbed everywhere.
//!
//! Never here: a sample where all can be had. A disturbance is a stop of the machine after an
//! operation (with what the crash keeps) or a fault at it. After one in the script the script goes
//! on to its end; then, from the same state, the opening that follows is disturbed at each of its
//! operations, and so is the opening after that. Next room: [`crate::world`].

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_wal::fs::mem::{Fault, Keep, MemDir, SyncFailure};

use super::{Script, Swept};
use crate::world::{Act, Life, Model, World};

/// How far a sweep goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Depth {
    /// How many openings after a disturbance are disturbed too: 0, 1 or 2.
    pub nested: usize,
    /// Whether every disturbed state's opening is disturbed, or that of one crash and one error an
    /// operation.
    pub nested_from_all: bool,
    /// How many subsets of what was not synced a crash in the script keeps, besides none and all.
    pub subsets: u64,
    /// Every how many operations the script is disturbed: 1 is all of them.
    pub stride: usize,
}

impl Depth {
    /// Everything.
    pub const WHOLE: Depth = Depth { nested: 2, nested_from_all: true, subsets: 4, stride: 1 };
    /// What a test suite has time for.
    pub const QUICK: Depth = Depth { nested: 1, nested_from_all: false, subsets: 1, stride: 3 };
}

/// Below this many outcomes of a crash all of them are tried, and not a few drawn.
const ENUMERATED_MAX: u64 = 12;
/// Violations reported of one script; more would be the same again.
const REPORTED_MAX: usize = 3;

/// The errors tried at every operation of a script.
const FAULTS: [Fault; 8] = [
    Fault::Error(5),
    Fault::Error(28),
    Fault::Error(122),
    Fault::Sync(SyncFailure::CleanOld),
    Fault::Writeback(SyncFailure::CleanNew),
    Fault::Writeback(SyncFailure::CleanOld),
    Fault::Short(7),
    Fault::Interrupted,
];
/// What an opening is disturbed by, and which processes or machines come next: each of them finds
/// what the same disturbed opening left.
const NESTED: [(Option<Fault>, &[Next]); 4] = [
    (None, &[Next::Some, Next::Nothing, Next::Kill]),
    (Some(Fault::Error(5)), &[Next::Kill, Next::Nothing]),
    (Some(Fault::Error(28)), &[Next::Kill]),
    (Some(Fault::Sync(SyncFailure::CleanOld)), &[Next::Kill]),
];
/// The first ends of the first two of them lead on to the second nesting, and are all that is done
/// there.
const NESTED_DEEP: usize = 2;

/// Who comes after a disturbed opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Another process on the same machine.
    Kill,
    /// A machine whose disk has only what was synced.
    Nothing,
    /// A machine whose disk has some of the rest.
    Some,
}

/// Sweeps one script.
pub fn sweep(script: &Script, depth: Depth) -> Swept {
    let mut explorer = Explorer {
        script,
        depth: Depth { nested: depth.nested.min(script.nested_max), ..depth },
        trouble: None,
        lived: HashSet::new(),
        settled: HashSet::new(),
        opened: [HashSet::new(), HashSet::new(), HashSet::new()],
        swept: Swept::default(),
    };
    explorer.script();
    explorer.swept
}

struct Explorer<'a> {
    script: &'a Script,
    depth: Depth,
    /// The act of the undisturbed script that ends its log by itself: a full disk, a lost name.
    trouble: Option<usize>,
    /// States from which the rest of the script was lived.
    lived: HashSet<(u64, u64, usize)>,
    /// States that were settled and opened once more.
    settled: HashSet<(u64, u64)>,
    /// States whose opening was gone through, by level.
    opened: [HashSet<(u64, u64)>; 3],
    swept: Swept,
}

/// A log that was disturbed, as the next process finds it.
struct State {
    disk: MemDir,
    model: Model,
    /// The act of the script to go on with.
    next: usize,
    /// Whether the second nesting is looked at from here: for one crash and one error an operation.
    deep: bool,
    /// Whether the act before `next` is where the machine stopped or the log failed.
    troubled: bool,
}

impl State {
    /// Two states with equal keys are the same to a sweep.
    fn key(&self) -> (u64, u64) {
        (self.disk.state_hash(), self.model.hash())
    }

    /// What the next process or machine finds of it.
    fn found_by(&self, next: Next, op: u64) -> State {
        let disk = match next {
            Next::Kill => self.disk.killed(),
            Next::Nothing => self.disk.crash(Keep::Nothing),
            Next::Some => self.disk.crash(Keep::Some(op * 7919 + 13)),
        };
        State { disk, model: self.model.clone(), ..*self }
    }
}

/// How a state came about. Only a violation needs the words, and there are millions of states.
#[derive(Clone, Copy)]
enum Told<'a> {
    Script { op: u64, how: How },
    Undisturbed,
    Opening { before: &'a Told<'a>, op: u64, fault: Option<Fault>, next: Option<Next> },
}

/// What was done to a script.
#[derive(Clone, Copy, Debug)]
enum How {
    Stop,
    Crash(Keep),
    Kill,
    Fault(Fault),
}

impl<'a> Told<'a> {
    fn then(self, then: Next) -> Told<'a> {
        match self {
            Told::Opening { before, op, fault, .. } => {
                Told::Opening { before, op, fault, next: Some(then) }
            }
            other => other,
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Undisturbed => write!(f, "undisturbed"),
            Told::Script { op, how: How::Stop } => write!(f, "stop after {op}"),
            Told::Script { op, how: How::Crash(keep) } => write!(f, "stop after {op}, {keep:?}"),
            Told::Script { op, how: How::Kill } => write!(f, "kill after {op}"),
            Told::Script { op, how: How::Fault(fault) } => write!(f, "{fault:?} at {op}"),
            Told::Opening { before, op, fault, next } => {
                match fault {
                    None => write!(f, "{before}; opening stopped after {op}")?,
                    Some(fault) => write!(f, "{before}; {fault:?} at {op} of the opening")?,
                }
                next.map_or(Ok(()), |next| write!(f, ", {next:?}"))
            }
        }
    }
}

impl Explorer<'_> {
    fn life(&self) -> Life {
        self.script.life
    }

    fn script(&mut self) {
        let mut whole = World::new(self.life());
        let undisturbed = whole_script(&mut whole, &self.script.acts);
        if let Err(why) = undisturbed {
            return self.violation(&Told::Undisturbed, &why);
        }
        let ops = whole.tally.ops + whole.disk.ops();
        let ops = ops.min(self.script_ops());
        let alone = self.run_until(&Told::Undisturbed, false, |_| ());
        // A script that goes on to its end has no trouble of its own.
        self.trouble = alone.filter(|state| state.troubled).map(|state| state.next - 1);
        self.swept.ops = ops;
        for op in (0..=ops).step_by(self.depth.stride) {
            self.crash_at(op);
            for fault in FAULTS {
                self.fail_at(op, fault);
            }
            if self.swept.violations.len() >= REPORTED_MAX {
                return;
            }
        }
    }

    /// Operations of the acts alone, without what [`World::finish`] adds.
    fn script_ops(&self) -> u64 {
        let mut world = World::new(self.life());
        for act in &self.script.acts {
            if world.act(act).is_err() {
                break;
            }
        }
        world.tally.ops + world.disk.ops()
    }

    fn crash_at(&mut self, op: u64) {
        let told = Told::Script { op, how: How::Stop };
        let state = self.run_until(&told, false, |disk| disk.stop_after(op));
        let Some(mut state) = state else { return };
        // Somebody reads what the machine shows before its power goes: what was shown must stay.
        let mut reader = World::at(self.life(), state.disk.killed(), state.model.clone());
        if let Err(why) = caught(|| reader.peek()) {
            return self.violation(&told, &why);
        }
        state.model = reader.into_parts().1;
        for (n, keep) in keeps(&state.disk, self.depth.subsets, op).into_iter().enumerate() {
            self.swept.crashes[0] += 1;
            let disk = state.disk.crash(keep);
            let told = Told::Script { op, how: How::Crash(keep) };
            let model = state.model.clone();
            self.go_on(State { disk, model, deep: n == 2, ..state }, &told);
        }
        self.swept.crashes[0] += 1;
        let disk = state.disk.killed();
        self.go_on(State { disk, deep: false, ..state }, &Told::Script { op, how: How::Kill });
    }

    fn fail_at(&mut self, op: u64, fault: Fault) {
        self.swept.errors[0] += 1;
        let told = Told::Script { op, how: How::Fault(fault) };
        let harmless = fault == Fault::Interrupted;
        let state = self.run_until(&told, harmless, |disk| disk.fault_at(op, fault));
        let Some(state) = state else { return };
        let disk = state.disk.killed();
        self.go_on(State { disk, deep: fault == FAULTS[0], ..state }, &told);
    }

    /// Runs the script with this disturbance until it takes effect: the machine stands still, the
    /// log has failed or could not be opened. A fault that is survived lets the script end.
    /// A harmless one must not fail anything.
    fn run_until(
        &mut self,
        told: &Told<'_>,
        harmless: bool,
        disturb: impl Fn(&MemDir),
    ) -> Option<State> {
        let acts = &self.script.acts;
        let (life, own_trouble) = (self.life(), self.trouble);
        let ran = caught(|| {
            let mut world = World::new(life);
            disturb(&world.disk);
            world.pause_on_trouble();
            for (index, act) in acts.iter().enumerate() {
                world.act(act)?;
                let troubled = world.disk.stopped() || world.failed();
                if troubled && harmless && Some(index) != own_trouble {
                    return Err("an interrupted call failed the log".to_owned());
                }
                if troubled {
                    let (disk, model) = world.into_parts();
                    return Ok(State { disk, model, next: index + 1, deep: false, troubled });
                }
            }
            let (disk, model) = world.into_parts();
            Ok(State { disk, model, next: acts.len(), deep: false, troubled: false })
        });
        ran.map_err(|why| self.violation(told, &why)).ok()
    }

    /// From a disturbed state: the rest of the script, then the disturbed openings.
    fn go_on(&mut self, state: State, told: &Told<'_>) {
        let key = state.key();
        if self.lived.insert((key.0, key.1, state.next)) {
            self.swept.states += 1;
            let rest = &self.script.acts[state.next..];
            let mut world = World::at(self.life(), state.disk.killed(), state.model.clone());
            world.pass_rows();
            if let Err(why) = caught(|| whole_script(&mut world, rest)) {
                return self.violation(told, &why);
            }
        }
        self.nested(&state, key, 0, told);
    }

    /// Disturbs the opening of this state at every one of its operations.
    fn nested(&mut self, state: &State, key: (u64, u64), level: usize, told: &Told<'_>) {
        if !self.depth.nested_from_all && !state.deep {
            return;
        }
        if level >= self.depth.nested || !self.opened[level].insert(key) {
            return;
        }
        let ops = match self.opening_ops(state) {
            Ok(ops) => ops,
            Err(why) => return self.violation(told, &why),
        };
        let variants = if level == 0 { &NESTED[..] } else { &NESTED[..NESTED_DEEP] };
        for op in 0..=ops {
            for (n, (fault, all_next)) in variants.iter().enumerate() {
                let told = Told::Opening { before: told, op, fault: *fault, next: None };
                let Some(left) = self.disturb_opening(state, op, *fault, &told) else { continue };
                let all_next = if level == 0 { all_next } else { &all_next[..1] };
                for (m, next) in all_next.iter().enumerate() {
                    let told = told.then(*next);
                    let point = if fault.is_none() {
                        &mut self.swept.crashes
                    } else {
                        &mut self.swept.errors
                    };
                    point[level + 1] += 1;
                    let state = left.found_by(*next, op);
                    let key = state.key();
                    self.settle(&state, key, &told);
                    if state.deep && n < NESTED_DEEP && m == 0 {
                        self.nested(&state, key, level + 1, &told);
                    }
                }
            }
            if self.swept.violations.len() >= REPORTED_MAX {
                return;
            }
        }
    }

    fn opening_ops(&self, state: &State) -> Result<u64, String> {
        let mut world = World::at(self.life(), state.disk.killed(), state.model.clone());
        world.pause_on_trouble();
        caught(|| world.ensure_open())?;
        Ok(world.disk.ops())
    }

    fn disturb_opening(
        &mut self,
        state: &State,
        op: u64,
        fault: Option<Fault>,
        told: &Told<'_>,
    ) -> Option<State> {
        let mut world = World::at(self.life(), state.disk.killed(), state.model.clone());
        world.pause_on_trouble();
        match fault {
            None => world.disk.stop_after(op),
            Some(fault) => world.disk.fault_at(op, fault),
        }
        if let Err(why) = caught(|| world.ensure_open()) {
            self.violation(told, &why);
            return None;
        }
        let (disk, model) = world.into_parts();
        Some(State { disk, model, next: 0, deep: state.deep, troubled: true })
    }

    /// The log opens, holds what it must, and keeps what it is given. Most states are settled in
    /// the same way: with the power gone, disk and model are all there is, and the opening of equal
    /// ones is the same.
    fn settle(&mut self, state: &State, key: (u64, u64), told: &Told<'_>) {
        if !self.lived.insert((key.0, key.1, usize::MAX)) {
            return;
        }
        self.swept.states += 1;
        let mut world = World::at(self.life(), state.disk.killed(), state.model.clone());
        let settled = caught(|| {
            world.settle()?;
            let key = (world.disk.state_hash(), world.model.hash());
            if self.settled.insert(key) { world.ensure_open() } else { Ok(()) }
        });
        if let Err(why) = settled {
            self.violation(told, &why);
        }
    }

    fn violation(&mut self, told: &Told<'_>, why: &str) {
        self.swept.violations.push(format!("{}: {told}: {why}", self.script.name));
    }
}

fn whole_script(world: &mut World, acts: &[Act]) -> Result<(), String> {
    for (index, act) in acts.iter().enumerate() {
        world.act(act).map_err(|why| format!("{why} (act {index} of the rest, {act:?})"))?;
    }
    world.finish().map_err(|why| format!("{why} (at the end)"))
}

/// What is kept: all outcomes where they are few, else none, all, and some subsets.
fn keeps(disk: &MemDir, subsets: u64, salt: u64) -> Vec<Keep> {
    let outcomes = disk.crash_outcomes();
    if outcomes <= ENUMERATED_MAX.min(subsets * 4) {
        return (0..outcomes).map(Keep::Nth).collect();
    }
    let some = (0..subsets).map(|n| Keep::Some(n * 7919 + salt * 104_729 + 1));
    [Keep::Nothing, Keep::Everything].into_iter().chain(some).collect()
}

fn caught<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("panic, see above".to_owned()))
}
