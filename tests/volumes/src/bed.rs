//! Clusters for one test.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use carrack_cluster::{Bed, Options};

/// Each start takes all of the machine, and its parts have limits of time.
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
