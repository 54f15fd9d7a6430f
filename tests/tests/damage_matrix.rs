//! Every kind of object of a repository, every harm that can be done to it, and every verb afterwards.
//!
//! What must hold: nothing panics; what is damaged is named; everything that does not need the harmed bytes restores byte
//! for byte, by a map of what needs what that was made before; backups commit whatever is harmed, and none commits in
//! silence what does not restore; copies too, but where names cannot be read or somebody else may hold the key; no prune
//! takes damage for a permission to delete.
//!
//! `CARRACK_DAMAGE=TreePack` runs the cells with this in their name. How many there are depends on names, which are drawn.

use std::sync::Arc;

use carrack_tests::damage::{
    harm::{
        Cell,
        Harm::{Cut, Doubled, Empty, Flipped, Halved, Missing, Replayed, Swapped},
        KINDS,
        Kind::{
            Abandoned, Checkpoint, Condemned, Damaged, DataPack, Fence, Final, FirstSending, Forgotten,
            Format, ImagePack, ImageTreePack, Joined, Key, Mark, OtherKey, Relocations, RepackSession,
            SecondSending, Segment, Session, Snapshot, Tombstone, TreePack,
        },
        cells,
    },
    scene::Scene,
    verbs::{Expected, Opens, Pruned, Seen, judge},
};
use tokio::task::JoinSet;

/// Cells that are worked on at once.
const AT_ONCE: usize = 3;

/// Whom the repository still opens for. A copy of a key under another name opens nothing, and takes nothing away.
fn opens(cell: &Cell) -> Opens {
    match (cell.kind, cell.harm) {
        (Format, _) | (Key, Swapped) => Opens::ForNobody,
        (Key, Doubled) => Opens::ForAll,
        (Key, _) => Opens::ForOthers,
        _ => Opens::ForAll,
    }
}

/// The least that must see the harm.
fn seen(cell: &Cell) -> Seen {
    match (cell.kind, cell.harm) {
        (Key | OtherKey, Missing | Replayed) => Seen::Never(
            "nothing says how many keys there are: one that is gone was removed, one more was added",
        ),
        (Session | RepackSession, Flipped("started")) => {
            Seen::Never("it is for people, and bare: whoever can write could write any other time")
        }
        (Session | RepackSession, Flipped("sealed_data_key")) => {
            Seen::Never("who reads takes the key from the record and the footers, which are sealed")
        }
        (RepackSession, Flipped("signing_public")) => {
            Seen::Never("relocations are signed with the maintenance key, and not with that of their session")
        }
        (Session | RepackSession | Snapshot | Relocations | Fence | Tombstone | Abandoned, Doubled) => {
            Seen::Never("it names another session, and so is nobody's: a prune takes it away")
        }
        (Fence | Abandoned, Missing | Replayed) => {
            Seen::Never("its session looks as if it were at work: a prune shuts it out")
        }
        // Where it was, there is the end again whose session is gone.
        (Tombstone, Replayed) => Seen::Structure,
        (Tombstone, _) => Seen::Never(
            "without a session an end counts only if it opens, and this one is of none that was lost",
        ),
        (FirstSending | SecondSending, Missing | Replayed) => {
            Seen::Never("all sendings of a pack have equal bytes: one is enough")
        }
        (SecondSending, Flipped("frame" | "second frame")) => {
            Seen::Never("of a sending after one that is whole only the footer is read")
        }
        (FirstSending, Flipped("frame" | "second frame")) => Seen::Data,
        (FirstSending | SecondSending, _) => Seen::Sizes,
        // Of so small a pack the pages may be in the half that stays, and the footer in the other.
        (ImageTreePack, Halved) => Seen::Sizes,
        (DataPack | TreePack | ImagePack | ImageTreePack, Missing | Empty | Halved | Cut("second frame")) => {
            Seen::Structure
        }
        (DataPack | ImagePack, Flipped("frame" | "second frame") | Swapped) => Seen::Data,
        (TreePack | ImageTreePack, Flipped("frame" | "second frame") | Swapped) => Seen::Structure,
        (DataPack | TreePack, Flipped("trailer zero")) => {
            Seen::Never("the format has readers ignore these bytes, which may mean something one day")
        }
        (DataPack | TreePack | ImagePack | ImageTreePack, Cut(_) | Flipped(_) | Doubled | Replayed) => {
            Seen::Sizes
        }
        (Segment | Joined | Checkpoint, Missing | Replayed) => {
            Seen::Never("hints come and go: without one, work is done again")
        }
        (Segment | Joined, Doubled | Swapped) => {
            Seen::Never("what it says is in it, and not in its name: twice or elsewhere it says the same")
        }
        (Checkpoint, Swapped) => Seen::Never("both are of one session, whose name is in both of their names"),
        (Segment | Joined | Checkpoint, Flipped("sealed data key")) => {
            Seen::Never("a hint is opened with keys of everybody's: its session's own key is not in use")
        }
        (Segment | Joined | Checkpoint, _) => Seen::Sizes,
        (Forgotten, Missing | Replayed) => {
            Seen::Never("without its marker a snapshot is in view again, which is no damage")
        }
        (Mark, Missing | Replayed) => Seen::Never("what is not marked is checked again"),
        (Condemned | Final, Missing | Replayed) => {
            Seen::Never("lists come and go with every prune, which does again what was not done")
        }
        (Damaged, Missing | Replayed) => Seen::Never("the next check notes again what it finds"),
        _ => Seen::Structure,
    }
}

/// What a prune says of it.
fn pruned(cell: &Cell) -> Pruned {
    match (cell.kind, cell.harm) {
        // In view again, it is in the way of a list that would delete what it needs.
        (Forgotten, Missing | Replayed) => Pruned::Named,
        (Session | RepackSession | Snapshot | Relocations | Fence | Tombstone | Abandoned, Doubled) => {
            Pruned::Removed("no session has this one and the other half that makes something visible")
        }
        (Tombstone, harm) if !matches!(harm, Missing | Replayed) => {
            Pruned::Removed("no session has it, and nothing opens it")
        }
        (FirstSending | SecondSending, _) => {
            Pruned::Unseen("of data it opens what it moves: this pack is needed whole, and stays")
        }
        (DataPack | TreePack, Doubled) => Pruned::Removed("no snapshot needs a pack of this name"),
        (DataPack | ImagePack, Missing | Replayed) => Pruned::Named,
        (DataPack, Swapped) => Pruned::Perhaps("it opens what it moves, and which two these are is drawn"),
        (DataPack | ImagePack, _) => {
            Pruned::Unseen("of data it opens what it moves: these packs are needed whole, and stay")
        }
        (TreePack | ImageTreePack, Cut(part) | Flipped(part)) if !part.ends_with("frame") => {
            Pruned::Unseen("trees say where their pages are: it opens footers only of what it moves")
        }
        (ImageTreePack, Halved) => Pruned::Perhaps("it opens pages, and which half they are in is drawn"),
        (Segment | Joined | Checkpoint, _) => Pruned::Unseen("a hint that does not open is passed over"),
        _ if matches!(seen(cell), Seen::Never(_)) => Pruned::Unseen("nothing has to see it"),
        _ => Pruned::Named,
    }
}

/// Where a copy may be denied to a snapshot that needs what was harmed. Backups never are, whatever is harmed.
fn denied(cell: &Cell) -> Option<&'static str> {
    match (cell.kind, cell.harm) {
        (RepackSession, Flipped("generation")) | (Relocations, Halved | Cut(_) | Flipped(_)) => {
            Some("it may be signed with a newer key: a copy without these files would stand for all of them")
        }
        _ => None,
    }
}

/// What is right and cannot name the object that was harmed.
fn instead(cell: &Cell) -> Option<&'static str> {
    match (cell.kind, cell.harm) {
        // There is no name left that could be told.
        (Key, Missing) => Some("the secret does not open the repository"),
        // Nothing tells of relocations that are gone but the pack that is missing without them.
        (Relocations, Missing | Replayed) => Some("is missing, and snapshots need it"),
        // Nothing tells of a marker that is gone but the list that would delete what is needed again.
        (Forgotten, Missing | Replayed) => Some("would delete pack"),
        _ => None,
    }
}

fn expected(cell: &Cell) -> Expected {
    Expected {
        opens: opens(cell),
        seen: seen(cell),
        pruned: pruned(cell),
        denied: denied(cell),
        instead: instead(cell),
    }
}

/// A map that says of every file that it needs what was harmed, or of none, would prove nothing.
fn assert_telling(scene: &Scene, cells: &[Cell]) {
    for kind in [DataPack, TreePack, ImagePack, ImageTreePack, Session, Relocations] {
        let of_kind = cells.iter().filter(|cell| cell.kind == kind && cell.harm == Missing);
        let (mut touched, mut all) = (0, 0);
        for harmed in of_kind.map(Cell::harmed) {
            let sessions = scene.truth.keys().chain([&scene.forgotten.0]);
            touched += sessions.map(|session| scene.support.touched(*session, &harmed).len()).sum::<usize>();
            all += scene.support.files();
        }
        assert!((1..all).contains(&touched), "{touched} of {all} files need a {kind:?}");
    }
    let is_between = |cell: &Cell| cell.kind == DataPack && cell.harm == Cut("second frame");
    assert!(cells.iter().any(is_between), "no pack of data has a second frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn damage_is_named_contained_and_never_spread() {
    let scene = Arc::new(Scene::make().await.expect("the scene"));
    let chosen = std::env::var("CARRACK_DAMAGE").ok();
    let cells = cells(&scene).await.expect("the cells");
    assert!(cells.len() > 200, "{} cells", cells.len());
    assert_telling(&scene, &cells);
    let is_chosen = |cell: &Cell| {
        let name = format!("{:?} {:?}", cell.kind, cell.harm);
        chosen.as_ref().is_none_or(|part| name.contains(part.as_str()))
    };
    let cells: Vec<Cell> = cells.into_iter().filter(is_chosen).collect();
    let all = cells.len();
    assert!(all > 0, "CARRACK_DAMAGE={chosen:?} is in no cell's name; kinds are {KINDS:?}");
    println!("{all} cells");
    let (mut running, mut wrong) = (JoinSet::new(), Vec::new());
    for cell in cells {
        while running.len() >= AT_ONCE {
            wrong.extend(running.join_next().await.expect("one is running").expect("nothing panics"));
        }
        let scene = Arc::clone(&scene);
        running.spawn(async move { judge(&scene, &cell, expected(&cell)).await });
    }
    while let Some(done) = running.join_next().await {
        wrong.extend(done.expect("nothing panics"));
    }
    assert!(wrong.is_empty(), "{} of {all} cells:\n{}", wrong.len(), wrong.join("\n"));
}
