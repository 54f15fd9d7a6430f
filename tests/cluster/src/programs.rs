//! Where the programs are that `tests/cluster/build.sh` and `tests/servers/build.sh` build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine::run;

/// The root of this repository.
fn repository_root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the package lies in the repository")
}

fn cache() -> Result<PathBuf> {
    Ok(match std::env::var_os("CARRACK_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => repository_root()?.join(".cache"),
    })
}

/// The program `name`, or the folder of that name, which `tests/cluster/build.sh` has put into the cache.
///
/// # Errors
///
/// It is not built; the error says how to build it.
pub fn program(name: &str) -> Result<PathBuf> {
    let link = cache()?.join("cluster/bin").join(name);
    // The links are changed by later builds; who runs already stays with what it was started with.
    link.canonicalize()
        .with_context(|| format!("{} is not built; run: tests/setup.sh cluster", link.display()))
}

/// MinIO, built if it is not there.
pub(crate) fn minio() -> Result<PathBuf> {
    let mut build = Command::new(repository_root()?.join("tests/servers/build.sh"));
    let path = PathBuf::from(run(build.arg("minio"))?.trim());
    if !path.is_file() {
        bail!("tests/servers/build.sh minio gave {}, which is no file", path.display());
    }
    Ok(path)
}
