//! What becomes of one request: carried out, refused, late, torn, doubled, or without an answer.

use std::time::Duration;

use carrack_mover::{
    error::{Error, Result},
    store::{ObjectStore as _, Page, Put, is_decision},
};

use super::{Change, Flight, Pending, Reply, Request, State, Who, at_once, died};
use crate::simulation::{
    faults::{Broken, Part},
    rng::Rng,
    world::timestamp,
};

/// How much oftener a client sleeps right after it has told others something.
const STALLS_AFTER_TELLING: u32 = 30;
/// How old listings are that lag.
const LAG: Duration = Duration::from_secs(3600);

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
        let mut dice_of_pause = Rng::new(&[seed, 10, who.client as u64, kind as u64, number]);
        // Whoever sleeps after having told others something wakes up in a world that went by it.
        let often =
            if client.has_told { self.faults.stall * STALLS_AFTER_TELLING } else { self.faults.stall };
        let pauses = client.has_decided && dice_of_pause.happens(self.faults.pause);
        if !self.pending[at].slept && (pauses || dice.happens(often.min(5000))) {
            self.pending[at].slept = true;
            let time = if pauses { hours(&mut dice_of_pause) } else { some_time(&mut dice) };
            client.asleep_until = self.now + time;
            self.figures.stalls += 1;
            self.log_line(&format!("{:>4} sleeps for {} s", who.client, time.as_secs()));
            return Vec::new();
        }
        client.of_kind[kind] += 1;
        let death = client.death.filter(|death| !death.writing || self.pending[at].request.writes());
        client.calls += u64::from(death.is_some());
        let dies = death.is_some_and(|death| client.calls > death.after);
        let Pending { request, reply, .. } = self.pending.remove(at);
        client.has_told = matches!(&request, Request::Put(name, _) if is_telling(name));
        client.has_decided = match &request {
            Request::Put(name, _) => name.ends_with(".final"),
            Request::List(prefix, _) => client.part == Part::Writer && prefix.starts_with("gc/"),
            Request::Get(..) | Request::Delete(_) => false,
        };
        match &request {
            Request::Put(name, _) if name.starts_with("gc/") => client.has_condemned = true,
            Request::List(prefix, _) if prefix.starts_with("snapshots/") => client.has_condemned = false,
            _ => {}
        }
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
        let call = format!("{} {}", self.clients[who.client].part, request.sort());
        *self.figures.deaths.entry(call).or_default() += 1;
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
        if request.writes() && dice.happens(faults.late) {
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
        if let Some(who) = who {
            self.count_joined(&request, who);
        }
        let body = match &request {
            Request::Put(_, body) => Some(body.clone()),
            Request::Get(..) | Request::List(..) | Request::Delete(_) => None,
        };
        let (reply, changes) = self.carry_out(request, who);
        let seen_at = self.now + LAG;
        for Change::Created(name) | Change::Deleted(name) in &changes {
            self.since.push_back((seen_at, name.clone(), body.clone()));
        }
        (reply, changes)
    }

    fn count_joined(&mut self, request: &Request, who: Who) {
        if request.name().ends_with(".joined") {
            let call = format!("{} {}", self.clients[who.client].part, request.sort());
            *self.figures.joined.entry(call).or_default() += 1;
        }
    }

    fn carry_out(&mut self, request: Request, who: Option<Who>) -> (Result<Reply>, Vec<Change>) {
        match request {
            Request::Put(name, body) => {
                self.objects.set_time(timestamp(self.now));
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
            Request::List(prefix, token) => (self.list(&prefix, token, who), Vec::new()),
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

    fn list(&mut self, prefix: &str, token: Option<String>, who: Option<Who>) -> Result<Reply> {
        let client = who.map(|who| &self.clients[who.client]);
        let is_writer = client.is_some_and(|client| client.part == Part::Writer);
        if self.broken == Broken::ListsHidden && is_writer && prefix.starts_with("gc/") {
            return Ok(Reply::List(Page { objects: Vec::new(), next: None }));
        }
        let has_condemned = client.is_some_and(|client| client.has_condemned);
        if self.broken == Broken::SessionsHidden && has_condemned && prefix.starts_with("sessions/") {
            return Ok(Reply::List(Page { objects: Vec::new(), next: None }));
        }
        while let Some((_, name, body)) = self.since.pop_front_if(|(seen_at, ..)| *seen_at <= self.now) {
            self.older.set_time(timestamp(self.now));
            self.older.tamper(&name, body);
        }
        let lags = self.broken == Broken::ListingsLag;
        let objects = if lags { &self.older } else { self.objects.as_ref() };
        at_once(objects.list(prefix, token)).map(Reply::List)
    }
}

fn hours(dice: &mut Rng) -> Duration {
    Duration::from_secs(dice.between(3600, 24 * 3600))
}

/// Some seconds, some minutes, or some days.
pub(super) fn some_time(dice: &mut Rng) -> Duration {
    let longest = [60, 3600, 72 * 3600][dice.index(3)];
    Duration::from_millis(dice.between(1, longest * 1000))
}
