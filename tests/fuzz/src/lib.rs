//! Every decoder as a function of bytes, with a folder of inputs to begin with.
//!
//! `tests/corpus.rs` runs the inputs and a fixed number of changes of each in every test run; `libfuzzer/` runs the
//! same functions for as long as one likes (`make fuzz`).

mod mutate;
#[path = "../../../mover/src/cli/path_list.rs"]
mod path_list;
mod program;
#[path = "../../../mover/src/cli/units.rs"]
#[expect(dead_code, reason = "only what reads is run here, not what writes for people")]
mod units;

use std::{fs, io, path::PathBuf};

pub use carrack_mover::fuzz::Target;
pub use mutate::Mutator;

/// Every target: the engine's, then the program's.
pub fn targets() -> impl Iterator<Item = Target> {
    carrack_mover::fuzz::TARGETS.iter().copied().chain(program::TARGETS)
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
