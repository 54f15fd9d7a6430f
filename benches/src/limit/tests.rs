use super::*;
use crate::dataset::{self, Dataset};
use crate::verify;

/// A limit that loses or skips bytes would be too fast; so it has to restore what it read.
#[test]
fn the_limit_does_all_the_work_it_claims() {
    for (dataset, cipher) in [
        (Dataset::Random, Cipher::Aes256Gcm),
        (Dataset::Vm, Cipher::Chacha20Poly1305),
        (Dataset::Small, Cipher::Aes256Gcm),
        (Dataset::Db, Cipher::Aes256Gcm),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::create_dir(&source).expect("a directory");
        dataset::create(&source, dataset, 0.01, 5).expect("a dataset");
        let mut limit = Limit::new(&dir.path().join("store"), cipher).expect("a store");
        limit.backup(&source).expect("a backup");
        let first = limit.stored();
        assert_eq!(first, walk::stored(&dir.path().join("store")).expect("a walk"));
        limit.check().expect("a check");
        fs::create_dir(&target).expect("a directory");
        limit.restore(&target).expect("a restore");
        let wanted = verify::summary(&source).expect("a summary");
        verify::compare(&wanted, &source, &target).expect("what was read");
        limit.backup(&source).expect("another backup");
        assert_eq!(limit.stored(), first, "nothing changed, so nothing is stored");
    }
}
