//! What a verb says, kept for the one that has run it as a part of its own work.

use std::sync::{Mutex, MutexGuard, PoisonError};

use carrack_proto::Problem;
use serde::Serialize;
use serde_json::Value;

/// Problems that are kept by name; all are counted.
const NAMED: usize = 8;

/// What was said so far.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    problems: u64,
    first: Vec<Problem>,
    summary: Value,
    prune_plan: Value,
}

impl Record {
    /// A message for programs. Of the many kinds only those are kept that somebody asks for.
    pub(crate) fn message(&self, message_type: &str, body: &impl Serialize) {
        let read = || serde_json::to_value(body).unwrap_or_default();
        match message_type {
            "summary" => self.kept().summary = read(),
            "prune_plan" => self.kept().prune_plan = read(),
            "damage" => {
                let damage = read();
                let text = |field: &str| damage[field].as_str().unwrap_or_default().to_owned();
                self.problem(&text("object"), &text("problem"));
            }
            _ => {}
        }
    }

    /// Something went wrong, and the work goes on.
    pub(crate) fn problem(&self, item: &str, message: &str) {
        let mut kept = self.kept();
        kept.problems += 1;
        if kept.first.len() < NAMED {
            kept.first.push(Problem { item: item.to_owned(), message: message.to_owned() });
        }
    }

    /// How many problems there were, and the first of them.
    pub(crate) fn problems(&self) -> (u64, Vec<Problem>) {
        let kept = self.kept();
        (kept.problems, kept.first.clone())
    }

    /// The last summary, once.
    pub(crate) fn take_summary(&self) -> Value {
        std::mem::take(&mut self.kept().summary)
    }

    /// The last plan of a prune, once.
    pub(crate) fn take_prune_plan(&self) -> Value {
        std::mem::take(&mut self.kept().prune_plan)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
