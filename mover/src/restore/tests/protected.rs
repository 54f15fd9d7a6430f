use std::fs;

use super::*;

/// Files of the target below what the snapshot does not have.
fn strays(target: &Path, paths: &[&str]) {
    for path in paths {
        let path = target.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
}

/// Restores with `--delete`; what goes must be this, and what a dry run names as well.
async fn goes(sample: &Sample, options: &RestoreOptions, wanted: &[&str]) {
    let monitor = Arc::new(CollectMonitor::default());
    let options = RestoreOptions { delete: true, ..options.clone() };
    let dry = RestoreOptions { dry_run: true, ..options.clone() };
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let planned = restore(&sample.reader, &dry, watched, Cancel::default()).await.unwrap();
    let mut named = monitor.removals();
    named.sort();
    assert_eq!(named, wanted);
    let before: Vec<_> = wanted.iter().map(|path| options.target.join(path).exists()).collect();
    assert!(before.into_iter().all(|there| there), "a dry run removes nothing");
    let (report, problems) = run(sample, &options).await;
    let count = wanted.len() as u64;
    assert_eq!((report.deleted, planned.deleted, problems), (count, count, vec![]));
    for path in wanted {
        assert!(!options.target.join(path).exists(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_stays_however_deep_it_lies() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    strays(
        target.path(),
        &["more/deep/kept.log", "more/deep/x", "more/other/y", "d/e/new/z", "d/e/new/a.log"],
    );
    let mut options = RestoreOptions::to(target.path());
    options.selection.exclude.add_pattern("*.log", false, "test").unwrap();
    goes(&sample, &options, &["d/e/new/z", "more/deep/x", "more/other", "more/other/y"]).await;
    assert!(
        target.path().join("more/deep/kept.log").exists() && target.path().join("d/e/new/a.log").exists()
    );
    assert_restored(target.path(), &sample.files);
    goes(&sample, &options, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_take_back_are_asked_too() {
    let (sample, target) = (sample(), directory());
    strays(
        target.path(),
        &["more/kept.log", "more/back.log", "more/cache/back.log", "more/x", "z/more/back.log"],
    );
    let mut options = RestoreOptions::to(target.path());
    for pattern in ["*.log", "cache", "!back.log"] {
        options.selection.exclude.add_pattern(pattern, false, "test").unwrap();
    }
    // A directory that is left out is not looked into.
    goes(&sample, &options, &["more/back.log", "more/x", "z/more", "z/more/back.log"]).await;
    assert!(
        target.path().join("more/cache/back.log").exists() && target.path().join("more/kept.log").exists()
    );

    let target = directory();
    strays(target.path(), &["z/more/mine/deep", "z/more/x", "other/x"]);
    let mut options = RestoreOptions::to(target.path());
    for pattern in ["z", "!mine"] {
        options.selection.include.add_pattern(pattern, false, "test").unwrap();
    }
    goes(&sample, &options, &["z/more/x"]).await;
    assert!(target.path().join("z/more/mine/deep").exists() && target.path().join("other/x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_keeps_something_is_in_the_way() {
    let sample = sample();
    for name in ["empty", "link", "d/small003", "z/two"] {
        let target = directory();
        let (kept, beside) = (format!("{name}/deep/kept.log"), format!("{name}/beside"));
        strays(target.path(), &[&kept, &beside]);
        let mut options = RestoreOptions { delete: true, ..RestoreOptions::to(target.path()) };
        options.selection.exclude.add_pattern("*.log", false, "test").unwrap();
        for dry_run in [true, false] {
            let (report, problems) = run(&sample, &RestoreOptions { dry_run, ..options.clone() }).await;
            let named: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
            assert_eq!((report.deleted, named), (0, vec![name]), "{dry_run}");
            assert!(problems[0].message.contains("patterns leave out"), "{problems:?}");
            assert!(target.path().join(&kept).exists() && target.path().join(&beside).exists());
        }
        // Nothing else is the patterns' business.
        fs::remove_file(target.path().join(&kept)).unwrap();
        for dry_run in [true, false] {
            let (report, problems) = run(&sample, &RestoreOptions { dry_run, ..options.clone() }).await;
            assert_eq!((report.deleted, problems), (2, vec![]), "{name} {dry_run}");
        }
        assert_restored(target.path(), &sample.files);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_place_of_a_directory_that_is_left_out_is_no_problem() {
    let (sample, outside) = (sample(), directory());
    fs::write(outside.path().join("precious"), "mine").unwrap();
    for linked in [true, false] {
        let target = directory();
        let place = target.path().join("d");
        if linked {
            std::os::unix::fs::symlink(outside.path(), &place).unwrap();
        } else {
            fs::write(&place, "mine").unwrap();
        }
        let mut options = RestoreOptions::to(target.path());
        options.selection.exclude.add_pattern("/d", false, "test").unwrap();
        goes(&sample, &options, &[]).await;
        assert_eq!(fs::symlink_metadata(&place).unwrap().is_symlink(), linked);
        assert!(fs::read(target.path().join("z/one")).unwrap() == sample.files["z/one"]);
    }
    assert!(outside.path().join("precious").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_delete_patterns_are_not_what_keeps_a_directory() {
    let (sample, target) = (sample(), directory());
    strays(target.path(), &["empty/kept.log"]);
    let mut options = RestoreOptions::to(target.path());
    options.selection.exclude.add_pattern("*.log", false, "test").unwrap();
    for dry_run in [true, false] {
        let (_, problems) = run(&sample, &RestoreOptions { dry_run, ..options.clone() }).await;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].what, "empty");
        assert!(problems[0].message.ends_with("or restore with --delete)"), "{dry_run}: {problems:?}");
    }
}
