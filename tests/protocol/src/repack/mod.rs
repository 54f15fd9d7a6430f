//! Repack and relocations: rules R1 to R4, W5, and the restore rule.
//!
//! One chunk. Session 0 is an old snapshot with the chunk in pack 0; session 1 is a writer, its pack is 3; sessions 2
//! and 3 are repackers, in the order of their names, their packs are 1 and 2. Bits 4 and 5 of a set are the
//! relocations of sessions 2 and 3. What rule V is made of is one step here: the model of commits has its parts.

mod clients;
mod collector;

use crate::rules::{Rule, Rules};
use crate::search::{Model, Step};
use clients::{Repacker, Restorer, Writer};
use collector::Collector;

const SESSIONS: usize = 4;
/// The bit that tells a record from no end.
const THERE: u8 = 0x80;
const FENCED: u8 = 1;
const DONE: u8 = 99;
/// No place.
const NOWHERE: u8 = 7;

/// What takes part in a run.
#[derive(Debug, Clone, Copy)]
pub struct Repack {
    /// What is in force.
    pub rules: Rules,
    /// The pack that a hint names to the writer; its parent is the old snapshot if there is none.
    pub hint: Option<u8>,
    /// Whether there is a writer.
    pub writer: bool,
    /// Repackers, at most two.
    pub repackers: u8,
    /// Collectors, at most two.
    pub collectors: u8,
    /// Whether the old snapshot may be forgotten.
    pub forget: bool,
    /// Whether somebody restores the old snapshot.
    pub restore: bool,
    /// Sessions that were shut out are cleaned up.
    pub cleanup: bool,
    /// What the list of each collector may name: long lists are cut.
    pub parts: [u8; 2],
    /// Others make lists void that have no final yet (C10); their collector then stops.
    pub void: bool,
    /// Somebody with a mover's rights begins a repack, and forges ends of those that have none.
    pub forge: bool,
    /// What may befall the first relocation for a while.
    pub harm: Harm,
}

/// What keeps a relocation from being seen until a person puts it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing.
    None,
    /// Its end cannot be read or believed.
    Doubt,
    /// Its session object is lost.
    Loss,
}

/// Where each relocation leads from, if it is visible.
type Moves = [u8; 2];

/// Store, clients and requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    packs: u8,
    sessions: u8,
    ends: [u8; SESSIONS],
    markers: u8,
    /// What each collector's list names.
    lists: [u8; 2],
    /// Deletes that were sent; they may land at any time, and more than once.
    sent: u8,
    writer: Writer,
    repackers: [Repacker; 2],
    collectors: [Collector; 2],
    restorer: Restorer,
    /// Whether the first relocation is harmed: 0 not yet, 1 now, 2 no more.
    harmed: u8,
    success: bool,
    failed: bool,
}

impl State {
    /// The place that a visible snapshot names.
    fn place(&self, session: usize) -> Option<u8> {
        let visible = self.sessions & !self.markers & 1 << session != 0;
        (visible && self.ends[session] & THERE != 0).then(|| self.ends[session] & !THERE)
    }

    /// Whether the first relocation is there and cannot be seen.
    fn is_harmed(&self) -> bool {
        self.harmed == 1
    }

    /// Whether that stops whoever marks.
    fn stops(&self, model: &Repack) -> bool {
        let rule = if model.harm == Harm::Loss { Rule::LOSS } else { Rule::DOUBT };
        self.is_harmed() && model.rules.on(rule)
    }

    /// Relocations that are seen to count.
    fn seen_moves(&self, model: &Repack) -> Moves {
        let [first, second] = self.moves(model);
        [if self.is_harmed() { NOWHERE } else { first }, second]
    }

    /// Relocations that count.
    fn moves(&self, model: &Repack) -> Moves {
        let visible = |session: usize| {
            // R3: an end alone moves nothing. R1: without a session of its own nothing else is to be seen.
            let counts = self.sessions & 1 << session != 0 || !model.rules.on(Rule::R3);
            if counts && self.ends[session] & THERE != 0 { self.ends[session] & !THERE } else { NOWHERE }
        };
        [visible(2), visible(3)]
    }

    /// Every visible place, as a bit mask.
    fn places(&self) -> u8 {
        (0..2).filter_map(|session| self.place(session)).fold(0, |all, place| all | 1 << place)
    }
}

/// Where a place is now, and the relocations that the way leads through, as bits. `last` prefers the higher of two.
fn resolve(moves: Moves, place: u8, last: bool) -> (u8, u8) {
    let (mut at, mut through) = (place, 0);
    for _ in 0..2 {
        let order = if last { [1, 0] } else { [0, 1] };
        let Some(found) = order.into_iter().find(|found| moves[*found] == at) else { break };
        through |= 0x10 << found;
        at = if found == 0 { 1 } else { 2 };
    }
    (at, through)
}

impl Model for Repack {
    type State = State;

    fn initial(&self) -> State {
        State {
            packs: 1,
            sessions: 1,
            ends: [THERE, 0, 0, 0],
            markers: 0,
            lists: [0; 2],
            sent: 0,
            writer: Writer::default(),
            repackers: [Repacker::default(); 2],
            collectors: [Collector::default(); 2],
            restorer: Restorer::default(),
            harmed: 0,
            success: false,
            failed: false,
        }
    }

    fn steps(&self, state: &State, out: &mut Vec<Step<State>>) {
        if self.writer {
            clients::write(self, state, out);
        }
        for who in 0..usize::from(self.repackers) {
            clients::repack(self, state, who, out);
        }
        for who in 0..usize::from(self.collectors) {
            collector::steps(self, state, who, out);
        }
        if self.forge {
            clients::forge(self, state, out);
        }
        if self.harm != Harm::None {
            clients::harm(state, out);
        }
        if self.void {
            collector::make_void(state, out);
        }
        if self.restore {
            clients::restore(self, state, out);
        }
        if self.forget && state.markers == 0 {
            let next = State { markers: 1, ..*state };
            out.push(Step { who: "forget", number: 0, what: "the old snapshot", next });
        }
        landings(self, state, out);
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let moves = state.moves(self);
        for place in (0..2).filter_map(|session| state.place(session)) {
            let now = resolve(moves, place, false).0;
            if state.packs & (1 << place | 1 << now) == 0 {
                return Some("a visible snapshot lost its chunk");
            }
        }
        if state.failed {
            return Some("a restore fails although its snapshot is visible");
        }
        let lost = state.success && state.place(1).is_none();
        lost.then_some("a snapshot that was reported as stored is not visible")
    }
}

/// Deletes land, and sessions that were shut out are cleaned up.
fn landings(model: &Repack, state: &State, out: &mut Vec<Step<State>>) {
    for pack in 0..4u8 {
        if state.sent & state.packs & 1 << pack != 0 {
            let next = State { packs: state.packs & !(1 << pack), ..*state };
            out.push(Step { who: "network", number: pack, what: "a delete of this pack lands", next });
        }
    }
    for session in 1..4u8 {
        let there = state.sessions & 1 << session != 0;
        let next = State { sessions: state.sessions & !(1 << session), ..*state };
        if session > 1 && there && state.sent & 0x10 << (session - 2) != 0 {
            out.push(Step { who: "network", number: session, what: "a relocation's delete lands", next });
        } else if model.cleanup && there && state.ends[usize::from(session)] == FENCED {
            out.push(Step { who: "clean-up", number: session, what: "drop this session", next });
        } else if model.cleanup && !there && state.ends[usize::from(session)] == FENCED {
            let mut next = *state;
            next.ends[usize::from(session)] = 0;
            out.push(Step { who: "clean-up", number: session, what: "drop its end", next });
        }
    }
}
