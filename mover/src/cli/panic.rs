//! Panics: each ends the program with a report.

use std::{
    backtrace::Backtrace,
    io::Write as _,
    panic::PanicHookInfo,
    sync::atomic::{AtomicBool, Ordering},
};

use carrack_mover::error::{Error, ErrorKind};

use super::{
    contradiction, exit,
    json::{self, Tagged},
};

/// Whether whoever reads standard error is a program.
static SPEAKS_JSON: AtomicBool = AtomicBool::new(false);
/// Whether a thread has panicked, and is ending the program.
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// Whether the outcome is known, and is being told.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// From now on, a panic in any thread prints a report and ends the program. Ending at once is safe: a snapshot
/// exists only once it is whole.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info| {
        // A thread that a backup left behind finds no runtime any more. What was to be told is known, and it is not this.
        while IS_OVER.load(Ordering::Relaxed) && std::thread::current().name() != Some("main") {
            std::thread::park();
        }
        // Of several threads the first one ends the program, with one report.
        while IS_ENDING.swap(true, Ordering::Relaxed) {
            std::thread::park();
        }
        let error = Error::new(ErrorKind::Internal, in_short(info));
        let text = in_full(&error, report(info));
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
        exit::at_once(&error);
    }));
}

/// From now on it is told as programs want it.
pub(crate) fn speak_json(json: bool) {
    SPEAKS_JSON.store(json, Ordering::Relaxed);
}

/// From now on only the main thread is heard: the outcome is known.
pub(crate) fn is_over() {
    IS_OVER.store(true, Ordering::Relaxed);
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map(ToString::to_string).unwrap_or_default()
}

fn in_short(info: &PanicHookInfo<'_>) -> String {
    format!("internal error at {}: {}", place(info), info.payload_as_str().unwrap_or("no message"))
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    // A message that was put together has been made a `String`.
    let literal = info.payload().downcast_ref::<&'static str>().copied();
    let backtrace = Backtrace::force_capture().to_string();
    contradiction::of_panic(thread.name().unwrap_or("unnamed"), &place(info), literal, backtrace.trim_end())
}

fn in_full(error: &Error, report: String) -> String {
    if SPEAKS_JSON.load(Ordering::Relaxed) {
        let body = json::ExitError::new(exit::code(error), error).with_report(report);
        return json::line(&Tagged { message_type: "exit_error", body: &body }) + "\n";
    }
    // A progress bar may stand on the line.
    let next = exit::next_step(error).unwrap_or_default();
    format!("\ncarrack: error: {error}\n  next: {next}\n{}\n", contradiction::below(&report))
}
