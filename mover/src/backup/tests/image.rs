//! Devices and image files.

use super::*;

/// The grid of small ones.
const GRID: usize = 64 << 10;

/// Lengths of the runs of the image in a snapshot.
async fn lengths(place: &Place, report: &BackupReport) -> Vec<u64> {
    let reader = SnapshotReader::new(place.repository().await, report.snapshot.clone().unwrap());
    let mut walk = reader.entries(Part::all()).unwrap();
    let leaf = walk.next_leaf().await.unwrap().unwrap();
    let image = leaf.into_iter().find(|entry| entry.kind == Kind::Image).unwrap();
    let mut runs = reader.runs(&image.content);
    let mut lengths = Vec::new();
    while let Some((_, piece)) = runs.next_piece().await.unwrap() {
        lengths.extend(piece.iter().map(Run::length));
    }
    lengths
}

/// Its last block is a short one only as long as nothing is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_has_grown_by_is_cut_on_the_grid() {
    let place = Place::new().await;
    let (image, list) = (place.path("image"), place.path("changes"));
    let source = |changed| BackupSource::Block { path: image.clone(), changed, change_id: None };
    let mut contents = noise(5, 3 * GRID + 100);
    write_old(&image, &contents);
    let report = place.run(place.options(source(None))).await;
    let (block, rest) = (GRID as u64, 100);
    assert_eq!(lengths(&place, &report).await, [block, block, block, rest]);

    contents.extend(noise(6, 2 * GRID));
    write_old(&image, &contents);
    fs::write(&list, "").unwrap();
    let report = place.run(place.options(source(Some(list.clone())))).await;
    assert_eq!(report.snapshot.as_ref().unwrap().statistics.bytes_read, 2 * block + rest);
    assert_eq!(lengths(&place, &report).await, [block, block, block, block, block, rest]);
    assert_eq!(place.compare(&report).await, 1);

    contents[4 * GRID..][..10].fill(7);
    write_old(&image, &contents);
    fs::write(&list, format!("{} 10", 4 * GRID)).unwrap();
    let report = place.run(place.options(source(Some(list)))).await;
    assert_eq!(report.snapshot.as_ref().unwrap().statistics.bytes_read, block, "one block holds it");
    assert_eq!(lengths(&place, &report).await, [block, block, block, block, block, rest]);
    assert_eq!(place.compare(&report).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn condemned_blocks_of_a_device_are_read_whatever_the_list_of_changes_says() {
    let place = Place::new().await;
    let image = place.path("image");
    write_old(&image, &noise(5, 48 << 20));
    let source = |changed| BackupSource::Block { path: image.clone(), changed, change_id: None };
    place.run(place.options(source(None))).await;
    let list = place.path("changes");
    fs::write(&list, "").unwrap();
    let report = place.run(place.options(source(Some(list.clone())))).await;
    assert_eq!(report.snapshot.unwrap().statistics.bytes_read, 0, "nothing changed, nothing is read");
    let condemned = place.condemn_every_other_pack().await;
    let report = place.run(place.options(source(Some(list)))).await;
    place.lose(condemned);
    assert_eq!(place.compare(&report).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_on_only_where_it_is_proven_to_be_the_same() {
    let contents = {
        let mut contents = noise(5, 48 << 20);
        contents[20 << 20..24 << 20].fill(0);
        contents
    };
    let mut places = Vec::new();
    for case in [(None, false, true), (None, true, false), (Some("state 1"), true, true)] {
        let place = Place::new().await;
        write_old(&place.path("image"), &contents);
        places.push((place, case));
    }
    // Its inode must not be younger than the run.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    for (place, (change_id, touched, expected)) in places {
        let image = place.path("image");
        let change_id_given = change_id.map(str::to_owned);
        let source = BackupSource::Block { path: image.clone(), changed: None, change_id: change_id_given };
        place.killed(place.options(source.clone()), 5).await;
        if touched {
            write_old(&image, &contents);
        }
        let report = place.run(place.options(source)).await;
        let statistics = report.snapshot.as_ref().unwrap().statistics;
        assert_eq!(report.continued.bytes > 0, expected, "{change_id:?} {touched} {:?}", report.continued);
        assert_eq!(statistics.bytes_read + report.continued.bytes, 48 << 20);
        // What is read again is not stored again.
        assert!(statistics.bytes_new < 40 << 20, "{}", statistics.bytes_new);
        assert_eq!(place.compare(&report).await, 1);
    }
}
