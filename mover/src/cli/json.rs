//! Messages for programs: with `--json`, one JSON object a line, each with a `message_type`.
//!
//! All of them, field by field, are in `mover/docs/json.md`, and a test compares the two.

use std::error::Error as _;

use carrack_mover::{
    error::Error,
    monitor::{Touched, Wait},
};
use serde::Serialize;

use super::{contradiction, exit};

/// A body with its type.
#[derive(Debug, Serialize)]
pub(crate) struct Tagged<'a, T> {
    pub(crate) message_type: &'a str,
    #[serde(flatten)]
    pub(crate) body: &'a T,
}

/// One line; what cannot be written as JSON says so instead of being left out.
pub(crate) fn line(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap_or_else(|error| {
        serde_json::json!({ "message_type": "error", "error": { "message": error.to_string() } }).to_string()
    })
}

/// Body of `would_delete`.
#[derive(Debug, Serialize)]
pub(crate) struct WouldDelete<'a> {
    /// Path below the target.
    pub(crate) item: &'a str,
}

/// Body of `found`.
#[derive(Debug, Serialize)]
pub(crate) struct Found<'a> {
    pub(crate) object: &'a str,
    pub(crate) problem: &'a str,
}

/// Body of `touched`.
#[derive(Debug, Serialize)]
pub(crate) struct OneTouched<'a> {
    pub(crate) object: &'a str,
    pub(crate) entries: u64,
    #[serde(flatten)]
    pub(crate) touched: &'a Touched,
}

/// Body of `status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Status {
    /// What part of the work goes on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) phase: String,
    pub(crate) seconds_elapsed: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_remaining: Option<f64>,
    /// From 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) percent_done: Option<f64>,
    pub(crate) files_done: u64,
    pub(crate) total_files: u64,
    pub(crate) bytes_done: u64,
    pub(crate) total_bytes: u64,
    /// Read from the source, or written to the target.
    pub(crate) bytes_moved: u64,
    /// In chunks that were new.
    pub(crate) bytes_new: u64,
    /// To the store, or from it.
    pub(crate) bytes_stored: u64,
    pub(crate) error_count: u64,
}

/// Body of `error`.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    error: Message,
    item: String,
}

#[derive(Debug, Serialize)]
struct Message {
    message: String,
}

impl Problem {
    pub(crate) fn new(item: &str, message: &str) -> Self {
        Self { error: Message { message: message.to_owned() }, item: item.to_owned() }
    }
}

/// Body of `waiting`.
#[derive(Debug, Serialize)]
pub(crate) struct Waiting<'a> {
    place: &'a str,
    cause: &'a str,
    tries_left: Option<u32>,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(wait: &'a Wait) -> Self {
        Self { place: &wait.place, cause: &wait.cause, tries_left: wait.tries_left }
    }
}

/// Body of `exit_error`.
#[derive(Debug, Serialize)]
pub(crate) struct ExitError {
    code: u8,
    message: String,
    causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<String>,
}

impl ExitError {
    pub(crate) fn new(code: u8, error: &Error) -> Self {
        Self {
            code,
            message: error.to_string(),
            causes: causes(error),
            next: exit::next_step(error).map(str::to_owned),
            report: contradiction::of_error(error),
        }
    }

    /// The same of a defect of which more is known than the error tells.
    pub(crate) fn with_report(self, report: String) -> Self {
        Self { report: Some(report), ..self }
    }
}

/// Longest chain of causes that is shown: a cycle would not end.
const CAUSES: usize = 16;

/// What lies behind an error, outermost first. A cause that only repeats what was said is left out.
pub(crate) fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| causes.len() < CAUSES) {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.clone_from(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}
