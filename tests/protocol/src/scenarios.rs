//! Named runs: who takes part, and which rules show there what they prevent.

use crate::commit::{Commit, Via};
use crate::loss::{Child, END_OBJECTS, Loss, OLD_END, PACK_OBJECTS, SESSION_OBJECTS, SPOILT_END};
use crate::repack::{Harm, Repack};
use crate::rules::Rules;
use crate::search::{Outcome, search};

/// A run of one of the models.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Whether it ends within seconds.
    pub small: bool,
    /// Whether it shows what no rule promises: it has a counter-example with all rules on.
    pub corner: bool,
    model: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Commit(Commit),
    Repack(Repack),
    Loss(Loss),
}

impl Scenario {
    /// Explores it under these rules.
    #[must_use]
    pub fn run(&self, rules: Rules, limit: usize) -> Outcome {
        match self.model {
            Kind::Commit(model) => search(&Commit { rules, ..model }, limit),
            Kind::Repack(model) => search(&Repack { rules, ..model }, limit),
            Kind::Loss(model) => search(&Loss { rules, ..model }, limit),
        }
    }

    /// The scenario of this name.
    pub fn named(name: &str) -> anyhow::Result<&'static Self> {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| anyhow::anyhow!("no scenario is named {name}; see --list"))
    }
}

const fn commit(name: &'static str, about: &'static str, model: Commit) -> Scenario {
    Scenario { name, about, small: true, corner: false, model: Kind::Commit(model) }
}

const fn large(name: &'static str, about: &'static str, model: Commit) -> Scenario {
    Scenario { name, about, small: false, corner: false, model: Kind::Commit(model) }
}

const fn repack(name: &'static str, about: &'static str, small: bool, model: Repack) -> Scenario {
    Scenario { name, about, small, corner: false, model: Kind::Repack(model) }
}

const fn loss(name: &'static str, about: &'static str, model: Loss) -> Scenario {
    Scenario { name, about, small: true, corner: false, model: Kind::Loss(model) }
}

const fn corner(name: &'static str, about: &'static str, model: Loss) -> Scenario {
    Scenario { name, about, small: true, corner: true, model: Kind::Loss(model) }
}

const MOVED: Repack = Repack {
    rules: Rules::all(),
    hint: Some(0),
    writer: true,
    repackers: 1,
    collectors: 1,
    forget: true,
    restore: false,
    cleanup: true,
    parts: [0x3F; 2],
    void: false,
    forge: false,
    harm: Harm::None,
};
const PARTED: Repack = Repack { collectors: 2, parts: [0b0_1001, 0b11_0110], ..MOVED };
const NOBODY: Commit = Commit::NOBODY;
const HINT: Commit = Commit { writers: &[Via::Hint(1)], collectors: 1, forget: 1, ..NOBODY };
const LOST: Loss = Loss { bring_back: true, runs: 2, ..Loss::NOTHING };
const TWO: Commit = Commit { writers: &[Via::Hint(1), Via::Parent(1)], forget: 3, ..HINT };

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    commit(
        "hint",
        "a writer reuses by a hint; others finish lists; clean-up",
        Commit { finish: true, cleanup: 3, ..HINT },
    ),
    commit(
        "parent",
        "a writer reuses through its parent; clean-up",
        Commit { writers: &[Via::Parent(0)], finish: true, cleanup: 3, ..HINT },
    ),
    commit(
        "lost",
        "replies are lost, requests land late, writers give up",
        Commit { lost: true, abandon: true, finish: true, cleanup: 2, orphans: true, own: true, ..HINT },
    ),
    commit(
        "forgotten",
        "the writer's own snapshot is forgotten",
        Commit { lost: true, cleanup: 2, forget: 2, ..HINT },
    ),
    commit("paged", "listings come in two pages", Commit { paged: true, ..TWO }),
    commit(
        "two-writers",
        "the parent of the second writer is the first's snapshot",
        Commit { finish: true, ..TWO },
    ),
    commit(
        "two-collectors",
        "two collectors and others who finish lists",
        Commit { collectors: 2, finish: true, ..HINT },
    ),
    commit(
        "copies",
        "two packs hold the same chunk",
        Commit { packs: 3, collectors: 2, forget: 0, ..NOBODY },
    ),
    commit(
        "again",
        "a collector whose list became void takes another",
        Commit { lists: 2, finish: true, lost: true, ..HINT },
    ),
    commit(
        "split",
        "one mark serves two lists",
        Commit { lists: 2, split: true, packs: 3, finish: true, ..HINT },
    ),
    commit(
        "names",
        "what N1 is for: names that two would use",
        Commit { collectors: 2, one_name: true, finish: true, ..HINT },
    ),
    commit(
        "thief",
        "somebody with a mover's rights forges",
        Commit { forge_ends: true, forge_lists: true, finish: true, cleanup: 2, ..HINT },
    ),
    commit("replay", "the thief puts old objects back", Commit { replay: true, finish: true, ..HINT }),
    commit(
        "old-keys",
        "one who finishes lists has keys from before a rotation",
        Commit { old_keys: true, finish: true, ..HINT },
    ),
    large(
        "foreign",
        "the second writer reuses the first's pack, which nobody may need any more",
        Commit {
            writers: &[Via::Nothing, Via::Hint(4)],
            collectors: 2,
            forget: 2,
            finish: true,
            cleanup: 2,
            ..NOBODY
        },
    ),
    commit(
        "thief-lists",
        "somebody with a mover's rights forges lists and finals",
        Commit { forge_lists: true, finish: true, lists: 2, ..HINT },
    ),
    commit(
        "collectors-clean",
        "two collectors, clean-up, others who finish lists",
        Commit { collectors: 2, cleanup: 1, finish: true, ..HINT },
    ),
    commit(
        "writers-lost",
        "two writers, replies are lost, writers give up",
        Commit { lost: true, abandon: true, ..TWO },
    ),
    commit(
        "paged-clean",
        "two pages, clean-up, orphan ends, others who finish lists",
        Commit { paged: true, finish: true, cleanup: 3, orphans: true, ..HINT },
    ),
    commit(
        "quiet-two",
        "as quiet, after two collectors and others who finish lists",
        Commit { quiet: true, collectors: 2, finish: true, ..HINT },
    ),
    large(
        "collectors-again",
        "two collectors, a second list for what was made void",
        Commit { collectors: 2, lists: 2, finish: true, ..HINT },
    ),
    commit(
        "chunks",
        "the writer reuses chunks of two packs; each pack has its own list",
        Commit {
            writers: &[Via::Hint(3)],
            packs: 3,
            named: 3,
            lists: 2,
            split: true,
            finish: true,
            cleanup: 1,
            ..HINT
        },
    ),
    commit(
        "sendings",
        "a pack whose first sending lands late, two collectors, others who finish lists",
        Commit { twice: true, collectors: 2, finish: true, ..HINT },
    ),
    commit(
        "quiet",
        "wherever all others die, one collector cleans up",
        Commit { quiet: true, lost: true, finish: true, cleanup: 3, own: true, ..HINT },
    ),
    large("two-by-two-bare", "two writers and two collectors alone", Commit { collectors: 2, ..TWO }),
    large(
        "two-by-two-finish",
        "two writers, two collectors, others who finish lists",
        Commit { collectors: 2, finish: true, ..TWO },
    ),
    large(
        "two-by-two-fenced",
        "two writers, two collectors, clean-up of the first writer",
        Commit { collectors: 2, cleanup: 2, ..TWO },
    ),
    large(
        "two-by-two-clean",
        "two writers, two collectors, clean-up but of the second writer",
        Commit { collectors: 2, cleanup: 3, ..TWO },
    ),
    large(
        "paged-all",
        "two pages, two writers, clean-up, others who finish lists",
        Commit { paged: true, finish: true, cleanup: 7, ..TWO },
    ),
    large(
        "two-by-two",
        "two writers, two collectors, others who finish lists, clean-up",
        Commit { collectors: 2, finish: true, cleanup: 7, ..TWO },
    ),
    repack("repack", "a repacker, a writer with a hint, a collector", true, MOVED),
    repack(
        "repack-parent",
        "the writer reuses through its parent; two collectors",
        true,
        Repack { hint: None, collectors: 2, ..MOVED },
    ),
    repack(
        "repack-collectors",
        "the writer reuses by a hint; two collectors",
        true,
        Repack { collectors: 2, ..MOVED },
    ),
    repack(
        "repackers",
        "two repackers, two collectors",
        true,
        Repack { writer: false, repackers: 2, collectors: 2, forget: false, ..MOVED },
    ),
    repack(
        "restore",
        "somebody restores what two repackers move",
        true,
        Repack {
            writer: false,
            repackers: 2,
            restore: true,
            collectors: 2,
            forget: false,
            cleanup: false,
            parts: [0b01, 0b110],
            ..MOVED
        },
    ),
    repack(
        "repack-lists",
        "one list names the old pack, another the relocation and the new pack",
        true,
        PARTED,
    ),
    repack(
        "repack-void",
        "packs and the relocation have lists of their own, and others make lists void",
        true,
        Repack { collectors: 2, parts: [0b00_1111, 0b11_0000], void: true, ..MOVED },
    ),
    repack(
        "repackers-void",
        "two repackers, and others make lists void",
        true,
        Repack { writer: false, repackers: 2, collectors: 2, void: true, ..MOVED },
    ),
    repack(
        "thief-repack",
        "somebody with a mover's rights forges relocations",
        true,
        Repack { forge: true, ..MOVED },
    ),
    repack(
        "repack-all",
        "a writer, two repackers, two collectors",
        false,
        Repack { repackers: 2, collectors: 2, ..MOVED },
    ),
    loss(
        "lost-session",
        "a session object is lost, an end lands late; people forget, give up and bring back",
        Loss { child: Child::Committed, losses: SESSION_OBJECTS, forget: 3, late_end: true, ..LOST },
    ),
    loss(
        "lost-end",
        "an end is lost, of which a child or a mark speaks; people forget, give up and bring back",
        Loss { child: Child::Committed, mark: true, losses: END_OBJECTS, forget: 3, ..LOST },
    ),
    loss(
        "lost-pack",
        "a pack is lost, and a writer is at work",
        Loss { child: Child::Writer, losses: PACK_OBJECTS, forget: 1, ..LOST },
    ),
    loss(
        "lost-writer",
        "any object is lost while a writer is at work",
        Loss {
            child: Child::Writer,
            losses: SESSION_OBJECTS | END_OBJECTS | PACK_OBJECTS,
            forget: 1,
            late_end: true,
            ..LOST
        },
    ),
    loss(
        "lost-two",
        "a session object or an end is lost under two collectors that run twice",
        Loss { child: Child::Committed, losses: SESSION_OBJECTS | END_OBJECTS, collectors: 2, ..LOST },
    ),
    loss(
        "lost-late",
        "the same or a spoilt end under two collectors; an end lands late; people forget and give up",
        Loss {
            child: Child::Committed,
            mark: true,
            losses: SESSION_OBJECTS | END_OBJECTS | SPOILT_END,
            collectors: 2,
            runs: 1,
            forget: 3,
            late_end: true,
            ..LOST
        },
    ),
    Scenario {
        small: false,
        ..loss(
            "lost-all",
            "a session object or an end is lost under two collectors and a writer",
            Loss {
                child: Child::Writer,
                mark: true,
                losses: SESSION_OBJECTS | END_OBJECTS,
                collectors: 2,
                runs: 1,
                forget: 1,
                ..LOST
            },
        )
    },
    loss(
        "lost-keys",
        "a session object is lost under a collector with keys from before a rotation",
        Loss { losses: SESSION_OBJECTS, old_keys: true, ..LOST },
    ),
    loss(
        "revive",
        "a forgotten snapshot, or one whose session object is lost, is revived",
        Loss { losses: SESSION_OBJECTS, forget: 5, revive: true, ..LOST },
    ),
    loss(
        "revive-two",
        "the same under two collectors",
        Loss { losses: SESSION_OBJECTS, forget: 1, revive: true, collectors: 2, runs: 1, ..LOST },
    ),
    loss(
        "revive-writer",
        "a snapshot is revived while a writer, whose parent it is, is at work",
        Loss {
            child: Child::Writer,
            mark: true,
            losses: SESSION_OBJECTS | END_OBJECTS,
            forget: 1,
            revive: true,
            ..LOST
        },
    ),
    loss(
        "tombstone",
        "an end lands again after its clean-up",
        Loss { late_end: true, forget: 1, collectors: 2, ..LOST },
    ),
    loss(
        "doubt",
        "the end of a snapshot cannot be believed for a while",
        Loss { losses: SPOILT_END, forget: 1, ..LOST },
    ),
    repack(
        "doubt-repack",
        "the end of a relocation cannot be believed for a while",
        true,
        Repack { harm: Harm::Doubt, ..PARTED },
    ),
    repack(
        "lost-repack",
        "the session object of a relocation is lost for a while",
        true,
        Repack { harm: Harm::Loss, ..PARTED },
    ),
    corner(
        "corner-evidence",
        "all that speaks of a snapshot whose end is lost is forgotten",
        Loss { child: Child::Committed, losses: OLD_END, forget: 2, beyond_evidence: true, ..LOST },
    ),
    corner(
        "corner-session",
        "the session object of a writer at work is lost and brought back",
        Loss { child: Child::Writer, losses: SESSION_OBJECTS, forget: 1, beyond_session: true, ..LOST },
    ),
    corner(
        "corner-delete",
        "a delete of an end lands again, and takes away the fence that a late PUT would find",
        Loss { late_end: true, late_delete: true, forget: 1, ..LOST },
    ),
];
