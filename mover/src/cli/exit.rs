//! Exit codes: the table, in one place.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | another failure of the operating system (an output that was closed, a terminal that is gone) |
//! | 2 | invalid usage: an option, a name, a setting |
//! | 3 | done in part: something could not be read, kept or restored; the messages say what |
//! | 10 | not found: no such repository, snapshot or path |
//! | 11 | conflict: somebody else decided otherwise, or the target is in use |
//! | 12 | unavailable: the other side does not answer |
//! | 13 | denied: wrong password, missing permission |
//! | 14 | damaged: stored bytes are not what was written |
//! | 15 | no space left |
//! | 16 | not done, for not all could be: `--strict` |
//! | 70 | internal error |
//! | 130 | stopped on request |
//!
//! ARCHITECTURE.md has the same table beside the kinds of error.

use std::sync::{Mutex, PoisonError};

use carrack_mover::error::{Error, ErrorKind};

#[cfg(test)]
mod tests;

pub(crate) const DONE: u8 = 0;
pub(crate) const SYSTEM: u8 = 1;
pub(crate) const INVALID: u8 = 2;
pub(crate) const PARTIAL: u8 = 3;
pub(crate) const DAMAGED: u8 = 14;
pub(crate) const INTERNAL: u8 = 70;
pub(crate) const STOPPED: u8 = 130;

/// What can be done about a defect. Of a run that breaks off nothing is in view that is not whole.
const DEFECT: &str = "this is a defect of carrack, not of your data, and nothing is lost: \
                      run the same command again, and please send the report that was printed";

/// What is done when the program ends at once; it is told why.
type LastAct = Box<dyn FnOnce(&Error) + Send>;

static LAST_ACT: Mutex<Option<LastAct>> = Mutex::new(None);

/// Keeps what must be done even when there is no time: a directory that is mounted would be dead afterwards, and who
/// waits for the result of a job would get none.
pub(crate) fn before_ending_at_once(act: impl FnOnce(&Error) + Send + 'static) {
    *LAST_ACT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
}

/// Ends the program without waiting for its threads, with the code of the error.
pub(crate) fn at_once(error: &Error) -> ! {
    // Whoever holds it is ending the program too.
    let act = LAST_ACT.try_lock().ok().and_then(|mut act| act.take());
    if let Some(act) = act {
        act(error);
    }
    std::process::exit(i32::from(code(error)));
}

/// How a verb ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// All of it.
    Done,
    /// Some of it: what is missing was named.
    Partial,
    /// A check ran to its end and found damage.
    Damaged,
}

impl Outcome {
    /// Done, unless there were problems.
    pub(crate) fn of_problems(problems: u64) -> Self {
        if problems == 0 { Self::Done } else { Self::Partial }
    }

    /// The worse of two.
    pub(crate) fn and(self, other: Self) -> Self {
        self.max(other)
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => DONE,
            Self::Partial => PARTIAL,
            Self::Damaged => DAMAGED,
        }
    }
}

/// The code of a kind of error.
pub(crate) fn code_of_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid => INVALID,
        ErrorKind::NotFound => 10,
        ErrorKind::Conflict => 11,
        ErrorKind::Unavailable => 12,
        ErrorKind::Denied => 13,
        ErrorKind::Corrupt => DAMAGED,
        ErrorKind::NoSpace => 15,
        ErrorKind::Incomplete => 16,
        ErrorKind::Cancelled => STOPPED,
        ErrorKind::Internal => INTERNAL,
        _ => SYSTEM,
    }
}

/// The next step: what the error says, or what its kind suggests. Of a defect the kind knows better than whatever it
/// passed through on its way.
pub(crate) fn next_step(error: &Error) -> Option<&str> {
    let hint = error.hint().filter(|_| error.kind() != ErrorKind::Internal);
    hint.or(match error.kind() {
        ErrorKind::NotFound => Some("check the name and the place"),
        ErrorKind::Conflict => Some("see what is there, and run the same command again"),
        ErrorKind::Unavailable => Some("run the same command again later: nothing is left half done"),
        ErrorKind::Denied => Some("check owner and mode, or the credentials and what they may do"),
        ErrorKind::Corrupt => Some("see what is damaged and what still restores: carrack check"),
        ErrorKind::NoSpace => {
            Some("free space there and run the same command again: it goes on where it was")
        }
        ErrorKind::Internal => Some(DEFECT),
        ErrorKind::Invalid => Some("see what is possible: carrack --help, and carrack VERB --help"),
        _ => None,
    })
}

/// Our own output could not be written: nobody reads it any more.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reader of the output is gone")
    }
}

impl std::error::Error for OutputClosed {}

/// Whether the failure is only that nobody reads our output.
pub(crate) fn is_output_closed(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(this) = cause {
        let inside = this.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if this.is::<OutputClosed>() || inside.is_some_and(|inner| inner.is::<OutputClosed>()) {
            return true;
        }
        cause = this.source();
    }
    false
}

/// The code of an error.
pub(crate) fn code(error: &Error) -> u8 {
    if is_output_closed(error) { SYSTEM } else { code_of_kind(error.kind()) }
}
