//! Verbs that change a repository, killed at each of their steps, in a directory and in a bucket.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};
use carrack_mover::repo::Join;
use carrack_tests::{
    disk::{State, Steps},
    gate::{End, Gate},
    images::in_private_mounts,
    minio::MinioServer,
    trees::noise,
};

use crate::{
    ground::{Bucket, Ground, Local, Objects},
    judge::{Case, Judge},
    world::{VERSIONS, World, chosen, ended, ends, in_a_runtime, is_whole_matrix},
};

/// Steps between the first and the last that CI tries.
const SHARE_LOCAL: u64 = 1;
const SHARE_BUCKET: u64 = 1;

/// What is done before, one after the other: repository, version of the source, arguments.
type Before = Vec<(&'static str, Option<&'static str>, Vec<String>)>;

/// The same of one that is done before several cases.
type Step = (&'static str, Option<&'static str>, &'static [&'static str]);

const INIT: Step = ("repository", None, &["init"]);
const FIRST: Step = ("repository", Some("v1"), &["backup", "--tag", "v1", "{world}source"]);
const SECOND: Step = ("repository", Some("v2"), &["backup", "--tag", "v2", "{world}source"]);
const THIRD: Step = ("repository", Some("v3"), &["backup", "--tag", "v3", "{world}source"]);

/// A repository that is copied into.
const OTHER: Step = ("second", None, &["init"]);

const ADD: Step = ("repository", None, &["key", "add", "--new-key-file", "{world}second"]);

/// A backup that finds so many small segments of the index that it joins them.
const JOINING: &str = "joining backup";
/// Backups before it that leave one each: the fewest that are joined.
const PARTS: usize = Join::FROM;

/// What comes before it. The small ones are forgotten again: what is judged are snapshots of the source.
fn before_joining() -> Before {
    const FORGET: Step = ("repository", None, &["forget", "--keep-tag", "none", "--allow-forget-all"]);
    let backup = |number: usize| vec!["backup".to_owned(), format!("{{world}}part {number}")];
    let small = (0..PARTS).map(|number| ("repository", None, backup(number)));
    before(&[INIT]).into_iter().chain(small).chain(before(&[FORGET])).collect()
}

fn before(steps: &[Step]) -> Before {
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    steps.iter().map(|&(repository, version, words)| (repository, version, owned(words))).collect()
}

/// The world of a case.
fn world_of(name: &str) -> World {
    let world = World::new();
    let parts = if name == JOINING { PARTS } else { 0 };
    for number in 0..parts {
        // What is much shorter is in no index.
        fs::write(world.path(&format!("part {number}")), noise(100 + number as u64, 5000)).expect("writes");
    }
    world
}

/// Fails if a run that is to join segments has joined none: then it is a backup as any other.
fn joins_if_it_is_to(name: &str, left: &[String]) {
    assert!(name != JOINING || left.iter().any(|object| object.ends_with(".joined")), "{name}: {left:?}");
}

/// Runs what comes before, and completes the case with the ids of the snapshots in the order in which they were made,
/// and of the key that was added.
fn prepare(
    world: &World,
    ground: &dyn Ground,
    before: &Before,
    case: &mut Case,
    complete: fn(&mut Case, &[String]),
) {
    let mut ids: Vec<String> = Vec::new();
    let mut added = String::new();
    for (repository, version, arguments) in before {
        if let Some(version) = version {
            world.turn_to(version);
        }
        let mut case = Case::new("before", &[]);
        case.repository = repository;
        let newest = ids.last().cloned().unwrap_or_default();
        case.arguments = arguments.iter().map(|argument| argument.replace("{id}", &newest)).collect();
        case.arguments.push("--json".into());
        let output = case.command(world, ground).output().expect("starts");
        let text = ended(&output, &[0], &arguments.join(" ")).expect("it succeeds");
        for message in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            ids.extend(message["snapshot_id"].as_str().map(str::to_owned));
            if arguments.starts_with(&["key".to_owned(), "add".to_owned()]) {
                added = message["key"].as_str().unwrap_or_default().to_owned();
            }
        }
    }
    complete(case, &ids);
    if let Some(version) = case.stored.filter(|version| VERSIONS.contains(version)) {
        world.turn_to(version);
    }
    case.arguments = case.arguments.iter().map(|argument| argument.replace("{key}", &added)).collect();
}

/// A case, and what comes before it.
struct Planned {
    before: Before,
    /// Completes the case once the ids of the snapshots before are known.
    complete: fn(&mut Case, &[String]),
    case: Case,
}

fn planned(name: &str) -> Planned {
    let plan = |steps: &[Step], arguments: &[&str], complete: fn(&mut Case, &[String])| Planned {
        before: before(steps),
        complete,
        case: Case::new("", arguments),
    };
    let keep_all: fn(&mut Case, &[String]) = |case, ids| case.kept = ids.to_vec();
    let mut planned = match name {
        "init" => {
            let mut planned = plan(&[], &["init"], keep_all);
            planned.case.exists = false;
            // It had come to its end: the next one says that there is a repository.
            planned.case.again = &[0, 11];
            planned
        }
        "first backup" => plan(&[INIT], FIRST.2, |case, _| case.stored = Some("v1")),
        "next backup" => plan(&[INIT, FIRST], SECOND.2, |case, ids| {
            case.kept = ids.to_vec();
            case.stored = Some("v2");
        }),
        JOINING => {
            Planned { before: before_joining(), ..plan(&[], FIRST.2, |case, _| case.stored = Some("v1")) }
        }
        "image backup" => {
            plan(&[INIT], &["backup", "--tag", "image", "--device", "{world}image"], |case, _| {
                case.stored = Some("image");
            })
        }
        "forget" => plan(&[INIT, FIRST, SECOND, THIRD], &["forget", "--keep-last", "1"], |case, ids| {
            case.kept = ids[2..].to_vec();
            case.gone = ids[..2].to_vec();
        }),
        "prune" => {
            const FORGET: Step = ("repository", None, &["forget", "{id}"]);
            let arguments = ["prune", "--wait", "0", "--fence-after", "1s", "--max-unused", "0"];
            plan(&[INIT, FIRST, FORGET, SECOND, THIRD], &arguments, |case, ids| case.kept = ids[1..].to_vec())
        }
        "check" => plan(&[INIT, FIRST], &["check", "--read-data"], keep_all),
        "key add" => {
            let mut planned =
                plan(&[INIT, FIRST], &["key", "add", "--new-key-file", "{world}second"], keep_all);
            planned.case.key = "second";
            // One may have come to be before the program was killed.
            planned.case.keys = (2, 3);
            planned
        }
        "key remove" => {
            let mut planned = plan(&[INIT, FIRST, ADD], &["key", "remove", "{key}"], keep_all);
            // It had come to its end: there is no such key any more.
            planned.case.again = &[0, 10];
            // That answer waits for no disk: the power takes it back, and the key is there again.
            planned.case.keys = (1, 2);
            planned
        }
        "key rotate" => plan(&[INIT, FIRST, ADD], &["key", "rotate"], keep_all),
        "copy" => {
            let arguments = ["copy", "--from-repo", "{repository}", "--from-key-file", "{world}first"];
            let mut planned =
                plan(&[INIT, FIRST, SECOND, OTHER], &arguments, |case, _| case.stored = Some("v2"));
            planned.case.repository = "second";
            planned
        }
        _ => unreachable!("no case is called {name}"),
    };
    planned.case.name = name.to_owned().leak();
    planned
}

/// A copy of what another place has, which begins with two snapshots there.
fn copy_from(world: &World, source: &dyn Ground, name: &'static str) -> Planned {
    prepare(world, source, &before(&[INIT, FIRST, SECOND]), &mut Case::new(name, &[]), |_, _| {});
    let address = source.address("repository");
    let arguments = ["copy", "--from-repo", &address, "--from-key-file", "{world}first"];
    let mut case = Case::new(name, &arguments);
    case.repository = "second";
    case.environment = source.environment();
    Planned { before: before(&[OTHER]), complete: |case, _| case.stored = Some("v2"), case }
}

/// Complains about all that failed.
fn conclude(failed: &[anyhow::Error]) {
    let shown: Vec<String> = failed.iter().take(5).map(|error| format!("{error:#}")).collect();
    assert!(failed.is_empty(), "{} failed\n\n{}", failed.len(), shown.join("\n\n"));
}

fn local(name: &str) {
    in_private_mounts(|| on_a_disk(&world_of(name), planned(name)));
}

/// Kills it, and lets the power fail, at steps that it takes on a disk.
fn on_a_disk(world: &World, Planned { before, complete, mut case }: Planned) {
    let (place, name) = (world.path("place"), case.name);
    let ground = Local::new(State::default(), &place);
    prepare(world, &ground, &before, &mut case, complete);
    let base = ground.disk().state().after_power_loss(None);
    drop(ground);

    let ground = Local::new(base.clone(), &place);
    let ran = ground.disk().run(&mut case.command(world, &ground), Steps::Changes, None).expect("runs");
    ended(&ran.output, &[0], name).expect("it succeeds undisturbed");
    joins_if_it_is_to(name, &ground.names(case.repository));
    drop(ground);
    let (mut tried, mut killed, mut failed) = (0, 0, Vec::new());
    for step in chosen(ran.steps, SHARE_LOCAL) {
        let (was_killed, crashes) = crash(world, &base, &case, step).expect("killed, or complete");
        killed += u64::from(was_killed);
        for (what, state) in crashes {
            tried += 1;
            let mut ground = Local::new(state, &place);
            let (crashed, reported) = (Instant::now(), !was_killed);
            let judge = Judge { world, ground: &mut ground, case: &case, crashed, reported };
            let judged = judge.judge();
            let names = ground.names("");
            failed.extend(judged.err().map(|error| {
                error.context(format!("{name}, {what} at step {step} of {}; there is {names:?}", ran.steps))
            }));
        }
    }
    println!("{name}: {} steps, {tried} crashes of {killed} runs that were killed", ran.steps);
    assert!(killed > 0 || is_whole_matrix(), "{name}: no run was killed");
    conclude(&failed);
}

/// Kills the run at a step; whether it was, and what is left then, with power and without. A run may have fewer steps
/// than the first one: then it has succeeded.
fn crash(world: &World, base: &State, case: &Case, step: u64) -> Result<(bool, Vec<(&'static str, State)>)> {
    let place = world.path("place");
    let ground = Local::new(base.clone(), &place);
    let ran = ground.disk().run(&mut case.command(world, &ground), Steps::Changes, Some(step))?;
    if !ran.killed {
        ended(&ran.output, &[0], "a run with fewer steps")?;
    }
    let state = ran.state;
    let mut crashes = vec![("killed", state.clone()), ("torn", state.after_power_loss(Some(step)))];
    // Without power the disk is as at the step before, unless that made something durable.
    if ran.synced_last || step == 1 || !is_whole_matrix() {
        crashes.push(("without power", state.after_power_loss(None)));
    }
    Ok((ran.killed, crashes))
}

/// The same in a bucket of a real server.
fn bucket(names: &[&str]) {
    in_a_runtime(async {
        let server = MinioServer::start().expect("starts");
        let gate = Gate::start(server.address()).await.expect("starts");
        let mut failed = Vec::new();
        for name in names {
            failed.extend(one_in_bucket(&server, &gate, &world_of(name), planned(name)).await);
        }
        conclude(&failed);
    });
}

async fn one_in_bucket(
    server: &MinioServer,
    gate: &Gate,
    world: &World,
    Planned { before, complete, mut case }: Planned,
) -> Vec<anyhow::Error> {
    let name = case.name;
    let prefix = |word: &str| format!("{}-{word}", name.replace(' ', "-"));
    let ground = Bucket::new(server, server.url(), prefix("base"), &Objects::new()).await;
    prepare(world, &ground, &before, &mut case, complete);
    let base = ground.objects().await;

    let ground = Bucket::new(server, gate.url(), prefix("whole"), &base).await;
    let ran = gate.run(&mut case.command(world, &ground), Steps::Changes, None).expect("runs");
    ended(&ran.output, &[0], name).expect("it succeeds undisturbed");
    joins_if_it_is_to(name, &ground.objects().await.into_keys().collect::<Vec<_>>());
    let mut failed = Vec::new();
    let ends = ends(&chosen(ran.steps, SHARE_BUCKET), ran.steps);
    let mut killed = 0;
    for end in &ends {
        let prefix = prefix(&format!("{end:?}"));
        match crash_in_bucket(server, gate, (world, &case), (&base, *end), &prefix).await {
            Ok(was_killed) => killed += u64::from(was_killed),
            Err(error) => {
                failed.push(error.context(format!("{name}, {end:?} of {} requests", ran.steps)));
            }
        }
    }
    println!("{name}: {} requests, {} crashes, {killed} of them kills", ran.steps, ends.len());
    assert!(killed > 0 || !failed.is_empty() || is_whole_matrix(), "{name}: no run was killed");
    failed
}

async fn crash_in_bucket(
    server: &MinioServer,
    gate: &Gate,
    (world, case): (&World, &Case),
    (base, end): (&Objects, End),
    prefix: &str,
) -> Result<bool> {
    let prefix: String = prefix
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let ground = Bucket::new(server, gate.url(), prefix, base).await;
    let ran = gate.run(&mut case.command(world, &ground), Steps::Changes, Some(end)).context("run")?;
    if !ran.killed {
        ended(&ran.output, &[0], "a run with fewer requests")?;
    }
    let mut ground = ground.directly();
    let (crashed, reported) = (Instant::now(), !ran.killed);
    let judge = Judge { world, ground: &mut ground, case, crashed, reported };
    tokio::task::block_in_place(|| judge.judge())
        .with_context(|| format!("there is {:?}", ground.names(case.repository)))?;
    Ok(ran.killed)
}

#[test]
fn init() {
    local("init");
}

#[test]
fn first_backup() {
    local("first backup");
}

#[test]
fn next_backup() {
    local("next backup");
}

#[test]
fn joining_backup() {
    local(JOINING);
}

#[test]
fn image_backup() {
    local("image backup");
}

#[test]
fn forget() {
    local("forget");
}

#[test]
fn prune() {
    local("prune");
}

#[test]
fn check() {
    local("check");
}

#[test]
fn key_add() {
    local("key add");
}

#[test]
fn key_remove() {
    local("key remove");
}

#[test]
fn key_rotate() {
    local("key rotate");
}

#[test]
fn copy() {
    local("copy");
}

#[test]
fn copy_from_a_bucket_to_a_directory() {
    in_private_mounts(|| {
        let (world, server) = (World::new(), MinioServer::start().expect("starts"));
        in_a_runtime(async {
            let source = Bucket::new(&server, server.url(), "source".to_owned(), &Objects::new()).await;
            let planned = copy_from(&world, &source, "copy from a bucket to a directory");
            let before = source.objects().await;
            on_a_disk(&world, planned);
            assert!(source.objects().await == before, "a copy has changed what it reads");
        });
    });
}

#[test]
fn copy_from_a_directory_to_a_bucket() {
    in_private_mounts(|| {
        let world = World::new();
        let place = world.path("place");
        let source = Local::new(State::default(), &place);
        in_a_runtime(async {
            let server = MinioServer::start().expect("starts");
            let gate = Gate::start(server.address()).await.expect("starts");
            let planned = copy_from(&world, &source, "copy from a directory to a bucket");
            let before = source.names("repository");
            conclude(&one_in_bucket(&server, &gate, &world, planned).await);
            assert_eq!(source.names("repository"), before, "a copy has changed what it reads");
        });
    });
}

#[test]
fn in_a_bucket_backups() {
    bucket(&["init", "first backup", "next backup", JOINING, "image backup", "copy"]);
}

#[test]
fn in_a_bucket_maintenance() {
    bucket(&["forget", "prune", "check", "key add", "key remove", "key rotate"]);
}
