//! Breadth-first search over the model: the first counter-example found is a shortest one.
//! Own code instead of a library: states are a few dozen bytes, and step labels come for free.

use crate::model::{Scenario, State};
use crate::rules::Rules;
use std::collections::HashMap;

/// What a search found.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states visited.
    pub states: usize,
    /// Whether every reachable state was visited.
    pub exhausted: bool,
    /// The violated invariant and the steps that lead to it.
    pub violation: Option<(&'static str, Vec<String>)>,
}

/// Explores `scenario` under `rules`, visiting at most `limit` states.
#[must_use]
pub fn search(scenario: Scenario, rules: Rules, limit: usize) -> Outcome {
    let first = State::new(scenario);
    let mut seen = HashMap::from([(first, 0usize)]);
    let mut order = vec![(first, 0usize, String::new())];
    let mut at = 0;
    while at < order.len() {
        let state = order[at].0;
        if let Some(broken) = state.broken() {
            return Outcome {
                states: order.len(),
                exhausted: false,
                violation: Some((broken, path(&order, at))),
            };
        }
        if order.len() >= limit {
            return Outcome { states: order.len(), exhausted: false, violation: None };
        }
        for (label, next) in state.steps(scenario, rules) {
            if let std::collections::hash_map::Entry::Vacant(slot) = seen.entry(next) {
                slot.insert(order.len());
                order.push((next, at, label));
            }
        }
        at += 1;
    }
    Outcome { states: order.len(), exhausted: true, violation: None }
}

fn path(order: &[(State, usize, String)], mut at: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while at != 0 {
        steps.push(order[at].2.clone());
        at = order[at].1;
    }
    steps.reverse();
    steps
}
