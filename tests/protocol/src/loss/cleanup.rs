//! Clean-up as a collector does it at the end of a run, of what its first mark found, and orphan ends (CLEANUP, FENCE,
//! ORPHANS).

use super::{
    BURIED, DOUBTFUL, FENCED, Loss, OLD, SESSIONS, State, bit,
    collector::{CLEAN, end_run},
};
use crate::rules::Rule;

const SESSION: u8 = CLEAN + 1;
const END: u8 = CLEAN + 2;
const TOMBSTONE: u8 = CLEAN + 3;
const MARKER: u8 = CLEAN + 4;
const SESSIONS_SEEN: u8 = CLEAN + 5;
const SWEEP: u8 = CLEAN + 6;

pub(super) fn step(model: &Loss, state: &State, next: &mut State, who: usize) -> Option<&'static str> {
    let c = &mut next.collectors[who];
    match c.at {
        CLEAN if c.clean == 0 => {
            c.at = SESSIONS_SEEN;
            c.ends = state.ended();
            Some("ORPHANS: list ends")
        }
        CLEAN => {
            let session = first(c.clean);
            let is_due = state.markers & bit(session) != 0 || matches!(state.ends[session], FENCED | BURIED);
            if is_due {
                c.is_forgotten = state.markers & bit(session) != 0;
                c.at = after(model, CLEAN, c.is_forgotten);
            } else {
                c.clean &= c.clean - 1;
            }
            Some("CLEANUP: look at a session")
        }
        SESSION..=MARKER => clean(model, state, next, who),
        SESSIONS_SEEN => {
            c.sessions = state.sessions;
            c.at = SWEEP;
            Some("ORPHANS: list sessions")
        }
        SWEEP => {
            let orphans = c.ends & !c.sessions;
            for session in (0..SESSIONS).filter(|session| orphans & bit(*session) != 0) {
                // A tombstone stays as long as a PUT of that end may be on its way, or be sent.
                let is_awaited = model.late_end && session == OLD || state.is_at_work(session);
                let is_old = matches!(state.ends[session], FENCED | BURIED) && !is_awaited;
                // With keys from before a rotation a record looks like rubbish; who goes by KEYS has stopped.
                let looks_void = model.old_keys && session == OLD && !model.on(Rule::KEYS);
                if is_old || looks_void || state.ends[session] == DOUBTFUL {
                    next.ends[session] = 0;
                }
            }
            end_run(next, who);
            Some("ORPHANS: drop old tombstones and rubbish")
        }
        _ => None,
    }
}

fn first(sessions: u8) -> usize {
    sessions.trailing_zeros() as usize
}

/// What comes after a part of the clean-up of one session; `CLEAN` after the last.
fn after(model: &Loss, at: u8, is_forgotten: bool) -> u8 {
    let whole: &[u8] = match (model.on(Rule::CLEANUP), is_forgotten) {
        (true, true) => &[CLEAN, SESSION, END, TOMBSTONE, MARKER, CLEAN],
        (false, true) => &[CLEAN, MARKER, END, TOMBSTONE, SESSION, CLEAN],
        // The end of one that was shut out is a tombstone already.
        (_, false) => &[CLEAN, SESSION, MARKER, CLEAN],
    };
    let place = whole.iter().position(|step| *step == at).unwrap_or(0);
    whole[place + 1]
}

fn clean(model: &Loss, state: &State, next: &mut State, who: usize) -> Option<&'static str> {
    let c = &mut next.collectors[who];
    let (at, session) = (c.at, first(c.clean));
    c.at = after(model, at, c.is_forgotten);
    let what = match at {
        SESSION => {
            next.sessions &= !bit(session);
            "CLEANUP: drop the session"
        }
        END => {
            if matches!(state.ends[session], FENCED | BURIED) {
                c.at = after(model, TOMBSTONE, c.is_forgotten);
            } else {
                next.ends[session] = 0;
                next.sent_ends |= if model.late_delete { bit(session) } else { 0 };
            }
            "CLEANUP: drop the end"
        }
        TOMBSTONE => {
            if !model.on(Rule::FENCE) {
                "no fence takes the place of the end"
            } else if state.ends[session] == 0 {
                next.ends[session] = BURIED;
                "FENCE: a fence takes the place of the end"
            } else {
                // A late PUT came first.
                c.at = END;
                "FENCE: find an end there again"
            }
        }
        MARKER => {
            next.markers &= !bit(session);
            next.mark &= session != OLD;
            "CLEANUP: drop the marker"
        }
        _ => return None,
    };
    let c = &mut next.collectors[who];
    if c.at == CLEAN {
        c.clean &= c.clean - 1;
        c.is_forgotten = false;
    }
    Some(what)
}
