//! A collector that condemns packs and relocations. Nobody else finishes its list, so finals are left out.

use super::{DONE, FENCED, Repack, SESSIONS, State, THERE, resolve};
use crate::{rules::Rule, search::Step};

/// What a collector has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Collector {
    at: u8,
    packs: u8,
    places: u8,
    open: u8,
    doomed: u8,
}

pub(super) fn steps(model: &Repack, state: &State, who: usize, out: &mut Vec<Step<State>>) {
    let mut next = *state;
    let c = &mut next.collectors[who];
    let at = c.at;
    c.at += 1;
    let what = match at {
        // Its list stays, if there is one.
        2 | 7 if state.stops(model) => {
            *c = Collector { at: DONE, ..Collector::default() };
            "LOSS/DOUBT: a relocation is harmed, stop"
        }
        0 => {
            c.packs = state.packs;
            "C1 list packs"
        }
        1 => {
            c.places = state.places();
            c.open = open(model, state);
            "C1 read the snapshots"
        }
        2 => {
            let (needed, moves) = needed(model, state, c.places, who);
            // Packs 1 and 2 are of sessions 2 and 3, pack 3 is of session 1.
            let busy = c.open >> 1 & 6 | c.open << 2 & 8;
            let doomed = (c.packs & !busy | moves) & !needed & model.parts[who];
            *c = Collector { at: if doomed == 0 { DONE } else { 3 }, doomed, ..Collector::default() };
            if !model.rules.on(Rule::R4) {
                next.sent |= doomed & 0x30;
                next.collectors[who].doomed &= 0xF;
            }
            "C1 read the relocations"
        }
        3 => {
            next.lists[who] = c.doomed;
            "C2 create the list"
        }
        4 => {
            c.open = state.sessions;
            "C3 list sessions"
        }
        5 => {
            let what = fence(state, &mut next, who);
            out.push(Step { who: "collector", number: who as u8, what, next });
            return;
        }
        6 => {
            c.places = state.places();
            "C5 read the snapshots"
        }
        7 => {
            c.doomed &= !needed(model, state, c.places, who).0;
            c.places = 0;
            "C5 read the relocations, C6"
        }
        8 => {
            next.sent |= c.doomed;
            "C8 send the deletes"
        }
        9 => {
            let relocations = state.sessions << 2 & 0x30;
            if (state.packs | relocations) & c.doomed != 0 {
                return;
            }
            "C8 every delete is confirmed"
        }
        10 => {
            next.lists[who] = 0;
            *c = Collector { at: DONE, ..Collector::default() };
            "C9 drop the list"
        }
        _ => return,
    };
    out.push(Step { who: "collector", number: who as u8, what, next });
}

/// C10: the list of a collector that has not decided yet is made void and dropped.
pub(super) fn make_void(state: &State, out: &mut Vec<Step<State>>) {
    for who in 0..2u8 {
        let at = state.collectors[usize::from(who)].at;
        if (4..8).contains(&at) {
            let mut next = *state;
            next.lists[usize::from(who)] = 0;
            next.collectors[usize::from(who)] = Collector { at: DONE, ..Collector::default() };
            out.push(Step { who: "who finishes list", number: who, what: "C10 make it void, drop it", next });
        }
    }
}

/// C4: one session after the other is shut out.
fn fence(state: &State, next: &mut State, who: usize) -> &'static str {
    let c = &mut next.collectors[who];
    let is_open = |s: &usize| c.open & state.sessions & 1 << s != 0 && state.ends[*s] == 0;
    if let Some(session) = (1..SESSIONS).find(is_open) {
        c.at -= 1;
        next.ends[session] = FENCED;
        return "C4 shut a session out";
    }
    c.open = 0;
    "C4 every session has an end"
}

/// Sessions that have not ended.
fn open(model: &Repack, state: &State) -> u8 {
    let open = (0..SESSIONS).filter(|s| state.ends[*s] == 0).fold(0, |all, s| all | 1 << s);
    if model.rules.on(Rule::C1) { open & state.sessions } else { 0 }
}

/// Packs and relocations that these places are found through, and all relocations that count.
fn needed(model: &Repack, state: &State, places: u8, who: usize) -> (u8, u8) {
    let moves = state.seen_moves(model);
    let last = who == 1 && !model.rules.on(Rule::R2);
    let mut needed = 0;
    for place in (0..4).filter(|place| places & 1 << place != 0) {
        let (now, through) = resolve(moves, place, last);
        needed |= 1 << now | through;
    }
    let relocation = |s: usize| state.sessions & 1 << s != 0 && state.ends[s] & THERE != 0;
    (needed, u8::from(relocation(2)) << 4 | u8::from(relocation(3)) << 5)
}
