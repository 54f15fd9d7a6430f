//! The store that loses objects, requests that land late, and the person who forgets, gives up and brings back.

use super::{Child, DOUBTFUL, FENCED, Loss, OLD, SESSIONS, State, Steps, bit, is_record};
use crate::search::Step;

pub(super) fn steps(model: &Loss, state: &State, out: &mut Steps) {
    if state.lost == 0 {
        for number in (1..=10u8).filter(|number| model.losses >> (number - 1) & 1 != 0) {
            lose(model, state, number, out);
        }
    }
    if model.bring_back && state.is_away {
        bring_back(model, state, out);
    }
    for session in (0..SESSIONS).filter(|session| model.forget & bit(*session) != 0) {
        if state.reported & !state.forgotten & bit(session) != 0 && state.markers & bit(session) == 0 {
            let mut next = *state;
            next.markers |= bit(session);
            next.forgotten |= bit(session);
            out.push(Step { who: "person", number: session as u8, what: "forgets or gives up", next });
        }
    }
    land(model, state, out);
}

fn lose(model: &Loss, state: &State, number: u8, out: &mut Steps) {
    let at = usize::from((number - 1) % 3);
    let mut next = State { lost: number, is_away: true, ..*state };
    let what = match number {
        // Until its end is there, a session without its object fails by W7, and nobody may make it come true again.
        1..=3 if !state.is_gone(at) && (is_record(state.ends[at]) || model.beyond_session) => {
            next.sessions &= !bit(at);
            "loses a session"
        }
        4..=6 if is_record(state.ends[at]) => {
            next.ends[at] = 0;
            "loses an end"
        }
        7..=9 if state.packs & bit(at) != 0 => {
            next.packs &= !bit(at);
            "loses a pack"
        }
        10 if is_record(state.ends[OLD]) => {
            next.ends[OLD] = DOUBTFUL;
            "spoils an end"
        }
        _ => return,
    };
    out.push(Step { who: "store", number: at as u8, what, next });
}

/// What stands in the place of an end, a person takes away first.
fn bring_back(model: &Loss, state: &State, out: &mut Steps) {
    let at = usize::from((state.lost - 1) % 3);
    let mut next = State { is_away: false, ..*state };
    let is_given_up = state.forgotten & bit(at) != 0;
    match state.lost {
        // A writer that reads a parent by V would take what was given up and comes back for visible.
        1..=3 if is_given_up && model.child == Child::Writer => return,
        1..=3 => next.sessions |= bit(at),
        // A snapshot that was let go may have lost its packs since.
        4..=6 if state.let_go & bit(at) == 0 && matches!(state.ends[at], 0 | FENCED) => {
            next.ends[at] = state.records[at];
        }
        // A delete that is in flight hits what was brought back, whatever the rules.
        7..=9 if state.sent & bit(at) == 0 => next.packs |= bit(at),
        10 if state.ends[OLD] == DOUBTFUL => next.ends[OLD] = state.records[OLD],
        _ => return,
    }
    out.push(Step { who: "person", number: at as u8, what: "brings back what was lost", next });
}

/// Requests that were sent take effect.
fn land(model: &Loss, state: &State, out: &mut Steps) {
    for number in 0..SESSIONS {
        let mut push = |what, next| out.push(Step { who: "network", number: number as u8, what, next });
        if state.sent & state.packs & bit(number) != 0 {
            let (packs, deleted) = (state.packs & !bit(number), state.deleted | bit(number));
            push("a delete of this pack lands", State { packs, deleted, ..*state });
        }
        if state.sent_ends & bit(number) != 0 && state.ends[number] != 0 {
            let mut next = *state;
            next.ends[number] = 0;
            push("a delete of this end lands again", next);
        }
    }
    if model.late_end && state.ends[OLD] == 0 {
        let mut next = *state;
        next.ends[OLD] = state.records[OLD];
        next.is_away &= usize::from(state.lost) != OLD + 4;
        out.push(Step { who: "network", number: 0, what: "a late PUT of this session's end lands", next });
    }
}
