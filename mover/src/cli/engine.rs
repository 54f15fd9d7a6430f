//! The one place where options become the engine's types, and where a repository is opened.

use std::{os::unix::ffi::OsStrExt as _, sync::Arc};

use carrack_mover::{
    backup::{CipherChoice, CompressionChoice},
    error::{Error, ErrorKind, Result},
    format::{frame::Suite, order::is_valid_path, records::Snapshot},
    monitor::escape_path,
    reader::SnapshotReader,
    repo::{Repository, SnapshotFilter, Unlock},
    source::roots::absolute,
    store::{ByteRange, ObjectStore, StoreOptions, open_url},
};

use super::{
    args::{CipherArg, FilterArgs},
    config::{Config, Place, SecretSource},
    context::Context,
    password::{self, Ask, Secret},
    units::CompressionArg,
};

/// The object that every repository has.
const FORMAT_OBJECT: &str = "format";

/// Opens the store of the repository that the options name.
pub(crate) async fn store(config: &Config) -> Result<Arc<dyn ObjectStore>> {
    store_at(&config.place.url, &config.store).await
}

/// Opens the store of a repository that is somewhere else.
pub(crate) async fn store_at(url: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let store = open_url(url, options).await?;
    #[cfg(debug_assertions)]
    let store = super::defect::over(store);
    Ok(store)
}

/// Opens the repository that the options name.
pub(crate) async fn open(context: &Context) -> Result<Repository> {
    if let Some(repository) = &context.opened {
        return Ok(repository.clone());
    }
    let config = context.config()?;
    let store = store(&config).await?;
    open_place(context, store, &config.place).await
}

/// Opens the repository at a place.
pub(crate) async fn open_place(
    context: &Context,
    store: Arc<dyn ObjectStore>,
    place: &Place,
) -> Result<Repository> {
    let missing = |error: Error| explain_missing(error, place);
    // Nobody is asked for the password of a repository that does not exist.
    if place.secret == SecretSource::Prompt {
        store.get(FORMAT_OBJECT, ByteRange::All).await.map_err(missing)?;
    }
    let unlock = unlock(password::obtain(&place.secret, &place.url, Ask::Once)?);
    Repository::open(store, context.world.clone(), &unlock).await.map_err(missing)
}

fn explain_missing(error: Error, place: &Place) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let command = format!("carrack -r {} init", place.url);
    Error::not_found(format!("there is no repository at {}", place.url))
        .with_hint(format!("make one with: {command}"))
        .with_source(error)
}

/// What opens a repository, as the engine takes it.
pub(crate) fn unlock(secret: Secret) -> Unlock {
    match secret {
        Secret::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
        Secret::Key(key) => Unlock::Secret(key),
        Secret::Bundle(bundle) => Unlock::Bundle(bundle),
    }
}

/// Which snapshots are meant.
pub(crate) fn filter(args: &FilterArgs) -> Result<SnapshotFilter> {
    let mut paths = Vec::with_capacity(args.path.len());
    for path in &args.path {
        paths.push(escape_path(absolute(path)?.as_os_str().as_bytes()));
    }
    Ok(SnapshotFilter { hosts: args.host.clone(), tags: args.tag.clone(), paths })
}

pub(crate) fn cipher(choice: CipherArg) -> CipherChoice {
    match choice {
        CipherArg::Auto => CipherChoice::Auto,
        CipherArg::Aes256Gcm => CipherChoice::Suite(Suite::Aes256Gcm),
        CipherArg::ChaCha20Poly1305 => CipherChoice::Suite(Suite::ChaCha20Poly1305),
    }
}

pub(crate) fn compression(choice: CompressionArg) -> CompressionChoice {
    match choice {
        CompressionArg::Auto => CompressionChoice::default(),
        CompressionArg::Between(lightest, tightest) => CompressionChoice::Adaptive { lightest, tightest },
        CompressionArg::Level(level) => CompressionChoice::Adaptive { lightest: level, tightest: level },
        CompressionArg::Off => CompressionChoice::Off,
    }
}

/// A snapshot and a path in it, as typed: `ID`, `ID:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotPath {
    pub(crate) snapshot: String,
    /// Without slashes at its ends; empty for everything.
    pub(crate) path: Vec<u8>,
}

impl SnapshotPath {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (snapshot, path) = text.split_once(':').unwrap_or((text, ""));
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let path = names.join("/").into_bytes();
        if snapshot.is_empty() || !(path.is_empty() || is_valid_path(&path)) {
            return Err(Error::invalid(format!("{text:?} does not name a snapshot and a path in it"))
                .with_hint("write it as latest:/etc/nginx or 4fd1a7c2:/home"));
        }
        Ok(Self { snapshot: snapshot.to_owned(), path })
    }
}

/// Finds the snapshot that was typed, and opens it for reading.
pub(crate) async fn read(
    repository: &Repository,
    snapshot: &str,
    filter: &FilterArgs,
) -> Result<(Snapshot, SnapshotReader)> {
    let snapshot = repository.find_snapshot(snapshot, &self::filter(filter)?).await?;
    let reader = SnapshotReader::new(repository.clone(), snapshot.clone());
    Ok((snapshot, reader))
}
