//! What becomes of one request: carried out, refused, late, torn, doubled, or without an answer.

use std::{sync::Arc, time::Duration};

use carrack_mover::{
    error::{Error, Result},
    store::{ObjectStore as _, Put, is_decision},
};

use super::{Change, Flight, Pending, Reply, Request, State, Who, at_once, died};
use crate::simulation::{faults::Broken, rng::Rng};

/// How much oftener a client sleeps right after it has told others something.
const STALLS_AFTER_TELLING: u32 = 30;

fn is_telling(name: &str) -> bool {
    ["gc/", "snapshots/", "forgotten/"].iter().any(|folder| name.starts_with(folder))
}

impl State {
    /// Serves a call, or lets it go wrong.
    pub(super) fn serve(&mut self, at: usize) -> Vec<Change> {
        let who = self.pending[at].who;
        let kind = self.pending[at].request.kind();
        let seed = self.seed;
        let client = &mut self.clients[who.client];
        let number = client.of_kind[kind];
        let mut dice = Rng::new(&[seed, 2, who.client as u64, kind as u64, number]);
        // Whoever sleeps after having told others something wakes up in a world that went by it.
        let often =
            if client.has_told { self.faults.stall * STALLS_AFTER_TELLING } else { self.faults.stall };
        if !self.pending[at].slept && dice.happens(often.min(5000)) {
            self.pending[at].slept = true;
            let time = some_time(&mut dice);
            client.asleep_until = self.now + time;
            self.figures.stalls += 1;
            self.log_line(&format!("{:>4} sleeps for {} s", who.client, time.as_secs()));
            return Vec::new();
        }
        client.of_kind[kind] += 1;
        client.calls += 1;
        let dies = client.dies_at.is_some_and(|last| client.calls > last);
        let Pending { request, reply, .. } = self.pending.remove(at);
        client.has_told = matches!(&request, Request::Put(name, _) if is_telling(name));
        self.figures.calls += 1;
        self.mark(&format!("{} {} {}", who.client, request.kind(), request.name()));
        let words = request.words();
        let (answer, changes, how) = match dies {
            true => self.die(who, request, &mut dice),
            false => self.answer(who, request, &mut dice),
        };
        self.log_line(&format!("{:>4} {words}{how}", who.client));
        // Whoever asked may have given up.
        drop(reply.send(answer));
        changes
    }

    /// The client ends for ever; its last request may still arrive.
    fn die(
        &mut self,
        who: Who,
        request: Request,
        dice: &mut Rng,
    ) -> (Result<Reply>, Vec<Change>, &'static str) {
        self.figures.crashes += 1;
        self.clients[who.client].is_dead = true;
        self.pending.retain(|call| call.who != who);
        self.timers.retain(|timer| timer.client != who.client);
        let changes = if dice.happens(5000) { self.apply(request, Some(who)).1 } else { Vec::new() };
        (Err(died()), changes, ": it dies")
    }

    fn answer(
        &mut self,
        who: Who,
        request: Request,
        dice: &mut Rng,
    ) -> (Result<Reply>, Vec<Change>, &'static str) {
        let unclear = || Err(Error::unavailable("the store does not answer"));
        let faults = self.faults;
        if self.now < self.storm_until && dice.happens(7000) || dice.happens(faults.refused) {
            self.figures.refused += 1;
            return (unclear(), Vec::new(), ": refused");
        }
        let writes = matches!(request, Request::Put(..) | Request::Delete(_));
        if writes && dice.happens(faults.late) {
            self.figures.late += 1;
            self.fly(request, dice);
            return (unclear(), Vec::new(), ": late");
        }
        if let Request::Put(name, body) = &request
            && (name.starts_with("packs/") || name.starts_with("index/"))
            && dice.happens(faults.torn)
        {
            self.figures.torn += 1;
            let torn = body.slice(..dice.index(body.len().max(1)));
            let (_, changes) = self.apply(Request::Put(name.clone(), torn), Some(who));
            return (unclear(), changes, ": torn");
        }
        let may_double = match &request {
            Request::Put(name, _) => is_decision(name),
            Request::Delete(_) => true,
            Request::Get(..) | Request::List(..) => false,
        };
        if may_double && dice.happens(faults.doubled) {
            self.figures.doubled += 1;
            self.fly(request.clone(), dice);
        }
        let (reply, changes) = self.apply(request, Some(who));
        if dice.happens(faults.lost) {
            self.figures.lost += 1;
            return (unclear(), changes, ": reply lost");
        }
        (reply, changes, "")
    }

    fn fly(&mut self, request: Request, dice: &mut Rng) {
        let (id, due) = (self.id(), self.now + some_time(dice));
        self.flights.push(Flight { id, due, request });
        self.flights.sort_by_key(|flight| (flight.due, flight.id));
    }

    /// What the store does.
    pub(super) fn apply(&mut self, request: Request, who: Option<Who>) -> (Result<Reply>, Vec<Change>) {
        match request {
            Request::Put(name, body) => {
                if self.broken == Broken::ConditionsIgnored {
                    self.objects.tamper(&name, Some(body));
                    return (Ok(Reply::Put(Put::Created)), vec![Change::Created(name)]);
                }
                let put = at_once(self.objects.put_if_absent(&name, body));
                let created = matches!(put, Ok(Put::Created));
                (put.map(Reply::Put), created.then_some(Change::Created(name)).into_iter().collect())
            }
            Request::Get(name, range) => {
                (at_once(self.objects.get(&name, range)).map(Reply::Get), Vec::new())
            }
            Request::List(prefix, token) => {
                let old = who.and_then(|who| self.clients[who.client].before.clone());
                let objects = old.filter(|_| prefix.starts_with("sessions/"));
                let objects = objects.unwrap_or_else(|| Arc::clone(&self.objects));
                (at_once(objects.list(&prefix, token)).map(Reply::List), Vec::new())
            }
            Request::Delete(name) => {
                if self.broken == Broken::DeletesForgotten && name.starts_with("packs/") {
                    return (Ok(Reply::Delete(true)), Vec::new());
                }
                let deleted = at_once(self.objects.delete(&name));
                let was_there = matches!(deleted, Ok(true));
                (deleted.map(Reply::Delete), was_there.then_some(Change::Deleted(name)).into_iter().collect())
            }
        }
    }
}

/// Some seconds, some minutes, or some days.
pub(super) fn some_time(dice: &mut Rng) -> Duration {
    let longest = [60, 3600, 72 * 3600][dice.index(3)];
    Duration::from_millis(dice.between(1, longest * 1000))
}
