use super::*;

fn id(number: u32) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

#[test]
fn the_first_claim_wins() {
    let known = KnownChunks::new(1 << 20);
    let (mine, yours) = (Frame::pending(), Frame::pending());
    assert!(known.get_or_claim(&id(1), &mine, 10, 20).is_none());
    let found = known.get_or_claim(&id(1), &yours, 0, 20).unwrap();
    assert!(found.frame.is_same(&mine) && found.offset == 10 && found.length == 20);
}

#[test]
fn it_never_holds_more_than_its_limit_and_keeps_what_is_used() {
    let known = KnownChunks::new(1 << 20);
    for number in 0..100_000 {
        known.get_or_claim(&id(number), &Frame::pending(), number, 1);
        assert!(known.get(&id(0)).is_some(), "in use all the time: {number}");
    }
    let held: usize = known
        .shards
        .iter()
        .map(|shard| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        })
        .sum();
    assert!(held * ENTRY_BYTES <= 1 << 20, "{held}");
    assert!(known.get(&id(99_999)).is_some());
    assert!(known.get(&id(5)).is_none());
}

#[test]
fn a_generation_is_full_at_its_limit() {
    let (mut shard, place) = (Shard::default(), Place { frame: Frame::pending(), offset: 0, length: 1 });
    for (key, expected) in [(1, (1, 0)), (2, (2, 0)), (3, (3, 0)), (4, (1, 3)), (5, (2, 3))] {
        shard.insert(key, place.clone(), 3);
        assert_eq!((shard.young.len(), shard.old.len()), expected, "{key}");
    }
    assert_eq!(KnownChunks::new(ENTRY_BYTES * 2 * SHARDS * 100).young_limit, 100);
    assert_eq!(KnownChunks::new(0).young_limit, 64);
}
