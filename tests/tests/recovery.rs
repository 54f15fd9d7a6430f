//! The recipes of the recovery handbook, taken from the document and run as they stand there, each after its disaster.
//!
//! Needs root, FUSE, rsync, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
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
    damage::scene::{Walled, back_up, prune, tree_of, world},
    images::in_private_mounts,
    place::program,
    trees::noise,
};
use tempfile::TempDir;

/// A repository in a directory, a tree to back up, and room for everything else.
struct Desk {
    directory: TempDir,
    extra: Vec<(&'static str, String)>,
}

/// What happens before a recipe is needed.
type Disaster = fn(&mut Desk);

const RECIPES: [(&str, Disaster); 18] = [
    ("first-look", |_| {}),
    ("before", |_| {}),
    ("lost-password", lose_password),
    ("damaged-pack", |desk| {
        desk.copy_repository();
        desk.flip(&desk.largest_pack());
    }),
    ("damaged-pack-without-copy", |desk| desk.flip(&desk.largest_pack())),
    ("half-a-bucket", lose_half),
    ("half-a-bucket-without-copy", lose_a_pack_of_one),
    ("lost-index", |desk| {
        let segment = desk.objects("index").remove(0);
        fs::write(segment, b"").expect("writes");
    }),
    ("lost-format", |desk| {
        desk.cook("before");
        fs::remove_file(desk.path("repository/format")).expect("removes");
        fs::remove_dir_all(desk.path("repository/keys")).expect("removes");
    }),
    ("lost-session", |desk| {
        let session = desk.objects("sessions").remove(0);
        fs::remove_file(&session).expect("removes");
        desk.set("LOST", name_of(&session));
    }),
    ("lost-end", lose_end),
    ("wrong-clock", back_up_in_the_future),
    ("full-disk", |desk| {
        fs::create_dir(desk.path("much")).expect("makes");
        fs::write(desk.path("much/large"), noise(5, 30_000_000)).expect("writes");
        let ballast = desk.path("disk/ballast").display().to_string();
        desk.set("BALLAST", ballast);
        desk.set("LARGE", desk.path("much").display().to_string());
    }),
    ("killed-prune", kill_a_prune),
    ("forgotten", |desk| {
        let id = desk.latest();
        desk.carrack(&["forget", &id]);
        desk.set("FORGOTTEN", id);
    }),
    ("forgotten-and-pruned", |desk| {
        desk.copy_repository();
        let id = desk.latest();
        desk.carrack(&["forget", &id, "--prune"]);
        desk.set("FORGOTTEN", id);
    }),
    ("dead-mount", kill_a_mount),
    ("stolen-bundle", |desk| {
        let source = desk.path("source").display().to_string();
        fs::write(desk.path("safe/new-password"), "another\n").expect("writes");
        desk.carrack(&["backup", "--host", "db1", &source]);
    }),
];

#[test]
fn every_recipe_of_the_handbook_works() {
    in_private_mounts(|| {
        let recipes = handbook();
        for name in recipes.keys() {
            assert!(RECIPES.iter().any(|(known, _)| known == name), "no disaster is known for {name}");
        }
        for (name, disaster) in &RECIPES {
            assert!(recipes.contains_key(*name), "the handbook has no recipe {name}");
            let mut desk = Desk::new(*name == "full-disk");
            disaster(&mut desk);
            desk.cook(name);
        }
    });
}

/// The fenced blocks of the document by the name of their recipe.
fn handbook() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recovery.md");
    let text = fs::read_to_string(path).expect("the handbook");
    let mut recipes: BTreeMap<String, String> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        match (&current, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let name = info.strip_prefix("sh recipe=");
                current = Some(name.expect("every block of the handbook is a recipe").to_owned());
            }
            (Some(_), Some(_)) => current = None,
            (Some(name), None) => {
                let block = recipes.entry(name.clone()).or_default();
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    recipes
}

fn name_of(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

impl Desk {
    /// With one backup of a small tree; on a small disk, if that is to be full.
    fn new(on_small_disk: bool) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.extra.push((name, value));
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let folder = carrack_tests::place::program();
        let folder = folder.parent().expect("a folder").display().to_string();
        command.env_clear().env("PATH", format!("{folder}:/usr/bin:/bin:/usr/sbin:/sbin"));
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
    fn carrack(&self, arguments: &[&str]) -> String {
        let output = self.command(&program()).args(arguments).output();
        let output = output.expect("the program was built: cargo build -p carrack-mover");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }

    fn back_up(&self) {
        self.carrack(&["backup", self.path("source").to_str().expect("UTF-8")]);
    }

    /// Runs a recipe in one shell that stops at the first command that fails.
    fn cook(&self, name: &str) {
        let recipe = handbook().remove(name).expect("the recipe");
        let output = self.command(Path::new("/bin/bash")).args(["-exuo", "pipefail", "-c", &recipe]).output();
        let output = output.expect("bash runs");
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{name}: {}\n{}", output.status, String::from_utf8_lossy(&text));
    }

    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let folder = self.path("repository").join(folder);
        let tree = tree_of(&folder).expect("lists");
        tree.into_keys().map(|name| Path::new("/").join(name)).collect()
    }

    fn largest_pack(&self) -> PathBuf {
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.objects("packs").into_iter().max_by_key(size).expect("a pack")
    }

    fn flip(&self, path: &Path) {
        let mut bytes = fs::read(path).expect("reads");
        bytes[100] ^= 1;
        fs::write(path, bytes).expect("writes");
    }

    fn copy_repository(&self) {
        let status =
            Command::new("cp").arg("-r").arg(self.path("repository")).arg(self.path("copy")).status();
        assert!(status.expect("cp runs").success());
    }

    /// The name of the newest snapshot.
    fn latest(&self) -> String {
        let text = self.carrack(&["snapshots", "--json"]);
        let sessions = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let last = sessions.filter_map(|message| message["session"].as_str().map(str::to_owned)).next_back();
        let session = last.expect("a snapshot");
        session.split_once('-').expect("a session").1.to_owned()
    }

    fn unlock() -> Unlock {
        Unlock::Passphrase(Passphrase::new(b"correct".to_vec()))
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(FsStore::open(self.path("repository"), World::system()))
    }
}

fn lose_password(desk: &mut Desk) {
    desk.cook("before");
    fs::write(desk.path("safe/new-password"), "another\n").expect("writes");
    // What is typed is not what it was.
    desk.set("CARRACK_PASSWORD", "forgotten".to_owned());
}

fn lose_half(desk: &mut Desk) {
    desk.back_up();
    desk.copy_repository();
    for folder in ["packs", "index", "sessions", "snapshots"] {
        let objects = desk.objects(folder);
        for object in objects.iter().step_by(2) {
            fs::remove_file(object).expect("removes");
        }
    }
}

fn lose_a_pack_of_one(desk: &mut Desk) {
    let pack = desk.largest_pack();
    let damaged = desk.latest();
    fs::create_dir(desk.path("other")).expect("makes");
    fs::write(desk.path("other/file"), noise(200, 50_000)).expect("writes");
    desk.carrack(&["backup", desk.path("other").to_str().expect("UTF-8")]);
    fs::remove_file(pack).expect("removes");
    desk.set("DAMAGED", damaged);
}

fn lose_end(desk: &mut Desk) {
    let first = desk.objects("snapshots").remove(0);
    desk.back_up();
    desk.copy_repository();
    fs::remove_file(first).expect("removes");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn back_up_in_the_future(desk: &mut Desk) {
    let (store, source) = (desk.store(), desk.path("source"));
    let session = runtime().block_on(async {
        let repository = Repository::open(store, world(400), &Desk::unlock()).await.expect("opens");
        let report = back_up(&repository, &source, "ahead").await.expect("backs up");
        report.snapshot.expect("a snapshot").session
    });
    desk.set("FUTURE", session.nonce.to_hex());
}

fn kill_a_prune(desk: &mut Desk) {
    fs::write(desk.path("source/large"), noise(101, 600_000)).expect("writes");
    let old = desk.latest();
    desk.back_up();
    desk.carrack(&["forget", &old]);
    let store = Arc::new(Walled { inner: desk.store(), put: "", delete: "packs/" });
    runtime().block_on(async {
        let repository = Repository::open(store, world(0), &Desk::unlock()).await.expect("opens");
        prune(&repository).await.expect_err("it is killed when it begins to delete");
    });
    assert!(!desk.objects("gc").is_empty(), "it leaves its lists");
}

fn kill_a_mount(desk: &mut Desk) {
    let mut command = desk.command(&program());
    command.args(["mount", desk.path("mounted").to_str().expect("UTF-8")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("reads");
    assert!(line.contains("until ctrl-C or umount"), "{line}");
    child.kill().expect("kills");
    child.wait().expect("it is dead");
    assert!(fs::read_dir(desk.path("mounted")).is_err(), "a dead mount stays");
}
