//! All rules on: no counter-example. One rule off: a counter-example of the length that the document states. The
//! first kind guards the second: a model that loses data anyway would pass every test of the second.

use carrack_protocol_model::rules::{RULES, Rule, Rules};
use carrack_protocol_model::scenarios::{SCENARIOS, Scenario};

const LIMIT: usize = 2_000_000;

/// Where each rule shows what it prevents, and in how many steps at least.
const BROKEN: &[(Rule, &str, usize)] = &[
    (Rule::N1, "hint", 23),
    (Rule::N1, "lost", 20),
    (Rule::N1, "names", 28),
    (Rule::N2, "hint", 14),
    (Rule::V, "parent", 26),
    (Rule::W1, "lost", 10),
    (Rule::W1, "again", 20),
    (Rule::W2, "hint", 19),
    (Rule::W2, "repack", 16),
    (Rule::W3, "two-writers", 29),
    (Rule::W4, "hint", 21),
    (Rule::W5, "repack-lists", 32),
    (Rule::W6, "copies", 28),
    (Rule::W7, "hint", 16),
    (Rule::C1, "repack-lists", 32),
    (Rule::C2, "hint", 19),
    (Rule::C3, "hint", 19),
    (Rule::C4, "hint", 19),
    (Rule::C5, "hint", 19),
    (Rule::C6, "hint", 23),
    (Rule::C7, "hint", 24),
    (Rule::C8, "hint", 22),
    (Rule::C9, "hint", 24),
    (Rule::C10, "hint", 21),
    (Rule::R1, "repackers", 23),
    (Rule::R2, "repackers", 23),
    (Rule::R3, "repackers", 31),
    (Rule::R4, "repack", 23),
    (Rule::RESTORE, "restore", 36),
    (Rule::FORGET, "forgotten", 8),
    (Rule::CLEANUP, "hint", 2),
    (Rule::CLEANUP, "lost", 17),
    (Rule::ORPHANS, "lost", 9),
    (Rule::LISTING, "paged", 22),
    (Rule::AUTH, "thief", 1),
    (Rule::AUTH, "thief-lists", 4),
    (Rule::AUTH, "thief-repack", 12),
    (Rule::KEYS, "old-keys", 22),
    (Rule::SENDINGS, "sendings", 24),
    (Rule::REPLAY, "replay", 28),
    (Rule::W2, "revive", 26),
    (Rule::CLEANUP, "tombstone", 25),
    (Rule::KEYS, "lost-keys", 22),
    (Rule::LOSS, "lost-session", 20),
    (Rule::LOSS, "lost-end", 45),
    (Rule::LOSS, "lost-repack", 27),
    (Rule::AGAIN, "lost-session", 24),
    (Rule::AGAIN, "lost-end", 23),
    (Rule::SHUTOUT, "lost-two", 31),
    (Rule::FENCE, "tombstone", 37),
    (Rule::DOUBT, "doubt", 20),
    (Rule::DOUBT, "doubt-repack", 27),
    (Rule::DOUBT, "lost-repack", 34),
    (Rule::REVIVE, "revive", 21),
];

/// What no rule promises: with all of them on, in how many steps at least it goes wrong.
const CORNERS: &[(&str, usize)] = &[("corner-evidence", 42), ("corner-session", 30), ("corner-delete", 41)];

#[test]
fn all_rules_on_have_no_counter_example() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.small && !scenario.corner) {
        let found = scenario.run(Rules::all(), LIMIT);
        assert_eq!(found.violation, None, "{}", scenario.name);
        assert!(found.exhausted, "{} stopped at {} states", scenario.name, found.states);
    }
}

#[test]
fn each_rule_off_has_a_counter_example() {
    for (rule, name, length) in BROKEN {
        let scenario = Scenario::named(name).unwrap();
        let found = scenario.run(Rules::without(*rule), LIMIT);
        let Some((broken, steps)) = found.violation else { panic!("{} off in {name}: none", rule.name()) };
        assert_eq!(steps.len(), *length, "{} off in {name}: {broken}: {steps:#?}", rule.name());
    }
}

#[test]
fn what_is_not_promised_has_a_counter_example() {
    for (name, length) in CORNERS {
        let found = Scenario::named(name).unwrap().run(Rules::all(), LIMIT);
        let Some((broken, steps)) = found.violation else { panic!("{name}: none") };
        assert_eq!(steps.len(), *length, "{name}: {broken}: {steps:#?}");
    }
    let corners = SCENARIOS.iter().filter(|scenario| scenario.corner);
    assert!(corners.map(|scenario| scenario.name).eq(CORNERS.iter().map(|(name, _)| *name)));
}

#[test]
fn no_rule_is_left_out() {
    for (rule, name, _) in RULES {
        assert!(BROKEN.iter().any(|(broken, _, _)| broken == rule), "{name} is in no scenario");
    }
}
