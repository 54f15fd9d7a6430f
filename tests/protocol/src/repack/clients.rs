//! The writer, the repackers, and whoever restores.

use super::{DONE, FENCED, Moves, NOWHERE, Repack, State, THERE, resolve};
use crate::{rules::Rule, search::Step};

/// What the writer has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Writer {
    at: u8,
    absent: u8,
    moves: Moves,
    place: u8,
}

/// What a repacker has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Repacker {
    at: u8,
    absent: u8,
    places: u8,
    from: u8,
}

/// What somebody who restores has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Restorer {
    at: u8,
    place: u8,
    now: u8,
}

fn absent(model: &Repack, state: &State) -> u8 {
    if model.rules.on(Rule::W2) { state.lists[0] | state.lists[1] } else { 0 }
}

pub(super) fn write(model: &Repack, state: &State, out: &mut Vec<Step<State>>) {
    let mut next = *state;
    let w = &mut next.writer;
    w.at += 1;
    let what = match state.writer.at {
        0 => {
            next.sessions |= 2;
            "W1 create the session"
        }
        1 => {
            w.absent = absent(model, state);
            "W2 read the lists"
        }
        2 => {
            w.moves = if model.rules.on(Rule::W5) { state.seen_moves(model) } else { [NOWHERE; 2] };
            // Nothing that others wrote is used.
            w.absent |= if state.is_harmed() && model.rules.on(Rule::DOUBT) { 0x3F } else { 0 };
            "W5 read the relocations"
        }
        3 => {
            let named = model.hint.or_else(|| state.place(0));
            let (place, through) = named.map_or((NOWHERE, 0), |named| resolve(w.moves, named, false));
            let there = model.hint.is_none() || state.packs & 1 << place != 0;
            let usable = place != NOWHERE && there && w.absent & (1 << place | through) == 0;
            let place = if usable { place } else { 3 };
            *w = Writer { at: w.at, place, ..Writer::default() };
            if place == 3 {
                next.packs |= 8;
            }
            if usable { "W3/W4 reuse the chunk" } else { "W6 upload the chunk" }
        }
        4 if state.ends[1] == 0 => {
            next.ends[1] = THERE | w.place;
            "W6 put the end"
        }
        4 => {
            w.at = DONE;
            "W6 find an end there, obey it"
        }
        5 => {
            next.success = state.sessions & 2 != 0;
            w.at = DONE;
            "W7 get the session, report"
        }
        _ => return,
    };
    out.push(Step { who: "writer", number: 1, what, next });
}

pub(super) fn repack(model: &Repack, state: &State, who: usize, out: &mut Vec<Step<State>>) {
    let (mut next, session) = (*state, who + 2);
    let r = &mut next.repackers[who];
    r.at += 1;
    let what = match state.repackers[who].at {
        0 => {
            if model.rules.on(Rule::R1) {
                next.sessions |= 1 << session;
            }
            "R1 create the session"
        }
        1 => {
            r.absent = absent(model, state);
            "W2 read the lists"
        }
        2 => {
            r.places = state.places();
            "mark: read the snapshots"
        }
        3 => {
            let named = (0..4).find(|place| r.places & 1 << place != 0);
            let (from, through) =
                named.map_or((NOWHERE, 0), |named| resolve(state.seen_moves(model), named, false));
            let usable = !state.stops(model)
                && from != NOWHERE
                && from != who as u8 + 1
                && r.absent & (1 << from | through) == 0;
            let at = if usable { r.at } else { DONE };
            *r = Repacker { at, from, ..Repacker::default() };
            "mark: read the relocations, choose what to move"
        }
        4 => {
            if state.packs & 1 << r.from == 0 {
                r.at = DONE;
                "what is to be moved is gone"
            } else {
                next.packs |= 2 << who;
                "R1 copy the chunk to a new pack"
            }
        }
        5 if state.ends[session] == 0 => {
            next.ends[session] = THERE | r.from;
            if !model.rules.on(Rule::R1) {
                // An object of its own is seen as soon as it is there.
                next.sessions |= 1 << session;
            }
            next.repackers[who] = Repacker { at: DONE, ..Repacker::default() };
            "R1 put the relocation"
        }
        5 => {
            *r = Repacker { at: DONE, ..Repacker::default() };
            "find an end there, obey it"
        }
        _ => return,
    };
    let given_up =
        next.repackers[who].at == DONE && next.ends[session] == 0 && next.sessions & 1 << session != 0;
    // It says so by an abandoned end.
    if given_up {
        next.ends[session] = FENCED;
    }
    out.push(Step { who: "repacker", number: session as u8, what, next });
}

/// What does not verify shuts its session out; a person removes it.
pub(super) fn forge(model: &Repack, state: &State, out: &mut Vec<Step<State>>) {
    for session in 2..4u8 {
        let mut next = *state;
        let what = if state.sessions & 1 << session == 0 && session == 3 {
            next.sessions |= 1 << session;
            "begins a repack"
        } else if state.sessions & 1 << session != 0 && state.ends[usize::from(session)] == 0 {
            next.ends[usize::from(session)] = if model.rules.on(Rule::AUTH) { FENCED } else { THERE };
            "forges a relocation"
        } else {
            continue;
        };
        out.push(Step { who: "thief", number: session, what, next });
    }
}

/// V, the place in the snapshot; on 404 the relocations; on another 404 once more.
pub(super) fn restore(model: &Repack, state: &State, out: &mut Vec<Step<State>>) {
    let mut next = *state;
    let r = &mut next.restorer;
    r.at += 1;
    let there = |pack: u8| state.packs & 1 << pack != 0;
    let what = match state.restorer.at {
        0 => {
            let Some(place) = state.place(0) else { return };
            (r.place, r.now) = (place, place);
            "read the snapshot"
        }
        1 | 3 | 5 => {
            let again = r.at < 6 && (r.at < 4 || model.rules.on(Rule::RESTORE));
            if there(r.now) {
                r.at = DONE;
            } else if !again {
                next.failed = state.place(0).is_some();
                next.restorer.at = DONE;
            }
            "get the pack"
        }
        2 | 4 => {
            r.now = resolve(state.seen_moves(model), r.place, false).0;
            "read the relocations"
        }
        _ => return,
    };
    out.push(Step { who: "restore", number: 0, what, next });
}

/// The first relocation cannot be seen for a while.
pub(super) fn harm(state: &State, out: &mut Vec<Step<State>>) {
    let counts = state.sessions & 4 != 0 && state.ends[2] & THERE != 0;
    let (who, what) = match state.harmed {
        0 if counts => ("store", "loses or spoils the first relocation"),
        1 => ("person", "puts the first relocation right"),
        _ => return,
    };
    out.push(Step { who, number: 2, what, next: State { harmed: state.harmed + 1, ..*state } });
}
