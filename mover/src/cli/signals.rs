//! Stopping: the first signal asks, the second one ends the program at once.
//!
//! Work that looks at the request by itself (backup, restore, check, prune, copy, mount) stops at a safe point; all
//! else ends at once, because it changes nothing. Nothing is lost either way: what was stored is found again by
//! the next run, and a snapshot exists only once it is whole.

use std::sync::atomic::Ordering;

use carrack_mover::error::{Error, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{context::Context, exit, password};

/// Starts to listen.
pub(crate) fn install(context: &Context) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Error::io(error, "signals cannot be listened to"))?;
    let (cancel, output, graceful) =
        (context.cancel.clone(), context.output.clone(), std::sync::Arc::clone(context.graceful()));
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if cancel.is_cancelled() || !graceful.load(Ordering::Relaxed) {
                password::restore_terminal();
                output.note("stopped; nothing is lost");
                exit::at_once(exit::STOPPED);
            }
            cancel.cancel();
            output.note("stopping at a safe point; once more to end at once");
        }
    });
    Ok(())
}

/// Says how to go on after a stop.
pub(crate) fn explain(error: Error) -> Error {
    if error.kind() == carrack_mover::error::ErrorKind::Cancelled && error.hint().is_none() {
        return error.with_hint("nothing is lost: run the same command again, and it goes on from there");
    }
    error
}
