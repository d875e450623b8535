//! What the fleet writes: a function of round, agent and number, so that any process can say what
//! an entry must hold without having been told.

use std::hash::{DefaultHasher, Hash, Hasher};

use annals_observer::{Entry, EntryKind};

/// Entries in one step: a model call and a tool call, a start and an end each.
pub(crate) const ENTRIES_A_STEP: u64 = 4;

pub(crate) fn session(round: u32, agent: u32) -> String {
    format!("demo-{round}-{agent}")
}

pub(crate) fn round_of(session: &str) -> Option<u32> {
    session.strip_prefix("demo-")?.split('-').next()?.parse().ok()
}

/// The kind of the n-th entry of an agent.
pub(crate) fn kind(n: u64) -> EntryKind {
    match n % ENTRIES_A_STEP {
        0 => EntryKind::LlmStart,
        1 => EntryKind::LlmEnd,
        2 => EntryKind::ToolStart,
        _ => EntryKind::ToolEnd,
    }
}

/// A start and its end share a call.
pub(crate) fn call_id(round: u32, agent: u32, n: u64) -> String {
    format!("call-{round}-{agent}-{}", n / 2)
}

/// The text of the n-th entry: short and long ones, so that groups tear at many places.
pub(crate) fn text(round: u32, agent: u32, n: u64) -> String {
    let mut random = Random::new(u64::from(round) << 40 ^ u64::from(agent) << 32 ^ n);
    let words = 4 + random.next() % 60;
    let mut text = format!("round {round} agent {agent} entry {n}:");
    for _ in 0..words {
        text.push_str(&format!(" {:06x}", random.next() & 0xFF_FFFF));
    }
    text
}

/// The hash of what an entry says. SipHash with fixed keys: parent, fleet and check are the same
/// binary.
pub(crate) fn hash(session: &str, kind: EntryKind, call_id: &str, json_text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (session, kind.number(), call_id, json_text).hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn hash_of(entry: &Entry) -> u64 {
    let session = entry.session.as_ref().map_or("", |session| session.as_str());
    let call_id = entry.call_id.as_ref().map_or("", |call| call.as_str());
    let text = entry.input.as_ref().or(entry.output.as_ref()).map_or("", |text| text.as_str());
    hash(session, entry.kind, call_id, text)
}

/// What the n-th entry of an agent must hash to.
pub(crate) fn hash_due(round: u32, agent: u32, n: u64) -> u64 {
    let text = annals_observer::JsonText::string(&text(round, agent, n));
    hash(&session(round, agent), kind(n), &call_id(round, agent, n), text.as_str())
}

pub(crate) fn agent_key(round: u32, agent: u32) -> String {
    format!("demo/{round}/agents/{agent}")
}

pub(crate) fn total_key(round: u32) -> String {
    format!("demo/{round}/total")
}

/// SplitMix64: the demo's own dice, so that a seed means the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// At least 0 and below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
