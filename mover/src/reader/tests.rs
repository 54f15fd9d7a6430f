use std::sync::atomic::Ordering;

use super::{
    testing::{Packs, Writer, entry, noise},
    *,
};
use crate::{
    format::{
        entry::{Content, Run},
        frame::{Compression, Frame},
        metadata::Kind,
        session::SessionKind,
    },
    id::{LineageId, SessionNonce},
};

fn page(pack: u8, offset: u64, stored: u32) -> ChunkRef {
    let session =
        SessionName { kind: SessionKind::Backup, lineage: LineageId([1; 8]), nonce: SessionNonce([2; 16]) };
    let place = FramePlace {
        session,
        pack: PackId([pack; 16]),
        offset: u32::try_from(offset).unwrap(),
        stored,
        plain: 1000,
        compression: Compression::Stored,
        counter: 0,
        id: ChunkId([0; 32]),
    };
    ChunkRef { id: ChunkId([0; 32]), offset: 0, length: 1000, frame: Frame::settled(place) }
}

#[test]
fn pages_are_fetched_together_while_little_lies_between_them() {
    let near = 1000 + 500 + PAGE_GAP_BYTES;
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, 1500, 500), page(1, 2000, 9)]).unwrap(), 3);
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, near, 500)]).unwrap(), 2);
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, near + 1, 500)]).unwrap(), 1);
    // In another pack, or before the end of the one before.
    assert_eq!(adjacent(&[page(1, 1000, 500), page(2, 1500, 500)]).unwrap(), 1);
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, 1499, 500)]).unwrap(), 1);
    // One request has a bound, which its first page may pass.
    let long = u32::try_from(PAGE_RUN_BYTES).unwrap();
    assert_eq!(adjacent(&[page(1, 1000, long - 500), page(1, u64::from(long) + 500, 500)]).unwrap(), 2);
    assert_eq!(adjacent(&[page(1, 1000, long - 500), page(1, u64::from(long) + 500, 501)]).unwrap(), 1);
    assert_eq!(adjacent(&[page(1, 1000, long + 500)]).unwrap(), 1);
}

/// Some files of one frame, and what is in them.
fn files() -> (Arc<Packs>, Snapshot, Vec<Vec<u8>>) {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let files: Vec<Vec<u8>> = (0..5).map(|seed| noise(seed, 5000)).collect();
    let pieces: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let chunks = writer.frame(FrameKind::Data, &pieces, Compression::Zstd);
    let entries = chunks.into_iter().enumerate().map(|(index, chunk)| {
        entry(&format!("file{index}"), Kind::File, Content::Inline(vec![Run::Chunk(chunk)]), 5000)
    });
    let reader = writer.finish(entries.collect(), 2);
    (packs, reader.snapshot().clone(), files)
}

/// Walks the tree, looks each file up again, and reads it; a new reader remembers nothing.
async fn read_all(packs: &Arc<Packs>, snapshot: &Snapshot) -> Result<Vec<Bytes>> {
    let reader = SnapshotReader::with_access(Arc::clone(packs) as _, snapshot.clone());
    let (mut contents, mut walk) = (Vec::new(), reader.entries(walk::Part::all())?);
    while let Some(leaf) = walk.next_leaf().await? {
        for entry in leaf {
            let found = reader.find(&entry.path).await?;
            let Content::Inline(runs) = found.content else { panic!("inline") };
            let Run::Chunk(chunk) = &runs[0] else { panic!("a chunk") };
            let place = *chunk.frame.place().expect("it is stored");
            let frame = reader.open_data_frame(&place).await?;
            contents.push(reader.chunk(chunk).await?);
            assert_eq!(reader.cut_out(&frame, &place, chunk)?, contents[contents.len() - 1]);
        }
    }
    Ok(contents)
}

/// Puts garbage in the place of a sending; gives what was there.
fn spoil(bytes: &mut Bytes) -> Bytes {
    let garbage = Bytes::from(vec![0; bytes.len()]);
    std::mem::replace(bytes, garbage)
}

#[tokio::test]
async fn a_spoiled_sending_is_passed_over_for_a_whole_one() {
    let (packs, snapshot, files) = files();
    let read = || packs.reads.swap(0, Ordering::Relaxed);
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
    let usual = read();
    let pack = *packs.packs.lock().unwrap().keys().next().unwrap();
    let whole = spoil(packs.packs.lock().unwrap().get_mut(&pack).unwrap());
    // Garbage under every name but the last.
    let last = limits::PACK_ATTEMPTS - 1;
    for attempt in 1..last {
        packs.sent_again.lock().unwrap().insert((pack, attempt), vec![1; whole.len()].into());
    }
    packs.sent_again.lock().unwrap().insert((pack, last), whole.clone());
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
    assert!(read() > usual);

    // The root is the first thing that is read. Its first sending was found to be spoiled, and each is looked at once.
    packs.sent_again.lock().unwrap().remove(&(pack, last));
    let error = read_all(&packs, &snapshot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&pack.to_hex()), "{error}");
    assert_eq!(read(), 1 + u64::from(limits::PACK_ATTEMPTS));

    // Whoever finds the first sending whole asks for no other.
    packs.packs.lock().unwrap().insert(pack, whole);
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
    assert_eq!(read(), usual);
}

#[tokio::test]
async fn a_spoiled_sending_of_where_a_frame_was_moved_is_passed_over_too() {
    let (packs, snapshot, files) = files();
    let fresh = PackId([3; 16]);
    {
        let mut all = packs.packs.lock().unwrap();
        let (pack, mut body) = all.drain().next().unwrap();
        let mut moved = packs.moved.lock().unwrap();
        moved.extend((0..body.len() as u32).map(|offset| ((pack, offset), (fresh, offset))));
        packs.sent_again.lock().unwrap().insert((fresh, 1), spoil(&mut body));
        all.insert(fresh, body);
    }
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_no_damage() {
    let (packs, snapshot, files) = files();
    let pack = *packs.packs.lock().unwrap().keys().next().unwrap();
    let doubts = [None, Some(ErrorKind::Corrupt), Some(ErrorKind::Denied), Some(ErrorKind::Invalid)];
    for garbage in [1, 1 << 20] {
        let whole = packs.packs.lock().unwrap().insert(pack, vec![0; garbage].into()).unwrap();
        for (doubt, expected) in doubts
            .map(|doubt| (doubt, ErrorKind::Corrupt))
            .into_iter()
            .chain([(Some(ErrorKind::Unavailable), ErrorKind::Unavailable)])
        {
            *packs.doubt.lock().unwrap() = doubt;
            let error = read_all(&packs, &snapshot).await.unwrap_err();
            assert_eq!(error.kind(), expected, "{garbage} {doubt:?}: {error}");
            // What is in doubt says less than what was found.
            assert_eq!(error.to_string().contains("nobody knows"), expected != ErrorKind::Corrupt, "{error}");
        }
        *packs.doubt.lock().unwrap() = None;
        packs.packs.lock().unwrap().insert(pack, whole);
    }
    for attempt in [0, 1] {
        let mut whole = packs.packs.lock().unwrap()[&pack].clone();
        packs.silent.lock().unwrap().insert((pack, attempt));
        if attempt == 1 {
            spoil(packs.packs.lock().unwrap().get_mut(&pack).unwrap());
        }
        // Others that are whole may not be as old.
        packs.sent_again.lock().unwrap().insert((pack, 2), whole.clone());
        let error = read_all(&packs, &snapshot).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{attempt}: {error}");
        packs.silent.lock().unwrap().clear();
        std::mem::swap(packs.packs.lock().unwrap().get_mut(&pack).unwrap(), &mut whole);
    }
    packs.sent_again.lock().unwrap().clear();
    // Not even once.
    packs.silent_once.store(true, Ordering::Relaxed);
    assert_eq!(read_all(&packs, &snapshot).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
}

/// Where a pack went that is not whole where it was: whoever does not answer there, or has nothing there, changes what is said.
#[tokio::test]
async fn what_was_moved_to_where_nobody_answers_is_not_damaged() {
    let fresh = PackId([3; 16]);
    // Nothing, too little, and garbage where it was.
    for left in [None, Some(1), Some(1 << 20)] {
        let (packs, snapshot, files) = files();
        let pack = *packs.packs.lock().unwrap().keys().next().unwrap();
        let moved: Vec<_> = move_pack(&packs, fresh).collect();
        packs.moved.lock().unwrap().extend(moved);
        if let Some(length) = left {
            packs.packs.lock().unwrap().insert(pack, vec![0; length].into());
        }
        assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
        packs.silent.lock().unwrap().insert((fresh, 0));
        let error = read_all(&packs, &snapshot).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{left:?}: {error}");
        packs.silent.lock().unwrap().clear();
        packs.packs.lock().unwrap().remove(&fresh);
        let error = read_all(&packs, &snapshot).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{left:?}: {error}");
        assert!(error.to_string().contains(&pack.to_hex()), "{error}");
        // Who does not answer where it was may have it there.
        packs.silent.lock().unwrap().insert((pack, 0));
        let error = read_all(&packs, &snapshot).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{left:?}: {error}");
    }
}

/// A prune deletes what it has moved, and then somebody may take the name.
#[tokio::test]
async fn what_lies_under_the_name_of_a_pack_that_was_moved_hides_nothing() {
    for garbage in [vec![0; 1], vec![0; 1 << 20]] {
        let (packs, snapshot, files) = files();
        let fresh = PackId([3; 16]);
        {
            let mut all = packs.packs.lock().unwrap();
            let (pack, body) = all.drain().next().unwrap();
            let mut moved = packs.moved.lock().unwrap();
            moved.extend((0..body.len() as u32).map(|offset| ((pack, offset), (fresh, offset))));
            all.extend([(fresh, body), (pack, garbage.into())]);
        }
        assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
    }
}

/// Moves all there is of a pack; gives the table that says so, for those who look.
fn move_pack(packs: &Packs, to: PackId) -> impl Iterator<Item = ((PackId, u32), (PackId, u32))> + use<> {
    let mut all = packs.packs.lock().unwrap();
    let (pack, body) = all.drain().next().unwrap();
    let length = body.len() as u32;
    all.insert(to, body);
    (0..length).map(move |offset| ((pack, offset), (to, offset)))
}

#[tokio::test]
async fn what_is_moved_while_it_is_read_is_looked_for_once_more() {
    let (packs, snapshot, files) = files();
    // The first place is not right any more either.
    let (gone, fresh) = (PackId([2; 16]), PackId([3; 16]));
    let moved: Vec<_> = move_pack(&packs, fresh).collect();
    let before = moved.iter().map(|(old, (_, offset))| (*old, (gone, *offset)));
    packs.moved.lock().unwrap().extend(before);
    packs.moved_meanwhile.lock().unwrap().extend(moved);
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);
    packs.moved.lock().unwrap().clear();
    assert_eq!(read_all(&packs, &snapshot).await.unwrap(), files);

    packs.forgotten.store(true, Ordering::Relaxed);
    let error = read_all(&packs, &snapshot).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.hint()),
        (ErrorKind::NotFound, Some("choose another snapshot")),
        "{error}"
    );
    packs.forgotten.store(false, Ordering::Relaxed);
    packs.moved_meanwhile.lock().unwrap().clear();
    let error = read_all(&packs, &snapshot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("nothing says where its frame"), "{error}");
}

#[test]
fn what_is_longer_than_any_frame_is_not_read() {
    let longest = limits::FRAME_LIMIT.max(limits::PAGE_LIMIT) as u32;
    let of = |plain, stored| {
        let place = FramePlace { plain, ..*page(1, 0, stored).frame.place().unwrap() };
        ChunkRef { frame: Frame::settled(place), ..page(1, 0, stored) }
    };
    for (plain, stored, fits) in [
        (longest, longest + 4096, true),
        (longest + 1, 10, false),
        (10, longest + 4097, false),
        (longest + 1, longest + 4097, false),
    ] {
        assert_eq!(place_of(&of(plain, stored)).is_ok(), fits, "{plain} {stored}");
    }
    assert_eq!(
        place_of(&ChunkRef { frame: Frame::pending(), ..of(1, 1) }).unwrap_err().kind(),
        ErrorKind::Internal
    );
}

#[test]
fn a_chunk_lies_in_its_frame() {
    assert_eq!(piece(b"0123456789", 4, 6).unwrap(), b"456789");
    assert_eq!(piece(b"0123456789", 10, 0).unwrap(), b"");
    for (offset, length) in [(4, 7), (11, 0), (u32::MAX, 1)] {
        assert_eq!(piece(b"0123456789", offset, length).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
