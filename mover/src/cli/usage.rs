//! A command line that cannot be understood: what is wrong with it, for people or for programs.

use std::{ffi::OsString, io};

use carrack_mover::error::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{
    exit,
    json::{self, Tagged},
};

/// Verbs of other programs, and what does the same here.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("unlock", "there is nothing to unlock: a repository has no locks"),
    ("dump", "carrack cat file SNAPSHOT:/PATH, or carrack restore SNAPSHOT:/PATH --target -"),
    ("extract", "carrack restore SNAPSHOT --target DIR"),
    ("create", "carrack init for a repository, carrack backup PATH for a snapshot"),
    ("list", "carrack snapshots, carrack ls SNAPSHOT or carrack key list"),
    ("delete", "carrack forget SNAPSHOT"),
    ("compact", "carrack prune"),
    ("repair", "carrack check says what is damaged; carrack repo repair-index mends the index"),
    ("rebuild-index", "carrack repo repair-index"),
    ("info", "carrack repo info, or carrack stats"),
    ("version", "carrack --version"),
    ("generate", "carrack completions SHELL, or carrack man"),
];

/// Prints what is wrong, or the help that was asked for; gives the exit code.
pub(super) fn explain(error: &clap::Error, args: &[OsString]) -> u8 {
    let code = if error.use_stderr() { exit::INVALID } else { exit::DONE };
    let printed = match code {
        exit::INVALID if wants_json(args) => print_json(error),
        _ => error.print(),
    };
    if code == exit::INVALID
        && !wants_json(args)
        && let Some(advice) = other_word(error)
    {
        eprint(format_args!("  next: {advice}"));
    }
    if printed.is_ok() { code } else { exit::SYSTEM }
}

/// Programs get a message wherever the option stands, as they do from a verb that has failed.
fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

fn print_json(error: &clap::Error) -> io::Result<()> {
    let text = error.render().to_string();
    let said = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "the verb is missing".to_owned(),
        // What is wrong; how the command is used follows behind an empty line.
        _ => text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" "),
    };
    let mut said = Error::invalid(said.trim_start_matches("error: "));
    if let Some(advice) = other_word(error) {
        said = said.with_hint(advice);
    }
    let body = json::ExitError::new(exit::INVALID, &said);
    eprint(format_args!("{}", json::line(&Tagged { message_type: "exit_error", body: &body })));
    Ok(())
}

fn other_word(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    OTHER_WORDS.iter().find(|(other, _)| other == word).map(|(_, advice)| *advice)
}

/// A line on standard error; if that is closed, there is nobody left to tell.
fn eprint(text: std::fmt::Arguments<'_>) {
    drop(io::Write::write_fmt(&mut io::stderr().lock(), format_args!("{text}\n")));
}
