//! What is drawn anew for each commit: seeds and steps that a test tries beyond those that all runs have in common. Runs of one
//! commit draw the same, so that what one of them has found is not gone with the next.

use std::{env, sync::OnceLock};

use carrack_mover::clock::World;

use crate::simulation::rng::Rng;

/// The variable that says what is drawn from: `make unit` sets it to the commit. Without it, each run draws for itself. The seed of
/// changed inputs (`tests/fuzz`) hangs on it, too.
pub const VARIABLE: &str = "CARRACK_DRAW";

/// What this run draws from.
pub fn origin() -> &'static str {
    static ORIGIN: OnceLock<String> = OnceLock::new();
    ORIGIN.get_or_init(|| {
        // Where there is no commit, it is empty.
        let named = env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        named.unwrap_or_else(|| hex::encode(World::system().random::<8>()))
    })
}

/// Dice for a purpose.
pub fn dice(purpose: &[u64]) -> Rng {
    let letters = origin().bytes().map(u64::from);
    Rng::new(&letters.chain(purpose.iter().copied()).collect::<Vec<_>>())
}
