//! The rules of the protocol as switches, so that a test can show what each one prevents.

/// Names of the rules that this model can switch off.
pub const RULES: [&str; 14] =
    ["V", "W2", "W3", "W4", "W7", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "FORGET", "CLEANUP"];

/// The set of rules in force; all of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    off: u16,
}

impl Rules {
    /// Every rule in force.
    #[must_use]
    pub const fn all() -> Self {
        Self { off: 0 }
    }

    /// All rules but the named one; `None` if no rule has that name.
    #[must_use]
    pub fn without(name: &str) -> Option<Self> {
        let at = RULES.iter().position(|rule| *rule == name)?;
        Some(Self { off: 1 << at })
    }

    /// Whether the named rule is in force.
    #[must_use]
    pub fn on(self, name: &str) -> bool {
        !RULES.iter().enumerate().any(|(at, rule)| *rule == name && self.off & (1 << at) != 0)
    }
}
