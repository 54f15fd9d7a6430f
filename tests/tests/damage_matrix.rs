//! Every kind of object of a repository, every harm that can be done to it, and every verb afterwards.
//!
//! What must hold: nothing panics; what is damaged is named; everything that does not depend on it restores byte for
//! byte; no backup commits in silence what does not restore; no prune takes damage for a permission to delete.

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
        (Kind::Format, Flipped("created" | "minimum")) => Seen::Never,
        (Kind::Format, _) => Seen::Opening,
        (Kind::Key, Doubled | Missing | Replayed | Swapped) => Seen::Never,
        (Kind::Key, Flipped("label" | "created" | "salt" | "commitment" | "sealed_roots" | "memory_kib")) => {
            Seen::Never
        }
        (Kind::Session | Kind::RepackSession, Flipped("started" | "sealed_data_key" | "version")) => {
            Seen::Never
        }
        (Kind::RepackSession, Flipped("signing_public")) => Seen::Never,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn damage_is_named_contained_and_never_spread() {
    let scene = Arc::new(Scene::make().await.expect("the scene"));
    let chosen = std::env::var("CARRACK_DAMAGE").unwrap_or_default();
    let cells = cells(&scene).await.expect("the cells");
    let all = cells.len();
    let cells = cells.into_iter().filter(|cell| format!("{:?} {:?}", cell.kind, cell.harm).contains(&chosen));
    let (mut running, mut wrong) = (JoinSet::new(), Vec::new());
    for cell in cells {
        while running.len() >= AT_ONCE {
            wrong.extend(running.join_next().await.expect("one is running").expect("nothing panics"));
        }
        let scene = Arc::clone(&scene);
        running.spawn(async move { judge(&scene, &cell, seen(&cell)).await });
    }
    while let Some(done) = running.join_next().await {
        wrong.extend(done.expect("nothing panics"));
    }
    assert!(all > 150, "{all} cells");
    assert!(wrong.is_empty(), "{} of {all} cells:\n{}", wrong.len(), wrong.join("\n"));
}
