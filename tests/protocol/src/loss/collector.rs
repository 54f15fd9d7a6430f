//! A collector: C1 to C9 with what LOSS and DOUBT ask of its marks. Only it finishes its list, so finals are left out.

use super::{
    DONE, DOUBTFUL, FENCED, Loss, OLD, PACKS, PARENT, SESSIONS, State, Steps, THERE, bit, cleanup, is_record,
};
use crate::{rules::Rule, search::Step};

/// What a collector has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Collector {
    pub(super) at: u8,
    /// Runs that are left, this one included.
    runs: u8,
    /// It is at its second mark (C5).
    again: bool,
    packs: u8,
    pub(super) ends: u8,
    markers: u8,
    pub(super) sessions: u8,
    suspects: u8,
    needed: u8,
    fenced: u8,
    committed: u8,
    open: u8,
    condemned: u8,
    /// Sessions to be cleaned up, and whether the first of them is forgotten.
    pub(super) clean: u8,
    pub(super) is_forgotten: bool,
}

const BEGIN: u8 = 0;
const ENDS: u8 = 1;
const MARKERS: u8 = 2;
const SEE: u8 = 3;
/// Ends without their session: what they are, and whether a clean-up explains it.
const ORPHANS: u8 = 4;
const ORPHANS_MARKED: u8 = 5;
const ORPHANS_SEEN: u8 = 6;
const ORPHANS_AGAIN: u8 = 7;
const READ: u8 = 8;
/// Sessions without their end: whether they had committed, and whether a clean-up explains it.
const MARKS: u8 = 9;
const NO_END: u8 = 10;
const NO_END_MARKED: u8 = 12;
const MARKED: u8 = 13;
const OVERDUE: u8 = 14;
const CONDEMN: u8 = 15;
const OPEN: u8 = 16;
const FENCE: u8 = 17;
const SEND: u8 = 18;
const CONFIRM: u8 = 19;
const DROP: u8 = 20;
pub(super) const CLEAN: u8 = 30;

impl Collector {
    /// One that will run so often.
    pub(super) fn new(runs: u8) -> Self {
        Self { runs, ..Self::default() }
    }
}

/// Steps of one collector, everyone else as they are.
pub(super) fn steps(model: &Loss, state: &State, who: usize, out: &mut Steps) {
    let mut push = |what, next| out.push(Step { who: "collector", number: who as u8, what, next });
    let mut next = *state;
    let at = state.collectors[who].at;
    match at {
        DONE => {}
        OVERDUE => shut_out_overdue(state, who, &mut push),
        ENDS..=SEE | READ => {
            let what = look(model, state, &mut next, who);
            push(what, next);
        }
        ORPHANS..=ORPHANS_AGAIN | MARKS..=NO_END_MARKED => {
            let what = suspect(model, state, &mut next, who);
            push(what, next);
        }
        CLEAN.. => {
            if let Some(what) = cleanup::step(model, state, &mut next, who) {
                push(what, next);
            }
        }
        _ => {
            if let Some(what) = collect(model, state, &mut next, who) {
                push(what, next);
            }
        }
    }
}

/// It stops, and a person looks. Its list stays; the next run makes that void.
fn stop_for_loss(next: &mut State, who: usize) {
    // Whoever revived was told of what is missing.
    next.false_alarm |= next.lost == 0 && next.missing == 0;
    end_run(next, who);
}

/// What it knows of the sessions is of two moments, between which something was lost or brought back.
fn mark_again(next: &mut State, who: usize) -> &'static str {
    let c = &mut next.collectors[who];
    let Collector { runs, again, packs, condemned, clean, .. } = *c;
    *c = Collector { at: ENDS, runs, again, packs, condemned, clean, ..Collector::default() };
    "AGAIN: what was listed has changed, mark again"
}

pub(super) fn end_run(next: &mut State, who: usize) {
    let runs = next.collectors[who].runs.saturating_sub(1);
    let at = if runs == 0 { DONE } else { BEGIN };
    next.collectors[who] = Collector { at, runs, ..Collector::default() };
}

/// What a mark reads, in order V.
fn look(model: &Loss, state: &State, next: &mut State, who: usize) -> &'static str {
    let c = &mut next.collectors[who];
    c.at += 1;
    match state.collectors[who].at {
        ENDS => {
            c.ends = state.ended();
            "list ends (V)"
        }
        MARKERS => {
            c.markers = state.markers;
            "list markers (V)"
        }
        SEE => {
            c.sessions = state.sessions;
            c.suspects = c.ends & !c.sessions & !c.markers;
            if c.suspects == 0 || !model.on(Rule::LOSS) {
                (c.suspects, c.at) = (0, READ);
            }
            "list sessions (V)"
        }
        _ => read(model, state, next, who),
    }
}

/// Reads the ends that were listed.
fn read(model: &Loss, state: &State, next: &mut State, who: usize) -> &'static str {
    let c = &mut next.collectors[who];
    let visible = c.ends & c.sessions & !c.markers;
    let mut is_doubtful = false;
    let is_gone = |session: usize| state.is_gone(session) || state.ends[session] == 0;
    if model.on(Rule::AGAIN) && (0..SESSIONS).any(|session| visible & bit(session) != 0 && is_gone(session)) {
        return mark_again(next, who);
    }
    for session in (0..SESSIONS).filter(|session| visible & bit(*session) != 0) {
        let end = state.ends[session];
        if end == FENCED || end == super::BURIED {
            c.fenced |= bit(session);
        } else if is_record(end) && !state.is_gone(session) {
            c.needed |= end & PACKS;
            // Nobody but session 0 is a parent.
            c.committed |= u8::from(end & PARENT != 0);
            is_doubtful |= model.old_keys && session == OLD;
        } else {
            is_doubtful |= end == DOUBTFUL && model.on(Rule::DOUBT);
        }
    }
    c.open = c.sessions & !c.ends;
    (c.ends, c.at) = (0, MARKS);
    if is_doubtful {
        end_run(next, who);
        return "DOUBT: an end cannot be believed, stop";
    }
    "read the ends"
}

/// Which of those that look lost are: each of these reads can clear some.
fn suspect(model: &Loss, state: &State, next: &mut State, who: usize) -> &'static str {
    // With keys from before a rotation nobody can tell a record from rubbish (KEYS).
    let opens = |session: usize| !(model.old_keys && session == OLD) || model.on(Rule::KEYS);
    let records =
        (0..SESSIONS).filter(|s| is_record(state.ends[*s]) && opens(*s)).fold(0, |all, s| all | bit(s));
    let is_fence = |end| end == FENCED && model.on(Rule::SHUTOUT);
    let endless = state.ends_that(|end| end == 0 || is_fence(end));
    let c = &mut next.collectors[who];
    let at = c.at;
    c.at += 1;
    let (kept, what) = match at {
        ORPHANS | ORPHANS_AGAIN => (records, "LOSS: get ends without session"),
        ORPHANS_MARKED | NO_END_MARKED => (!state.markers, "LOSS: get markers"),
        ORPHANS_SEEN => (!state.sessions, "LOSS: get sessions"),
        NO_END => (endless, "LOSS: get missing ends"),
        MARKS => {
            let shut_out = if model.on(Rule::SHUTOUT) { c.fenced } else { 0 };
            c.suspects = if model.on(Rule::LOSS) { c.open | shut_out } else { 0 };
            (c.committed | u8::from(state.mark), "LOSS: list marks")
        }
        _ => (state.sessions, "LOSS: get sessions"),
    };
    // Session names do not come back by themselves, and what is known to have ended had its end before.
    let is_back = matches!(at, ORPHANS_SEEN | NO_END) && c.suspects & !kept != 0;
    if is_back && model.on(Rule::AGAIN) {
        return mark_again(next, who);
    }
    c.suspects &= kept;
    let is_last = matches!(at, ORPHANS_AGAIN | NO_END_MARKED);
    if c.suspects == 0 {
        c.at = if at <= ORPHANS_AGAIN { READ } else { MARKED };
        c.committed = 0;
    } else if is_last {
        stop_for_loss(next, who);
        return "LOSS: something was lost, stop";
    }
    what
}

/// Shuts out what has not ended, some or all of it, before anything is condemned.
fn shut_out_overdue(state: &State, who: usize, push: &mut impl FnMut(&'static str, State)) {
    let open = state.collectors[who].open & state.sessions & !state.ended();
    for session in (0..SESSIONS).filter(|session| open & bit(*session) != 0) {
        let mut next = *state;
        next.ends[session] = FENCED;
        push("shut an overdue session out", next);
    }
    let mut next = *state;
    let c = &mut next.collectors[who];
    c.open = 0;
    c.at = if c.condemned == 0 { CLEAN } else { CONDEMN };
    push("leave other sessions at work", next);
}

/// C1 to C9, but for the marks.
fn collect(model: &Loss, state: &State, next: &mut State, who: usize) -> Option<&'static str> {
    let c = &mut next.collectors[who];
    let at = c.at;
    c.at += 1;
    Some(match at {
        BEGIN if state.lists[who] != 0 => {
            next.lists[who] = 0;
            c.at = BEGIN;
            "C10 make the list void, drop it"
        }
        BEGIN => {
            c.packs = state.packs;
            "C1 list packs"
        }
        MARKED if c.again => {
            c.condemned &= !c.needed;
            let (runs, condemned, clean) = (c.runs, c.condemned, c.clean);
            *c = Collector { at: SEND, runs, condemned, clean, ..Collector::default() };
            "C5 decide, C6"
        }
        MARKED => {
            if c.needed & !c.packs & !state.packs != 0 && model.on(Rule::LOSS) {
                stop_for_loss(next, who);
                return Some("LOSS: a pack is missing, stop");
            }
            // Pack 2 is of a session that is gone.
            let busy = c.open & 3;
            let (runs, condemned) = (c.runs, c.packs & !c.needed & !busy);
            let (clean, open) = (c.markers | c.fenced, c.open);
            *c = Collector { at: OVERDUE, runs, condemned, clean, open, ..Collector::default() };
            "C1 decide"
        }
        CONDEMN => {
            next.lists[who] = THERE | c.condemned;
            "C2 create the list"
        }
        OPEN => {
            c.open = state.sessions;
            "C3 list sessions"
        }
        FENCE => {
            let open = c.open & state.sessions & !state.ended();
            if let Some(session) = (0..SESSIONS).find(|session| open & bit(*session) != 0) {
                c.at = FENCE;
                next.ends[session] = FENCED;
                return Some("C4 shut a session out");
            }
            (c.open, c.again, c.at) = (0, true, ENDS);
            "C4 every session has an end"
        }
        SEND => {
            next.sent |= c.condemned;
            "C8 send the deletes"
        }
        CONFIRM if state.packs & c.condemned != 0 => return None,
        CONFIRM => "C8 every delete is confirmed",
        DROP => {
            next.lists[who] = 0;
            (c.condemned, c.at) = (0, CLEAN);
            "C9 drop the list"
        }
        _ => return None,
    })
}
