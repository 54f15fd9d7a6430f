//! Waiting with a limit.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// Waits until something holds.
///
/// # Errors
///
/// It does not hold after `seconds`, or cannot be looked at; the error says what was waited for.
pub fn until(what: &str, seconds: u64, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds().with_context(|| format!("wait until {what}"))? {
        ensure!(start.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        // Each look is a process: more often, and the looking is what the machine does.
        sleep(Duration::from_millis(200));
    }
    Ok(())
}
