//! What the S3 server and the way to it take for the same number of bytes, with nothing computed beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use carrack_mover::store::{ByteRange, ObjectStore, StoreOptions, open_url};

use super::Step;
use crate::measure::{self, Usage};
use crate::s3::Server;

/// Its name among the tools of a report.
pub(super) const NAME: &str = crate::report::SERVER;
/// Requests at the same time: what keeps a server on the same machine busy.
const PARALLEL: usize = 4;

/// The files of the limit as objects.
#[derive(Debug)]
pub(super) struct Bare<'a> {
    server: &'a Server,
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn ObjectStore>,
    files: PathBuf,
}

impl<'a> Bare<'a> {
    /// Puts the files in `files` under a prefix of their own.
    pub(super) fn new(server: &'a Server, files: &Path) -> Result<Self> {
        let place = server.location(NAME);
        let credentials = files.with_extension("credentials");
        let (id, secret) = (&place.access_key, &place.secret_key);
        let profile = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        crate::tools::write(&credentials, &profile)?;
        let options = StoreOptions {
            endpoint: Some(format!("http://{}", place.address)),
            region: Some(place.region),
            credentials_file: Some(credentials),
            ..StoreOptions::default()
        };
        let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
        let url = format!("s3://{}/{}", place.bucket, place.prefix);
        let store = runtime.block_on(open_url(&url, &options))?;
        Ok(Self { server, runtime, store, files: files.to_path_buf() })
    }

    /// What `step` is without a tool: puts for the first backup, gets for a restore and a check.
    pub(super) fn step(&self, step: Step) -> Result<Option<Usage>> {
        let before = self.server.cpu_seconds();
        let measured = match step {
            Step::First => measure::inline(|| self.each(|name, path| self.put(name, path))),
            Step::Restore | Step::Check => measure::inline(|| self.each(|name, _| self.get(name))),
            _ => return Ok(None),
        };
        let (mut usage, ()) = measured?;
        usage.cpu_seconds += self.server.cpu_seconds() - before;
        Ok(Some(usage))
    }

    /// Does something to every file, several at a time.
    fn each(&self, work: impl Fn(&str, &Path) -> Result<()> + Sync) -> Result<()> {
        let files = crate::walk::walk(&self.files)?.files;
        std::thread::scope(|scope| {
            let share = |first: usize| {
                let (files, work) = (&files, &work);
                scope.spawn(move || {
                    files.iter().skip(first).step_by(PARALLEL).try_for_each(|file| {
                        let name = file.path.file_name().context("a file has a name")?.to_string_lossy();
                        work(&format!("packs/{name}"), &file.path)
                    })
                })
            };
            let threads: Vec<_> = (0..PARALLEL).map(share).collect();
            let mut ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.try_for_each(|result| result.unwrap_or_else(|_| bail!("a thread panicked")))
        })
    }

    fn put(&self, name: &str, path: &Path) -> Result<()> {
        let body = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        self.runtime.block_on(self.store.put_if_absent(name, body.into()))?;
        Ok(())
    }

    fn get(&self, name: &str) -> Result<()> {
        self.runtime.block_on(self.store.get(name, ByteRange::All))?;
        Ok(())
    }

    /// Frees what the server holds.
    pub(super) fn clear(&self) -> Result<()> {
        self.server.clear(NAME)
    }
}
