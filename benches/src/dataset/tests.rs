use std::path::Path;

use super::*;
use crate::verify;

const ALL: [Dataset; 5] = [Dataset::Random, Dataset::Vm, Dataset::Tree, Dataset::Small, Dataset::Db];

fn digest(dir: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for entry in verify::summary(dir).expect("a readable dataset") {
        hasher.update(format!("{entry:?}\n").as_bytes());
    }
    hasher.finalize()
}

#[test]
fn same_seed_same_bytes_other_seed_other_bytes() {
    for dataset in ALL {
        let made: Vec<_> = [7, 7, 8]
            .into_iter()
            .map(|seed| {
                let dir = tempfile::tempdir().expect("a temporary directory");
                create(dir.path(), dataset, 0.002, seed).expect("a dataset");
                digest(dir.path())
            })
            .collect();
        assert_eq!(made[0], made[1], "{}", dataset.name());
        assert_ne!(made[0], made[2], "{}", dataset.name());
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let made = [1, 4].map(|threads| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| create(dir.path(), Dataset::Tree, 0.002, 1)).expect("a dataset");
        digest(dir.path())
    });
    assert_eq!(made[0], made[1]);
}

#[test]
fn a_change_touches_two_percent_and_repeats_exactly() {
    for dataset in [Dataset::Vm, Dataset::Db] {
        let made = [1, 1, 2].map(|epoch| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            create(dir.path(), dataset, 0.02, 3).expect("a dataset");
            let total: u64 =
                crate::walk::walk(dir.path()).expect("a walk").files.iter().map(|f| f.size).sum();
            let changed = change(dir.path(), dataset, 3, epoch).expect("a change");
            let written: u64 = changed.iter().map(|(_, length)| length).sum();
            let percent = written as f64 * 100.0 / total as f64;
            assert!((1.5..=2.1).contains(&percent), "{}: {percent} %", dataset.name());
            digest(dir.path())
        });
        assert_eq!(made[0], made[1], "{}", dataset.name());
        assert_ne!(made[0], made[2], "{}", dataset.name());
    }
}

#[test]
fn sizes_and_compressibility_are_those_of_the_real_thing() {
    for (dataset, gib, low, high) in [
        (Dataset::Random, 2.0, 0.99, 1.01),
        (Dataset::Vm, 4.0, 2.5, 8.0),
        (Dataset::Tree, 2.0, 1.7, 2.6),
        (Dataset::Small, 0.86, 1.5, 3.5),
        (Dataset::Db, 1.0, 2.0, 2.5),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        create(dir.path(), dataset, 0.02, 1).expect("a dataset");
        let (mut raw, mut packed) = (0_u64, 0_u64);
        let mut files = crate::walk::walk(dir.path()).expect("a walk").files;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut stream = Vec::new();
        for file in files {
            stream.extend(std::fs::read(&file.path).expect("a file"));
            raw += file.size;
        }
        for frame in stream.chunks(1 << 20) {
            packed += zstd::bulk::compress(frame, 3).expect("zstd").len() as u64;
        }
        let size = raw as f64 / 0.02 / f64::from(1 << 30);
        let ratio = raw as f64 / packed as f64;
        assert!((gib * 0.85..=gib * 1.15).contains(&size), "{}: {size:.2} GiB", dataset.name());
        assert!((low..=high).contains(&ratio), "{}: zstd ratio {ratio:.2}", dataset.name());
    }
}
