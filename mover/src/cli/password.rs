//! Passwords and secrets: from a file, a command, the environment or a person; never from an argument, which every
//! user of the machine can read.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    os::unix::ffi::OsStringExt,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use carrack_mover::{
    error::{Error, Result},
    keys::WriterBundle,
    secret::{Key, Passphrase},
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::{Zeroize as _, Zeroizing};

use super::{config::SecretSource, context::environment};

#[cfg(test)]
mod tests;

/// What opens a repository.
#[derive(Debug)]
pub(crate) enum Secret {
    Passphrase(Passphrase),
    Key(Key),
    Bundle(Box<WriterBundle>),
}

/// Longest password or secret file in bytes: more is a mistake in the file's name.
const LIMIT: u64 = 64 << 10;

/// Whether to ask once or, for a new password, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Once,
    Twice,
    /// Twice, for one more password: it has options of its own and no variables.
    Further,
}

/// Gets the secret; `whose` names what it opens, in the question.
pub(crate) fn obtain(source: &SecretSource, whose: &str, ask: Ask) -> Result<Secret> {
    match source {
        SecretSource::PasswordFile(path) => passphrase(read_first_line(path, "password file")?),
        SecretSource::PasswordCommand(command) => passphrase(run_command(command)?),
        SecretSource::PasswordVariable(name) => {
            passphrase(environment(name).map(OsStringExt::into_vec).unwrap_or_default())
        }
        SecretSource::KeyFile(path) => read_key(path).map(Secret::Key),
        SecretSource::Bundle(path) => {
            let bytes = Zeroizing::new(read_limited(path, "writer bundle")?);
            let bundle = serde_json::from_slice(&bytes).map_err(|error| {
                Error::invalid(format!("writer bundle {} cannot be read", path.display())).with_source(error)
            })?;
            Ok(Secret::Bundle(Box::new(bundle)))
        }
        SecretSource::Prompt => passphrase(prompt(whose, ask)?),
    }
}

fn passphrase(bytes: Vec<u8>) -> Result<Secret> {
    if bytes.is_empty() {
        return Err(
            Error::denied("the password is empty").with_hint("give a password of at least one character")
        );
    }
    Ok(Secret::Passphrase(Passphrase::new(bytes)))
}

fn read_limited(path: &Path, what: &str) -> Result<Vec<u8>> {
    let named = |error| Error::io(error, format!("{what} {} cannot be read", path.display()));
    let mut bytes = Vec::new();
    File::open(path).map_err(named)?.take(LIMIT + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() as u64 > LIMIT {
        bytes.zeroize();
        return Err(Error::invalid(format!("{what} {} is longer than {LIMIT} bytes", path.display()))
            .with_hint("is it the right file?"));
    }
    Ok(bytes)
}

/// The first line of a file, without its end.
pub(crate) fn read_first_line(path: &Path, what: &str) -> Result<Vec<u8>> {
    Ok(first_line(read_limited(path, what)?))
}

fn first_line(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let end = if bytes[..end].ends_with(b"\r") { end - 1 } else { end };
    bytes[end..].zeroize();
    bytes.truncate(end);
    bytes
}

fn run_command(command: &str) -> Result<Vec<u8>> {
    let started = Command::new("/bin/sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| Error::io(error, "the password command cannot be started"))?;
    let mut bytes = Vec::new();
    let output = child.stdout.take().expect("standard output is a pipe");
    output.take(LIMIT).read_to_end(&mut bytes).map_err(|error| Error::io(error, "the password command"))?;
    let status = child.wait().map_err(|error| Error::io(error, "the password command"))?;
    if !status.success() {
        bytes.zeroize();
        return Err(Error::denied(format!("the password command failed with {status}"))
            .with_hint("run it by hand: it must print the password and end with 0"));
    }
    Ok(first_line(bytes))
}

/// Reads 64 hexadecimal digits.
pub(crate) fn read_key(path: &Path) -> Result<Key> {
    let line = Zeroizing::new(read_first_line(path, "key file")?);
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(line.trim_ascii(), &mut *key).map_err(|_| {
        Error::invalid(format!("key file {} does not hold 64 hexadecimal digits", path.display()))
            .with_hint("make one with: openssl rand -hex 32")
    })?;
    Ok(Key::new(*key))
}

/// The terminal as it was before the echo was switched off.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Puts the terminal back if a question is open.
pub(crate) fn restore_terminal() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take()
        && let Ok(terminal) = File::open("/dev/tty")
    {
        // On the way out there is nobody to tell, but the line is only ended if the terminal is back.
        if tcsetattr(terminal, OptionalActions::Now, &before).is_ok() {
            eprint_newline();
        }
    }
}

fn eprint_newline() {
    drop(io::Write::write_all(&mut io::stderr(), b"\n"));
}

fn prompt(whose: &str, ask: Ask) -> Result<Vec<u8>> {
    let terminal = File::open("/dev/tty").ok().filter(|_| io::stderr().is_terminal());
    let Some(terminal) = terminal else {
        let (what, hint) = match ask {
            Ask::Once | Ask::Twice => {
                ("password", "set CARRACK_PASSWORD_FILE, CARRACK_PASSWORD_COMMAND or CARRACK_PASSWORD")
            }
            Ask::Further => {
                ("new password", "give --new-password-file, --new-password-command or --new-key-file")
            }
        };
        let missing = format!("no {what} for {whose}, and there is no terminal to ask on");
        return Err(Error::denied(missing).with_hint(hint));
    };
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = tcgetattr(&terminal).ok();
    let answer = ask_person(whose, ask);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = None;
    answer
}

fn ask_person(whose: &str, ask: Ask) -> Result<Vec<u8>> {
    let read = |question: String| {
        rpassword::prompt_password(question)
            .map(String::into_bytes)
            .map_err(|error| Error::io(error, "the terminal cannot be read"))
    };
    if ask == Ask::Once {
        return read(format!("password for {whose}: "));
    }
    let first = read(format!("new password for {whose}: "))?;
    let second = Zeroizing::new(read("the same again: ".to_owned())?);
    if first == *second {
        Ok(first)
    } else {
        Err(Error::invalid("the two passwords differ").with_hint("run the command again"))
    }
}
