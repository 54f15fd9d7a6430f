//! Writers, collectors, forgetting and clean-up: rules N, V, W and C.
//!
//! Session 0 is an old committed snapshot; writer `i` is session `i + 1`. Packs 0 and 1 are old, pack `i + 2` is
//! what writer `i` uploads. Sets are bit masks. A delete that was sent may land at any time afterwards, and more
//! than once: so a client that stalls just before it sends is covered too.

mod collector;
mod quiet;
mod upkeep;
mod writer;

use crate::rules::{Rule, Rules};
use crate::search::{Model, Step};
use collector::Collector;
use writer::Writer;

/// Sessions at most.
const SESSIONS: usize = 3;
/// Lists at most: two of each collector.
const LISTS: usize = 4;
/// The bit that tells an empty list or record from none.
const THERE: u8 = 0x80;
/// An end that shuts its session out, or says that it gave up.
const FENCED: u8 = 1;
/// An end that does not verify.
const FORGED: u8 = 2;
/// The other sending of pack 0.
const SECOND: u8 = 0x10;
/// A client that is done.
const DONE: u8 = 99;

/// How a writer comes by a pack of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// It reuses nothing.
    Nothing,
    /// Something names these packs, however stale.
    Hint(u8),
    /// The snapshot of this session is its parent.
    Parent(u8),
}

/// What takes part in a run.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// What is in force.
    pub rules: Rules,
    /// How each writer comes by packs of others; as many writers as entries.
    pub writers: &'static [Via],
    /// Writers upload a chunk of their own as well.
    pub own: bool,
    /// Collectors, at most two.
    pub collectors: u8,
    /// Lists that one collector creates at most, one or two.
    pub lists: u8,
    /// Each pack has a list of its own; one mark serves both.
    pub split: bool,
    /// Old packs that exist.
    pub packs: u8,
    /// Those that the old snapshot names.
    pub named: u8,
    /// Sessions that may be forgotten.
    pub forget: u8,
    /// Sessions that are cleaned up.
    pub cleanup: u8,
    /// Orphan ends are looked for.
    pub orphans: bool,
    /// Others finish lists (C10).
    pub finish: bool,
    /// Replies may be lost, and the request may land later.
    pub lost: bool,
    /// Writers may give up.
    pub abandon: bool,
    /// Listings come in two pages.
    pub paged: bool,
    /// Both collectors would give a list the same name: what rule N1 is there for.
    pub one_name: bool,
    /// Somebody with a mover's rights forges ends and markers.
    pub forge_ends: bool,
    /// Somebody with a mover's rights forges lists and finals.
    pub forge_lists: bool,
    /// The thief puts copies of old objects back.
    pub replay: bool,
    /// Those who finish lists of the first collector were started before a key rotation, that collector after it.
    pub old_keys: bool,
    /// Pack 0 was sent twice, under two names of which either serves; the first request was given up and may land
    /// late.
    pub twice: bool,
    /// From every state: everyone else dies, one collector alone must leave exactly what is needed.
    pub quiet: bool,
}

impl Commit {
    /// Nobody at all, with the one old pack.
    pub const NOBODY: Self = Self {
        rules: Rules::all(),
        writers: &[],
        own: false,
        collectors: 0,
        lists: 1,
        split: false,
        packs: 1,
        named: 1,
        forget: 0,
        cleanup: 0,
        orphans: false,
        finish: false,
        lost: false,
        abandon: false,
        paged: false,
        one_name: false,
        forge_ends: false,
        forge_lists: false,
        replay: false,
        old_keys: false,
        twice: false,
        quiet: false,
    };

    fn on(&self, rule: Rule) -> bool {
        self.rules.on(rule)
    }

    fn sessions(&self) -> std::ops::Range<usize> {
        0..self.writers.len() + 1
    }
}

/// Store, clients and requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    packs: u8,
    sessions: u8,
    ends: [u8; SESSIONS],
    markers: u8,
    forged_markers: u8,
    condemned: [u8; LISTS],
    finals: [u8; LISTS],
    /// Deletes of packs that were sent.
    sent: u8,
    /// Requests to create these sessions are in flight.
    late_sessions: u8,
    /// Requests to create the ends of these sessions are in flight.
    late_ends: u8,
    /// Requests to create these packs are in flight.
    late_packs: u8,
    writers: [Writer; 2],
    collectors: [Collector; 2],
    /// Lists that somebody who finishes them found there, and whose packs it is about to delete.
    finishing: u8,
    /// How far each list is dropped by somebody who finishes it.
    dropping: [u8; LISTS],
    /// What the thief has kept of each list.
    copies: [u8; LISTS],
    cleanup: [u8; SESSIONS],
    orphans: (u8, u8),
    forgotten: u8,
    success: u8,
}

type Steps = Vec<Step<State>>;

impl State {
    fn is_gone(&self, session: usize) -> bool {
        self.sessions & bit(session) == 0
    }

    /// What a visible snapshot names.
    fn visible(&self, model: &Commit, session: usize) -> Option<u8> {
        let out_of_view = self.hidden(model) & bit(session) != 0 || self.is_gone(session);
        record(self.ends[session]).filter(|_| !out_of_view)
    }

    /// Sessions with a marker that counts.
    fn hidden(&self, model: &Commit) -> u8 {
        if model.on(Rule::AUTH) { self.markers } else { self.markers | self.forged_markers }
    }
}

/// The packs of a record, if that is what the end is.
fn record(end: u8) -> Option<u8> {
    (end & THERE != 0).then_some(end & !THERE)
}

const fn bit(session: usize) -> u8 {
    1 << session
}

impl Model for Commit {
    type State = State;

    fn initial(&self) -> State {
        let doubled = !self.on(Rule::N1) && !self.one_name;
        let late = if self.twice { SECOND } else { 0 };
        State {
            packs: self.packs,
            sessions: 1,
            ends: [THERE | self.named, 0, 0],
            markers: 0,
            forged_markers: 0,
            condemned: [0; LISTS],
            finals: [0; LISTS],
            sent: 0,
            late_sessions: 0,
            late_ends: 0,
            late_packs: late | u8::from(doubled),
            writers: [Writer::default(); 2],
            collectors: [Collector::default(); 2],
            finishing: 0,
            dropping: [0; LISTS],
            copies: [0; LISTS],
            cleanup: [0; SESSIONS],
            orphans: (0, 0),
            forgotten: 0,
            success: 1,
        }
    }

    fn steps(&self, state: &State, out: &mut Steps) {
        for who in 0..self.writers.len() {
            writer::steps(self, state, who, out);
        }
        for who in 0..usize::from(self.collectors) {
            collector::steps(self, state, who, out);
        }
        upkeep::steps(self, state, out);
        landings(self, state, out);
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        for session in self.sessions() {
            let visible = state.visible(self, session);
            if let Some(needed) = visible {
                if state.forgotten & bit(session) != 0 {
                    return Some("a forgotten snapshot is visible again");
                }
                let packs = first_of(state.packs);
                let copy = !self.on(Rule::W6) && state.packs & needed_copies(needed) != 0;
                if packs & needed != needed && !copy {
                    return Some("a visible snapshot lost a pack");
                }
            } else if state.success & !state.forgotten & bit(session) != 0 {
                return Some("a snapshot that was reported as stored is not visible");
            }
        }
        if self.quiet { quiet::left_over(self, state) } else { None }
    }
}

/// Pack 0 by whichever of its sendings.
const fn first_of(packs: u8) -> u8 {
    packs & !SECOND | packs >> 4 & 1
}

/// Packs 0 and 1 hold the same chunk: without W6 either serves.
const fn needed_copies(needed: u8) -> u8 {
    if needed & 3 != 0 { needed | 3 } else { needed }
}

/// Requests that were sent take effect.
fn landings(model: &Commit, state: &State, out: &mut Steps) {
    for pack in 0..5u8 {
        if state.sent & state.packs & 1 << pack != 0 {
            let next = State { packs: state.packs & !(1 << pack), ..*state };
            out.push(Step { who: "network", number: pack, what: "a delete of this pack lands", next });
        }
        if state.late_packs & !state.packs & 1 << pack != 0 {
            let mut next = State { packs: state.packs | 1 << pack, ..*state };
            // This one was sent once; a doubled one may come again and again.
            next.late_packs &= !SECOND;
            out.push(Step { who: "network", number: pack, what: "a late PUT of this pack lands", next });
        }
    }
    for session in model.sessions() {
        let number = u8::try_from(session).unwrap_or(0);
        if state.late_sessions & !state.sessions & bit(session) != 0 {
            let next = State { sessions: state.sessions | bit(session), ..*state };
            out.push(Step { who: "network", number, what: "a PUT of this session lands", next });
        }
        if state.late_ends & bit(session) != 0 && state.ends[session] == 0 && session > 0 {
            let mut next = *state;
            next.ends[session] = state.writers[session - 1].record;
            out.push(Step { who: "network", number, what: "a PUT of this session's end lands", next });
        }
    }
}
