//! Internal errors: a report that can be sent, without arguments, environment or secrets.

use std::{backtrace::Backtrace, io::Write as _, panic::PanicHookInfo};

use carrack_mover::error::Error;

use super::exit;

/// From now on, a panic in any thread prints a report and ends the program. Ending at once is safe: a snapshot
/// exists only once it is whole.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info| {
        let text = report(info);
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
        exit::at_once(&Error::internal(in_short(info)));
    }));
}

fn in_short(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!("internal error at {place}: {}", info.payload_as_str().unwrap_or("no message"))
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("no message");
    format!(
        "\ncarrack: internal error: this is a defect of the program, not of your data\n  \
         next: nothing is lost; run the same command again, and please report the lines below\n\n\
         version: {version}\nsystem: {os} {arch}\nthread: {thread}\nplace: {place}\nmessage: {message}\n\
         backtrace:\n{backtrace}\n",
        version = env!("CARGO_PKG_VERSION"),
        os = std::env::consts::OS,
        arch = std::env::consts::ARCH,
        thread = std::thread::current().name().unwrap_or("unnamed"),
        backtrace = Backtrace::force_capture(),
    )
}
