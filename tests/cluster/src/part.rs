//! A part of a bed: one program that runs, how it is started, and how it is known to be ready.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::machine::{run, tail, wait_until};
use crate::process::Identity;

/// How long a part may take to be ready; seen: 10 s on two busy processors.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How a part is known to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Probe {
    /// It answers there, inside its namespace.
    Url(String),
    /// It has made this socket.
    Socket(PathBuf),
    /// It has not ended; there is nothing else to ask it for.
    Runs,
}

/// A program with its arguments.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The name of the place, a slash, and the name of the program.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) log: PathBuf,
    pub(crate) probe: Probe,
    /// A socket at a path that is the same for every program of this kind on the machine. Each removes what it finds there
    /// before it makes its own, and ends if another one has made its own in between.
    pub(crate) common_socket: Option<PathBuf>,
    /// The process that was started last.
    pub(crate) process: Option<Identity>,
}

impl Part {
    /// Whether its process has not ended.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some_and(Identity::runs)
    }

    /// Starts it in the cgroup whose file `cgroup.procs` is `entrance`.
    pub(crate) fn start(&mut self, entrance: &Path) -> Result<Child> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        if let Probe::Socket(socket) = &self.probe {
            // Left by one that was killed, it would be taken for a sign of life.
            fs::remove_file(socket).ok();
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        // It is in its cgroup before it does anything, so that it is found even if we are killed now.
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$1\" && shift && exec nsenter \"$@\"", "sh"]);
        command.arg(entrance).arg(format!("--net=/run/netns/{}", self.namespace)).arg("--");
        command.arg(&self.program).args(&self.arguments).envs(self.environment.iter().cloned());
        // Keys pressed at the terminal are for whoever started the bed.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        self.process = Some(Identity::of(child.id().cast_signed())?);
        Ok(child)
    }

    /// Waits until it has made its common socket, or has ended.
    pub(crate) fn wait_for_common_socket(&self, socket: &Path) -> Result<()> {
        let waited = wait_until(START_LIMIT, || Ok(!self.runs() || self.has_socket(socket)?));
        waited.with_context(|| {
            format!("wait until {} has made {}; {}", self.name, socket.display(), self.last_words())
        })
    }

    /// Whether a socket with this path was made in its namespace; the file may have been removed by others.
    fn has_socket(&self, path: &Path) -> Result<bool> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args(["cat", "/proc/net/unix"]);
        let sockets = run(&mut command)?;
        Ok(sockets
            .lines()
            .filter_map(|line| line.split(' ').next_back())
            .any(|found| Path::new(found) == path))
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        while !self.is_ready() {
            let took = start.elapsed().as_secs();
            if !self.runs() {
                bail!("{} has ended after {took} s; {}", self.name, self.last_words());
            }
            if start.elapsed() > START_LIMIT {
                bail!("{} is not ready after {took} s; {}", self.name, self.last_words());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The end of its log, for an error.
    pub(crate) fn last_words(&self) -> String {
        format!("the end of {}:\n{}", self.log.display(), tail(&self.log))
    }

    fn is_ready(&self) -> bool {
        match &self.probe {
            Probe::Url(url) => self.answers(url),
            Probe::Socket(path) => path.exists(),
            Probe::Runs => self.runs(),
        }
    }

    fn answers(&self, url: &str) -> bool {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        // Whether the certificate is right is for those who use the part.
        command.args([
            "curl",
            "--insecure",
            "--silent",
            "--fail",
            "--max-time",
            "2",
            "--output",
            "/dev/null",
            url,
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}
