//! A source tree and a repository of it, worked on by the program itself.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    minio::MinioServer,
    trees::{noise, rsync_differences},
};

/// A place with a source tree, and the environment that leads to its repository.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

/// The program under test: `cargo build -p carrack-mover` makes it.
pub fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("carrack")
}

impl Place {
    /// A repository in a directory.
    pub fn local() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = directory.path().join("repository").display().to_string();
        Self::with(directory, vec![("CARRACK_REPOSITORY".into(), repository)])
    }

    /// A repository in a bucket of this server, below `prefix`.
    pub fn on(server: &MinioServer, prefix: &str) -> Self {
        let credentials = server.credentials_file().display().to_string();
        Self::with(
            tempfile::tempdir().expect("a directory"),
            vec![
                ("CARRACK_REPOSITORY".into(), server.repository(prefix)),
                ("CARRACK_S3_ENDPOINT".into(), server.url()),
                ("AWS_SHARED_CREDENTIALS_FILE".into(), credentials),
                ("AWS_REGION".into(), "us-east-1".into()),
            ],
        )
    }

    /// The same, reached through another address.
    pub fn through(server: &MinioServer, prefix: &str, url: &str) -> Self {
        let mut place = Self::on(server, prefix);
        place.environment.push(("CARRACK_S3_ENDPOINT".into(), url.to_owned()));
        place
    }

    /// A source tree in `directory`, and a new repository where the environment says.
    pub fn with(directory: TempDir, environment: Vec<(String, String)>) -> Self {
        let place = Self { directory, environment };
        make_tree(&place.source());
        place.run(&["init"], 0);
        place
    }

    /// The tree that is backed up.
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// A path beside the source.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env_clear().env("CARRACK_PASSWORD", "correct");
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs the program and expects this exit code; answers with what it printed.
    pub fn run(&self, arguments: &[&str], code: i32) -> String {
        let output =
            self.command(arguments).output().expect("the program was built: cargo build -p carrack-mover");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        out
    }

    /// Backs the source up.
    pub fn backup(&self) {
        self.run(&["backup", self.source().to_str().expect("UTF-8")], 0);
    }

    /// Begins a backup of the source.
    pub fn start_backup(&self) -> Child {
        let source = self.source();
        let mut command = self.command(&["backup", source.to_str().expect("UTF-8")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    }

    /// Restores a snapshot and compares it with `source` by rsync, in both directions.
    pub fn compare(&self, snapshot: &str, source: &Path, name: &str) {
        let target = self.path(name);
        self.run(&["restore", snapshot, "--target", target.to_str().expect("UTF-8")], 0);
        let restored = target.join(source.strip_prefix("/").expect("absolute"));
        assert_eq!(rsync_differences(source, &restored, &[]).expect("rsync runs"), "");
    }

    /// How many snapshots there are.
    pub fn snapshots(&self) -> usize {
        let text = self.run(&["snapshots", "--json"], 0);
        text.matches("\"session\"").count()
    }
}

/// Ordinary files, large ones, and things that are easily lost.
pub fn make_tree(source: &Path) {
    fs::create_dir_all(source.join("many/deep/er")).expect("makes");
    for index in 0..500_u32 {
        let contents = format!("{index} ").repeat(index as usize * 3);
        fs::write(source.join(format!("many/file {index}")), contents).expect("writes");
    }
    fs::write(source.join("random"), noise(1, 9_000_000)).expect("writes");
    fs::write(source.join("many/deep/empty"), b"").expect("writes");
    fs::write(source.join("many/deep/er/one"), b"inode").expect("writes");
    fs::hard_link(source.join("many/deep/er/one"), source.join("two")).expect("links");
    symlink("nowhere", source.join("dangling")).expect("links");
    fs::set_permissions(source.join("two"), fs::Permissions::from_mode(0o4711)).expect("sets");
    let sparse = fs::File::create(source.join("sparse")).expect("makes");
    sparse.set_len(3_000_000).expect("sets");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(2, 5000), 1_500_000).expect("writes");
}
