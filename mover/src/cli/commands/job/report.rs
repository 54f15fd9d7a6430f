//! How a job ended, and where that is told: in a file for whoever waits for it, and as a message.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use carrack_mover::error::{Error, ErrorKind, Result};
use carrack_proto::{JobResult, Outcome as Ended, Output as CameOut, VERSION};

use crate::cli::{
    exit::{self, Outcome},
    json,
    output::Output,
    record::Record,
    units,
};

#[cfg(test)]
mod tests;

/// Where Kubernetes looks for the last words of a container.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Where the result goes, once.
#[derive(Debug)]
pub(super) struct Report {
    file: Option<PathBuf>,
    output: Output,
    is_written: Mutex<bool>,
}

impl Report {
    /// Makes sure that it can be written, before anything is done, and that it is however the program ends by itself.
    pub(super) fn open(typed: Option<&Path>, output: &Output, record: &Arc<Record>) -> Result<Arc<Self>> {
        let file = match typed {
            Some(file) => {
                empty(file, true).map_err(|error| {
                    Error::io(error, format!("result {} cannot be written", file.display()))
                        .with_hint("name a file that can be: --result FILE")
                })?;
                Some(file.to_owned())
            }
            None => Some(PathBuf::from(TERMINATION_LOG)).filter(|file| empty(file, false).is_ok()),
        };
        let report = Arc::new(Self { file, output: output.clone(), is_written: Mutex::default() });
        let (last, record) = (Arc::clone(&report), Arc::clone(record));
        exit::before_ending_at_once(move |error| last.write(failed(error, None, &record)));
        Ok(report)
    }

    /// Writes the result, unless there is one already.
    pub(super) fn write(&self, result: JobResult) {
        let mut is_written = self.is_written.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *is_written, true) {
            return;
        }
        let text = result.to_message();
        if let Some(file) = &self.file
            && let Err(error) = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(file)
                .and_then(|mut open| open.write_all(text.as_bytes()))
        {
            // What was done is done, and the exit code says so.
            self.output.problem(&file.display().to_string(), &format!("the result is not written: {error}"));
        }
        // A reader that is gone has the file.
        drop(self.output.message("result", &JobResult::read(&text).unwrap_or(result)));
    }
}

/// Takes away what an earlier run has left: who is killed has no result.
fn empty(file: &Path, create: bool) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).create(create).open(file).map(drop)
}

/// The result of work that has come to its end, or failed.
pub(super) fn result(done: &Result<Outcome>, output: Option<CameOut>, record: &Record) -> JobResult {
    match done {
        Ok(outcome) => ended(*outcome, output, record),
        Err(error) => failed(error, output, record),
    }
}

fn ended(outcome: Outcome, output: Option<CameOut>, record: &Record) -> JobResult {
    let (problems, first_problems) = record.problems();
    let (is, message) = match outcome {
        Outcome::Done => (Ended::Completed, String::new()),
        Outcome::Partial => {
            (Ended::Partial, format!("done, but for {}", units::count(problems, "problem", "problems")))
        }
        Outcome::Damaged => {
            (Ended::Partial, "done, and the check has found damage in the repository".to_owned())
        }
    };
    let damage = Error::corrupt("");
    let next = (outcome == Outcome::Damaged).then(|| exit::next_step(&damage)).flatten();
    JobResult {
        version: VERSION,
        outcome: is,
        exit_code: outcome.code(),
        message,
        next: next.map(str::to_owned),
        problems,
        first_problems,
        output,
    }
}

/// The result of work that failed, was stopped, or was given up in the middle.
fn failed(error: &Error, output: Option<CameOut>, record: &Record) -> JobResult {
    let (problems, first_problems) = record.problems();
    let stopped = error.kind() == ErrorKind::Cancelled;
    let because = json::causes(error);
    JobResult {
        version: VERSION,
        outcome: if stopped { Ended::Cancelled } else { Ended::Failed },
        exit_code: exit::code(error),
        message: std::iter::once(error.to_string()).chain(because).collect::<Vec<_>>().join(": "),
        next: exit::next_step(error).map(str::to_owned),
        problems,
        first_problems,
        output,
    }
}
