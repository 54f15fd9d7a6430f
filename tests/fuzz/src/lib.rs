//! Every decoder as a function of bytes, with a folder of inputs to begin with.
//!
//! `tests/corpus.rs` runs the inputs and changes of them for a minute in every test run; `libfuzzer/` runs the same
//! functions for as long as one likes (`make fuzz`).

mod border;
mod mutate;
#[path = "../../../mover/src/cli/path_list.rs"]
mod path_list;
mod program;
mod system;
#[path = "../../../mover/src/cli/units.rs"]
#[expect(dead_code, reason = "only what reads is run here, not what writes for people")]
mod units;
#[path = "../../../mover/src/cli/commands/job/changes/wire.rs"]
mod wire;

use std::{
    env, fs,
    hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState},
    io,
    path::PathBuf,
};

pub use carrack_mover::fuzz::Target;
pub use mutate::Mutator;

/// Every target: the engine's, then the program's, then those of what the kernel hands out, and of
/// what goes between programs.
pub fn targets() -> impl Iterator<Item = Target> {
    carrack_mover::fuzz::TARGETS
        .iter()
        .copied()
        .chain(program::TARGETS)
        .chain(system::TARGETS)
        .chain(border::TARGETS)
}

/// Where the changes of this run begin: where `CARRACK_FUZZ_SEED` says, or `CARRACK_DRAW` leads to, which `make unit` sets to
/// the commit; without both, somewhere else each time.
pub fn seed() -> u64 {
    if let Ok(text) = env::var("CARRACK_FUZZ_SEED") {
        return text.parse().expect("a number");
    }
    let hasher = match env::var_os("CARRACK_DRAW") {
        // Where there is no commit, it is empty.
        Some(name) if !name.is_empty() => {
            let mut hasher = DefaultHasher::new();
            hasher.write(name.as_encoded_bytes());
            hasher
        }
        _ => RandomState::new().build_hasher(),
    };
    u64::from(hasher.finish() as u32)
}

/// Where the inputs of a target lie.
pub fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target, in the order of their names.
pub fn corpus(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        let entry = entry?;
        inputs.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}
