//! What is backed up, in versions, and how the program is run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};
use carrack_tests::{
    draw,
    gate::End,
    place::program,
    trees::{Tree, differences, noise, read},
};
use tempfile::TempDir;

/// Files of a megabyte, of which each later version has fewer: packs that are mostly unused.
const LARGE: usize = 4;
/// Bytes of the device image.
const IMAGE_BYTES: usize = 1 << 20;
/// Names of the versions of the source; an image is one of its own.
pub(crate) const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

/// A source in several versions, an image, and keys.
#[derive(Debug)]
pub(crate) struct World {
    directory: TempDir,
    trees: BTreeMap<&'static str, OnceLock<Tree>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let trees = VERSIONS.into_iter().map(|version| (version, OnceLock::new())).collect();
        let world = Self { directory: TempDir::with_prefix("carrack-crash-").expect("a directory"), trees };
        for (index, name) in ["first", "second"].into_iter().enumerate() {
            fs::write(world.path(name), format!("{}\n", format!("{:02x}", index + 1).repeat(32)))
                .expect("writes");
        }
        fs::create_dir(world.path("versions")).expect("makes");
        fs::create_dir(world.path("place")).expect("makes");
        fs::write(world.path("image"), image()).expect("writes");
        make_source(&world.source());
        for (index, version) in VERSIONS.into_iter().enumerate() {
            if index > 0 {
                change_source(&world.source(), index);
            }
            copy(&world.source(), &world.version(version)).expect("copies");
        }
        world
    }

    /// A path of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The tree that is backed up.
    pub(crate) fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// How the source was in a version.
    pub(crate) fn version(&self, version: &str) -> PathBuf {
        self.path("versions").join(version)
    }

    /// Makes the source what it was in a version.
    pub(crate) fn turn_to(&self, version: &str) {
        fs::remove_dir_all(self.source()).expect("removes");
        copy(&self.version(version), &self.source()).expect("copies");
    }

    /// Puts what is to be replaced where a version is restored to in place: of an image its bytes in other places, of a tree
    /// another version, and beside it what is in none.
    pub(crate) fn lay_before(&self, before: &str, target: &Path) -> Result<()> {
        if before == "image" {
            let mut bytes = image();
            bytes.rotate_left(100_000);
            return Ok(fs::write(target, bytes)?);
        }
        copy(&self.version(before), target)?;
        fs::create_dir_all(target.join("not/in/it"))?;
        Ok(fs::write(target.join("not/in/it/file"), b"gone")?)
    }

    /// The program, opening with the key of this name. In arguments, `{name}` is a path of this world.
    pub(crate) fn command(&self, key: &str, arguments: &[String]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env_clear().env("CARRACK_KEY_FILE", self.path(key));
        command.env("TMPDIR", self.directory.path());
        command
    }

    /// Fails unless a restored tree is what the source was in a version.
    pub(crate) fn compare(&self, version: &str, restored: &Path) -> Result<()> {
        if version == "image" {
            ensure!(fs::read(restored)? == image(), "the image differs");
            return Ok(());
        }
        let wanted = self.trees.get(version).with_context(|| format!("a snapshot of {version:?}"))?;
        let wanted = wanted.get_or_init(|| contents(&self.version(version)).expect("reads"));
        let differing = differences(wanted, &contents(restored)?);
        ensure!(differing.is_empty(), "differs from {version}: {differing:?}");
        Ok(())
    }
}

/// What is in a directory; the directory itself belongs to whoever made it.
fn contents(path: &Path) -> Result<Tree> {
    let mut tree = read(&[path])?;
    tree.remove(&b"0"[..]);
    Ok(tree)
}

/// The contents of the device.
fn image() -> Vec<u8> {
    let mut bytes = noise(77, IMAGE_BYTES);
    bytes[200_000..600_000].fill(0);
    bytes
}

/// Copies a tree with everything that belongs to it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().context("cp runs")?;
    ensure!(done.success(), "cp failed");
    Ok(())
}

fn make_source(at: &Path) {
    fs::create_dir_all(at.join("small/deep")).expect("makes");
    for index in 0..LARGE {
        fs::write(at.join(format!("large {index}")), noise(1 + index as u64, 1 << 20)).expect("writes");
    }
    for index in 0..12_usize {
        fs::write(at.join(format!("small/{index}")), format!("{index} ").repeat(index * 40)).expect("writes");
    }
    fs::write(at.join("small/deep/one"), b"one inode").expect("writes");
    fs::hard_link(at.join("small/deep/one"), at.join("two")).expect("links");
    std::os::unix::fs::symlink("nowhere", at.join("dangling")).expect("links");
    let sparse = fs::File::create(at.join("sparse")).expect("makes");
    sparse.set_len(200_000).expect("sets");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 100_000).expect("writes");
}

fn change_source(at: &Path, index: usize) {
    fs::remove_file(at.join(format!("large {index}"))).expect("removes");
    fs::write(at.join("small/1"), noise(50 + index as u64, 3000)).expect("writes");
    fs::write(at.join(format!("new {index}")), noise(60 + index as u64, 70_000)).expect("writes");
    fs::create_dir(at.join(format!("directory {index}"))).expect("makes");
}

/// Which of so many steps are tried: all of them, one, or the ends and `share` of the others, which change from commit to
/// commit.
pub(crate) fn chosen(steps: u64, share: u64) -> Vec<u64> {
    match env::var("CARRACK_CRASH").ok().as_deref() {
        Some("all") => (1..=steps).collect(),
        Some(step) => vec![step.parse().expect("CARRACK_CRASH is `all` or the number of a step")],
        None => {
            println!("the steps between are drawn from {}={}", draw::VARIABLE, draw::origin());
            let width = (steps.saturating_sub(2) / (share + 1)).max(1);
            let shift = draw::dice(&[share]).below(width);
            let between = (0..=share).map(|index| 2 + index * width + shift).filter(|step| *step < steps);
            let mut steps: Vec<u64> = [1].into_iter().chain(between).chain([steps]).collect();
            steps.dedup();
            steps
        }
    }
}

/// When a program is killed whose steps are requests: at each of these, before the service sees it and after it has. Where they
/// are a share, after the last one alone: what comes after one comes before the next.
pub(crate) fn ends(steps: &[u64], last: u64) -> Vec<End> {
    match is_whole_matrix() {
        true => steps.iter().flat_map(|step| [End::Before(*step), End::After(*step)]).collect(),
        false => steps.iter().map(|step| End::Before(*step)).chain([End::After(last)]).collect(),
    }
}

/// Whether every step is tried, and not a share.
pub(crate) fn is_whole_matrix() -> bool {
    env::var_os("CARRACK_CRASH").is_some()
}

/// Fails unless the program ended with one of these codes; answers what it printed.
pub(crate) fn ended(output: &Output, codes: &[i32], what: &str) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code();
    ensure!(code.is_some_and(|code| codes.contains(&code)), "{what}: {}\n{out}{err}", output.status);
    Ok(out)
}

/// Does what has to wait in a runtime of its own.
pub(crate) fn in_a_runtime(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().expect("starts").block_on(work);
}
