//! What leads from one place to the next, and at last to where it began.

use carrack_mover::{
    format::{
        entry::{Content, Run},
        frame::FrameKind,
        records::Moved,
    },
    id::PackId,
    repo::Relocations,
};
use carrack_tests::hostile::{Forger, with_contents};

use crate::scene;

/// Rows of a repack that lead from each of these places to the next one, and from the last to the first.
fn circle(pack: PackId, offset: u32, length: u32) -> Vec<Moved> {
    let place = |number: u32| offset + number % length;
    let row = |number| Moved {
        old_pack: pack,
        old_offset: place(number),
        new_pack: pack,
        new_offset: place(number + 1),
    };
    (0..length).map(row).collect()
}

#[test]
fn a_way_in_a_circle_has_an_end() {
    let session = "r0000000000000000-000102030405060708090a0b0c0d0e0f".parse().expect("a session");
    let pack = PackId([7; 16]);
    for length in 1..5 {
        let mut relocations = Relocations::default();
        relocations.add(session, &circle(pack, 10, length));
        let (at, offset) = relocations.lookup(pack, 10).expect("it was moved");
        assert!(at == pack && (10..10 + length).contains(&offset), "{length}: {offset}");
        assert_eq!(relocations.lookup(pack, 10 + length), None);
    }
    // A way that is long and has an end is gone to its end.
    let mut relocations = Relocations::default();
    relocations.add(session, &circle(pack, 10, 900)[..899]);
    assert_eq!(relocations.lookup(pack, 10), Some((pack, 909)));
}

#[test]
fn relocations_in_a_circle_hold_nobody_up() {
    for length in [2, 3, 50_000] {
        let scene = scene();
        let mut place = None;
        scene.forge(async |mut forger: Forger| {
            let chunk = forger.chunk(FrameKind::Data, b"moved in a circle")?;
            place = chunk.frame.place().copied();
            let file = with_contents(b"x", Content::Inline(vec![Run::Chunk(chunk)]), 17);
            forger.commit_entries(vec![file]).await
        });
        let place = place.expect("it was written");
        scene.relocate(&circle(place.pack, place.offset, length));
        // Where the circle is left, the frame is there or it is not.
        scene.everything(&[0, 3, 14]);
        for arguments in [&["prune", "--wait", "0"][..], &["check", "--read-data"], &["snapshots"]] {
            let outcome = scene.run(arguments);
            assert!(matches!(outcome.code, Some(0 | 3 | 14)), "{arguments:?} {length}: {outcome:?}");
        }
    }
}

/// A snapshot that is its own parent, and two that are each other's.
#[test]
fn parents_in_a_circle_hold_nobody_up() {
    let scene = scene();
    scene.forge(async |mut forger: Forger| {
        let mut other = scene.forger().await?;
        let mut own = scene.forger().await?;
        let parents = [other.name(), forger.name(), own.name()];
        let mut roots = Vec::new();
        for forger in [&mut forger, &mut other, &mut own] {
            let file = forger.file(b"x", b"hostile")?;
            roots.push(forger.leaf(&[file])?.page);
        }
        for ((forger, root), parent) in [forger, other, own].into_iter().zip(roots).zip(parents) {
            forger.commit_after(Some(parent), &root, 1).await?;
        }
        Ok(())
    });
    scene.everything(&[0]);
    for arguments in [
        &["forget", "--keep-last", "1"][..],
        &["prune", "--wait", "0"],
        &["check", "--read-data"],
        &["snapshots"],
    ] {
        let outcome = scene.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
    }
}
