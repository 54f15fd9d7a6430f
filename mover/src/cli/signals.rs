//! Stopping: the first signal asks, the second one ends the program at once.
//!
//! Work that looks at the request by itself (backup, restore, check, prune, changes of the index, copy, mount) stops at
//! a safe point; all else ends at once: it changes nothing, or one object after the other, each whole. Nothing is lost
//! either way: what was stored is found again by the next run, and a snapshot exists only once it is whole.

use std::sync::atomic::Ordering;

use carrack_mover::error::{Error, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{context::Context, exit, password};

/// What is said when the program ends at once.
const STOPPED: &str = "stopped; nothing is lost";

/// Starts to listen.
pub(crate) fn install(context: &Context) -> Result<()> {
    let listened: &[i32] = if ignores_hangup() { &[SIGINT, SIGTERM] } else { &[SIGINT, SIGTERM, SIGHUP] };
    let mut signals =
        Signals::new(listened).map_err(|error| Error::io(error, "signals cannot be listened to"))?;
    let (cancel, output, graceful) =
        (context.cancel.clone(), context.output.clone(), std::sync::Arc::clone(context.graceful()));
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if cancel.is_cancelled() || !graceful.load(Ordering::Relaxed) {
                password::restore_terminal();
                output.note(STOPPED);
                exit::at_once(&Error::cancelled(STOPPED));
            }
            cancel.cancel();
            output.note("stopping at a safe point; once more to end at once");
        }
    });
    Ok(())
}

/// Whether whoever started the program, as nohup does, wants it to survive the end of the terminal.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & 1 << (SIGHUP - 1) != 0)
}

/// Says how to go on after a stop.
pub(crate) fn explain(error: Error) -> Error {
    if error.kind() == carrack_mover::error::ErrorKind::Cancelled && error.hint().is_none() {
        return error.with_hint("nothing is lost: run the same command again, and it goes on from there");
    }
    error
}
