//! From a URL or path to a store.

use std::path::PathBuf;
use std::sync::Arc;

use super::s3::S3Store;
use super::{FsStore, ObjectStore, StoreOptions, decorate};
use crate::clock::World;
use crate::error::{Error, Result};

/// Opens `s3://bucket/prefix`, `file:///path` or a plain path, with all decorators. Nothing is sent yet, except
/// what finding credentials needs.
pub async fn open_url(url: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let world = World::system();
    let store = open_plain(url, options, &world).await?;
    Ok(decorate(store, options, &world))
}

/// Opens the bare store behind a URL: no retries, no limits.
pub async fn open_plain(url: &str, options: &StoreOptions, world: &World) -> Result<Arc<dyn ObjectStore>> {
    if let Some(place) = url.strip_prefix("s3://") {
        return Ok(Arc::new(S3Store::open(place, options).await?));
    }
    let path = match url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => path,
        Some((scheme, _)) => {
            return Err(Error::invalid(format!(
                "the repository URL begins with {scheme}://, which is not known"
            ))
            .with_hint("use s3://bucket/prefix, file:///path or a path"));
        }
        None => url,
    };
    if path.is_empty() {
        return Err(Error::invalid("the repository path is empty"));
    }
    let path = std::path::absolute(PathBuf::from(path))
        .map_err(|err| Error::io(err, format!("resolve the repository path {path}")))?;
    let store = FsStore::open(path, world.clone());
    match store.sweep_temporary().await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed what interrupted writers left in the repository"),
        // A repository that may only be read is swept by others.
        Err(err) => tracing::debug!(%err, "left-over temporary files stay"),
    }
    Ok(Arc::new(store))
}
