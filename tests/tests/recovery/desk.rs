//! A repository in a directory, and what a recipe of the handbook needs beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use carrack_mover::{
    clock::World,
    repo::{Repository, Unlock},
    secret::Passphrase,
    store::{FsStore, ObjectStore},
};
use carrack_tests::{
    damage::scene::{back_up, tree_of},
    handbook::{cook, newest},
    place::program,
    trees::{noise, rsync_differences},
};
use tempfile::TempDir;

/// A repository in a directory, a tree to back up, and room for everything else.
pub(crate) struct Desk {
    directory: TempDir,
    extra: Vec<(&'static str, String)>,
}

impl Desk {
    /// With one backup of a small tree; on a small disk, if that is to be full.
    pub(crate) fn new(on_small_disk: bool) -> Self {
        let desk = Self { directory: TempDir::new().expect("a directory"), extra: Vec::new() };
        for folder in ["source/inner", "safe", "target", "mounted", "disk"] {
            fs::create_dir_all(desk.path(folder)).expect("makes");
        }
        for index in 0..20_u64 {
            let contents = noise(index, 2000 * index as usize);
            fs::write(desk.path(&format!("source/inner/file {index}")), contents).expect("writes");
        }
        fs::write(desk.path("source/large"), noise(100, 600_000)).expect("writes");
        if on_small_disk {
            let disk = desk.path("disk");
            let status =
                Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&disk).status();
            assert!(status.expect("mount runs").success());
            fs::create_dir(disk.join("repository")).expect("makes");
            fs::write(disk.join("ballast"), noise(7, 1_000_000)).expect("writes");
            std::os::unix::fs::symlink(disk.join("repository"), desk.path("repository")).expect("links");
        }
        desk.carrack(&["init"]);
        desk.back_up();
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn set(&mut self, name: &'static str, value: String) {
        self.extra.push((name, value));
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.extra.iter().find(|(known, _)| *known == name);
        &found.expect("it was set").1
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("CARRACK_PASSWORD", "correct").env("CARRACK_REPOSITORY", self.path("repository"));
        for (name, folder) in [
            ("COPY", "copy"),
            ("SAFE", "safe"),
            ("TARGET", "target"),
            ("SOURCE", "source"),
            ("MOUNTED", "mounted"),
        ] {
            command.env(name, self.path(folder));
        }
        command.envs(self.extra.iter().cloned()).stdin(Stdio::null()).current_dir(self.directory.path());
        command
    }

    /// Runs the program, which must succeed.
    pub(crate) fn carrack(&self, arguments: &[&str]) -> String {
        self.refused(0, arguments)
    }

    /// Runs the program, which must end with this code.
    pub(crate) fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.command(&program()).args(arguments).output();
        let output = output.expect("the program was built: cargo build -p carrack-mover");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    pub(crate) fn back_up(&self) {
        self.carrack(&["backup", self.path("source").to_str().expect("UTF-8")]);
    }

    /// Runs a recipe; answers with what was said, and with the exit codes of the program.
    pub(crate) fn cook(&self, name: &str) -> (String, Vec<i32>) {
        cook(name, self.command(Path::new("/bin/bash")), self.directory.path())
    }

    /// Whether a snapshot of the source was restored to this target as this tree is.
    pub(crate) fn assert_restored(&self, target: &str, wanted: &str) {
        let source = self.path("source");
        let found = self.path(target).join(source.strip_prefix("/").expect("an absolute path"));
        let differences = rsync_differences(&self.path(wanted), &found, &[]).expect("rsync runs");
        assert_eq!(differences, "", "{target} is not as {wanted}");
    }

    pub(crate) fn keep_source(&self) {
        let status = Command::new("cp").arg("-a").arg(self.path("source")).arg(self.path("kept")).status();
        assert!(status.expect("cp runs").success());
    }

    pub(crate) fn change_source(&self) {
        fs::write(self.path("source/large"), noise(102, 600_000)).expect("writes");
    }

    pub(crate) fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let folder = self.path("repository").join(folder);
        let tree = tree_of(&folder).expect("lists");
        tree.into_keys().map(|name| Path::new("/").join(name)).collect()
    }

    pub(crate) fn largest_pack(&self) -> PathBuf {
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.objects("packs").into_iter().max_by_key(size).expect("a pack")
    }

    pub(crate) fn flip(&self, path: &Path) {
        let mut bytes = fs::read(path).expect("reads");
        bytes[100] ^= 1;
        fs::write(path, bytes).expect("writes");
    }

    pub(crate) fn copy_repository(&self) {
        let status =
            Command::new("cp").arg("-r").arg(self.path("repository")).arg(self.path("copy")).status();
        assert!(status.expect("cp runs").success());
    }

    /// The name of the newest snapshot.
    pub(crate) fn latest(&self) -> String {
        newest(&self.carrack(&["snapshots", "--json"]))
    }

    /// Backs the source up by the engine, in a world of its own; the snapshot's name.
    pub(crate) fn back_up_in(&self, world: World, host: &str) -> String {
        runtime().block_on(async {
            let repository = Repository::open(self.store(), world, &Self::unlock()).await.expect("opens");
            let report = back_up(&repository, &self.path("source"), host).await.expect("backs up");
            report.snapshot.expect("a snapshot").session.nonce.to_hex()
        })
    }

    pub(crate) fn restore(&self, snapshot: &str) {
        let target = self.path("again").display().to_string();
        self.carrack(&["restore", snapshot, "--target", &target]);
    }

    pub(crate) fn unlock() -> Unlock {
        Unlock::Passphrase(Passphrase::new(b"correct".to_vec()))
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(FsStore::open(self.path("repository"), World::system()))
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}
