//! A store that loses objects, and people who repair: rules LOSS, AGAIN, SHUTOUT, FENCE, DOUBT and REVIVE.
//!
//! Session 0 is an old committed snapshot, which names pack 0. Session 1 names it as its parent: either it is there from
//! the beginning, with pack 1, or its writer is at work. Session 2 revives session 0. Pack 2 is rubbish, so there is
//! always something to collect. The store loses one object, at any moment. Sets are bit masks.
//!
//! What is promised holds while there is evidence: a snapshot whose end is lost, and of which neither a mark nor a
//! visible child speaks, is a session that never ended to everybody who looks.

mod cleanup;
mod clients;
mod collector;
mod people;

use crate::rules::{Rule, Rules};
use crate::search::{Model, Step};
use clients::{Reviver, Writer};
use collector::Collector;

const SESSIONS: usize = 3;
const OLD: usize = 0;
const CHILD: usize = 1;
const REVIVED: usize = 2;
/// The bit that tells an empty list or record from none.
const THERE: u8 = 0x80;
/// The record names session 0 as its parent.
const PARENT: u8 = 0x40;
/// The packs of a record or list.
const PACKS: u8 = 7;
/// An end that shuts its session out, or says that it gave up.
const FENCED: u8 = 1;
/// What clean-up puts in the place of an end.
const BURIED: u8 = 2;
/// An end that cannot be read or believed: it may be damaged or forged.
const DOUBTFUL: u8 = 3;
/// A client that is done.
const DONE: u8 = 99;

/// Objects that the store may lose, as bits: sessions, ends and packs, three of each. A number counts these from 1.
pub const SESSION_OBJECTS: u16 = 0b111;
/// The end of the old snapshot alone.
pub const OLD_END: u16 = 1 << 3;
/// See above.
pub const END_OBJECTS: u16 = 0b111 << 3;
/// See above.
pub const PACK_OBJECTS: u16 = 0b111 << 6;
/// Not lost, but spoilt: the end of the old snapshot.
pub const SPOILT_END: u16 = 1 << 9;

/// Where the second snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// There is none.
    Nobody,
    /// It was committed long ago.
    Committed,
    /// Its writer is at work.
    Writer,
}

/// What takes part in a run.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// What is in force.
    pub rules: Rules,
    /// The second snapshot.
    pub child: Child,
    /// A signed mark speaks of the old snapshot.
    pub mark: bool,
    /// What the store may lose, one of these.
    pub losses: u16,
    /// Sessions that a person may forget or give up.
    pub forget: u8,
    /// A person may bring back what was lost.
    pub bring_back: bool,
    /// A person may revive the old snapshot.
    pub revive: bool,
    /// The writer of the old snapshot missed the answer to its commit: its PUT may land again.
    pub late_end: bool,
    /// A clean-up's delete of an end may land again.
    pub late_delete: bool,
    /// Collectors, at most two.
    pub collectors: u8,
    /// How often each of them runs.
    pub runs: u8,
    /// The collectors were started before a key rotation, and the old snapshot was written after it.
    pub old_keys: bool,
    /// What was lost is promised even after all evidence of it was forgotten.
    pub beyond_evidence: bool,
    /// A person brings back the session object of a writer that is at work.
    pub beyond_session: bool,
}

impl Loss {
    /// One collector that runs once, nothing else.
    pub const NOTHING: Self = Self {
        rules: Rules::all(),
        child: Child::Nobody,
        mark: false,
        losses: 0,
        forget: 0,
        bring_back: false,
        revive: false,
        late_end: false,
        late_delete: false,
        collectors: 1,
        runs: 1,
        old_keys: false,
        beyond_evidence: false,
        beyond_session: false,
    };

    fn on(&self, rule: Rule) -> bool {
        self.rules.on(rule)
    }
}

/// Store, clients, requests in flight, and what is remembered to judge them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    packs: u8,
    sessions: u8,
    ends: [u8; SESSIONS],
    markers: u8,
    mark: bool,
    lists: [u8; 2],
    /// Deletes of packs that were sent; they may land at any time, and more than once.
    sent: u8,
    /// Deletes of ends that were sent.
    sent_ends: u8,
    collectors: [Collector; 2],
    writer: Writer,
    reviver: Reviver,
    /// What the store lost, as a number; none so far if zero.
    lost: u8,
    /// Whether it is away still.
    is_away: bool,
    /// What each session committed.
    records: [u8; SESSIONS],
    /// Packs that deletes of clients removed.
    deleted: u8,
    /// Packs of which whoever revived was told that they are missing.
    missing: u8,
    forgotten: u8,
    reported: u8,
    /// Snapshots whose end is lost without evidence.
    let_go: u8,
    /// A collector stopped for a loss, and nothing was lost.
    false_alarm: bool,
}

type Steps = Vec<Step<State>>;

impl State {
    fn is_gone(&self, session: usize) -> bool {
        self.sessions & bit(session) == 0
    }

    /// Sessions of which there is an end of any kind.
    fn ended(&self) -> u8 {
        self.ends_that(|end| end != 0)
    }

    fn ends_that(&self, is: impl Fn(u8) -> bool) -> u8 {
        (0..SESSIONS).filter(|session| is(self.ends[*session])).fold(0, |all, session| all | bit(session))
    }

    fn is_visible(&self, session: usize) -> bool {
        is_record(self.ends[session]) && self.sessions & !self.markers & bit(session) != 0
    }

    /// Whether the client of a session may still put its end.
    fn is_at_work(&self, session: usize) -> bool {
        let at = if session == CHILD { self.writer.at } else { self.reviver.at };
        session != OLD && at != 0 && at != DONE
    }

    /// Whether anybody can know that a session had committed, once its end is lost.
    fn has_evidence(&self, session: usize) -> bool {
        let is_parent = |child: usize| self.is_visible(child) && self.ends[child] & PARENT != 0;
        session == OLD && (self.mark || (0..SESSIONS).any(is_parent))
    }

    /// Whether an object of a session is away.
    fn misses(&self, session: usize) -> bool {
        let number = usize::from(self.lost);
        self.is_away && (number == session + 1 || number == session + 4 || number == 10 && session == OLD)
    }

    /// Snapshots of which the only evidence is gone.
    fn settle(&mut self, model: &Loss) {
        for session in 0..SESSIONS {
            let lost_end = self.is_away && usize::from(self.lost) == session + 4;
            if lost_end && !self.has_evidence(session) && !model.beyond_evidence {
                self.let_go |= bit(session);
            }
        }
    }
}

fn is_record(end: u8) -> bool {
    end & THERE != 0
}

const fn bit(session: usize) -> u8 {
    1 << session
}

impl Model for Loss {
    type State = State;

    fn initial(&self) -> State {
        let old = THERE | 1;
        let child = if self.child == Child::Committed { THERE | PARENT | 2 } else { 0 };
        let both = u8::from(child != 0) << CHILD | 1;
        State {
            packs: 4 | both,
            sessions: both,
            ends: [old, child, 0],
            markers: 0,
            mark: self.mark,
            lists: [0; 2],
            sent: 0,
            sent_ends: 0,
            collectors: [Collector::new(self.runs); 2],
            writer: Writer::default(),
            reviver: Reviver::default(),
            lost: 0,
            is_away: false,
            records: [old, child, 0],
            deleted: 0,
            missing: 0,
            forgotten: 0,
            reported: both,
            let_go: 0,
            false_alarm: false,
        }
    }

    fn steps(&self, state: &State, out: &mut Steps) {
        if self.child == Child::Writer {
            clients::write(self, state, out);
        }
        if self.revive {
            clients::revive(self, state, out);
        }
        for who in 0..usize::from(self.collectors) {
            collector::steps(self, state, who, out);
        }
        people::steps(self, state, out);
        out.iter_mut().for_each(|step| step.next.settle(self));
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        for session in 0..SESSIONS {
            let is_visible = state.is_visible(session);
            if is_visible && state.forgotten & bit(session) != 0 {
                return Some("a forgotten snapshot is visible again");
            }
            if state.reported & !state.forgotten & !state.let_go & bit(session) == 0 {
                continue;
            }
            let told = if session == REVIVED { state.missing } else { 0 };
            if state.records[session] & state.deleted & !told & PACKS != 0 {
                return Some("a client deleted a pack of a snapshot that nobody forgot");
            }
            if !is_visible && !state.misses(session) {
                return Some("a snapshot that was reported as stored is not visible");
            }
        }
        state.false_alarm.then_some("a collector takes for lost what was to go")
    }
}
