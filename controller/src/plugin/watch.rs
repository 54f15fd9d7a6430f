//! A request is watched until its end.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use carrack_controller_api::{BackupPhase, BackupProgress, DataMoverBackup, DataMoverRestore, RestorePhase};
use kube::Api;

use super::say;
use crate::objects::Object;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// What is shown of a request.
struct Seen {
    phase: String,
    message: Option<String>,
    progress: Option<BackupProgress>,
    /// The exit code, once it has come to its end.
    ended: Option<u8>,
    /// What came out of it.
    outcome: Option<String>,
}

/// Watches a backup; the exit code says how it ended.
pub(super) async fn backup(api: &Api<DataMoverBackup>, name: &str) -> anyhow::Result<u8> {
    follow(api, name, |backup: DataMoverBackup| {
        let status = backup.status.unwrap_or_default();
        let ended = status.phase.is_final().then_some(match status.phase {
            BackupPhase::Completed => 0,
            BackupPhase::PartiallyCompleted => 3,
            BackupPhase::Canceled => 130,
            _ => 1,
        });
        let (bytes, sent) = (status.logical_bytes.unwrap_or(0), status.stored_bytes.unwrap_or(0));
        let outcome = status
            .snapshot_id
            .map(|snapshot| format!("snapshot {snapshot}: {bytes} bytes, {sent} of them sent"));
        Seen {
            phase: format!("{:?}", status.phase),
            message: status.message,
            progress: status.progress,
            ended,
            outcome,
        }
    })
    .await
}

/// Watches a restore; the exit code says how it ended.
pub(super) async fn restore(api: &Api<DataMoverRestore>, name: &str) -> anyhow::Result<u8> {
    follow(api, name, |restore: DataMoverRestore| {
        let status = restore.status.unwrap_or_default();
        let ended = status.phase.is_final().then_some(match status.phase {
            RestorePhase::Completed => 0,
            RestorePhase::PartiallyCompleted => 3,
            RestorePhase::Canceled => 130,
            _ => 1,
        });
        Seen {
            phase: format!("{:?}", status.phase),
            message: status.message,
            progress: status.progress,
            ended,
            outcome: None,
        }
    })
    .await
}

/// Shows a request until its end.
async fn follow<K: Object>(api: &Api<K>, name: &str, look: impl Fn(K) -> Seen) -> anyhow::Result<u8> {
    let mut line = Line::default();
    loop {
        let found = api.get(name).await;
        let seen = look(found.with_context(|| format!("{name} cannot be looked at any more; it goes on"))?);
        if let Some(code) = line.show(&seen)? {
            if let Some(outcome) = &seen.outcome {
                say(outcome)?;
            }
            return Ok(code);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One line on a terminal that changes; elsewhere a line for each change of phase or message.
#[derive(Default)]
struct Line {
    last: String,
}

impl Line {
    fn show(&mut self, seen: &Seen) -> anyhow::Result<Option<u8>> {
        let mut text = seen.phase.clone();
        if let Some(message) = &seen.message {
            text = format!("{text}: {message}");
        }
        let terminal = io::stderr().is_terminal();
        if let Some(progress) =
            seen.progress.filter(|progress| terminal && progress.total_bytes > 0 && seen.ended.is_none())
        {
            let percent = 100.0 * progress.bytes_done as f64 / progress.total_bytes as f64;
            text = format!("{text} {percent:.0} % of {} MiB", progress.total_bytes >> 20);
        }
        if text != self.last {
            let mut out = io::stderr();
            if terminal {
                write!(out, "\r\x1b[K{text}")?;
                if seen.ended.is_some() {
                    writeln!(out)?;
                }
                out.flush()?;
            } else {
                writeln!(out, "{text}")?;
            }
            self.last = text;
        }
        Ok(seen.ended)
    }
}
