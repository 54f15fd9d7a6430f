//! What the program remembers of a repository, torn or in the way: a hint, without which every verb ends as ever, says
//! nothing of it, and remembers again. How it is torn on a disk is in the matrix.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::world::{World, ended};

struct Desk {
    world: World,
    memory: PathBuf,
}

impl Desk {
    /// A repository with one snapshot, and a memory of it.
    fn new() -> Self {
        let world = World::new();
        let desk = Self { memory: world.path("memory"), world };
        desk.run(&["init"]).expect("it succeeds");
        desk.back_up().expect("it succeeds");
        desk
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut command = self.world.command("first", &arguments);
        command.env("CARRACK_REPOSITORY", self.world.path("repository"));
        command.env("CARRACK_STATE_DIR", &self.memory);
        command
    }

    /// What it printed, which is nothing of the memory.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        let said = ended(&output, &[0], &arguments.join(" "))?;
        let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(!all.contains(&self.memory.display().to_string()), "{arguments:?} speaks of it: {all}");
        Ok(said)
    }

    /// The name of a new snapshot.
    fn back_up(&self) -> Result<String> {
        let source = self.world.source().display().to_string();
        let said = self.run(&["backup", "--json", &source])?;
        let mut messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let summary = messages.find(|message| message["message_type"] == "summary").context("a summary")?;
        Ok(summary["session"].as_str().context("a snapshot")?.to_owned())
    }

    /// The one file that is kept.
    fn file(&self) -> Result<PathBuf> {
        let files = fs::read_dir(&self.memory)?.map(|entry| anyhow::Ok(entry?.path()));
        let files: Vec<PathBuf> = files.collect::<Result<_>>()?;
        ensure!(files.len() == 1, "there is {files:?}");
        files.into_iter().next().context("a file")
    }

    /// Every verb that looks at the memory succeeds, and what a backup has made is remembered.
    fn goes_on(&self, harm: impl Fn() -> Result<()>) -> Result<String> {
        for verb in [&["snapshots"][..], &["prune", "--wait", "0"], &["forget", "--keep-last", "3"]] {
            harm()?;
            self.run(verb)?;
        }
        harm()?;
        self.back_up()
    }
}

fn remembered(file: &Path) -> Result<String> {
    let kept: Value = serde_json::from_slice(&fs::read(file)?)?;
    Ok(kept["newest"][0]["session"].as_str().context("a snapshot")?.to_owned())
}

#[test]
fn a_torn_memory_stops_nobody_and_is_made_anew() {
    let desk = Desk::new();
    let file = desk.file().expect("a memory");
    let whole = fs::read(&file).expect("reads");
    let half = whole.len() / 2;
    let mut zeroed = whole.clone();
    zeroed[half..].fill(0);
    let torn = [
        ("empty", Vec::new()),
        ("cut", whole[..half].to_vec()),
        ("cut by one byte", whole[..whole.len() - 1].to_vec()),
        ("half zeros", zeroed),
        ("all zeros", vec![0; whole.len()]),
        ("two in one", [&whole[..], &whole[half..]].concat()),
        ("of another kind", b"[]".to_vec()),
    ];
    for (what, bytes) in torn {
        let session = desk.goes_on(|| Ok(fs::write(&file, &bytes)?)).context(what).expect("it goes on");
        let kept = desk.file().and_then(|file| remembered(&file)).context(what).expect("it remembers");
        assert_eq!(kept, session, "{what}");
    }
}

#[test]
fn a_memory_that_cannot_be_kept_stops_nobody() {
    let desk = Desk::new();
    let file = desk.file().expect("a memory");
    // A directory where the file was, and a file where its directory was.
    fs::remove_file(&file).expect("removes");
    fs::create_dir(&file).expect("makes");
    desk.goes_on(|| Ok(())).expect("it goes on");
    assert_eq!(fs::read_dir(&desk.memory).expect("reads").count(), 1, "nothing is left beside it");
    fs::remove_dir_all(&desk.memory).expect("removes");
    fs::write(&desk.memory, b"in the way").expect("writes");
    desk.goes_on(|| Ok(())).expect("it goes on");
}
