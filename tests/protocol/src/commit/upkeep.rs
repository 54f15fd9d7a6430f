//! Finishing lists of others (C10), forgetting, clean-up, orphan ends, and the thief.

use super::{Commit, DONE, FENCED, FORGED, LISTS, SECOND, State, Steps, THERE, bit, collector::believed};
use crate::{rules::Rule, search::Step};

/// The bit of a final that the thief made.
pub(super) const FORGED_FINAL: u8 = 0x40;

pub(super) fn steps(model: &Commit, state: &State, out: &mut Steps) {
    if model.finish {
        for list in 0..LISTS {
            finish(model, state, list, out);
        }
    }
    for session in model.sessions() {
        if model.forget & bit(session) != 0 {
            forget(model, state, session, out);
        }
        if model.cleanup & bit(session) != 0 {
            clean(model, state, session, out);
        }
    }
    if model.orphans {
        orphans(model, state, out);
    }
    if model.forge_ends {
        forge_ends(model, state, out);
    }
    if model.forge_lists {
        forge_lists(model, state, out);
    }
    if model.replay {
        put_back(state, out);
    }
}

/// C10, from nobody in particular. What it checks stays true once it is, so it needs no memory but how far the list
/// is dropped.
fn finish(model: &Commit, state: &State, list: usize, out: &mut Steps) {
    let mut push = |what, next| out.push(Step { who: "who finishes list", number: list as u8, what, next });
    let (there, stored, dropping) = (state.condemned[list] != 0, state.finals[list], state.dropping[list]);
    if state.finishing & 1 << list != 0 {
        let (sent, finishing) = (state.sent | state.packs & (1 | SECOND), state.finishing & !(1 << list));
        push("C8 list the sendings and delete them", State { sent, finishing, ..*state });
    }
    let mut next = *state;
    if dropping != 0 {
        next.dropping[list] = if dropping == 1 { 2 } else { 0 };
        if (dropping == 1) == model.on(Rule::C9) {
            next.condemned[list] = 0;
            push("C9 drop the list", next);
        } else {
            next.finals[list] = 0;
            push("C9 drop the final", next);
        }
        return;
    }
    if stored == 0 && there && model.on(Rule::C10) {
        next.finals[list] = THERE;
        push("C10 create a void final", next);
        return;
    }
    // Another's final does not verify with old keys.
    let doubted = model.old_keys && list < 2 && stored != 0;
    if doubted && model.on(Rule::KEYS) {
        return;
    }
    let doomed = if doubted { 0 } else { believed(model, stored) };
    if there && doomed & !state.sent != 0 && may_finish(model, state, doomed) {
        // Who has to list the sendings first may stall before; who need not is covered by what lands late.
        let next = if model.twice && !model.on(Rule::SENDINGS) {
            State { finishing: state.finishing | 1 << list, ..*state }
        } else {
            State { sent: state.sent | doomed, ..*state }
        };
        push("C10 finish C8", next);
    }
    let confirmed = state.packs & doomed == 0 || !model.on(Rule::C10);
    if (there || stored != 0) && confirmed && (stored != 0 || !model.on(Rule::C10)) {
        next.dropping[list] = 1;
        push("C10 begin to drop the list", next);
    }
}

/// Whether C3 to C5, done anew, let the list go on.
fn may_finish(model: &Commit, state: &State, doomed: u8) -> bool {
    let visible = |session| state.visible(model, session).unwrap_or(0);
    let needed = model.sessions().fold(0, |all, session| all | visible(session));
    let open = model.sessions().any(|session| !state.is_gone(session) && state.ends[session] == 0);
    !model.replay || needed & doomed == 0 && !(model.on(Rule::REPLAY) && open)
}

fn forget(model: &Commit, state: &State, session: usize, out: &mut Steps) {
    if state.forgotten & bit(session) != 0 || state.visible(model, session).is_none() {
        return;
    }
    let mut next = *state;
    next.forgotten |= bit(session);
    if model.on(Rule::FORGET) {
        next.markers |= bit(session);
    } else {
        next.ends[session] = 0;
    }
    out.push(Step { who: "forget", number: session as u8, what: "this session", next });
}

fn clean(model: &Commit, state: &State, session: usize, out: &mut Steps) {
    let due = state.ends[session] == FENCED || state.hidden(model) & bit(session) != 0;
    let done = state.cleanup[session];
    if done > 2 || (done == 0 && !due) {
        return;
    }
    let mut next = *state;
    next.cleanup[session] += 1;
    let order = if model.on(Rule::CLEANUP) { [0, 1, 2] } else { [2, 1, 0] };
    let what = match order[usize::from(done)] {
        0 => {
            next.sessions &= !bit(session);
            "drop the session"
        }
        1 => {
            next.ends[session] = 0;
            "drop the end"
        }
        _ => {
            next.markers &= !bit(session);
            next.forged_markers &= !bit(session);
            "drop the marker"
        }
    };
    out.push(Step { who: "clean-up of session", number: session as u8, what, next });
}

fn orphans(model: &Commit, state: &State, out: &mut Steps) {
    let (at, seen) = state.orphans;
    let ends = model.sessions().fold(0, |all, s| all | u8::from(state.ends[s] != 0) << s);
    let mut next = *state;
    let what = match (at, model.on(Rule::ORPHANS)) {
        (0, true) => {
            next.orphans = (1, ends);
            "list ends"
        }
        (0, false) => {
            next.orphans = (1, state.sessions);
            "list sessions"
        }
        (1, true) => {
            next.orphans = (2, seen & !state.sessions);
            "list sessions"
        }
        (1, false) => {
            next.orphans = (2, ends & !seen);
            "list ends"
        }
        (2, _) => {
            model.sessions().filter(|s| seen & bit(*s) != 0).for_each(|s| next.ends[s] = 0);
            next.orphans = (3, 0);
            "drop orphan ends"
        }
        _ => return,
    };
    out.push(Step { who: "orphan search", number: 0, what, next });
}

/// Creates whatever a mover may create under any name that is free.
fn forge_ends(model: &Commit, state: &State, out: &mut Steps) {
    for session in model.sessions() {
        let mut push = |what, next| out.push(Step { who: "thief", number: session as u8, what, next });
        if state.ends[session] == 0 {
            let mut next = *state;
            next.ends[session] = if model.on(Rule::AUTH) { FORGED } else { FENCED };
            push("forges an end of this session", next);
        }
        if state.forged_markers & bit(session) == 0 {
            let forged_markers = state.forged_markers | bit(session);
            push("forges a marker for this session", State { forged_markers, ..*state });
        }
    }
}

fn forge_lists(model: &Commit, state: &State, out: &mut Steps) {
    for list in 0..LISTS.min(usize::from(model.collectors) * 2) {
        let mut push = |what, next| out.push(Step { who: "thief", number: list as u8, what, next });
        if state.finals[list] == 0 {
            let mut next = *state;
            next.finals[list] = THERE | FORGED_FINAL | 0xF;
            push("forges a final of this list", next);
        }
        if state.condemned[list] == 0 && !model.on(Rule::AUTH) {
            let mut next = *state;
            next.condemned[list] = THERE | 0xF;
            push("forges this list", next);
        }
    }
}

/// Creates again what was there once: signatures are of no help against it.
fn put_back(state: &State, out: &mut Steps) {
    for list in 0..LISTS {
        let mut push = |what, next| out.push(Step { who: "thief", number: list as u8, what, next });
        let (condemned, stored) = (state.condemned[list], state.finals[list]);
        let mut next = *state;
        if condemned != 0 && stored & 0xF != 0 && state.copies[list] == 0 {
            next.copies[list] = stored;
            push("copies this list and its final", next);
        } else if condemned == 0 && stored == 0 && state.copies[list] != 0 {
            (next.condemned[list], next.finals[list]) = (state.copies[list], state.copies[list]);
            push("puts this list and its final back", next);
        }
    }
    let lists = state.condemned.iter().chain(&state.finals).any(|list| *list != 0);
    let at_work = state.collectors.iter().any(|collector| !matches!(collector.at, 0 | DONE));
    if state.packs & 1 == 0 && !lists && !at_work {
        // Deletes that somebody has yet to send, or that are in flight, would hit what was put back, whatever the
        // rules: they are left out.
        let next = State { packs: state.packs | 1, sent: state.sent & !1, ..*state };
        out.push(Step { who: "thief", number: 0, what: "puts this pack back", next });
    }
}
