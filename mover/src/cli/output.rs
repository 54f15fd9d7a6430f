//! Where words go: results to standard output, everything else to standard error.
//!
//! A reader that goes away (`carrack ls | head`) ends the program without a word. With `--json` each message is
//! one line; see `json`.

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, BufWriter, ErrorKind, IsTerminal as _, Write},
    sync::{Arc, Mutex, PoisonError},
};

use carrack_mover::{
    error::{Error, Result},
    monitor::{Wait, WaitMonitor},
};
use indicatif::ProgressBar;
use rustix::fs::FileType;
use serde::Serialize;

use super::{
    args::OutputArgs,
    contradiction,
    exit::{self, OutputClosed},
    json::{self, Tagged},
    record::Record,
    units,
};

/// Where and how to print. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    verbose: u8,
    terminal: bool,
    colour: bool,
    /// Standard output carries data: messages go to standard error.
    data_on_stdout: bool,
    /// What is drawn on standard error now, and must make room for lines.
    bar: Arc<Mutex<Option<ProgressBar>>>,
    /// Who else wants to know.
    record: Option<Arc<Record>>,
}

impl Output {
    pub(crate) fn new(args: &OutputArgs, environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let plain = args.no_color || environment("NO_COLOR").is_some();
        let dumb = environment("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stderr().is_terminal() && !args.no_color && !dumb;
        Self {
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
            terminal,
            colour: terminal && !plain,
            data_on_stdout: false,
            bar: Arc::default(),
            record: None,
        }
    }

    /// The same, and what it says is kept as well.
    pub(crate) fn recorded(self, record: &Arc<Record>) -> Self {
        Self { record: Some(Arc::clone(record)), ..self }
    }

    /// The same, for a verb whose data goes to standard output.
    pub(crate) fn beside_data(&self) -> Self {
        Self { data_on_stdout: true, ..self.clone() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// For what has no messages: a program that asked for them must not take text for one.
    pub(crate) fn refuse_json(&self, what: &str) -> Result<()> {
        if self.json {
            let said = format!("{what}: there are no messages of them, so --json means nothing here");
            return Err(Error::invalid(said).with_hint("leave --json out"));
        }
        Ok(())
    }

    /// Whether also what others count beyond a bound is wanted, one by one: by programs, but not in the messages of
    /// a job, which are somebody's log, and by people who asked for more.
    pub(crate) fn tells_all(&self) -> bool {
        self.verbose > 0 || (self.json && self.record.is_none())
    }

    /// Whether a progress bar can be drawn.
    pub(crate) fn draws(&self) -> bool {
        self.terminal && !self.json && !self.quiet
    }

    /// From now on lines on standard error make room for this bar; none: it is gone.
    pub(crate) fn share_bar(&self, bar: Option<ProgressBar>) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    /// Starts the log of what the engine does, on standard error: warnings, more with `-v`, or as CARRACK_LOG says.
    pub(crate) fn start_log(&self) {
        let level = ["error", "info", "debug", "trace"][usize::from(self.verbose).min(3)];
        let filter = tracing_subscriber::EnvFilter::try_from_env("CARRACK_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("carrack_mover={level}")));
        // Plain on a terminal too: its colours are a feature that is not built in, and asking for them is a panic.
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
        // Fails only if there is a log already.
        let started = if self.json { log.json().try_init() } else { log.try_init() };
        debug_assert!(started.is_ok(), "the log is started once");
    }

    /// Writes to standard output, buffered and in one go.
    pub(crate) fn stdout(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        self.beside_bar(|| {
            let mut out = BufWriter::new(io::stdout().lock());
            write(&mut out).and_then(|()| out.flush()).map_err(output_error)
        })
    }

    /// One line of a result for people.
    pub(crate) fn line(&self, text: impl Display) -> Result<()> {
        if self.data_on_stdout {
            self.stderr_line(&text);
            return Ok(());
        }
        self.stdout(|out| writeln!(out, "{text}"))
    }

    /// One line of a result for people who did not ask for quiet.
    pub(crate) fn remark(&self, text: impl Display) -> Result<()> {
        if self.quiet { Ok(()) } else { self.line(text) }
    }

    /// One message for programs.
    pub(crate) fn message(&self, message_type: &str, body: &impl Serialize) -> Result<()> {
        if let Some(record) = &self.record {
            record.message(message_type, body);
        }
        let line = json::line(&Tagged { message_type, body });
        self.line(line)
    }

    /// A note for people on standard error.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet && !self.json {
            self.stderr_line(&format_args!("carrack: {text}"));
        }
    }

    /// Something went wrong, and the work goes on.
    pub(crate) fn problem(&self, what: &str, message: &str) {
        self.unprinted_problem(what, message);
        self.print_problem(what, message);
    }

    /// The same of one too many to be printed.
    pub(crate) fn unprinted_problem(&self, what: &str, message: &str) {
        if let Some(record) = &self.record {
            record.problem(what, message);
        }
    }

    /// Prints it, and nothing else.
    pub(crate) fn print_problem(&self, what: &str, message: &str) {
        if self.json {
            let body = json::Problem::new(what, message);
            self.stderr_line(&json::line(&Tagged { message_type: "error", body: &body }));
        } else {
            // Many messages name what they are about.
            let named = what.contains('/') && message.split([' ', ':']).any(|word| word == what);
            let what = if named { String::new() } else { format!("{what}: ") };
            self.stderr_line(&format_args!("carrack: {}{what}{message}", self.warning()));
        }
    }

    /// The error that ends the program. A reader that is gone needs no words.
    pub(crate) fn fatal(&self, error: &Error) {
        if exit::is_output_closed(error) {
            return;
        }
        if self.json {
            let body = json::ExitError::new(exit::code(error), error);
            self.stderr_line(&json::line(&Tagged { message_type: "exit_error", body: &body }));
            return;
        }
        let (red, plain) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        self.stderr_line(&format_args!("carrack: {red}error:{plain} {error}"));
        for cause in json::causes(error) {
            self.stderr_line(&format_args!("  because: {cause}"));
        }
        if let Some(hint) = exit::next_step(error) {
            self.stderr_line(&format_args!("  next: {hint}"));
        }
        if let Some(report) = contradiction::of_error(error) {
            self.stderr_line(&contradiction::below(&report));
        }
    }

    fn warning(&self) -> &'static str {
        if self.colour { "\x1b[1;33mwarning:\x1b[0m " } else { "warning: " }
    }

    /// A line on standard error. If that is closed too, there is nobody left to tell.
    pub(crate) fn stderr_line(&self, text: &dyn Display) {
        self.beside_bar(|| drop(writeln!(io::stderr().lock(), "{text}")));
    }

    /// The progress bar makes room for what is printed.
    fn beside_bar<T>(&self, print: impl FnOnce() -> T) -> T {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Output {
    /// A part of the source does not answer; nobody can ask it again.
    pub(crate) fn slow_source(&self, wait: &Wait) {
        self.waiting_message(wait);
        self.note(format_args!("waiting for {}: {}", wait.place, wait.cause));
    }

    fn waiting_message(&self, wait: &Wait) {
        if self.json && !self.quiet {
            let body = json::Waiting::new(wait);
            self.stderr_line(&json::line(&Tagged { message_type: "waiting", body: &body }));
        }
    }
}

impl WaitMonitor for Output {
    fn waiting(&self, wait: &Wait) {
        self.waiting_message(wait);
        let tries = match wait.tries_left {
            Some(left) => format!(", up to {} more", units::count(left.into(), "time", "times")),
            None => String::new(),
        };
        self.note(format_args!("waiting for {}: {}; trying again{tries}", wait.place, wait.cause));
    }
}

/// An error of standard output; a closed pipe, and a terminal that is gone, are told apart.
pub(crate) fn output_error(error: io::Error) -> Error {
    if error.kind() == ErrorKind::BrokenPipe || is_terminal_gone(&error) {
        return Error::unavailable("standard output is closed").with_source(OutputClosed);
    }
    Error::io(error, "standard output cannot be written")
}

/// The same error of a file is one of its disk.
fn is_terminal_gone(error: &io::Error) -> bool {
    let is_device =
        |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        && rustix::fs::fstat(io::stdout()).is_ok_and(is_device)
}
