//! What a service has confirmed and lost all the same, as when its own machine loses power and had not written down
//! what it said it had: the program names it, everything else restores, and the next backup is whole.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, ensure};
use carrack_tests::{
    disk::{Disk, State},
    images::in_private_mounts,
    minio::{MinioServer, Setup},
};
use serde_json::Value;

use crate::{
    ground::{Bucket, Objects},
    judge,
    world::{World, copy, in_a_runtime},
};

/// Folders in the order in which a backup puts into them.
const ORDER: [&str; 4] = ["sessions/", "packs/", "index/", "snapshots/"];

/// What the service has lost of the last backup: any one object, or all that came after some moment.
fn losses(new: &[String]) -> Vec<BTreeSet<String>> {
    let single = new.iter().map(|name| BTreeSet::from([name.clone()]));
    let newest = (0..new.len().saturating_sub(1)).map(|from| new[from..].iter().cloned().collect());
    single.chain(newest).collect()
}

struct Site<'s> {
    world: &'s World,
    ground: &'s Bucket<'s>,
    /// Where this machine keeps what it has seen.
    memory: &'s Path,
}

impl Site<'_> {
    /// Exit code, and everything that was printed.
    fn run(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut command = judge::run(self.world, self.ground, "repository", "first", &arguments);
        let output = command.env("CARRACK_STATE_DIR", self.memory).output()?;
        let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        Ok((output.status.code().with_context(|| format!("killed: {text}"))?, text))
    }

    /// A repository with a first snapshot.
    fn begin(&self) -> Result<String> {
        let (code, text) = self.run(&["init"])?;
        ensure!(code == 0, "init: {code}\n{text}");
        self.back_up("v1", &[0])
    }

    fn back_up(&self, version: &str, codes: &[i32]) -> Result<String> {
        self.world.turn_to(version);
        let (code, text) = self.run(&["backup", "--tag", version, "--json", "{world}source"])?;
        ensure!(codes.contains(&code), "backup of {version}: {code}\n{text}");
        let mut messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let id = messages.find_map(|message| message["snapshot_id"].as_str().map(str::to_owned));
        id.with_context(|| format!("no snapshot: {text}"))
    }

    /// Whether a snapshot restores; if the program says so, it must.
    fn restores(&self, id: &str, version: &str) -> Result<bool> {
        let target = tempfile::tempdir_in(self.world.path(""))?;
        let path = target.path().join("restored");
        let what = format!("{id}:{}", self.world.source().display());
        let (code, text) = self.run(&["restore", &what, "--target", path.to_str().context("UTF-8")?])?;
        if code == 0 {
            self.world.compare(version, &path).context(text)?;
        }
        Ok(code == 0)
    }

    fn judge(&self, lost: &BTreeSet<String>, [first, second]: [&str; 2]) -> Result<()> {
        let (checked, said) = self.run(&["check", "--read-data"])?;
        let (listed, shown) = self.run(&["snapshots"])?;
        ensure!(self.restores(first, "v1")?, "what it had before does not restore");
        let only_hints = lost.iter().all(|name| name.starts_with("repository/index/"));
        let is_whole = self.restores(second, "v2")?;
        ensure!(is_whole == only_hints, "what was lost restores: {is_whole}");
        if !is_whole {
            let told = [said, shown].concat();
            let names = lost.iter().map(|name| name.trim_start_matches("repository/"));
            let named = names.chain([second]).any(|name| told.contains(name));
            ensure!(named && (checked, listed) != (0, 0), "not named: {checked} {listed}\n{told}");
        }
        let next = self.back_up("v2", &[0, 3])?;
        ensure!(self.restores(&next, "v2")?, "the next backup does not restore");
        let (code, text) = self.run(&["check", "--read-data", &next])?;
        ensure!(code == 0, "the next backup: {code}\n{text}");
        Ok(())
    }
}

#[test]
fn what_a_service_confirmed_and_lost_is_named_and_contained() {
    in_a_runtime(async {
        let server = MinioServer::start().expect("starts");
        let world = World::new();
        let ground = Bucket::new(&server, server.url(), "whole".to_owned(), &Objects::new()).await;
        let memory = world.path("memory");
        let site = Site { world: &world, ground: &ground, memory: &memory };
        let first = site.begin().expect("it succeeds");
        let before = ground.objects().await;
        let second = site.back_up("v2", &[0]).expect("it succeeds");
        let whole = ground.objects().await;
        let mut new: Vec<String> = whole.keys().filter(|name| !before.contains_key(*name)).cloned().collect();
        let rank = |name: &String| ORDER.iter().position(|folder| name.contains(folder));
        new.sort_by_key(rank);
        assert!(new.iter().all(|name| rank(name).is_some()), "{new:?}");
        let losses = losses(&new);
        for (index, lost) in losses.iter().enumerate() {
            let mut left = whole.clone();
            left.retain(|name, _| !lost.contains(name));
            let ground = Bucket::new(&server, server.url(), format!("lost-{index}"), &left).await;
            let own = world.path(&format!("memory {index}"));
            copy(&memory, &own).expect("copies");
            let site = Site { world: &world, ground: &ground, memory: &own };
            let judged = site.judge(lost, [&first, &second]);
            judged.with_context(|| format!("lost {lost:?}")).expect("named and contained");
        }
        println!("lost by a service: {} losses of the {} objects of a backup", losses.len(), new.len());
    });
}

/// A service whose data lies on the disk that keeps nothing which was not synced.
struct OnDisk {
    // Declared before the disk, which cannot be unmounted while it is in use.
    server: MinioServer,
    disk: Option<Disk>,
}

impl OnDisk {
    fn start(place: &Path) -> Result<Self> {
        let disk = Some(Disk::mount(State::default(), place)?);
        let setup = Setup { data: Some(place.to_owned()), ..Setup::default() };
        Ok(Self { server: MinioServer::start_with(setup)?, disk })
    }

    /// The service ends, something becomes of the disk, and it starts again.
    fn restart(&mut self, change: impl FnOnce(State) -> State) -> Result<()> {
        self.server.kill()?;
        let state = self.disk.take().context("a disk")?.state();
        self.disk = Some(Disk::mount(change(state), &self.server.data())?);
        self.server.start_again()
    }

    async fn ground(&self) -> Bucket<'_> {
        Bucket::new(&self.server, self.server.url(), "power".to_owned(), &Objects::new()).await
    }
}

/// How much of what it has confirmed a service keeps is its own affair, and what follows is the same.
#[test]
fn a_service_that_loses_power_keeps_what_it_had_and_the_rest_is_named() {
    in_private_mounts(|| {
        in_a_runtime(async {
            let world = World::new();
            let memory = world.path("memory");
            let mut service = OnDisk::start(&world.path("place")).expect("starts");
            let ground = service.ground().await;
            let first =
                Site { world: &world, ground: &ground, memory: &memory }.begin().expect("it succeeds");
            // Long afterwards all of that is on the medium, whoever has synced it.
            service.restart(State::settled).expect("starts again");

            let ground = service.ground().await;
            let site = Site { world: &world, ground: &ground, memory: &memory };
            let second = site.back_up("v2", &[0]).expect("it succeeds");
            let confirmed = ground.objects().await;
            service.restart(|state| state.after_power_loss(None)).expect("starts again");

            let ground = service.ground().await;
            let left = ground.objects().await;
            let lost: BTreeSet<String> =
                confirmed.into_keys().filter(|name| !left.contains_key(name)).collect();
            println!("without power the service has lost {} objects that it had confirmed", lost.len());
            let site = Site { world: &world, ground: &ground, memory: &memory };
            site.judge(&lost, [&first, &second]).expect("named and contained");
        });
    });
}
