//! What must hold after a crash, whatever verb it was and wherever.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    ground::{Ground, MEMORY},
    world::{World, ended},
};

/// From which age on a session is shut out here: the least that there is, and what its whole seconds can hide.
const FENCE_AFTER: Duration = Duration::from_millis(1100);
const PRUNE: [&str; 7] = ["prune", "--fence-after", "1s", "--wait", "0", "--max-unused", "0"];

/// A run that is killed, and what holds afterwards.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// What is killed.
    pub name: &'static str,
    /// The repository that it works on.
    pub repository: &'static str,
    /// What the program is told; `{repository}` is the address of that one.
    pub arguments: Vec<String>,
    /// What it must know besides, where it reads from another ground.
    pub environment: Vec<(String, String)>,
    /// Exit codes of the same run afterwards.
    pub again: &'static [i32],
    /// There is a repository before.
    pub exists: bool,
    /// Snapshots that were reported as stored, and are to stay.
    pub kept: Vec<String>,
    /// Snapshots that are gone once it has succeeded.
    pub gone: Vec<String>,
    /// A version that has a snapshot once it has succeeded.
    pub stored: Option<&'static str>,
    /// The key that opens the repository once it has succeeded; before, this one or the first.
    pub key: &'static str,
    /// How many keys there are in the end: at least, and at most.
    pub keys: (usize, usize),
}

impl Case {
    /// A case of one repository that is there, and that one key opens.
    pub(crate) fn new(name: &'static str, arguments: &[&str]) -> Self {
        Self {
            name,
            repository: "repository",
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            again: &[0],
            exists: true,
            kept: Vec::new(),
            gone: Vec::new(),
            stored: None,
            key: "first",
            keys: (1, 1),
        }
    }

    /// The run itself.
    pub(crate) fn command(&self, world: &World, ground: &dyn Ground) -> Command {
        let mut command = run(world, ground, self.repository, "first", &self.arguments);
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// The program at work on a repository of a ground; `{repository}` and `{world}` are where things lie.
pub(crate) fn run(
    world: &World,
    ground: &dyn Ground,
    repository: &str,
    key: &str,
    arguments: &[String],
) -> Command {
    let source = ground.address("repository");
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| {
            argument
                .replace("{repository}", &source)
                .replace("{world}", &world.path("").display().to_string())
        })
        .collect();
    let mut command = world.command(key, &arguments);
    command.envs(ground.environment()).env("CARRACK_REPOSITORY", ground.address(repository));
    command
}

/// What is judged.
pub(crate) struct Judge<'j> {
    pub world: &'j World,
    pub ground: &'j mut dyn Ground,
    pub case: &'j Case,
    pub crashed: Instant,
    /// The run was not killed, and had reported that it succeeded.
    pub reported: bool,
}

/// A snapshot that is listed: its id, and the version that it is of.
type Listed = (String, String);

impl Judge<'_> {
    /// Everything that must hold.
    pub(crate) fn judge(mut self) -> Result<()> {
        if self.reported {
            let listed = self.snapshots(self.case.key)?;
            self.all_there(&listed).context("after a run that was not killed")?;
        }
        if self.case.exists {
            self.readable_before().context("before the next run")?;
        }
        let again = self.case.command(self.world, self.ground).output()?;
        ended(&again, self.case.again, "the same run again")?;
        // What the program has reported is on the disk by now.
        self.ground.lose_power();
        self.keys()?;
        let listed = self.snapshots(self.case.key)?;
        self.all_there(&listed)?;
        for snapshot in &listed {
            self.restore(snapshot).with_context(|| format!("snapshot {snapshot:?}"))?;
        }
        std::thread::sleep(FENCE_AFTER.saturating_sub(self.crashed.elapsed()));
        self.carrack(&PRUNE)?;
        self.ground.lose_power();
        ensure!(self.snapshots(self.case.key)? == listed, "a prune changed what is there");
        self.carrack(&["check", "--read-data"])?;
        self.nothing_stays(&listed)
    }

    fn carrack(&self, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut command = run(self.world, self.ground, self.case.repository, self.case.key, &arguments);
        ended(&command.output()?, &[0], &arguments.join(" "))
    }

    fn messages(&self, key: &str, arguments: &[&str], kind: &str) -> Result<Vec<Value>> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let output = run(self.world, self.ground, self.case.repository, key, &arguments).output()?;
        let text = ended(&output, &[0], &format!("{} with the {key} key", arguments.join(" ")))?;
        let messages = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        Ok(messages.into_iter().filter(|message| message["message_type"] == kind).collect())
    }

    fn snapshots(&self, key: &str) -> Result<Vec<Listed>> {
        let listed = self.messages(key, &["snapshots", "--json"], "snapshot")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(listed.iter().map(|message| (text(&message["id"]), text(&message["tags"][0]))).collect())
    }

    /// Whoever only looks finds everything whole, before anybody has written again.
    fn readable_before(&self) -> Result<()> {
        let opened = self.snapshots(self.case.key).map(|listed| (self.case.key, listed));
        let (key, listed) = match opened {
            Err(_) if self.case.key != "first" => ("first", self.snapshots("first")?),
            other => other?,
        };
        for id in &self.case.kept {
            ensure!(listed.iter().any(|(there, _)| there == id), "snapshot {id} is lost: {listed:?}");
        }
        self.messages(key, &["check", "--json"], "summary").map(drop)
    }

    fn keys(&self) -> Result<()> {
        let keys = self.messages(self.case.key, &["key", "list", "--json"], "key")?;
        let (least, most) = self.case.keys;
        ensure!((least..=most).contains(&keys.len()), "{} keys: {keys:?}", keys.len());
        Ok(())
    }

    fn all_there(&self, listed: &[Listed]) -> Result<()> {
        let case = self.case;
        let there = |id: &String| listed.iter().any(|(there, _)| there == id);
        ensure!(case.kept.iter().all(there), "of {:?} there is only {listed:?}", case.kept);
        ensure!(!case.gone.iter().any(there), "of {:?} something is left: {listed:?}", case.gone);
        if let Some(stored) = case.stored {
            ensure!(listed.iter().any(|(_, version)| version == stored), "no {stored} in {listed:?}");
        }
        Ok(())
    }

    fn restore(&self, (id, version): &Listed) -> Result<()> {
        let target = tempfile::tempdir_in(self.world.path(""))?;
        let path = target.path().join("restored");
        let wanted = match version.as_str() {
            "image" => id.clone(),
            _ => format!("{id}:{}", self.world.source().display()),
        };
        self.carrack(&["restore", &wanted, "--target", path.to_str().context("UTF-8")?])?;
        self.world.compare(version, &path)?;
        Ok(fs::remove_dir_all(target)?)
    }

    /// When nobody wants anything any more, the repository is as after `init`.
    fn nothing_stays(&mut self, listed: &[Listed]) -> Result<()> {
        if !listed.is_empty() {
            let ids = listed.iter().map(|(id, _)| id.as_str());
            self.carrack(&["forget"].into_iter().chain(ids).collect::<Vec<_>>())?;
        }
        self.carrack(&PRUNE)?;
        self.ground.wait_two_days();
        self.carrack(&PRUNE)?;
        let names = self.ground.names(self.case.repository);
        // The index is a hint: its segments are merged once there are many, and then lose the rows of packs that are gone.
        let objects = names.iter().filter(|name| !name.ends_with('/') && !name.starts_with("index/s-"));
        // Of what was cleaned up a fence stays for 30 days, so that no late request puts the end back.
        let may_stay =
            |name: &str| name == "format" || name.starts_with("keys/") || name.starts_with("snapshots/");
        let left: Vec<&String> = objects.filter(|name| !may_stay(name)).collect();
        ensure!(left.is_empty(), "nobody needs {left:?}");
        // Whoever remembers takes away what others have left that were killed while they wrote.
        self.snapshots(self.case.key)?;
        let memory = self.ground.names(MEMORY);
        ensure!(memory.is_empty() != self.ground.has_memory(), "it remembers {memory:?}");
        ensure!(memory.iter().all(|name| name.ends_with(".json")), "nobody reads {memory:?}");
        Ok(())
    }
}
