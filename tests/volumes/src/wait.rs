//! Waiting with a limit.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Waits until something holds. That it cannot be looked at is no answer, and it is looked at again: what must not be is told
/// by whoever waits, afterwards.
///
/// # Errors
///
/// It does not hold after `seconds`; the error says what was waited for, and why it could not be looked at in the end.
pub fn until(what: &str, seconds: u64, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        // A look that began in time counts, however long it takes.
        let is_late = start.elapsed() >= Duration::from_secs(seconds);
        let looked = holds();
        if matches!(looked, Ok(true)) {
            return Ok(());
        }
        if is_late {
            looked.with_context(|| format!("not within {seconds} s: {what}"))?;
            bail!("not within {seconds} s: {what}");
        }
        // Each look is a process: more often, and the looking is what the machine does.
        sleep(Duration::from_millis(200));
    }
}
