//! State and steps of the model. Invariants: a visible snapshot has its pack; a success that was reported
//! stays visible until forgotten; what was forgotten does not come back.

use crate::rules::Rules;

/// What takes part in a run.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Collectors, at most two; each creates at most one list.
    pub collectors: usize,
    /// The writer reuses through its parent (W3) instead of through a hint (W4).
    pub parent: bool,
    /// The session that may be forgotten.
    pub forget: usize,
    /// Whether clean-up of fenced and forgotten sessions runs.
    pub cleanup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    None,
    Record(u8),
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Collector {
    pc: u8,
    packs: u8,
    records: [u8; 2],
    ended: u8,
    marked: u8,
    sessions: u8,
    condemned: u8,
    last: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Writer {
    pc: u8,
    absent: u8,
    seen: u8,
    pack: u8,
}

/// One state of store, clients and deletes in flight. Sets are bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    packs: u8,
    sessions: u8,
    ends: [End; 2],
    markers: u8,
    condemned: [Option<u8>; 2],
    finals: [Option<u8>; 2],
    flying: u8,
    writer: Writer,
    collectors: [Collector; 2],
    cleanup: [u8; 2],
    forgotten: u8,
    success: bool,
}

type Steps = Vec<(String, State)>;

impl State {
    /// Session 0 committed with pack 0, nothing else.
    #[must_use]
    pub fn new(_: Scenario) -> Self {
        Self {
            packs: 1,
            sessions: 1,
            ends: [End::Record(0), End::None],
            markers: 0,
            condemned: [None; 2],
            finals: [None; 2],
            flying: 0,
            writer: Writer::default(),
            collectors: [Collector::default(); 2],
            cleanup: [0; 2],
            forgotten: 0,
            success: false,
        }
    }

    fn visible(&self, session: usize) -> Option<u8> {
        let bit = 1 << session;
        match self.ends[session] {
            End::Record(pack) if self.sessions & bit != 0 && self.markers & bit == 0 => Some(pack),
            _ => None,
        }
    }

    /// The invariant that this state breaks, if any.
    #[must_use]
    pub fn broken(&self) -> Option<&'static str> {
        for session in 0..2 {
            if let Some(pack) = self.visible(session) {
                if self.forgotten & (1 << session) != 0 {
                    return Some("a forgotten snapshot is visible again");
                }
                if self.packs & (1 << pack) == 0 {
                    return Some("a visible snapshot lost its pack");
                }
            }
        }
        let lost = self.success && self.forgotten & 2 == 0 && self.visible(1).is_none();
        lost.then_some("a reported success is not visible")
    }

    /// Every step that some client or the network can take.
    #[must_use]
    pub fn steps(&self, scenario: Scenario, rules: Rules) -> Steps {
        let mut out = Vec::new();
        self.write(scenario, rules, &mut out);
        for who in 0..scenario.collectors {
            self.collect(who, rules, &mut out);
            self.finish_abandoned(who, &mut out);
        }
        self.forget(scenario.forget, rules, &mut out);
        for session in 0..2 {
            if scenario.cleanup {
                self.clean(session, rules, &mut out);
            }
            if self.flying & (1 << session) != 0 {
                let mut next = *self;
                next.flying &= !(1 << session);
                next.packs &= !(1 << session);
                out.push((format!("delete of pack {session} lands"), next));
            }
        }
        out
    }

    fn write(&self, scenario: Scenario, rules: Rules, out: &mut Steps) {
        let mut next = *self;
        let w = &mut next.writer;
        w.pc += 1;
        // The order of steps 1..=4: read lists (0), read end, marker, session (1, 2, 3), nothing (9).
        let reads = match (scenario.parent, rules.on("W3"), rules.on("V")) {
            (false, _, _) => [0, 9, 9, 9],
            (true, false, _) => [1, 2, 3, 0],
            (true, true, true) => [0, 1, 2, 3],
            (true, true, false) => [0, 1, 3, 2],
        };
        let label = match self.writer.pc {
            0 => {
                next.sessions |= 2;
                "W1 create session 1"
            }
            pc @ 1..=4 => match reads[usize::from(pc) - 1] {
                0 => {
                    if rules.on("W2") {
                        w.absent = self.condemned.iter().flatten().fold(0, |all, list| all | list);
                    }
                    "W2 read condemned lists"
                }
                1 => {
                    w.seen |= u8::from(self.ends[0] == End::Record(0));
                    "W3 read end 0"
                }
                2 => {
                    w.seen |= u8::from(self.markers & 1 == 0) << 1;
                    "W3 read marker 0"
                }
                3 => {
                    w.seen |= (self.sessions & 1) << 2;
                    "W3 read session 0"
                }
                _ => "skip the parent",
            },
            5 => {
                let there =
                    if scenario.parent { w.seen == 7 } else { !rules.on("W4") || self.packs & 1 != 0 };
                w.pack = u8::from(!there || w.absent & 1 != 0);
                next.packs |= 1 << w.pack & 2;
                if w.pack == 0 { "W3/W4 reuse pack 0" } else { "W6 put pack 1" }
            }
            6 => {
                if self.ends[1] == End::None {
                    next.ends[1] = End::Record(self.writer.pack);
                    let mut lost = next;
                    lost.writer.pc = 6;
                    out.push(("W6 put end 1, reply lost".to_owned(), lost));
                } else if self.ends[1] == End::Fenced {
                    w.pc = 9;
                }
                "W6 put end 1 or obey the one there"
            }
            7 => {
                next.success = !rules.on("W7") || self.sessions & 2 != 0;
                w.pc = 9;
                "W7 get session 1, report"
            }
            _ => return,
        };
        out.push((label.to_owned(), next));
    }

    #[expect(clippy::too_many_lines, reason = "one table: each step of the actor with what it leads to")]
    fn collect(&self, who: usize, rules: Rules, out: &mut Steps) {
        let mut next = *self;
        let c = &mut next.collectors[who];
        let pc = c.pc;
        c.pc += 1;
        let label = match pc {
            0 => {
                c.packs = self.packs;
                "C1 list packs"
            }
            1 | 7 => {
                c.records = [0; 2];
                c.ended = 0;
                for (session, end) in self.ends.iter().enumerate() {
                    c.ended |= u8::from(*end != End::None) << session;
                    if let End::Record(pack) = end {
                        c.records[session] = 1 << pack;
                    }
                }
                "list ends"
            }
            2 | 8 => {
                c.marked = self.markers;
                "list markers"
            }
            3 | 9 => {
                let mut needed = 0;
                for session in 0..2 {
                    if self.sessions & !c.marked & (1 << session) != 0 {
                        needed |= c.records[session];
                    }
                }
                if pc == 3 {
                    let running = self.sessions & !c.ended;
                    c.sessions = self.sessions;
                    c.condemned = c.packs & !needed & !running;
                    if c.condemned == 0 {
                        c.pc = 16;
                    }
                } else {
                    c.last = if rules.on("C5") { c.condemned & !needed } else { c.condemned };
                }
                "list sessions and mark (V)"
            }
            4 => {
                next.condemned[who] = Some(c.condemned);
                "C2 create condemned"
            }
            5 => {
                if rules.on("C3") {
                    c.sessions = self.sessions;
                }
                "C3 list sessions"
            }
            6 => {
                let open = (0..2).find(|s| c.sessions & (1 << s) != 0 && self.ends[*s] == End::None);
                if let (Some(session), true) = (open, rules.on("C4")) {
                    next.ends[session] = End::Fenced;
                    c.pc = 6;
                }
                "C4 every session has an end or is fenced"
            }
            10 => {
                let stored = *next.finals[who].get_or_insert(c.last);
                if rules.on("C6") {
                    c.last = stored;
                }
                "C6 create final or take the stored one"
            }
            11 => {
                if rules.on("C7") && self.condemned[who].is_none() {
                    c.pc = 16;
                }
                "C7 get condemned"
            }
            12 => {
                next.flying |= c.last;
                "C8 send deletes"
            }
            13 => {
                if rules.on("C8") && (self.packs | self.flying) & c.last != 0 {
                    return;
                }
                "C8 all confirmed"
            }
            14 | 15 => {
                if (pc == 14) == rules.on("C9") {
                    next.condemned[who] = None;
                    "C9 drop condemned"
                } else {
                    next.finals[who] = None;
                    "C9 drop final"
                }
            }
            _ => return,
        };
        out.push((format!("collector {who}: {label}"), next));
    }

    /// C10: someone else finishes list `who`; without a final it becomes void.
    fn finish_abandoned(&self, who: usize, out: &mut Steps) {
        let mut next = *self;
        let label = match (self.condemned[who], self.finals[who]) {
            (Some(_), None) => {
                next.finals[who] = Some(0);
                "create final = void"
            }
            (Some(_), Some(0)) => {
                next.condemned[who] = None;
                "drop condemned"
            }
            (None, Some(0)) => {
                next.finals[who] = None;
                "drop final"
            }
            _ => return,
        };
        out.push((format!("C10 on list {who}: {label}"), next));
    }

    fn forget(&self, session: usize, rules: Rules, out: &mut Steps) {
        if self.forgotten & (1 << session) != 0 || self.visible(session).is_none() {
            return;
        }
        let mut next = *self;
        next.forgotten |= 1 << session;
        if rules.on("FORGET") {
            next.markers |= 1 << session;
        } else {
            next.ends[session] = End::None;
        }
        out.push((format!("forget session {session}"), next));
    }

    fn clean(&self, session: usize, rules: Rules, out: &mut Steps) {
        let bit = 1 << session;
        let due = self.ends[session] == End::Fenced || self.markers & bit != 0;
        let mut next = *self;
        next.cleanup[session] += 1;
        let order = if rules.on("CLEANUP") { [0, 1, 2] } else { [2, 1, 0] };
        let done = usize::from(self.cleanup[session]);
        if done > 2 || (done == 0 && !due) {
            return;
        }
        match order[done] {
            0 => next.sessions &= !bit,
            1 => next.ends[session] = End::None,
            _ => next.markers &= !bit,
        }
        let what = ["session", "end", "marker"][order[done]];
        out.push((format!("clean-up drops {what} {session}"), next));
    }
}
