//! The program under test, with a repository of its own.

use std::ffi::OsStr;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// How long a run may take that is waited for; seen: a few seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// An ordinary user: `nobody` of every Linux system.
pub const NOBODY: u32 = 65_534;

/// A repository in a directory, a copy of the program that everybody may run, and whom it runs as.
#[derive(Debug)]
pub struct Program {
    directory: TempDir,
    path: PathBuf,
    user: Option<u32>,
    /// The password that is given.
    pub password: String,
}

/// What a run printed.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Printed {
    /// The message of this type, of a run with `--json`.
    pub fn message(&self, message_type: &str) -> serde_json::Value {
        let messages =
            self.out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut wanted = messages.filter(|message| message["message_type"] == message_type);
        wanted.next_back().unwrap_or_default()
    }
}

impl Program {
    /// Makes a repository; `program` is what `cargo build -p carrack-mover` has built.
    pub fn new(program: PathBuf) -> Result<Self> {
        Self::of(program, None)
    }

    /// The same, run by an ordinary user.
    pub fn as_nobody(program: PathBuf) -> Result<Self> {
        Self::of(program, Some(NOBODY))
    }

    fn of(program: PathBuf, user: Option<u32>) -> Result<Self> {
        let directory = TempDir::with_prefix("carrack-test-")?;
        let mut path = program;
        if let Some(user) = user {
            // A checkout may lie where nobody else can go.
            let copy = directory.path().join("carrack");
            install(&path, &copy)?;
            path = copy;
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
            chown(directory.path(), Some(user), Some(user))?;
        }
        let made = Self { directory, path, user, password: "correct".to_owned() };
        made.run(["init"], 0);
        Ok(made)
    }

    /// A path beside the repository.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command, not started yet.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        // Whoever runs the tests may have signals ignored, as nohup does, and programs inherit that.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal").arg(&self.path).args(arguments).env_clear().stdin(Stdio::null());
        command.env("CARRACK_PASSWORD", &self.password).env("CARRACK_REPOSITORY", self.path("repository"));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs the program, which must end with this code.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, code: i32) -> Printed {
        ended(&mut self.command(arguments), code)
    }

    /// Starts the program with its output to pipes.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Restores the newest snapshot into a directory that does not exist yet; gives where `source` is in it.
    pub fn restored(&self, source: &Path, target: &Path, code: i32) -> PathBuf {
        self.run([OsStr::new("restore"), "latest".as_ref(), "--target".as_ref(), target.as_ref()], code);
        target.join(source.strip_prefix("/").expect("an absolute path"))
    }
}

/// A path as a word of a command line.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Puts a program where it is to be run. Another process writes it: what this one has open for writing is open in children that
/// its threads start just then, too, until they have become other programs, and cannot be run so long.
pub fn install(program: &Path, at: &Path) -> Result<()> {
    crate::images::run(Command::new("install").arg("--mode=0755").arg(program).arg(at)).map(drop)
}

/// Runs a command, which must end with this code and without a panic.
pub fn ended(command: &mut Command, code: i32) -> Printed {
    let output = command.output().expect("the program was built: cargo build -p carrack-mover");
    judged(command, output, code)
}

fn judged(command: &Command, output: Output, code: i32) -> Printed {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = Printed { out: text(&output.stdout), err: text(&output.stderr) };
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}: {}\n{}\n{}",
        output.status,
        printed.out,
        printed.err
    );
    printed
}

/// A program at work; it does not outlive a test that fails.
#[derive(Debug)]
pub struct Running(Option<Child>);

impl Running {
    /// Starts a command with its output to pipes.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(Some(child.expect("the program starts")))
    }

    /// Waits for its end, however long that takes.
    pub fn wait_with_output(mut self) -> Output {
        let child = self.0.take().expect("it was not waited for yet");
        child.wait_with_output().expect("it ends")
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().expect("it was not waited for yet")
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not waited for yet")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Both fail only where it has ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Waits until the program, or what it became by `exec`, has taken a signal into its own hands, and is at work.
pub fn wait_for_handler(child: &Child, signal: rustix::process::Signal) -> Result<()> {
    let status = format!("/proc/{}/status", child.id());
    let is_caught = || {
        let text = fs::read_to_string(&status).ok()?;
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(caught.trim(), 16).ok().map(|caught| caught >> (signal.as_raw() - 1) & 1 == 1)
    };
    wait_until(|| is_caught() == Some(true))?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Sends a signal to a process that this test has started.
pub fn signal(child: &Child, signal: rustix::process::Signal) -> Result<()> {
    let id =
        i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(id, signal).context("send a signal")
}

/// Waits for the end of a process that this test has started.
pub fn wait(mut child: Running, code: i32) -> Printed {
    let done = wait_until(|| child.try_wait().is_ok_and(|ended| ended.is_some()));
    done.expect("it ends by itself in time");
    let output = child.wait_with_output();
    judged(&Command::new("carrack"), output, code)
}

/// Waits until something holds.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < LIMIT, "waited for {LIMIT:?} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
