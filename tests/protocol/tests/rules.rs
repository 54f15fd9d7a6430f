//! All rules on: no counter-example.

use carrack_protocol_model::{rules::Rules, scenarios::SCENARIOS};

const LIMIT: usize = 6_000_000;

#[test]
fn all_rules_on_have_no_counter_example() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.small) {
        let found = scenario.run(Rules::all(), LIMIT);
        assert_eq!(found.violation, None, "{}", scenario.name);
    }
}
