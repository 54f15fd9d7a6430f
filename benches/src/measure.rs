//! Runs a command and measures it from outside: wall time, processor time, peak memory.
//!
//! GNU time asks the kernel for what the child and its own children used (`wait4`), which misses no short peak
//! as polling `/proc` would. Its own start costs about a millisecond.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What one run took.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Wall time.
    pub seconds: f64,
    /// Processor time, user and system, of all threads.
    pub cpu_seconds: f64,
    /// Peak resident memory in MiB; 0 where it was not measured.
    pub peak_mib: f64,
}

/// Where GNU time is found.
const TIME: &str = "/usr/bin/time";

/// Says whether runs can be measured on this machine.
pub fn available() -> Result<()> {
    if Path::new(TIME).exists() {
        return Ok(());
    }
    bail!("{TIME} is missing; install it with: apt-get install time")
}

/// Runs `command` to its end; its output goes to `log`. An exit code other than 0 is an error that quotes
/// the end of the output.
pub fn run(command: &Command, log: &Path) -> Result<Usage> {
    let figures = log.with_extension("time");
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut timed = Command::new(TIME);
    timed
        .args(["-q", "-f", "%U %S %M", "-o"])
        .arg(&figures)
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        timed.current_dir(dir);
    }
    timed.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let start = Instant::now();
    let status = timed.status().with_context(|| format!("start {TIME}"))?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
        let mut tail: Vec<&str> = text.lines().rev().take(4).collect();
        tail.reverse();
        bail!("{} ended with {status}: {}", command.get_program().display(), tail.join(" | "));
    }
    let text = fs::read_to_string(&figures).with_context(|| format!("read {}", figures.display()))?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, system, kib] = numbers[..] else { bail!("{TIME} wrote {text:?}, which is not three numbers") };
    Ok(Usage { seconds, cpu_seconds: user + system, peak_mib: kib / 1024.0 })
}

/// Takes so many bytes of memory, writes to them and gives them back, so that whoever comes next does not wait for a
/// host to back them.
pub fn touch_memory(bytes: usize) {
    let mut room: Vec<u8> = Vec::with_capacity(bytes);
    carrack_mover::sys::memory::expect_filling(room.spare_capacity_mut());
    room.resize(bytes, 1);
    std::hint::black_box(&room);
}

/// Runs `work` in this process and measures wall and processor time. Memory is not told apart from that of
/// the runner, so it stays 0.
pub fn inline<T>(work: impl FnOnce() -> Result<T>) -> Result<(Usage, T)> {
    let (start, cpu) = (Instant::now(), own_cpu());
    let value = work()?;
    Ok((Usage { seconds: start.elapsed().as_secs_f64(), cpu_seconds: own_cpu() - cpu, peak_mib: 0.0 }, value))
}

fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests;
