//! Millions of files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::{Setup, Subject, sizes};
use crate::tools::Name;

/// Files in one directory.
const WIDTH: u64 = 1000;

/// A tree of many small files.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Files {
    /// Files at the last point; a file with contents takes a block of the file system, one without only an inode.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// Bytes in each file; 0 for empty files.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Restore the last point, too.
    #[arg(long)]
    restore: bool,
}

/// First and unchanged backup of ever more files.
pub fn files(setup: &Setup, args: Files) -> Result<()> {
    let mut subject = Subject::new(setup, "files", "million")?;
    let tree = subject.place.home.join("tree");
    let mut made = 0;
    for count in sizes(args.count) {
        make(&tree, made..count, args.bytes)?;
        made = count;
        let millions = count as f64 / 1e6;
        subject.init()?;
        subject.backup("first", millions, Name::Carrack, &tree)?;
        subject.backup("unchanged", millions, Name::Carrack, &tree)?;
        let check = subject.tool(Name::Carrack).check_all(&subject.place);
        subject.run("check", millions, &check)?;
        if args.restore && count == args.count {
            let target = subject.place.home.join("restored");
            let restore = subject.tool(Name::Carrack).restore(&subject.place, &tree, &target);
            subject.run("restore", millions, &restore)?;
        }
    }
    subject.finish()
}

/// Makes the files of these numbers, each with other contents.
fn make(tree: &Path, numbers: std::ops::Range<u64>, bytes: usize) -> Result<()> {
    (numbers.start / WIDTH..numbers.end.div_ceil(WIDTH)).into_par_iter().try_for_each(|directory| {
        let path = tree.join(format!("part-{:04}", directory / 100)).join(format!("dir-{directory:06}"));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let (first, end) = (directory * WIDTH, (directory + 1) * WIDTH);
        for number in first.max(numbers.start)..end.min(numbers.end) {
            let file: PathBuf = path.join(format!("file-{number:09}"));
            let mut contents = format!("{number:0bytes$}").into_bytes();
            contents.truncate(bytes);
            fs::write(&file, contents).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    })
}
