//! Once all is quiet: everyone else died, and one collector alone must leave exactly what is needed.

use super::{Commit, DONE, LISTS, SESSIONS, State, bit, collector};
use crate::rules::Rule;

/// Steps that a collector alone takes at most.
const ENOUGH: usize = 200;

/// What is wrong after one collector ran alone from this state, by the order of the code: lists of others, packs,
/// clean-up, orphan ends.
pub(super) fn left_over(model: &Commit, state: &State) -> Option<&'static str> {
    let alone = Commit { collectors: 1, lists: 1, split: false, finish: true, ..*model };
    let mut state = State {
        late_sessions: 0,
        late_ends: 0,
        late_packs: 0,
        dropping: [0; LISTS],
        collectors: Default::default(),
        cleanup: [0; SESSIONS],
        orphans: (0, 0),
        ..*state
    };
    finish_lists(&alone, &mut state);
    // Overdue sessions are shut out even when nothing is condemned.
    for session in alone.sessions().filter(|s| state.sessions & bit(*s) != 0) {
        if state.ends[session] == 0 {
            state.ends[session] = super::FENCED;
        }
    }
    run(&alone, &mut state);
    clean_up(&alone, &mut state);
    judge(&alone, &state)
}

fn finish_lists(model: &Commit, state: &mut State) {
    for list in 0..LISTS {
        if state.condemned[list] != 0 {
            state.packs &= !collector::believed(model, state.finals[list]);
        }
        (state.condemned[list], state.finals[list]) = (0, 0);
    }
}

fn run(model: &Commit, state: &mut State) {
    let mut out = Vec::new();
    for _ in 0..ENOUGH {
        if state.collectors[0].at == DONE {
            return;
        }
        out.clear();
        collector::steps(model, state, 0, &mut out);
        match out.first() {
            Some(step) => *state = step.next,
            // It waits for its deletes.
            None => state.packs &= !state.sent,
        }
    }
}

fn clean_up(model: &Commit, state: &mut State) {
    for session in model.sessions() {
        let marked = state.markers & bit(session) != 0;
        if state.ends[session] == super::FENCED || marked || state.is_gone(session) {
            state.sessions &= !bit(session);
            state.ends[session] = 0;
            state.markers &= !bit(session);
        }
    }
}

fn judge(model: &Commit, state: &State) -> Option<&'static str> {
    let needed = model.sessions().filter_map(|session| state.visible(model, session)).fold(0, |a, b| a | b);
    let lists = state.condemned.iter().chain(&state.finals).any(|list| *list != 0);
    let sessions = model.sessions().any(|s| state.visible(model, s).is_some() == state.is_gone(s));
    if state.collectors[0].at != DONE {
        Some("a collector alone does not come to an end")
    } else if state.packs != needed {
        Some("a collector alone does not leave exactly what is needed")
    } else if lists || (model.on(Rule::C9) && sessions) {
        Some("a collector alone leaves lists or sessions behind")
    } else {
        None
    }
}
