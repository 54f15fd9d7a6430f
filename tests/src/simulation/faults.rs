//! What goes wrong, how often, and what is counted.

use std::{collections::BTreeMap, fmt};

use super::rng::Rng;

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// Backs up.
    Writer,
    /// Prunes.
    Collector,
    /// Forgets.
    Forgetter,
    /// Restores, reads and checks.
    Looker,
    /// Makes the repository and changes its keys.
    #[default]
    Owner,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Writer => "writer",
            Self::Collector => "collector",
            Self::Forgetter => "forgetter",
            Self::Looker => "looker",
            Self::Owner => "owner",
        })
    }
}

/// How often each thing goes wrong, in ten thousand calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// The call fails and has no effect.
    pub refused: u32,
    /// A time begins in which most calls are refused.
    pub storm: u32,
    /// The call has its effect, and its reply is lost.
    pub lost: u32,
    /// The put or delete fails, and has its effect seconds or days later.
    pub late: u32,
    /// The delete, or the put of a decision, has its effect now and once more later.
    pub doubled: u32,
    /// The client sleeps before the call, for seconds or days.
    pub stall: u32,
    /// A collector sleeps after its final, for hours, before it deletes anything; and a writer after it has seen what is to
    /// go.
    pub pause: u32,
    /// The put of a pack or a hint fails, and leaves a part of the object.
    pub torn: u32,
    /// A run of a client ends for ever at one of its calls: in ten thousand runs.
    pub crash: u32,
    /// That call is one that changes the store: in ten thousand runs that end so.
    pub crash_writing: u32,
    /// Whoever had a turn has the next one.
    pub stickiness: u32,
}

impl Faults {
    /// Some seeds are calm, some are bad, and some have one kind of fault in plenty.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::new(&[seed, 3]);
        let scale = [0, 1, 1, 3, 8][rng.index(5)];
        let mut share = |most: u32| {
            let kind = [0, 1, 1, 1, 4][rng.index(5)];
            most * kind * scale
        };
        let faults = Self {
            refused: share(25),
            storm: share(1),
            lost: share(25),
            late: share(25),
            doubled: share(60),
            stall: share(20),
            pause: 0,
            torn: share(15),
            crash: share(250).min(4000),
            crash_writing: 0,
            stickiness: [0, 5000, 9000, 9800][rng.index(4)],
        };
        Self { crash_writing: [0, 5000][rng.index(2)], ..faults }
    }
}

/// A promise of the store that is broken, to see that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    /// None.
    #[default]
    Nothing,
    /// Collectors that have just condemned something see nobody at work (C3 is lost).
    SessionsHidden,
    /// A put replaces what is there (N2 is lost).
    ConditionsIgnored,
    /// Packs that were deleted stay.
    DeletesForgotten,
    /// Writers see no condemned lists (W2 is lost).
    ListsHidden,
    /// Listings show what was there an hour ago.
    ListingsLag,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Seeds.
    pub seeds: u64,
    /// Simulated time.
    pub seconds: u64,
    /// Runs of the engine.
    pub operations: u64,
    /// Those that ended with what was asked for.
    pub successes: u64,
    /// Calls of the store.
    pub calls: u64,
    /// Snapshots that were read back and compared.
    pub compared: u64,
    /// Calls that failed without an effect.
    pub refused: u64,
    /// Times in which most failed.
    pub storms: u64,
    /// Replies that were lost.
    pub lost: u64,
    /// Puts and deletes that failed and were under way.
    pub late: u64,
    /// Those and doubled ones that landed.
    pub landed: u64,
    /// Calls that were doubled.
    pub doubled: u64,
    /// Clients that slept.
    pub stalls: u64,
    /// Puts that left a part.
    pub torn: u64,
    /// Processes that died.
    pub crashes: u64,
    /// At which calls they died, such as `writer put packs`, and how often.
    pub deaths: BTreeMap<String, u64>,
    /// What the store did with joined segments, and for whom, such as `writer put index`, and how often.
    pub joined: BTreeMap<String, u64>,
}

impl Figures {
    /// Everything that went wrong.
    pub fn faults(&self) -> u64 {
        self.refused + self.lost + self.late + self.doubled + self.stalls + self.torn + self.crashes
    }

    /// Adds those of another seed.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.seeds, other.seeds),
            (&mut self.seconds, other.seconds),
            (&mut self.operations, other.operations),
            (&mut self.successes, other.successes),
            (&mut self.calls, other.calls),
            (&mut self.compared, other.compared),
            (&mut self.refused, other.refused),
            (&mut self.storms, other.storms),
            (&mut self.lost, other.lost),
            (&mut self.late, other.late),
            (&mut self.landed, other.landed),
            (&mut self.doubled, other.doubled),
            (&mut self.stalls, other.stalls),
            (&mut self.torn, other.torn),
            (&mut self.crashes, other.crashes),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
        for (sums, more) in [(&mut self.deaths, &other.deaths), (&mut self.joined, &other.joined)] {
            for (call, times) in more {
                *sums.entry(call.clone()).or_default() += times;
            }
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} simulated hours, {} operations ({} succeeded), {} store calls, {} snapshots compared, \
             {} faults ({} refused in {} storms and else, {} replies lost, {} late, {} doubled, {} stalls, {} torn, {} crashes)",
            self.seeds,
            self.seconds / 3600,
            self.operations,
            self.successes,
            self.calls,
            self.compared,
            self.faults(),
            self.refused,
            self.storms,
            self.lost,
            self.late,
            self.doubled,
            self.stalls,
            self.torn,
            self.crashes
        )
    }
}
