//! A TiB of different blocks without a disk that holds it: the contents are made while they are read, and of what is
//! stored the packs are forgotten.
//!
//! The engine runs in a process of its own, so that its memory is measured without that of the generator.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::backup::{BackupOptions, BackupSource, backup};
use carrack_mover::cancel::Cancel;
use carrack_mover::error::Result as StoreResult;
use carrack_mover::monitor::CollectMonitor;
use carrack_mover::store::mem::MemStore;
use carrack_mover::store::{Decorator, ObjectStore, Put};

use super::{Setup, Subject, sizes};
use crate::index::create;
use crate::rng::Rng;

/// Bytes made at a time.
const PIECE: usize = 1 << 20;

/// Contents that are made while they are read.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Stream {
    /// GiB of blocks that differ from each other, at the last point; 1024 is a TiB.
    #[arg(long, default_value_t = 2)]
    gib: u64,
}

/// Backups of ever longer streams.
pub fn stream(setup: &Setup, args: Stream) -> Result<()> {
    let mut subject = Subject::new(setup, "stream", "GiB")?;
    let own = std::env::current_exe().context("find this program")?;
    for gib in sizes(args.gib) {
        // Memory is that of the larger process, which is the engine's: the other one holds a MiB.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "\"$0\" generate --gib $1 | \"$0\" engine --gib $1 --memory-mib $2"]);
        command.arg(&own).arg(gib.to_string()).arg(setup.memory_mib.to_string());
        subject.run("first", gib as f64, &command)?;
    }
    subject.finish()
}

/// Writes `gib` GiB of bytes that nothing can compress to standard output.
pub fn generate(gib: u64) -> Result<()> {
    let mut rng = Rng::new(1, "stream");
    let mut piece = vec![0; PIECE];
    let mut out = std::io::stdout().lock();
    for _ in 0..gib << 10 {
        rng.fill(&mut piece);
        out.write_all(&piece).context("write the stream")?;
    }
    Ok(())
}

/// Backs standard input up into a store that forgets the packs.
pub fn engine(gib: u64, memory_mib: u64) -> Result<()> {
    carrack_mover::sys::memory::keep_freed_buffers();
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let report = runtime.block_on(async {
        let repository = create(Arc::new(Forgetful::default())).await?;
        let mut options = BackupOptions::new(BackupSource::Stdin { name: "stream".into() });
        options.memory_bytes = memory_mib << 20;
        let monitor = Arc::new(CollectMonitor::default());
        anyhow::Ok(backup(&repository, options, monitor, Cancel::default()).await?)
    })?;
    let bytes = report.snapshot.map_or(0, |snapshot| snapshot.statistics.bytes_total);
    ensure!(bytes == gib << 30, "{bytes} bytes were backed up, {gib} GiB were to come");
    Ok(())
}

/// A store in memory that keeps everything but packs and index segments, which a first backup never reads again.
#[derive(Debug, Default)]
struct Forgetful(MemStore);

#[async_trait]
impl Decorator for Forgetful {
    fn inner(&self) -> &dyn ObjectStore {
        &self.0
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> StoreResult<Put> {
        if name.starts_with("packs/") || name.starts_with("index/") {
            return Ok(Put::Created);
        }
        self.0.put_if_absent(name, body).await
    }

    fn describe(&self) -> String {
        "memory that forgets packs".into()
    }
}
