//! What every store must do: one suite, run on the store in memory, on a directory and on real S3.
//!
//! Run it on an empty place; it leaves that place empty again.

use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{ByteRange, ObjectStore, Put, list_all};
use crate::error::{Error, ErrorKind, Result};

/// Objects for the test of pages: more than one page of S3.
const MANY: usize = 1003;
/// Callers that fight for one name.
const RIVALS: usize = 16;
/// A pack of the engine's size.
const PACK_BYTES: usize = 32 << 20;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(Error::new(ErrorKind::Internal, format!($($message)+)));
        }
    };
}

/// Runs the whole suite; the error says what the store gets wrong.
pub async fn run(store: &Arc<dyn ObjectStore>) -> Result<()> {
    let part = |name: &'static str| move |err: Error| err.context(format!("conformance, {name}"));
    create_if_absent(&**store).await.map_err(part("create if absent"))?;
    one_rival_wins(store).await.map_err(part("rivals"))?;
    ranges(&**store).await.map_err(part("ranges"))?;
    whole_pack(&**store).await.map_err(part("a whole pack"))?;
    absence(&**store).await.map_err(part("absence"))?;
    names(&**store).await.map_err(part("names"))?;
    prefixes(&**store).await.map_err(part("prefixes"))?;
    pages(store).await.map_err(part("pages"))?;
    let left = list_all(&**store, "").await?;
    ensure!(left.is_empty(), "{} objects are left over, the first is {}", left.len(), left[0].name);
    store.flush().await
}

async fn create_if_absent(store: &dyn ObjectStore) -> Result<()> {
    for name in ["packs/aa/one", "snapshots/one", "format"] {
        ensure!(store.put_if_absent(name, "first".into()).await? == Put::Created, "{name} is not created");
        ensure!(store.put_if_absent(name, "second".into()).await? == Put::Exists, "{name} is created twice");
        ensure!(store.get(name, ByteRange::All).await? == "first", "{name} was replaced");
        store.flush().await?;
        ensure!(store.delete(name).await?, "{name} cannot be deleted");
        ensure!(store.put_if_absent(name, "third".into()).await? == Put::Created, "{name} is not free again");
        ensure!(store.get(name, ByteRange::All).await? == "third", "{name} has an old content");
        store.delete(name).await?;
    }
    ensure!(store.put_if_absent("empty", Bytes::new()).await? == Put::Created, "no empty object");
    ensure!(store.get("empty", ByteRange::All).await?.is_empty(), "the empty object is not empty");
    ensure!(store.get("empty", ByteRange::Last(9)).await?.is_empty(), "the empty object has an end");
    store.delete("empty").await?;
    Ok(())
}

async fn one_rival_wins(store: &Arc<dyn ObjectStore>) -> Result<()> {
    let mut rivals = tokio::task::JoinSet::new();
    for rival in 0..RIVALS {
        let store = store.clone();
        rivals.spawn(async move {
            loop {
                match store.put_if_absent("snapshots/rivals", format!("rival {rival}").into()).await {
                    Ok(put) => return Ok((rival, put)),
                    // S3 may answer "conflict, try again" to simultaneous conditional puts.
                    Err(err) if err.kind() == ErrorKind::Unavailable => {}
                    Err(err) => return Err(err),
                }
            }
        });
    }
    let mut winners = Vec::new();
    while let Some(done) = rivals.join_next().await {
        let (rival, put) =
            done.map_err(|err| Error::internal("a rival did not finish").with_source(err))??;
        if put == Put::Created {
            winners.push(rival);
        }
    }
    ensure!(winners.len() == 1, "{} of {RIVALS} callers created the same object", winners.len());
    let body = store.get("snapshots/rivals", ByteRange::All).await?;
    ensure!(body == format!("rival {}", winners[0]), "the winner's content is not what is stored");
    store.delete("snapshots/rivals").await?;
    Ok(())
}

async fn ranges(store: &dyn ObjectStore) -> Result<()> {
    let name = "packs/bb/ranges";
    store.put_if_absent(name, "0123456789".into()).await?;
    for (offset, length, wanted) in
        [(0, 10, "0123456789"), (0, 1, "0"), (9, 1, "9"), (3, 4, "3456"), (5, 0, ""), (10, 0, "")]
    {
        let got = store.get(name, ByteRange::Slice { offset, length }).await?;
        ensure!(got == wanted, "{length} bytes at {offset} are {got:?}");
    }
    for (length, wanted) in
        [(0, ""), (3, "789"), (10, "0123456789"), (11, "0123456789"), (1 << 40, "0123456789")]
    {
        let got = store.get(name, ByteRange::Last(length)).await?;
        ensure!(got == wanted, "the last {length} bytes are {got:?}");
    }
    for (offset, length) in [(0, 11), (9, 2), (10, 1), (11, 0), (11, 1), (u64::MAX, 1), (1, u64::MAX)] {
        match store.get(name, ByteRange::Slice { offset, length }).await {
            Ok(got) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("{length} bytes at {offset} of 10 are {got:?}"),
                ));
            }
            Err(err) => {
                ensure!(err.kind() == ErrorKind::Corrupt, "past the end is {:?}: {err}", err.kind());
                ensure!(err.to_string().contains(name), "the error does not name the object: {err}");
            }
        }
    }
    store.delete(name).await?;
    Ok(())
}

async fn whole_pack(store: &dyn ObjectStore) -> Result<()> {
    let name = "packs/cc/large";
    let body: Vec<u8> =
        (0u32..).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(PACK_BYTES).collect();
    let body = Bytes::from(body);
    ensure!(store.put_if_absent(name, body.clone()).await? == Put::Created, "the pack is not created");
    store.flush().await?;
    ensure!(store.get(name, ByteRange::All).await? == body, "the pack reads back differently");
    let (offset, length) = (PACK_BYTES / 2 - 5, 1 << 20);
    let part = store.get(name, ByteRange::Slice { offset: offset as u64, length: length as u64 }).await?;
    ensure!(part == body.slice(offset..offset + length), "a part of the pack reads back differently");
    store.delete(name).await?;
    Ok(())
}

async fn absence(store: &dyn ObjectStore) -> Result<()> {
    for name in ["sessions/none", "packs/ff/none", "none"] {
        for range in [
            ByteRange::All,
            ByteRange::Last(4),
            ByteRange::Last(0),
            ByteRange::Slice { offset: 3, length: 4 },
            ByteRange::Slice { offset: 0, length: 0 },
        ] {
            match store.get(name, range).await {
                Ok(_) => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        format!("{name} has a {range:?} without ever being put"),
                    ));
                }
                Err(err) => {
                    ensure!(err.kind() == ErrorKind::NotFound, "{name} {range:?}: {:?}: {err}", err.kind())
                }
            }
        }
        store.delete(name).await?;
        store.delete(name).await?;
    }
    Ok(())
}

async fn names(store: &dyn ObjectStore) -> Result<()> {
    for name in ["", "../escape", "/absolute", "a//b", "Upper", "with space", "a/./b"] {
        for err in [
            store.put_if_absent(name, "x".into()).await.err(),
            store.get(name, ByteRange::All).await.err(),
            store.delete(name).await.err(),
        ] {
            ensure!(err.is_some_and(|err| err.kind() == ErrorKind::Invalid), "the name {name:?} is taken");
        }
    }
    Ok(())
}

async fn prefixes(store: &dyn ObjectStore) -> Result<()> {
    // '.' and '-' sort before '/': a folder does not come where its bare name would.
    let names = ["a-b/x", "a.b", "a/b/c", "a/b-c", "a/b/d", "ab", "b/a", "b/ab"];
    for name in names {
        store.put_if_absent(name, name.into()).await?;
    }
    for prefix in ["", "a", "a/", "a/b", "a/b/", "a/b/c", "b", "b/a", "c", "a/b/c/"] {
        let mut wanted: Vec<&str> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        wanted.sort_unstable();
        let listed = list_all(store, prefix).await?;
        let got: Vec<&str> = listed.iter().map(|object| object.name.as_str()).collect();
        ensure!(got == wanted, "the prefix {prefix:?} lists {got:?}");
        ensure!(listed.iter().all(|object| object.size == object.name.len() as u64), "a size is wrong");
        let is_of_today =
            |time: Timestamp| time.duration_since(Timestamp::now()).abs() < SignedDuration::from_hours(24);
        ensure!(
            listed.iter().all(|object| object.modified.is_some_and(is_of_today)),
            "an object does not say when it was taken: {listed:?}"
        );
    }
    for name in names {
        store.delete(name).await?;
    }
    Ok(())
}

async fn pages(store: &Arc<dyn ObjectStore>) -> Result<()> {
    let name = |number: usize| format!("index/{number:05}");
    let mut tasks = tokio::task::JoinSet::new();
    for start in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (start..MANY).step_by(8) {
                store.put_if_absent(&name(number), "x".into()).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|err| Error::internal("a writer did not finish").with_source(err))??;
    }
    let listed = list_all(&**store, "index/").await?;
    let wanted = (0..MANY).map(name);
    ensure!(
        listed.iter().map(|object| object.name.clone()).eq(wanted),
        "{} of {MANY} are listed",
        listed.len()
    );
    for number in 0..MANY {
        store.delete(&name(number)).await?;
    }
    Ok(())
}
