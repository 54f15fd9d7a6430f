//! The program from end to end: what goes in comes out, from a directory and from a real S3 server, with backups
//! that are killed, run twice at once, and pruned between.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use carrack_tests::minio::MinioServer;
use tempfile::TempDir;

/// A place with a source tree, and the environment that leads to its repository.
struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("carrack")
}

impl Place {
    fn local() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = directory.path().join("repository").display().to_string();
        Self::with(directory, vec![("CARRACK_REPOSITORY".into(), repository)])
    }

    fn on(server: &MinioServer, prefix: &str) -> Self {
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

    fn with(directory: TempDir, environment: Vec<(String, String)>) -> Self {
        let place = Self { directory, environment };
        make_tree(&place.source());
        place.run(&["init"], 0);
        place
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env_clear().env("CARRACK_PASSWORD", "correct");
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str], code: i32) -> String {
        let output =
            self.command(arguments).output().expect("the program was built: cargo build -p carrack-mover");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        out
    }

    fn backup(&self) {
        self.run(&["backup", self.source().to_str().expect("UTF-8")], 0);
    }

    fn start_backup(&self) -> Child {
        let source = self.source();
        let mut command = self.command(&["backup", source.to_str().expect("UTF-8")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    }

    /// Restores a snapshot and compares it with `source` by rsync and by a check of every byte stored.
    fn compare(&self, snapshot: &str, source: &Path, name: &str) {
        let target = self.path(name);
        self.run(&["restore", snapshot, "--target", target.to_str().expect("UTF-8")], 0);
        let restored = target.join(source.strip_prefix("/").expect("absolute"));
        let differences = Command::new("rsync")
            .args(["-nac", "--delete", "-HAXS", "--itemize-changes"])
            .arg(format!("{}/", source.display()))
            .arg(format!("{}/", restored.display()))
            .output()
            .expect("rsync is installed: apt-get install rsync");
        assert!(differences.status.success(), "{differences:?}");
        assert_eq!(String::from_utf8_lossy(&differences.stdout), "");
    }

    fn snapshots(&self) -> usize {
        let text = self.run(&["snapshots", "--json"], 0);
        text.matches("\"session\"").count()
    }
}

/// Ordinary files, large ones, and things that are easily lost.
fn make_tree(source: &Path) {
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

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_tree_comes_back_as_it_was_at_each_time() {
    let place = Place::local();
    place.backup();
    let before = place.path("before");
    let copied = Command::new("cp").arg("-a").arg(place.source()).arg(&before).status().expect("cp runs");
    assert!(copied.success());
    fs::write(place.source().join("random"), noise(3, 8_000_000)).expect("writes");
    fs::remove_file(place.source().join("many/file 7")).expect("removes");
    fs::rename(place.source().join("many/deep"), place.source().join("moved")).expect("renames");
    place.backup();
    place.backup();
    assert_eq!(place.snapshots(), 3);
    place.compare("latest", &place.source(), "newest");
    place.run(&["check", "--read-data"], 0);

    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(place.snapshots(), 1);
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "after prune");
}

#[test]
fn killed_backups_leave_nothing_to_unlock_and_nothing_broken() {
    let place = Place::local();
    place.backup();
    for round in 0..6 {
        fs::write(place.source().join("random"), noise(10 + round, 12_000_000)).expect("writes");
        let mut child = place.start_backup();
        std::thread::sleep(Duration::from_millis(60 * round));
        child.kill().expect("it can be killed, ended or not");
        child.wait().expect("ends");
    }
    place.backup();
    place.compare("latest", &place.source(), "restored");
    place.run(&["check", "--read-data"], 0);
}

#[test]
fn two_backups_and_a_prune_at_once() {
    let place = Place::local();
    place.backup();
    place.run(&["forget", "--keep-last", "1"], 0);
    let (mut one, mut other) = (place.start_backup(), place.start_backup());
    place.run(&["prune"], 0);
    assert!(one.wait().expect("ends").success());
    assert!(other.wait().expect("ends").success());
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "restored");
}

#[test]
fn an_image_comes_back_and_a_list_of_changes_saves_reading() {
    let place = Place::local();
    let image = place.path("image");
    let mut contents = vec![0; 20 << 20];
    contents[3 << 20..7 << 20].copy_from_slice(&noise(4, 4 << 20));
    fs::write(&image, &contents).expect("writes");
    let device = ["backup", "--device", image.to_str().expect("UTF-8")];
    place.run(&device, 0);
    contents[5_000_000..5_004_096].copy_from_slice(&noise(5, 4096));
    fs::write(&image, &contents).expect("writes");
    let list = place.path("changes");
    fs::write(&list, "5000000 4096\n").expect("writes");
    let changes = ["--changed-blocks", list.to_str().expect("UTF-8")];
    place.run(&[&device[..], &changes[..]].concat(), 0);
    let target = place.path("restored");
    place.run(&["restore", "latest", "--target", target.to_str().expect("UTF-8")], 0);
    assert!(fs::read(&target).expect("reads") == contents, "the image differs");
}

#[test]
fn a_stream_comes_back() {
    let place = Place::local();
    let contents = noise(6, 10_000_000);
    let input = place.path("input");
    fs::write(&input, &contents).expect("writes");
    let mut command = place.command(&["backup", "--stdin", "--stdin-filename", "dump.sql"]);
    let status = command.stdin(fs::File::open(&input).expect("opens")).status().expect("runs");
    assert!(status.success());
    let output = place.command(&["restore", "latest:dump.sql", "--target", "-"]).output().expect("runs");
    assert!(output.stdout == contents, "the stream differs");
}

#[test]
fn s3_serves_as_a_directory_does_even_through_a_restart() {
    let mut server = MinioServer::start().expect("MinIO starts");
    let place = Place::on(&server, "round-trip");
    place.backup();
    fs::write(place.source().join("random"), noise(8, 30_000_000)).expect("writes");
    let mut child = place.start_backup();
    server.restart().expect("restarts");
    // It ends well, or says that it did not; either way nothing is lost and the next one succeeds.
    child.wait().expect("ends");
    place.backup();
    place.compare("latest", &place.source(), "restored");
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "after prune");
}
