//! Does this store keep the promises the repository is built on?
//!
//! Asked when a repository is made: some services answer 200 to a condition they ignore, which would be a lock
//! that always succeeds.

use bytes::Bytes;

use super::{ByteRange, Capabilities, ObjectStore, Put, list_all};
use crate::clock::World;
use crate::error::{Error, ErrorKind, Result};

/// The folder of what a store is tried with.
pub const PROBES: &str = "probe/";
const BODY: &[u8] = b"carrack probe object: may be deleted";

/// What a probe found. Everything the repository needs is there, or the probe would have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// What the store says of itself.
    pub capabilities: Capabilities,
    /// A delete tells whether there was an object.
    pub delete_tells: bool,
}

/// Tries create-if-absent, ranged reads, listing after write, and delete, on one object under `probe/`, which
/// is removed afterwards whatever the outcome.
pub async fn probe(store: &dyn ObjectStore, world: &World) -> Result<Probed> {
    let name = format!("{PROBES}{}", hex::encode(world.random::<16>()));
    let outcome = exercise(store, &name).await;
    // The exercise ends with the delete; after a failure the object may still be there.
    if outcome.is_err()
        && let Err(err) = store.delete(&name).await
    {
        tracing::warn!(%err, name, "the probe object stays behind");
    }
    outcome.map_err(|err| err.context(format!("probe of {}", store.describe())))
}

fn broken(what: &str) -> Error {
    Error::invalid(what.to_owned())
        .with_hint("this store cannot hold a repository safely; update the service or take another one")
}

async fn exercise(store: &dyn ObjectStore, name: &str) -> Result<Probed> {
    if store.put_if_absent(name, Bytes::from_static(BODY)).await? != Put::Created {
        return Err(broken("a fresh random name is said to exist"));
    }
    if store.put_if_absent(name, Bytes::from_static(b"second")).await? != Put::Exists {
        return Err(broken("create-if-absent does not refuse a second put: conditions are ignored"));
    }
    if store.get(name, ByteRange::All).await? != BODY {
        return Err(broken("an object reads back as something else than was put first"));
    }
    if store.get(name, ByteRange::Slice { offset: 8, length: 5 }).await? != BODY[8..13] {
        return Err(broken("a ranged read gives wrong bytes"));
    }
    if store.get(name, ByteRange::Last(7)).await? != BODY[BODY.len() - 7..] {
        return Err(broken("a read of the last bytes gives wrong bytes"));
    }
    let listed = list_all(store, name).await?;
    if listed.len() != 1 || listed[0].name != name || listed[0].size != BODY.len() as u64 {
        return Err(broken("an object does not show in a listing right after its put"));
    }
    if !store.delete(name).await? {
        return Err(broken("a delete claims that an existing object was absent"));
    }
    match store.get(name, ByteRange::All).await {
        Err(err) if err.kind() == ErrorKind::NotFound => {}
        Err(err) => return Err(err),
        Ok(_) => return Err(broken("an object can be read after its confirmed delete")),
    }
    if !list_all(store, name).await?.is_empty() {
        return Err(broken("an object is listed after its confirmed delete"));
    }
    let delete_tells = !store.delete(name).await?;
    Ok(Probed { capabilities: store.capabilities(), delete_tells })
}
