//! What is told of a contradiction within the program: a report that can be sent to anybody.
//!
//! Nothing in it comes from a user: no argument, no environment, no name of a file, a host or an object. A message is in
//! it only if it stands in the program as it is; one that was put together at run time may hold anything, and is told
//! beside the report, to whom it belongs. Keys and passwords are in neither: their types print as `Key(…)` and
//! `Passphrase(…)`, so that no message can be made of them.

use std::{
    error::Error as StdError,
    io, iter,
    sync::{Mutex, PoisonError},
};

use carrack_mover::error::{Error, ErrorKind};
use tokio::task::JoinError;

#[cfg(test)]
mod tests;

/// What stands above a report, and between it and what is not for everybody.
const HEADING: &str =
    "Please report the lines below. Nothing of yours is in them; what stands above may name files of yours.";
/// Instead of words that may hold anything.
const LEFT_OUT: &str = "left out, for it was put together at run time and may hold names";
/// The longest chain of causes that is told.
const CAUSES: usize = 16;

/// The verb that was typed, and the one that a job has come to.
static VERBS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// A verb begins, by itself or as a step of a job.
pub(crate) fn begins(verb: &'static str) {
    let mut verbs = VERBS.lock().unwrap_or_else(PoisonError::into_inner);
    verbs.truncate(1);
    verbs.push(verb);
}

/// A report as people see it, below what else is told.
pub(crate) fn below(report: &str) -> String {
    format!("\n{HEADING}\n\n{report}")
}

/// The report of an error; none if it is no defect of the program.
pub(crate) fn of_error(error: &Error) -> Option<String> {
    if error.kind() != ErrorKind::Internal {
        return None;
    }
    let (place, what) = match error.contradiction() {
        Some(known) => (known.place.to_string(), known.what),
        None => ("unknown".to_owned(), LEFT_OUT),
    };
    let causes = iter::successors(error.source(), |cause| (**cause).source()).take(CAUSES);
    let causes = causes.map(|cause| ("cause", for_everybody(cause)));
    Some(report([("place", place), ("message", what.to_owned())].into_iter().chain(causes)))
}

/// The report of a panic; only a message that is a text of the program is in it.
pub(crate) fn of_panic(thread: &str, place: &str, literal: Option<&str>, backtrace: &str) -> String {
    let frame = |line: &str| match line.split_once("at /") {
        Some((indent, path)) if indent.trim().is_empty() => format!("{indent}at {}", name_of(path)),
        _ => line.to_owned(),
    };
    let frames: Vec<String> = backtrace.lines().map(frame).collect();
    report([
        ("thread", thread.to_owned()),
        ("place", place.strip_prefix('/').map_or(place, name_of).to_owned()),
        ("message", literal.unwrap_or(LEFT_OUT).to_owned()),
        ("backtrace", format!("of this thread\n{}", frames.join("\n"))),
    ])
}

/// Of an absolute path, which is one of where the program was built: whoever built it may stand in it.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What all of them begin with, and these lines.
fn report(lines: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let verbs = VERBS.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
    let first = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("verb", if verbs.is_empty() { "none yet".to_owned() } else { verbs }),
    ];
    let lines = first.into_iter().chain(lines).map(|(name, value)| format!("{name}: {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A cause in words of the program or of the system. What others say may hold anything.
fn for_everybody(cause: &(dyn StdError + 'static)) -> String {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return match error.contradiction() {
            Some(known) => format!("{} at {}", known.what, known.place),
            None => format!("an error of kind {:?}", error.kind()),
        };
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        let code = error.raw_os_error();
        return code.map_or_else(|| error.kind().to_string(), |code| format!("the system's error {code}"));
    }
    if let Some(error) = cause.downcast_ref::<JoinError>() {
        let how = if error.is_panic() { "panicked" } else { "was cancelled" };
        return format!("a task {how}");
    }
    LEFT_OUT.to_owned()
}
