//! Clusters for one test.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use carrack_cluster::{Bed, Options};

/// Of two beds that started at the same moment, a kubelet ended once, and why is not known.
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
