//! Rules W1 to W7.

use super::{Commit, DONE, FENCED, State, Steps, THERE, Via, bit, first_of, record};
use crate::{rules::Rule, search::Step};

/// What a writer has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Writer {
    at: u8,
    /// What lists name (W2).
    absent: u8,
    /// What was seen of the parent: its record, and whether neither marker nor absence spoke against it.
    parent: u8,
    /// What its own record names.
    pub(super) record: u8,
}

/// What the steps between W1 and W6 are, in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Lists,
    MoreLists,
    End,
    Marker,
    Session,
    Footer(u8),
}

fn reads(model: &Commit, via: Via) -> Vec<Read> {
    let lists = if model.paged { vec![Read::Lists, Read::MoreLists] } else { vec![Read::Lists] };
    match via {
        Via::Nothing => Vec::new(),
        Via::Hint(packs) => {
            let footers = (0..4).filter(|pack| packs & 1 << pack != 0).map(Read::Footer).collect();
            if model.on(Rule::W4) { [lists, footers].concat() } else { [footers, lists].concat() }
        }
        Via::Parent(_) => {
            let parent = if model.on(Rule::V) {
                vec![Read::End, Read::Marker, Read::Session]
            } else {
                vec![Read::End, Read::Session, Read::Marker]
            };
            if model.on(Rule::W3) { [lists, parent].concat() } else { [parent, lists].concat() }
        }
    }
}

pub(super) fn steps(model: &Commit, state: &State, who: usize, out: &mut Steps) {
    let writer = state.writers[who];
    if writer.at == DONE {
        return;
    }
    let via = model.writers[who];
    let reads = reads(model, via);
    let mut push = |what, next| out.push(Step { who: "writer", number: who as u8 + 1, what, next });
    let at = usize::from(writer.at);
    if at == 0 {
        begin(model, state, who, &mut push);
        return;
    }
    if model.abandon && at <= reads.len() + 3 {
        give_up(state, who, &mut push);
    }
    if at <= reads.len() {
        let mut next = *state;
        next.writers[who].at += 1;
        let what = read(model, &mut next, who, via, reads[at - 1]);
        push(what, next);
    } else if at == reads.len() + 1 {
        upload(model, state, who, via, &mut push);
    } else if at == reads.len() + 2 {
        end(model, state, who, &mut push);
    } else {
        let mut next = *state;
        next.writers[who].at = DONE;
        if !state.is_gone(who + 1) || !model.on(Rule::W7) {
            next.success |= bit(who + 1);
        }
        push("W7 get the session, report", next);
    }
}

fn begin(model: &Commit, state: &State, who: usize, push: &mut impl FnMut(&'static str, State)) {
    let session = bit(who + 1);
    let mut next = *state;
    next.sessions |= session;
    next.writers[who].at = 1;
    if !model.on(Rule::N1) && !model.one_name {
        next.late_sessions |= session;
    }
    push("W1 create the session", next);
    if model.lost {
        // The name is abandoned; a second attempt is as good as another writer.
        let mut unclear = State { late_sessions: state.late_sessions | session, ..*state };
        unclear.writers[who].at = if model.on(Rule::W1) { DONE } else { 1 };
        push("W1 create the session, unclear", unclear);
    }
}

fn give_up(state: &State, who: usize, push: &mut impl FnMut(&'static str, State)) {
    let mut next = *state;
    next.writers[who].at = DONE;
    if next.ends[who + 1] == 0 {
        next.ends[who + 1] = FENCED;
    }
    push("gives up, creates an abandoned end", next);
}

fn read(model: &Commit, next: &mut State, who: usize, via: Via, what: Read) -> &'static str {
    let hidden = next.hidden(model);
    let State { condemned, ends, sessions, packs, .. } = *next;
    let writer = &mut next.writers[who];
    let parent = if let Via::Parent(session) = via { usize::from(session) } else { 0 };
    let names = |lists: std::ops::Range<usize>| condemned[lists].iter().fold(0, |all, list| all | list);
    match what {
        Read::Lists | Read::MoreLists if !model.on(Rule::W2) => "reads no lists",
        Read::Lists => {
            let lists = if model.paged { 0..2 } else { 0..4 };
            writer.absent |= first_of(names(lists) & !THERE);
            "W2 read the lists"
        }
        Read::MoreLists => {
            writer.absent |= first_of(names(2..4) & !THERE);
            "W2 read the second page of lists"
        }
        Read::End => {
            writer.parent = record(ends[parent]).unwrap_or(0);
            "W3 read the parent's end"
        }
        Read::Marker => {
            if hidden & bit(parent) != 0 {
                writer.parent = 0;
            }
            "W3 read the parent's marker"
        }
        Read::Session => {
            if sessions & bit(parent) == 0 {
                writer.parent = 0;
            }
            "W3 read the parent's session"
        }
        Read::Footer(pack) => {
            writer.parent |= first_of(packs) & 1 << pack;
            "W4 get the footer"
        }
    }
}

/// Decides what to reuse, and uploads the rest.
fn upload(model: &Commit, state: &State, who: usize, via: Via, push: &mut impl FnMut(&'static str, State)) {
    let mut next = *state;
    let writer = &mut next.writers[who];
    let reused = match via {
        Via::Nothing => 0,
        _ => writer.parent & !writer.absent,
    };
    // What it hoped to reuse and cannot, it uploads.
    let missing = if let Via::Hint(packs) = via { packs & !reused != 0 } else { reused == 0 };
    let own = if missing || model.own { 1 << (who + 2) } else { 0 };
    writer.record = THERE | reused | own;
    writer.at += 1;
    // They are not read any more: states that differ in them alone are one.
    (writer.absent, writer.parent) = (0, 0);
    next.packs |= own;
    push(if own == 0 { "W6 reuse a pack" } else { "W6 upload a pack" }, next);
}

fn end(model: &Commit, state: &State, who: usize, push: &mut impl FnMut(&'static str, State)) {
    let session = who + 1;
    let mut next = *state;
    let writer = &mut next.writers[who];
    if state.ends[session] == 0 {
        next.ends[session] = writer.record;
        writer.at += 1;
        push("W6 put the end", next);
        if model.lost && state.late_ends & bit(session) == 0 {
            push("W6 put the end, unclear", State { late_ends: state.late_ends | bit(session), ..*state });
        }
    } else {
        let mine = state.ends[session] == writer.record || !model.on(Rule::N2);
        writer.at = if mine { writer.at + 1 } else { DONE };
        push("W6 find an end there, obey it", next);
    }
}
