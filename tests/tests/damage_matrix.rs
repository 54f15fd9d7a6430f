//! Every kind of object of a repository, every harm that can be done to it, and every verb afterwards.
//!
//! What must hold: nothing panics; what is damaged is named; everything that does not depend on it restores byte for
//! byte; no backup commits in silence what does not restore; no prune takes damage for a permission to delete.
//!
//! `CARRACK_DAMAGE=TreePack` runs the cells with this in their name. How many there are depends on names, which are drawn.

use std::sync::Arc;

use carrack_tests::damage::{
    harm::{Cell, Harm, Kind, cells},
    scene::Scene,
    verbs::{Seen, judge},
};
use tokio::task::JoinSet;

/// Cells that are worked on at once.
const AT_ONCE: usize = 3;

/// The least that must see the harm.
fn seen(cell: &Cell) -> Seen {
    use Harm::{Cut, Doubled, Empty, Flipped, Halved, Missing, Replayed, Swapped};
    match (cell.kind, cell.harm) {
        (Kind::Format, _) => Seen::Opening,
        (Kind::Key, Doubled | Missing | Replayed | Swapped) => Seen::Never,
        (Kind::Key, Flipped("label" | "created" | "salt" | "commitment" | "sealed_roots" | "memory_kib")) => {
            Seen::Never
        }
        (Kind::Session | Kind::RepackSession, Flipped("started" | "sealed_data_key" | "version")) => {
            Seen::Never
        }
        (Kind::RepackSession, Flipped("signing_public")) => Seen::Never,
        // Under another name it is nobody's: a prune takes it away.
        (Kind::Session | Kind::RepackSession | Kind::Snapshot | Kind::Relocations, Doubled) => Seen::Never,
        (Kind::DataPack | Kind::TreePack, Missing | Empty | Halved) => Seen::Structure,
        (Kind::DataPack, Flipped("frame") | Swapped) => Seen::Data,
        (Kind::TreePack, Flipped("frame") | Swapped) => Seen::Structure,
        (Kind::DataPack | Kind::TreePack, Flipped("trailer zero")) => Seen::Never,
        (Kind::DataPack | Kind::TreePack, Cut(_) | Flipped(_) | Doubled | Replayed) => Seen::Sizes,
        (Kind::Segment | Kind::Checkpoint, Missing | Doubled | Replayed | Swapped) => Seen::Never,
        (Kind::Segment | Kind::Checkpoint, Flipped("sealed data key")) => Seen::Never,
        (Kind::Segment | Kind::Checkpoint, _) => Seen::Sizes,
        (
            Kind::Forgotten | Kind::Mark | Kind::Condemned | Kind::Final | Kind::Damaged,
            Missing | Replayed,
        ) => Seen::Never,
        _ => Seen::Structure,
    }
}

/// What is right and cannot name the object that was harmed: nothing tells of relocations that are gone but the pack that
/// is missing without them, of the newest snapshot of a source but a memory, and of a forgotten marker but the list that
/// would delete what is needed again; another
/// repository id fits no key; keys that have each other's names are not believed, and nothing opens.
fn is_named_otherwise(cell: &Cell, text: &str) -> bool {
    match (cell.kind, cell.harm) {
        (Kind::Snapshot, Harm::Replayed) => text.contains("is gone, and nothing says so"),
        (Kind::Relocations, Harm::Missing | Harm::Replayed) => {
            text.contains("is missing, and snapshots need it")
        }
        (Kind::Forgotten, Harm::Missing | Harm::Replayed) => text.contains("would delete pack"),
        // If it was the key of this secret, nothing opens: it is named, if it is there.
        (Kind::Key, Harm::Missing) => text.contains("the secret does not open the repository"),
        (Kind::Key, Harm::Swapped) => text.contains("is not signed by this repository"),
        (Kind::Key, _) => text.contains("no other key fits, and one key cannot be read: object keys/"),
        (Kind::Format, Harm::Flipped("repository")) => text.contains("does not open the repository"),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn damage_is_named_contained_and_never_spread() {
    let scene = Arc::new(Scene::make().await.expect("the scene"));
    let chosen = std::env::var("CARRACK_DAMAGE").ok();
    let cells = cells(&scene).await.expect("the cells");
    let all = cells.len();
    let is_chosen = |cell: &Cell| {
        let name = format!("{:?} {:?}", cell.kind, cell.harm);
        chosen.as_ref().is_none_or(|part| name.contains(part.as_str()))
    };
    let (mut running, mut wrong) = (JoinSet::new(), Vec::new());
    for cell in cells.into_iter().filter(is_chosen) {
        while running.len() >= AT_ONCE {
            wrong.extend(running.join_next().await.expect("one is running").expect("nothing panics"));
        }
        let scene = Arc::clone(&scene);
        running.spawn(async move {
            let mut wrong = judge(&scene, &cell, seen(&cell)).await;
            wrong.retain(|text| !is_named_otherwise(&cell, text));
            wrong
        });
    }
    while let Some(done) = running.join_next().await {
        wrong.extend(done.expect("nothing panics"));
    }
    assert!(all > 150, "{all} cells");
    assert!(wrong.is_empty(), "{} of {all} cells:\n{}", wrong.len(), wrong.join("\n"));
}
