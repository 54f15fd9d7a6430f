//! What may be left when everybody has gone: what somebody needs, and a few hints.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use carrack_mover::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        pack::parse_pack_object,
        records::{self, Moved, RecordKind},
        session::{SessionName, SessionObject},
    },
    id::PackId,
    limits,
    repo::Repository,
    store::{ByteRange, mem::MemStore},
};

use super::{
    model::{Model, Place, open},
    names,
};

/// Hints that may stay: a prune merges them where there are more, because each costs every writer a request.
const SEGMENTS_LEFT: usize = 8;
/// Moves of one frame that are followed, one after the other.
const CHAIN_LIMIT: usize = 1000;

/// What is there and nobody needs.
pub(super) async fn left_over(store: &Arc<MemStore>, model: &Model) -> Option<String> {
    let all = names(store, "").await;
    let needed = model.needed();
    let (moves, moved_to) = match needed_moves(store, model, &all).await {
        Ok(needed) => needed,
        Err(error) => return Some(format!("what was moved cannot be read: {}", error.in_one_line())),
    };
    // The owner has one secret at a time, and a prune drops the keys that a rotation left.
    let keys: Vec<&String> = all.iter().filter(|name| name.starts_with("keys/")).collect();
    if keys.len() != 1 {
        return Some(format!("one secret opens the repository, and its keys are {keys:?}"));
    }
    let pack_of = |name: &String| parse_pack_object(name).map(|(pack, _)| pack);
    let needed_packs: BTreeSet<_> = needed.iter().filter_map(pack_of).chain(moved_to).collect();
    let mut segments = 0;
    for name in &all {
        let is_needed = match name.split('/').next().unwrap_or_default() {
            "format" | "keys" => true,
            "packs" => pack_of(name).is_some_and(|pack| needed_packs.contains(&pack)),
            "sessions" | "snapshots" => {
                let session = name.split('/').nth(1).unwrap_or_default();
                match session.starts_with('r') {
                    true => moves.contains(session),
                    false => needed.contains(&format!("snapshots/{session}")),
                }
            }
            "marks" => needed.iter().any(|object| {
                let session = object.strip_prefix("snapshots/");
                session.is_some_and(|session| name.starts_with(&format!("marks/{session}.")))
            }),
            "index" if name.starts_with("index/s-") => {
                segments += 1;
                segments <= SEGMENTS_LEFT
            }
            _ => false,
        };
        if !is_needed {
            return Some(format!("{name} is left, and nobody needs it"));
        }
    }
    None
}

/// Repacks by whose moves frames are found that visible snapshots name, and the packs that those frames are in now (R3). A
/// reader need have looked at neither: an old pack may still be there for a frame that was not moved.
async fn needed_moves(
    store: &Arc<MemStore>,
    model: &Model,
    all: &BTreeSet<String>,
) -> Result<(BTreeSet<String>, BTreeSet<PackId>)> {
    let repository = open(&(Arc::clone(store) as _), &model.secrets()).await?;
    let mut moves: BTreeMap<(PackId, u32), (&str, Moved)> = BTreeMap::new();
    for name in all {
        let Some(session) = name.strip_prefix("snapshots/").filter(|name| name.starts_with('r')) else {
            continue;
        };
        for moved in moved_by(&repository, session).await? {
            // R2: the session with the lowest name counts, and names come in order.
            moves.entry((moved.old_pack, moved.old_offset)).or_insert((session, moved));
        }
    }
    let places = model.places();
    let is_named = |(pack, offset): (PackId, u32)| {
        let offset = u64::from(offset);
        let holds = |place: &Place| place.0 == pack && (place.1..place.2).contains(&offset);
        places.iter().any(holds)
    };
    let (mut repacks, mut packs) = (BTreeSet::new(), BTreeSet::new());
    for from in moves.keys().filter(|from| is_named(**from)) {
        let mut at = *from;
        for _ in 0..CHAIN_LIMIT {
            let Some((session, moved)) = moves.get(&at) else { break };
            repacks.insert((*session).to_owned());
            at = (moved.new_pack, moved.new_offset);
        }
        packs.insert(at.0);
    }
    Ok((repacks, packs))
}

/// What a repack moved; nothing if it was shut out, or its session has gone.
async fn moved_by(repository: &Repository, session: &str) -> Result<Vec<Moved>> {
    let (store, end) = (repository.store(), format!("snapshots/{session}"));
    let bytes = store.get(&end, ByteRange::All).await?;
    let (RecordKind::Relocation, body) = records::decode_record(&end, &bytes)? else { return Ok(Vec::new()) };
    let object = format!("sessions/{session}");
    let bytes = match store.get(&object, ByteRange::All).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let json = records::decode_kind(&object, &bytes, RecordKind::Session)?;
    let key = records::from_json::<SessionObject>(&object, json)?.key;
    let name: SessionName = session.parse().map_err(|_| Error::internal("a session without a name"))?;
    let index = repository.keys().session_index_key(key.generation, name)?;
    let (_, sealed) = records::split_signature(&end, body)?;
    let cipher = Cipher::new(key.suite, &index);
    let plain = codec::open_object(&cipher, Domain::Record, name, sealed, limits::RECORD_LIMIT)?;
    records::from_json(&end, &plain)
}
