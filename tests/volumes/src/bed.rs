//! Clusters for one test.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use carrack_cluster::{Bed, Options};

/// Of two beds that start at the same moment, each waits for the other's processors until its parts take too long.
static STARTS: Mutex<()> = Mutex::new(());

/// Starts a bed when no other one of this program is starting.
///
/// # Errors
///
/// As for [`Bed::start`].
pub fn start(options: Options) -> Result<Bed> {
    let _alone = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    Bed::start(options)
}
