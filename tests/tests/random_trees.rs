//! Trees that nobody thought of: made at random, changed at random, backed up before and after, and both come back.
//!
//! Needs root, for owners and attributes, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{FileExt as _, PermissionsExt as _, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use carrack_tests::{
    draw,
    program::Program,
    trees::{Tree, differences, noise, read, set_mtime, set_xattr},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed},
};

/// How many trees a test run makes; each costs four runs of the program.
const CASES: u32 = 8;

/// What is done to a tree, once while it is made and once more to change it. Names are few, so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    File { name: Vec<u8>, seed: u64, length: usize },
    Sparse { name: Vec<u8>, pieces: Vec<(u32, u16)>, length: u32 },
    Overwrite { name: Vec<u8>, at: u32, length: u16, seed: u64 },
    Directory { name: Vec<u8> },
    Link { name: Vec<u8>, target: Vec<u8> },
    HardLink { name: Vec<u8>, to: Vec<u8> },
    Rename { name: Vec<u8>, to: Vec<u8> },
    Remove { name: Vec<u8> },
    Mode { name: Vec<u8>, mode: u32 },
    Owner { name: Vec<u8>, owner: u32, group: u32 },
    Time { name: Vec<u8>, seconds: i64, nanoseconds: u32 },
    Xattr { name: Vec<u8>, attribute: u8, length: u16 },
}

/// A path of up to three names; some of them hold bytes that are easily mistaken.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let names = ["a", "b", "c", "d.e", " ", "-", "*", "\n", "\u{e9}", "Z"];
    let name = prop_oneof![
        8 => proptest::sample::select(names.to_vec()).prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(1_u8.., 1..40).prop_map(|name| {
            let name: Vec<u8> = name.into_iter().filter(|byte| *byte != b'/').collect();
            if matches!(&name[..], b"" | b"." | b"..") { b"dots".to_vec() } else { name }
        }),
    ];
    vec(name, 1..4).prop_map(|names| names.join(&b'/'))
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..5_000_usize, 2 => 5_000..400_000_usize, 1 => 1_000_000..3_000_000_usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (path(), any::<u64>(), length()).prop_map(|(name, seed, length)| Step::File { name, seed, length }),
        1 => (path(), vec((0..4_000_000_u32, any::<u16>()), 0..6), 0..5_000_000_u32)
            .prop_map(|(name, pieces, length)| Step::Sparse { name, pieces, length }),
        3 => (path(), 0..3_000_000_u32, any::<u16>(), any::<u64>())
            .prop_map(|(name, at, length, seed)| Step::Overwrite { name, at, length, seed }),
        2 => path().prop_map(|name| Step::Directory { name }),
        1 => (path(), vec(1_u8.., 1..100)).prop_map(|(name, target)| Step::Link { name, target }),
        2 => (path(), path()).prop_map(|(name, to)| Step::HardLink { name, to }),
        2 => (path(), path()).prop_map(|(name, to)| Step::Rename { name, to }),
        2 => path().prop_map(|name| Step::Remove { name }),
        1 => (path(), 0..0o10000_u32).prop_map(|(name, mode)| Step::Mode { name, mode }),
        1 => (path(), any::<u16>(), any::<u16>())
            .prop_map(|(name, owner, group)| Step::Owner { name, owner: owner.into(), group: group.into() }),
        1 => (path(), -2_000_000_000..8_000_000_000_i64, 0..1_000_000_000_u32)
            .prop_map(|(name, seconds, nanoseconds)| Step::Time { name, seconds, nanoseconds }),
        1 => (path(), any::<u8>(), 0..3000_u16)
            .prop_map(|(name, attribute, length)| Step::Xattr { name, attribute, length }),
    ]
}

/// Does a step if the tree allows it; one that names what is not there is no step.
fn apply(top: &Path, step: &Step) -> anyhow::Result<()> {
    let at = |name: &Vec<u8>| top.join(OsString::from_vec(name.clone()));
    let ready = |name: &Vec<u8>| -> anyhow::Result<PathBuf> {
        let path = at(name);
        fs::create_dir_all(path.parent().unwrap_or(top))?;
        Ok(path)
    };
    match step {
        Step::File { name, seed, length } => fs::write(ready(name)?, noise(*seed, *length))?,
        Step::Sparse { name, pieces, length } => {
            let file = File::create(ready(name)?)?;
            file.set_len((*length).into())?;
            for (at, length) in pieces {
                file.write_all_at(&noise(u64::from(*at), usize::from(*length)), (*at).into())?;
            }
        }
        Step::Overwrite { name, at: offset, length, seed } => {
            let file = File::options().write(true).open(at(name))?;
            file.write_all_at(&noise(*seed, usize::from(*length)), (*offset).into())?;
        }
        Step::Directory { name } => fs::create_dir_all(at(name))?,
        Step::Link { name, target } => symlink(OsString::from_vec(target.clone()), ready(name)?)?,
        Step::HardLink { name, to } => fs::hard_link(at(to), ready(name)?)?,
        Step::Rename { name, to } => fs::rename(at(name), ready(to)?)?,
        Step::Remove { name } if at(name).is_dir() => fs::remove_dir_all(at(name))?,
        Step::Remove { name } => fs::remove_file(at(name))?,
        Step::Mode { name, mode } if !fs::symlink_metadata(at(name))?.is_symlink() => {
            fs::set_permissions(at(name), fs::Permissions::from_mode(*mode))?;
        }
        Step::Mode { .. } => {}
        Step::Owner { name, owner, group } => lchown(at(name), Some(*owner), Some(*group))?,
        Step::Time { name, seconds, nanoseconds } => set_mtime(&at(name), *seconds, (*nanoseconds).into())?,
        Step::Xattr { name, attribute, length } => {
            set_xattr(
                &at(name),
                &format!("user.{attribute}"),
                &noise(u64::from(*attribute), usize::from(*length)),
            )?;
        }
    }
    Ok(())
}

fn apply_all(top: &Path, steps: &[Step]) {
    for step in steps {
        // The file system says what is possible: a link to nothing, a name below a file.
        apply(top, step).ok();
    }
}

fn backup(carrack: &Program, source: &Path) -> Tree {
    let tree = read(&[source]).expect("reads");
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    tree
}

fn restored(carrack: &Program, snapshot: &str, source: &Path, target: &Path) -> Tree {
    let words = ["restore", snapshot, "--delete", "--verify", "--target"].map(std::ffi::OsStr::new);
    carrack.run(words.into_iter().chain([target.as_os_str()]), 0);
    read(&[target.join(source.strip_prefix("/").expect("absolute"))]).expect("reads")
}

/// Trees of their own for each commit, the same in all runs of it: what is found is not gone with the next run.
fn config() -> Config {
    // Not by a macro: what those print is not shown of a test that passes.
    let drawn = format!("the trees are drawn from {}={}", draw::VARIABLE, draw::origin());
    writeln!(io::stdout(), "{drawn}").expect("standard output");
    let rng_seed = RngSeed::Fixed(draw::dice(&[CASES.into()]).bits());
    Config { cases: CASES, max_shrink_iters: 30, failure_persistence: None, rng_seed, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_states_come_back(made in vec(step(), 5..60), changed in vec(step(), 1..30)) {
        let carrack = Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
        let source = carrack.path("source");
        fs::create_dir(&source).expect("makes");
        apply_all(&source, &made);
        let before = backup(&carrack, &source);
        let first = carrack.run(["snapshots", "--json"], 0).message("snapshot")["id"].clone();
        apply_all(&source, &changed);
        let after = backup(&carrack, &source);

        let target = carrack.path("restored");
        let first = first.as_str().expect("an id");
        prop_assert_eq!(differences(&before, &restored(&carrack, first, &source, &target)), [""; 0]);
        // Onto the other state, in place.
        prop_assert_eq!(differences(&after, &restored(&carrack, "latest", &source, &target)), [""; 0]);
        prop_assert_eq!(differences(&before, &restored(&carrack, first, &source, &target)), [""; 0]);
    }
}
