//! What a backup is asked to do.

use std::{os::unix::ffi::OsStringExt as _, path::PathBuf, time::Duration};

use crate::{
    error::{Error, Result},
    format::{
        frame::Suite,
        order,
        records::{CopiedFrom, SourceKind},
        session::SessionName,
    },
    limits,
    monitor::unescape_path,
    reader::SnapshotReader,
    repo::Repository,
    source::{roots::absolute, walk},
};

/// What to back up.
#[derive(Debug, Clone)]
pub enum BackupSource {
    /// Trees of files.
    Files(walk::WalkOptions),
    /// A block device or an image file, as one image.
    Block {
        /// The device or file.
        path: PathBuf,
        /// A list of what changed since the parent: everything else is taken from there.
        changed: Option<PathBuf>,
        /// Names this state of the device, for the next list of changes.
        change_id: Option<String>,
    },
    /// Standard input, as one image of this name.
    Stdin {
        /// The name in the snapshot.
        name: String,
    },
    /// A snapshot of another repository: what its record says of its making is kept.
    Snapshot {
        /// The repository that it is in.
        from: Repository,
        /// Reads it.
        reader: SnapshotReader,
        /// Where it was made.
        origin: CopiedFrom,
    },
}

/// Which cipher to seal with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CipherChoice {
    /// What the processor does best.
    #[default]
    Auto,
    /// This one.
    Suite(Suite),
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionChoice {
    /// Not at all.
    Off,
    /// zstd, between these levels: tighter while the store is the bottleneck, lighter while the processor is. In a
    /// range that begins with 2, level 3 takes the place of 2 for data that 2 would leave much larger.
    Adaptive {
        /// Lightest level.
        lightest: i32,
        /// Tightest level.
        tightest: i32,
    },
}

impl Default for CompressionChoice {
    fn default() -> Self {
        Self::Adaptive { lightest: 2, tightest: 9 }
    }
}

/// Which snapshot to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The newest one of the same source.
    #[default]
    Latest,
    /// None: everything is read.
    None,
    /// This one.
    Session(SessionName),
}

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// What.
    pub source: BackupSource,
    /// Host to record.
    pub host: String,
    /// User to record.
    pub user: String,
    /// Tags to record.
    pub tags: Vec<String>,
    /// Which cipher.
    pub cipher: CipherChoice,
    /// How hard to compress.
    pub compression: CompressionChoice,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
    /// Which parent.
    pub parent: ParentChoice,
    /// Read everything, whatever the parent says.
    pub force: bool,
    /// Do not look at the time of the last change of the inode.
    pub ignore_ctime: bool,
    /// Do not look at inode numbers.
    pub ignore_inode: bool,
    /// Worker threads; 0 for one a core.
    pub threads: usize,
    /// Commit nothing when nothing differs from the parent.
    pub skip_if_unchanged: bool,
    /// Commit nothing when something could not be read.
    pub strict: bool,
    /// Least time between two checkpoints, from which a retry goes on after a kill.
    pub checkpoint_interval: Duration,
    /// How long one read of the source may take. What of a tree of files takes longer is left out; anything else that does
    /// ends the backup.
    pub source_timeout: Duration,
}

impl BackupOptions {
    /// Defaults for a source.
    pub fn new(source: BackupSource) -> Self {
        Self {
            source,
            host: String::new(),
            user: String::new(),
            tags: Vec::new(),
            cipher: CipherChoice::default(),
            compression: CompressionChoice::default(),
            memory_bytes: limits::MEMORY_DEFAULT,
            parent: ParentChoice::default(),
            force: false,
            ignore_ctime: false,
            ignore_inode: false,
            threads: 0,
            skip_if_unchanged: false,
            strict: false,
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
            source_timeout: limits::SOURCE_TIMEOUT,
        }
    }
}

pub(super) fn source_kind(source: &BackupSource) -> SourceKind {
    match source {
        BackupSource::Files(_) => SourceKind::Files,
        BackupSource::Block { .. } => SourceKind::Block,
        BackupSource::Stdin { .. } => SourceKind::Stdin,
        BackupSource::Snapshot { reader, .. } => reader.snapshot().source,
    }
}

/// Gives the paths of a source the form in which they are recorded, so that what is read is what the record names.
pub(super) fn settle_paths(source: &mut BackupSource) -> Result<()> {
    match source {
        BackupSource::Files(options) => {
            for root in &mut options.roots {
                *root = absolute(root)?;
            }
        }
        BackupSource::Block { path, .. } => *path = absolute(path)?,
        BackupSource::Stdin { .. } | BackupSource::Snapshot { .. } => {}
    }
    Ok(())
}

pub(super) fn source_paths(source: &BackupSource) -> Result<Vec<Vec<u8>>> {
    let absolute = |path: &PathBuf| absolute(path).map(|path| path.into_os_string().into_vec());
    let mut paths: Vec<Vec<u8>> = match source {
        BackupSource::Files(options) => options.roots.iter().map(absolute).collect::<Result<_>>()?,
        BackupSource::Block { path, .. } => vec![absolute(path)?],
        BackupSource::Stdin { name } => {
            let last = name.rsplit('/').next().unwrap_or_default();
            if !order::is_valid_path(last.as_bytes()) {
                return Err(Error::invalid(format!("{name:?} is no name to keep a stream under"))
                    .with_hint("give the name of a file, such as shop.sql"));
            }
            vec![format!("/{name}").into_bytes()]
        }
        BackupSource::Snapshot { reader, .. } => {
            let unreadable =
                || Error::corrupt(format!("snapshot {}: its paths cannot be", reader.snapshot().session));
            let paths = reader.snapshot().paths.iter();
            return paths.map(|path| unescape_path(path).ok_or_else(unreadable)).collect();
        }
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

pub(super) fn suite(choice: CipherChoice) -> Suite {
    match choice {
        CipherChoice::Suite(suite) => suite,
        CipherChoice::Auto if has_fast_aes() => Suite::Aes256Gcm,
        CipherChoice::Auto => Suite::ChaCha20Poly1305,
    }
}

fn has_fast_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let fast = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    fast
}
