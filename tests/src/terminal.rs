//! A person at a terminal: `script` gives a program a terminal of its own, and here is what is typed and what is seen.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::termios::{LocalModes, tcgetattr};

use crate::program::wait_until;

/// A program that runs on a terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Runs a line of shell on a terminal, in the environment of `like`.
    pub fn start(line: &str, like: &Command) -> Result<Self> {
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", line, "/dev/null"]).env_clear();
        command.env("TERM", "xterm").env("SHELL", "/bin/sh").env("PATH", "/usr/bin:/bin");
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            command.spawn().context("script cannot be run; install it: apt-get install bsdutils")?;
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut output, seen) = (child.stdout.take().context("a pipe")?, Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with the terminal.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        let keys = child.stdin.take();
        Ok(Self { child, keys, screen, reader: Some(reader) })
    }

    /// All that was shown so far, control characters included.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until it shows this.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        wait_until(|| self.screen().contains(text))
            .with_context(|| format!("{text:?} is not shown, but: {}", self.screen()))
    }

    /// Waits until what is typed is not shown.
    pub fn wait_for_no_echo(&self) -> Result<()> {
        wait_until(|| self.has_echo() == Some(false))
            .with_context(|| format!("what is typed would be shown: {}", self.screen()))
    }

    /// Whether what is typed is shown; none while there is no terminal yet, or any more.
    fn has_echo(&self) -> Option<bool> {
        // `script` holds the other end of it, of which the kernel tells the number.
        let ends = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).ok()?;
        let mut texts = ends.flatten().filter_map(|end| fs::read_to_string(end.path()).ok());
        let number = texts.find_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("tty-index:"))
                .map(|number| number.trim().to_owned())
        })?;
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(format!("/dev/pts/{number}"), flags, Mode::empty()).ok()?;
        Some(tcgetattr(&terminal).ok()?.local_modes.contains(LocalModes::ECHO))
    }

    /// Types this.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        let keys = self.keys.as_mut().context("the keyboard")?;
        keys.write_all(text.as_bytes()).and_then(|()| keys.flush()).context("type")
    }

    /// Waits for the end; gives the exit code and all that was shown.
    pub fn end(mut self) -> Result<(Option<i32>, String)> {
        wait_until(|| self.child.try_wait().is_ok_and(|ended| ended.is_some()))
            .with_context(|| format!("it does not end; it shows: {}", self.screen()))?;
        let code = self.child.wait()?.code();
        if let Some(reader) = self.reader.take() {
            reader.join().ok().context("the screen cannot be read")?;
        }
        Ok((code, self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
