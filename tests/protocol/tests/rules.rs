//! All rules on: no counter-example. One rule off: a counter-example of the length the document states.
//! The first kind guards the second: a model that loses data anyway would pass every test of the second.

use carrack_protocol_model::{model::Scenario, rules::Rules, search::search};

const LIMIT: usize = 1_000_000;

fn scenario(parent: bool, forget: usize, cleanup: bool) -> Scenario {
    Scenario { collectors: 1, parent, forget, cleanup }
}

#[test]
fn all_rules_on_have_no_counter_example() {
    for (parent, forget, cleanup) in
        [(false, 0, false), (true, 0, false), (false, 0, true), (true, 0, true), (false, 1, true)]
    {
        let found = search(scenario(parent, forget, cleanup), Rules::all(), LIMIT);
        assert_eq!(found.violation, None, "parent {parent}, forget {forget}, clean-up {cleanup}");
        assert!(found.exhausted, "stopped at {} states", found.states);
    }
}

fn breaks(rule: &str, scenario: Scenario, length: usize) {
    let rules = Rules::without(rule).expect("the rule has a switch");
    let (_, steps) = search(scenario, rules, LIMIT).violation.expect("a counter-example");
    assert_eq!(steps.len(), length, "{rule}: {steps:#?}");
}

macro_rules! broken_without {
    ($($name:ident $rule:literal $parent:literal $forget:literal $cleanup:literal $length:literal;)*) => {$(
        #[test]
        fn $name() {
            breaks($rule, scenario($parent, $forget, $cleanup), $length);
        }
    )*};
}

broken_without! {
    without_v "V" true 0 true 27;
    without_w2 "W2" false 0 true 22;
    without_w4 "W4" false 0 true 24;
    without_w7 "W7" false 0 true 18;
    without_c3 "C3" false 0 true 22;
    without_c4 "C4" false 0 true 22;
    without_c5 "C5" false 0 true 22;
    without_c6 "C6" false 0 true 24;
    without_c7 "C7" false 0 true 25;
    without_c8 "C8" false 0 true 24;
    without_forget "FORGET" false 1 false 9;
    without_cleanup_order "CLEANUP" false 0 true 2;
}
