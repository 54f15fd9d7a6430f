//! A repository in a bucket with the backups of two machines, for those who attack it: whatever they do, everything
//! that was backed up before must be listed and come back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result};
use carrack_mover::{
    clock::World,
    keys::WriterBundle,
    repo::{Repository, Unlock},
    secret::Passphrase,
    store::{StoreOptions, open_url},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    bucket::Bucket,
    minio::{BUCKET, MinioServer},
    place::program,
    program::{Printed, ended},
    trees::{noise, rsync_differences},
};

/// The prefix of the repository in its bucket.
pub const PREFIX: &str = "repository";
/// The password of the owner.
pub const PASSWORD: &str = "correct";

/// A server, a repository, and copies of everything that was backed up.
#[derive(Debug)]
pub struct Stage {
    directory: TempDir,
    /// The service.
    pub server: MinioServer,
    /// The bucket with the owner's credentials.
    pub owner: Bucket,
    bucket: String,
    /// Snapshots with the copies of what they must hold.
    kept: Vec<(String, PathBuf)>,
}

impl Stage {
    /// A new repository in the server's own bucket, with two backups of `db1` and one of `mail`.
    pub fn set() -> Result<Self> {
        let mut stage = Self::empty(BUCKET, |_| Ok(()))?;
        for (host, number) in [("db1", 1), ("mail", 2), ("db1", 3)] {
            stage.change(host, number)?;
            stage.backup(host)?;
        }
        Ok(stage)
    }

    /// A new repository in a bucket that `prepare` has made.
    pub fn empty(bucket: &str, prepare: impl FnOnce(&Bucket) -> Result<()>) -> Result<Self> {
        let directory = TempDir::with_prefix("carrack-stage-")?;
        let server = MinioServer::start()?;
        let owner = Bucket::of_owner(&server, bucket, PREFIX)?;
        prepare(&owner)?;
        let stage = Self { directory, server, owner, bucket: bucket.to_owned(), kept: Vec::new() };
        stage.run(&["init"], 0);
        Ok(stage)
    }

    /// A path beside everything else.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The tree of a host.
    pub fn source(&self, host: &str) -> PathBuf {
        self.path("sources").join(host)
    }

    /// Changes a host's tree: one file is replaced, one is added.
    pub fn change(&self, host: &str, number: u64) -> Result<()> {
        let source = self.source(host);
        fs::create_dir_all(source.join("deep"))?;
        fs::write(source.join("secret plan"), format!("the plan {number} of {host}\n").repeat(500))?;
        fs::write(source.join(format!("deep/random {number}")), noise(number, 300_000))?;
        Ok(())
    }

    /// The program with the owner's credentials and password, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.env("CARRACK_REPOSITORY", self.repository()).env("CARRACK_S3_ENDPOINT", self.server.url());
        command.env("AWS_SHARED_CREDENTIALS_FILE", self.server.credentials_file());
        command.env("AWS_REGION", "us-east-1").env("CARRACK_PASSWORD", PASSWORD);
        command
    }

    /// Runs it; it must end with this code.
    pub fn run(&self, arguments: &[&str], code: i32) -> Printed {
        ended(&mut self.command(arguments), code)
    }

    /// Runs it as a holder of these credentials and this writer bundle.
    pub fn run_as(&self, bucket: &Bucket, bundle: &Path, arguments: &[&str], code: i32) -> Printed {
        let mut command = self.command(arguments);
        command.env_remove("CARRACK_PASSWORD").env("CARRACK_WRITER_BUNDLE", bundle);
        ended(command.env("AWS_SHARED_CREDENTIALS_FILE", bucket.credentials_file()), code)
    }

    /// Backs a host up, and keeps a copy of what that must hold. Answers with the snapshot's name.
    pub fn backup(&mut self, host: &str) -> Result<String> {
        let source = self.source(host);
        let printed = self.run(&["backup", "--json", "--host", host, source.to_str().context("UTF-8")?], 0);
        let session = printed.message("summary")["session"].as_str().context("a snapshot")?.to_owned();
        self.keep(&session, host)?;
        Ok(session)
    }

    /// Keeps a copy of a host's tree as what this snapshot must hold.
    pub fn keep(&mut self, session: &str, host: &str) -> Result<()> {
        let copy = self.path(&format!("kept-{session}"));
        crate::images::run(Command::new("cp").arg("-a").arg(self.source(host)).arg(&copy))?;
        self.kept.push((session.to_owned(), copy));
        Ok(())
    }

    /// The first snapshot that is kept.
    pub fn oldest(&self) -> Option<String> {
        self.kept.first().map(|(session, _)| session.clone())
    }

    /// A snapshot that was given up on purpose need not come back.
    pub fn give_up(&mut self, session: &str) {
        self.kept.retain(|(kept, _)| kept != session);
    }

    /// Every snapshot that is kept is listed, and comes back as it was.
    pub fn all_come_back(&self) -> Result<()> {
        let listed = self.command(&["snapshots", "--json"]).output()?;
        // Something else may be wrong beside them.
        let (text, code) = (String::from_utf8(listed.stdout)?, listed.status.code());
        anyhow::ensure!(matches!(code, Some(0 | 3)), "{code:?}: {}", String::from_utf8_lossy(&listed.stderr));
        for (session, copy) in &self.kept {
            anyhow::ensure!(text.contains(session.as_str()), "{session} is not listed:\n{text}");
            let target = self.path("restored");
            self.run(&["restore", session, "--target", target.to_str().context("UTF-8")?], 0);
            // Below the target is the path that was backed up; the copy has the last part of it only.
            let inside = self.path("sources").strip_prefix("/")?.to_owned();
            let host = fs::read_dir(target.join(&inside))?.next().context("a host")??.file_name();
            let found = rsync_differences(copy, &target.join(&inside).join(host), &[])?;
            anyhow::ensure!(found.is_empty(), "{session}: {found}");
            fs::remove_dir_all(&target)?;
        }
        Ok(())
    }

    /// The repository's place.
    pub fn repository(&self) -> String {
        format!("s3://{}/{PREFIX}", self.bucket)
    }

    /// A writer bundle for the host's tree, in a file.
    pub fn bundle(&self, host: &str) -> Result<(PathBuf, WriterBundle)> {
        let path = self.source(host).display().to_string();
        let printed = self.run(&["key", "bundle", "--json", "--host", host, "--path", &path], 0);
        let bundle = printed.message("summary")["bundle"].clone();
        let file = self.path(&format!("bundle-{host}"));
        fs::write(&file, bundle.to_string())?;
        Ok((file, serde_json::from_value(bundle)?))
    }

    /// The engine itself, opened with these credentials and this bundle; without a bundle, as the owner.
    pub async fn engine(&self, bucket: &Bucket, bundle: Option<&WriterBundle>) -> Result<Repository> {
        let options = StoreOptions {
            credentials_file: Some(bucket.credentials_file().to_owned()),
            ..self.server.options()
        };
        let store = open_url(&self.repository(), &options).await?;
        let unlock = match bundle {
            Some(bundle) => Unlock::Bundle(Box::new(bundle.clone())),
            None => Unlock::Passphrase(Passphrase::new(PASSWORD.into())),
        };
        Ok(Repository::open(Arc::clone(&store), World::system(), &unlock).await?)
    }

    /// Names of sessions that have a snapshot, as the bucket has them.
    pub fn ends(&self) -> Result<Vec<String>> {
        let names = self.owner.names("snapshots/b")?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("snapshots/")).map(str::to_owned).collect())
    }

    /// The messages of this type of a run with `--json`.
    pub fn messages(printed: &Printed, message_type: &str) -> Vec<Value> {
        let lines = printed.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message_type"] == message_type).collect()
    }
}
