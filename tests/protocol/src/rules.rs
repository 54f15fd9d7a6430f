//! The rules of the protocol as switches, so that a test can show what each one prevents.

use std::str::FromStr;

macro_rules! rules {
    ($($rule:ident $what:literal;)*) => {
        /// One rule that can be switched off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rule {
            $(#[doc = $what] $rule,)*
        }

        /// Every rule, its name, and what it says.
        pub const RULES: &[(Rule, &str, &str)] = &[$((Rule::$rule, stringify!($rule), $what),)*];
    };
}

rules! {
    N1 "primary objects have names that are sent in one PUT only";
    N2 "who finds a decision obeys it";
    V "visible is read in the order end, marker, session";
    W1 "only a clean created counts for a session";
    W2 "what condemned lists name is absent to a session";
    W3 "the parent is read after the lists";
    W4 "a hint is reused after a GET that follows the lists";
    W5 "a new record never names the old side of a relocation";
    W6 "a record names the pack of each chunk";
    W7 "a session that is gone after its end means failure";
    C1 "only packs of sessions that ended are condemned";
    C2 "a list says what is condemned before anything is decided";
    C3 "sessions are listed after the list was created";
    C4 "each session must have an end";
    C5 "needed packs are marked again after that";
    C6 "a final that is there counts instead of one's own";
    C7 "a condemned list that is gone stops its collector";
    C8 "a list stays until every delete is confirmed";
    C9 "the condemned list is dropped before its final";
    C10 "a list without a final becomes void before it is dropped";
    R1 "a relocation is the end of a session of its own";
    R2 "of several relocations the lowest session wins";
    R3 "an old pack is dead once a visible relocation covers it";
    R4 "a relocation leaves through a condemned list only";
    RESTORE "a restore that misses a pack reads the relocations again";
    FORGET "forgetting creates a marker and leaves the end alone";
    CLEANUP "clean-up takes the session, then the end, then the marker";
    ORPHANS "orphan ends: ends are listed first, then sessions";
    LISTING "a listing that fails half-way stops whoever made it";
    AUTH "what does not verify is never believed";
    KEYS "who meets what does not verify sees first whether the keys changed";
    SENDINGS "a list names the sendings of a pack, and only these are deleted";
    REPLAY "who finishes a list of others does C3 to C5 again before C8";
    LOSS "what a store lost stops the collector";
    AGAIN "who misses what was listed, or finds what was missing, marks again";
    SHUTOUT "a fence in the place of a lost end counts for a lost end";
    FENCE "clean-up puts a fence where an end was";
    DOUBT "an end that cannot be believed stops the collector, and its reuse of others' packs the writer";
    REVIVE "what is out of view comes back as a new session";
}

/// The set of rules in force; all of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    off: u64,
}

impl Rules {
    /// Every rule in force.
    #[must_use]
    pub const fn all() -> Self {
        Self { off: 0 }
    }

    /// All rules but one.
    #[must_use]
    pub const fn without(rule: Rule) -> Self {
        Self { off: 1 << rule as u64 }
    }

    /// Whether a rule is in force.
    #[must_use]
    pub const fn on(self, rule: Rule) -> bool {
        self.off & (1 << rule as u64) == 0
    }
}

impl FromStr for Rule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = RULES.iter().find(|(_, name, _)| *name == text);
        found.map(|(rule, _, _)| *rule).ok_or_else(|| anyhow::anyhow!("no rule is named {text}"))
    }
}

impl Rule {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        RULES.iter().find(|(rule, _, _)| *rule == self).map_or("", |(_, name, _)| name)
    }
}
