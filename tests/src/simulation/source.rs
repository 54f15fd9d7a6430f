//! Sources: small trees that change, of contents that all sources share.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use super::rng::Rng;

/// What a tree holds: its files by name, and the directory [`FOLDER`].
pub type Tree = BTreeMap<String, File>;

/// A file of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// The number of its content.
    pub content: u64,
    /// When it was changed, since the epoch.
    pub modified: Duration,
}

/// The directory that each tree has.
pub const FOLDER: &str = "below";

/// Contents of more than a frame, of which a source has a few: so a pack can be needed in part.
const LARGE: u64 = 6;
/// All contents that there are but for news: so few that what nobody needs any more is often wanted again, and found by a hint.
const CONTENTS: u64 = 18;

/// The content of this number.
pub fn content(number: u64) -> Arc<Vec<u8>> {
    static MADE: OnceLock<Mutex<HashMap<u64, Arc<Vec<u8>>>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let mut rng = Rng::new(&[7, number]);
        let length = if number < LARGE { (1 << 20) + rng.between(1, 60_000) } else { rng.between(1, 40_000) };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        rng.fill(&mut bytes);
        Arc::new(bytes)
    };
    Arc::clone(made.entry(number).or_insert_with(make))
}

/// A tree of files that a client backs up.
#[derive(Debug)]
pub struct Source {
    /// The directory.
    pub root: PathBuf,
    /// What is in it.
    pub tree: Tree,
}

impl Source {
    /// An empty one.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join(FOLDER))?;
        Ok(Self { root: root.to_owned(), tree: Tree::new() })
    }

    /// Changes it a little; the first time it is filled. `at`: what time it is, since the epoch.
    pub fn change(&mut self, rng: &mut Rng, at: Duration) -> io::Result<()> {
        if self.tree.is_empty() {
            for name in ["large-0", "large-1"] {
                self.write(name, rng.below(LARGE), at)?;
            }
            for file in 0..rng.between(3, 7) {
                self.write(&name(file), rng.between(LARGE, CONTENTS - 1), at)?;
            }
            return Ok(());
        }
        for _ in 0..rng.below(6) {
            let file = name(rng.below(9));
            match rng.below(6) {
                0 => self.write(&format!("large-{}", rng.below(2)), rng.below(LARGE), at)?,
                1 if self.tree.contains_key(&file) => {
                    fs::remove_file(self.root.join(&file))?;
                    self.tree.remove(&file);
                }
                _ => self.write(&file, rng.between(LARGE, CONTENTS - 1), at)?,
            }
        }
        Ok(())
    }

    /// Puts a content into it that only this number has.
    pub fn add_news(&mut self, number: u64, at: Duration) -> io::Result<()> {
        self.write("news", CONTENTS + number, at)
    }

    fn write(&mut self, name: &str, number: u64, at: Duration) -> io::Result<()> {
        let path = self.root.join(name);
        fs::write(&path, &*content(number))?;
        fs::File::options().write(true).open(&path)?.set_modified(SystemTime::UNIX_EPOCH + at)?;
        self.tree.insert(name.to_owned(), File { content: number, modified: at });
        Ok(())
    }
}

fn name(file: u64) -> String {
    if file.is_multiple_of(3) { format!("{FOLDER}/file-{file}") } else { format!("file-{file}") }
}
