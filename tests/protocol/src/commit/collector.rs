//! Rules C1 to C9.

use super::{Commit, DONE, FENCED, FORGED, LISTS, SECOND, SESSIONS, State, Steps, THERE, bit, record};
use crate::{rules::Rule, search::Step};

/// What a collector has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Collector {
    pub(super) at: u8,
    page: u8,
    /// The list that it is at, and how many it has had.
    list: u8,
    packs: u8,
    records: [u8; SESSIONS],
    ended: u8,
    marked: u8,
    sessions: u8,
    condemned: u8,
    last: u8,
    decided: u8,
}

const PACKS: u8 = 0;
const ENDS: u8 = 1;
const MARKERS: u8 = 2;
const SEE: u8 = 3;
const CONDEMN: u8 = 4;
const OPEN: u8 = 5;
const FENCE: u8 = 6;
const ENDS_AGAIN: u8 = 7;
const MARKERS_AGAIN: u8 = 8;
const SEE_AGAIN: u8 = 9;
const FINAL: u8 = 10;
const LOOK: u8 = 11;
const SEND: u8 = 12;
const CONFIRM: u8 = 13;
const DROP: u8 = 14;
const DROP_SECOND: u8 = 15;

/// Steps of one collector, everyone else as they are.
pub(super) fn steps(model: &Commit, state: &State, who: usize, out: &mut Steps) {
    let mut push = |what, next| out.push(Step { who: "collector", number: who as u8, what, next });
    let mut next = *state;
    match state.collectors[who].at {
        PACKS => {
            let c = &mut next.collectors[who];
            (c.packs, c.at) = (state.packs, ENDS);
            push("C1 list packs", next);
        }
        ENDS | MARKERS | SEE | OPEN | ENDS_AGAIN | MARKERS_AGAIN | SEE_AGAIN => {
            let what = list_page(model, state, &mut next, who);
            let pages = if model.paged { 2 } else { 1 };
            let mut partial = next;
            turn(model, &mut next, who, pages);
            push(what, next);
            if pages == 2 && partial.collectors[who].page == 0 && !model.on(Rule::LISTING) {
                turn(model, &mut partial, who, 1);
                push("a listing fails half-way and is taken for whole", partial);
            }
        }
        CONDEMN => condemn(model, state, who, &mut push),
        FENCE => {
            let what = fence(model, &mut next, who);
            push(what, next);
        }
        DONE => {}
        _ => {
            if let Some(what) = decide(model, state, &mut next, who) {
                push(what, next);
            }
        }
    }
}

/// Reads one page of a listing: sessions 0 and 1 are on the first, session 2 is on the second.
fn list_page(model: &Commit, state: &State, next: &mut State, who: usize) -> &'static str {
    let hidden = state.hidden(model);
    let c = &mut next.collectors[who];
    let page: u8 = match (model.paged, c.page) {
        (false, _) => 7,
        (true, 0) => 3,
        (true, _) => 4,
    };
    let what = order(model, c.at);
    match what {
        ENDS => {
            for session in (0..SESSIONS).filter(|session| page & bit(*session) != 0) {
                let end = state.ends[session];
                c.ended |= u8::from(end != 0) << session;
                c.records[session] =
                    if end == FORGED { FORGED } else { record(end).map_or(0, |r| r | THERE) };
            }
            "list ends (V)"
        }
        MARKERS => {
            c.marked |= hidden & page;
            "list markers (V)"
        }
        _ => {
            if c.at != OPEN || model.on(Rule::C3) {
                c.sessions |= state.sessions & page;
            }
            if c.at == OPEN { "C3 list sessions" } else { "list sessions (V)" }
        }
    }
}

/// Which listing a step is.
fn order(model: &Commit, at: u8) -> u8 {
    let swapped = !model.on(Rule::V);
    match at {
        ENDS | ENDS_AGAIN => ENDS,
        MARKERS | MARKERS_AGAIN => {
            if swapped {
                SEE
            } else {
                MARKERS
            }
        }
        SEE | SEE_AGAIN => {
            if swapped {
                MARKERS
            } else {
                SEE
            }
        }
        _ => OPEN,
    }
}

/// The listing goes on, or is complete.
fn turn(model: &Commit, next: &mut State, who: usize, pages: u8) {
    let c = &mut next.collectors[who];
    c.page += 1;
    if c.page < pages {
        return;
    }
    c.page = 0;
    match c.at {
        SEE => first_mark(model, c, who),
        SEE_AGAIN => second_mark(model, c, who),
        _ => c.at += 1,
    }
}

/// What visible snapshots name; none if one of them cannot be believed, which stops the collector.
fn needed(model: &Commit, c: &Collector, who: usize) -> Option<u8> {
    let mut needed = 0;
    for session in (0..SESSIONS).filter(|session| c.sessions & !c.marked & bit(*session) != 0) {
        if c.records[session] == FORGED {
            return None;
        }
        let packs = c.records[session] & !THERE;
        // Without W6 the record names a chunk of packs 0 and 1, and each collector keeps the copy it likes.
        let free = !model.on(Rule::W6) && packs & 3 != 0;
        needed |= if free { packs & !3 | 1 << (who & 1) } else { packs };
    }
    // A needed pack is needed in each of its sendings.
    Some(needed | needed << 4 & SECOND)
}

fn first_mark(model: &Commit, c: &mut Collector, who: usize) {
    let open = c.sessions & !c.ended;
    // Pack i + 2 is of session i + 1; packs 0 and 1 are of session 0.
    let busy = if model.on(Rule::C1) { open << 1 & 0b1100 } else { 0 };
    let condemned = needed(model, c, who).map_or(0, |needed| c.packs & !needed & !busy);
    let kept = if model.on(Rule::C3) { 0 } else { c.sessions };
    let list = c.list;
    *c = Collector {
        at: if condemned == 0 { DONE } else { CONDEMN },
        condemned,
        list,
        ..Collector::default()
    };
    if condemned != 0 {
        c.sessions = kept;
    }
}

fn second_mark(model: &Commit, c: &mut Collector, who: usize) {
    let last = if model.on(Rule::C5) {
        needed(model, c, who).map(|needed| c.condemned & !needed)
    } else {
        Some(c.condemned)
    };
    let (at, list) = (if last.is_some() { FINAL } else { DONE }, c.list);
    *c = Collector { at, list, last: last.unwrap_or(0), ..Collector::default() };
}

/// The name of the list that a collector is at.
fn list_of(model: &Commit, who: usize, list: u8) -> usize {
    if model.one_name && !model.on(Rule::N1) { 0 } else { (who * 2 + usize::from(list)).min(LISTS - 1) }
}

/// What the lists of one mark name, one after the other.
fn part(model: &Commit, condemned: u8, list: u8) -> u8 {
    match (model.split, list) {
        (false, _) => condemned,
        (true, 0) => condemned & 0b0101,
        (true, _) => condemned & 0b1010,
    }
}

fn condemn(model: &Commit, state: &State, who: usize, push: &mut impl FnMut(&'static str, State)) {
    let mut next = *state;
    let c = &mut next.collectors[who];
    c.at = OPEN;
    if !model.on(Rule::C2) {
        // The list is created together with its final.
        push("C2 is put off", next);
        return;
    }
    if model.split {
        for list in 0..2 {
            next.condemned[list_of(model, who, list)] = THERE | part(model, c.condemned, list);
        }
        push("C2 create both lists", next);
        return;
    }
    let name = list_of(model, who, c.list);
    if state.condemned[name] != 0 {
        return;
    }
    next.condemned[name] = THERE | c.condemned;
    push("C2 create the list", next);
    if model.lost && next.collectors[who].list + 1 < model.lists {
        next.collectors[who].list += 1;
        next.collectors[who].at = CONDEMN;
        push("C2 create the list, unclear: take another name", next);
    }
}

/// C4: one session after the other is shut out; who waits instead takes this step later.
fn fence(model: &Commit, next: &mut State, who: usize) -> &'static str {
    let State { sessions, ends, .. } = *next;
    let c = &mut next.collectors[who];
    let open = (0..SESSIONS).find(|s| c.sessions & sessions & bit(*s) != 0 && ends[*s] == 0);
    if let Some(session) = open.filter(|_| model.on(Rule::C4)) {
        next.ends[session] = FENCED;
        return "C4 shut a session out";
    }
    c.at = ENDS_AGAIN;
    c.sessions = 0;
    "C4 every session has an end"
}

/// C6 to C9.
fn decide(model: &Commit, state: &State, next: &mut State, who: usize) -> Option<&'static str> {
    let c = &mut next.collectors[who];
    let name = list_of(model, who, c.list);
    let at = c.at;
    c.at += 1;
    Some(match at {
        FINAL => {
            if !model.on(Rule::C2) && state.condemned[name] == 0 {
                next.condemned[name] = THERE | c.last;
            }
            let wanted = part(model, c.last, if model.split { c.list } else { 0 });
            if state.finals[name] == 0 {
                next.finals[name] = THERE | wanted;
            }
            // What somebody else made void is put on another list, if there is one left.
            let stored = believed(model, next.finals[name]);
            let decided = if model.on(Rule::C6) { stored } else { wanted };
            let c = &mut next.collectors[who];
            c.decided = decided;
            if !model.split {
                (c.condemned, c.last) = (wanted & !decided, 0);
            }
            "C6 create the final or take the one there"
        }
        LOOK => {
            if model.on(Rule::C7) && state.condemned[name] == 0 {
                // What another dropped is condemned anew.
                c.condemned |= if model.split { 0 } else { c.decided };
                go_on(model, c);
            }
            "C7 get the list"
        }
        SEND => {
            next.sent |= c.decided;
            "C8 send the deletes"
        }
        CONFIRM => {
            if model.on(Rule::C8) && state.packs & c.decided != 0 {
                return None;
            }
            "C8 every delete is confirmed"
        }
        DROP | DROP_SECOND => {
            if (at == DROP) == model.on(Rule::C9) {
                next.condemned[name] = 0;
            } else {
                next.finals[name] = 0;
            }
            if at == DROP_SECOND {
                go_on(model, c);
            }
            if (at == DROP) == model.on(Rule::C9) { "C9 drop the list" } else { "C9 drop the final" }
        }
        _ => return None,
    })
}

/// The next list: that of the other half, or a new one for what was made void.
fn go_on(model: &Commit, c: &mut Collector) {
    let more = c.list + 1 < model.lists;
    let (list, last, condemned) = (c.list + 1, c.last, c.condemned);
    *c = match (model.split, more) {
        (true, true) => Collector { at: FINAL, list, last, ..Collector::default() },
        (false, true) if condemned != 0 => Collector { at: CONDEMN, list, condemned, ..Collector::default() },
        _ => Collector { at: DONE, ..Collector::default() },
    };
}

/// What a final names: one that does not verify makes its list void.
pub(super) fn believed(model: &Commit, stored: u8) -> u8 {
    let forged = stored & super::upkeep::FORGED_FINAL != 0;
    if forged && model.on(Rule::AUTH) { 0 } else { stored & !THERE & !super::upkeep::FORGED_FINAL }
}
