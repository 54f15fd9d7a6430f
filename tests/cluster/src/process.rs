//! Processes that are known by more than their id, which the system gives again to others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::machine::wait_until;

/// A process: its id and when it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pid: i32,
    /// In ticks since the machine was started.
    started: u64,
}

impl Identity {
    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let (_, started) = look(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self { pid, started })
    }

    /// This process.
    pub(crate) fn own() -> Result<Self> {
        Self::of(rustix::process::getpid().as_raw_pid())
    }

    /// Whether it still runs; one that has ended and that nobody has waited for does not.
    pub(crate) fn runs(self) -> bool {
        look(self.pid).is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
    }

    /// Sends `signal` if it still runs.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        signal_if(self.pid, signal, || self.runs())
    }

    /// Waits until it has ended.
    pub(crate) fn wait(self, limit: Duration) -> Result<()> {
        wait_until(limit, || Ok(!self.runs()))
            .with_context(|| format!("wait for the end of process {}", self.pid))
    }
}

/// Sends `signal` to the process that has this id now, if it is the one that is meant.
pub(crate) fn signal_if(pid: i32, signal: Signal, is_meant: impl FnOnce() -> bool) -> Result<()> {
    let Some(id) = Pid::from_raw(pid) else { bail!("{pid} is no process id") };
    // The descriptor holds on to the process; what is looked at after it was opened is about the same process.
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { return Ok(()) };
    if is_meant() {
        match pidfd_send_signal(&process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("signal process {pid}")),
        }
    }
    Ok(())
}

/// State and time of start.
fn look(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name before it, in parentheses, may contain anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}
