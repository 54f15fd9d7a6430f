//! A disk that tells apart what was written and what was synced, and that can kill a program at any of its steps.
//!
//! It is a file system in memory, mounted through FUSE, so that the real program works on it with the real system
//! calls. It is stricter than disks are: on a loss of power everything is gone that was not synced, and a directory
//! that was synced keeps its names, not what they lead to. With [`State::after_power_loss`] and a seed, some of
//! what was not synced is there and some is not, in any order.
//!
//! Not told apart: `fsync` and `fdatasync`; and `syncfs`, which the kernel does not pass on to FUSE.

mod contents;
mod fuse;
pub mod state;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, MountOption};
use rustix::process::{Pid, Signal};

use self::fuse::Served;
pub use self::state::State;

/// How long the number of a process may take that was started just now.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Which of what a program does are its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steps {
    /// That with which it changes something, or makes it durable.
    #[default]
    Changes,
    /// All requests to a service; on a disk, files that it opens and directories that it lists besides. What only reads
    /// has no others.
    All,
}

/// What a program does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Something that others see, and a loss of power undoes.
    Change,
    /// Makes changes durable.
    Sync,
    /// Opens a file, or lists a directory.
    Look,
}

#[derive(Debug, Default)]
struct Control {
    state: State,
    counted: Steps,
    steps: u64,
    last: Option<Step>,
    /// The step that is not carried out any more.
    end_at: Option<u64>,
    /// Whom it ends.
    victim: Option<Pid>,
    dead: bool,
}

#[derive(Debug, Default)]
struct Shared {
    control: Mutex<Control>,
    started: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a step out; none if the program is killed at it, or was before.
    fn step<T>(&self, step: Step, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut control = self.lock();
        if step == Step::Look && control.counted == Steps::Changes {
            return Some(change(&mut control.state));
        }
        if control.dead {
            return None;
        }
        if control.end_at == Some(control.steps + 1) {
            control.dead = true;
            // A program can be faster than those who started it are told its number.
            let waited = self.started.wait_timeout_while(control, START_LIMIT, |it| it.victim.is_none());
            control = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(victim) = control.victim {
                // Before the answer: none of its threads comes back from the kernel any more.
                rustix::process::kill_process(victim, Signal::KILL).ok();
            }
            return None;
        }
        control.steps += 1;
        control.last = Some(step);
        Some(change(&mut control.state))
    }
}

/// What became of a program.
#[derive(Debug)]
pub struct Ran {
    /// What it printed, and how it ended.
    pub output: Output,
    /// What was on the disk then, if there is one.
    pub state: State,
    /// Steps that it took.
    pub steps: u64,
    /// Whether it was killed at the step that was asked for.
    pub killed: bool,
    /// Whether its last step made something durable.
    pub synced_last: bool,
}

/// A mounted disk; unmounted when dropped. Only within [`crate::images::in_private_mounts`].
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    place: PathBuf,
}

impl Disk {
    /// Mounts a disk with this on it at a directory.
    pub fn mount(state: State, place: &Path) -> Result<Self> {
        let control = Control { state, ..Control::default() };
        let shared = Arc::new(Shared { control: Mutex::new(control), ..Shared::default() });
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("disk".to_owned()), MountOption::Dev, MountOption::Suid];
        let served = Served(Arc::clone(&shared));
        let session =
            fuser::spawn_mount(served, place, &config).context("mount a disk: it needs /dev/fuse")?;
        Ok(Self { shared, session: Some(session), place: place.to_owned() })
    }

    /// What is on it now.
    pub fn state(&self) -> State {
        self.shared.lock().state.clone()
    }

    /// Runs a program, and kills it when it is about to take a step on this disk, counted from one; never if none is
    /// given. What is on the disk stays as it was at that moment.
    pub fn run(&self, command: &mut Command, counted: Steps, end_at: Option<u64>) -> Result<Ran> {
        {
            let mut control = self.shared.lock();
            let state = std::mem::take(&mut control.state);
            *control = Control { state, counted, end_at, ..Control::default() };
        }
        let child: Child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        self.shared.lock().victim = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.shared.started.notify_all();
        let output = child.wait_with_output().context("wait for the program")?;
        let mut control = self.shared.lock();
        let killed = std::mem::take(&mut control.dead);
        control.end_at = None;
        control.victim = None;
        let (state, synced_last) = (control.state.clone(), control.last == Some(Step::Sync));
        Ok(Ran { output, state, steps: control.steps, killed, synced_last })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Fails only where something is open still, which the end of the private mounts ends.
        rustix::mount::unmount(&self.place, rustix::mount::UnmountFlags::DETACH).ok();
        if let Some(session) = self.session.take() {
            session.join().ok();
        }
    }
}

#[cfg(test)]
mod tests;
