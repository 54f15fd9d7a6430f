//! The writer whose parent is the old snapshot, and whoever revives that (W1 to W7, REVIVE).

use super::{CHILD, DONE, FENCED, Loss, OLD, PACKS, PARENT, REVIVED, State, Steps, THERE, bit, is_record};
use crate::{rules::Rule, search::Step};

/// What the writer has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Writer {
    pub(super) at: u8,
    absent: u8,
    parent: u8,
}

/// What somebody who revives has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Reviver {
    pub(super) at: u8,
    record: u8,
    missing: u8,
}

/// What lists name: absent to a session (W2).
fn absent(model: &Loss, state: &State) -> u8 {
    if model.on(Rule::W2) { (state.lists[0] | state.lists[1]) & PACKS } else { 0 }
}

pub(super) fn write(model: &Loss, state: &State, out: &mut Steps) {
    let mut next = *state;
    let w = &mut next.writer;
    w.at += 1;
    let what = match state.writer.at {
        0 => {
            next.sessions |= bit(CHILD);
            "W1 create the session"
        }
        1 => {
            w.absent = absent(model, state);
            "W2 read the lists"
        }
        2 => {
            w.parent = if is_record(state.ends[OLD]) { state.ends[OLD] } else { 0 };
            "W3 read the parent's end"
        }
        3 => {
            w.parent &= if state.markers & bit(OLD) == 0 { 0xFF } else { 0 };
            "W3 read the parent's marker"
        }
        4 => {
            w.parent &= if state.is_gone(OLD) { 0 } else { 0xFF };
            "W3 read the parent's session"
        }
        5 => {
            let reused = w.parent & PACKS & !w.absent;
            let named = if w.parent == 0 { 0 } else { PARENT };
            let own = if reused == 0 { bit(CHILD) } else { 0 };
            next.packs |= own;
            next.records[CHILD] = THERE | named | reused | own;
            (w.absent, w.parent) = (0, 0);
            "W6 reuse the pack or upload one"
        }
        6 => put_end(&mut next, CHILD),
        7 => {
            w.at = DONE;
            next.reported |= state.sessions & bit(CHILD);
            "W7 get the session, report"
        }
        _ => return,
    };
    if shut_out(&next, CHILD) && state.writer.at == 6 {
        next.writer.at = DONE;
    }
    out.push(Step { who: "writer", number: CHILD as u8, what, next });
}

fn put_end(next: &mut State, session: usize) -> &'static str {
    if next.ends[session] == 0 {
        next.ends[session] = next.records[session];
        return "W6 put the end";
    }
    "W6 find an end there, obey it"
}

fn shut_out(state: &State, session: usize) -> bool {
    state.ends[session] != state.records[session]
}

/// The same record in a new session; it may name what is missing, and says so.
pub(super) fn revive(model: &Loss, state: &State, out: &mut Steps) {
    let mut push = |what, next| out.push(Step { who: "reviver", number: REVIVED as u8, what, next });
    let mut next = *state;
    if state.reviver.at == 0 && !model.on(Rule::REVIVE) {
        if state.markers & state.forgotten & bit(OLD) != 0 {
            next.markers &= !bit(OLD);
            next.forgotten &= !bit(OLD);
            push("takes the marker away", next);
        }
        return;
    }
    let r = &mut next.reviver;
    r.at += 1;
    let what = match state.reviver.at {
        0 => {
            let is_hidden = state.markers & bit(OLD) != 0 || state.is_gone(OLD);
            if !is_hidden || !is_record(state.ends[OLD]) {
                return;
            }
            r.record = state.ends[OLD];
            "read the record"
        }
        1 => {
            next.sessions |= bit(REVIVED);
            "W1 create the session"
        }
        2 => {
            if absent(model, state) & r.record != 0 {
                *r = Reviver { at: DONE, ..Reviver::default() };
                if next.ends[REVIVED] == 0 {
                    next.ends[REVIVED] = FENCED;
                }
                push("W2 a list names what it needs: give up", next);
                return;
            }
            "W2 read the lists"
        }
        3 => {
            r.missing = r.record & !state.packs & PACKS;
            next.records[REVIVED] = r.record;
            "list packs"
        }
        4 => {
            next.missing = r.missing;
            let what = put_end(&mut next, REVIVED);
            if shut_out(&next, REVIVED) {
                next.reviver = Reviver { at: DONE, ..Reviver::default() };
            }
            what
        }
        5 => {
            *r = Reviver { at: r.at, ..Reviver::default() };
            next.reported |= state.sessions & bit(REVIVED);
            if state.is_gone(REVIVED) {
                r.at = DONE;
            }
            "W7 get the session, report"
        }
        6 => {
            next.markers |= bit(OLD);
            next.forgotten |= bit(OLD);
            next.reviver = Reviver { at: DONE, ..Reviver::default() };
            "forget the old session"
        }
        _ => return,
    };
    push(what, next);
}
