//! A file system that never answers keeps nobody waiting for ever: the backup ends by itself, names the place, and the next
//! one goes on.

use std::{
    fs,
    time::{Duration, Instant},
};

use carrack_tests::{images::in_private_mounts, place, program::Program, stalled::StalledFs};

#[test]
fn a_backup_of_a_file_system_that_never_answers_ends_by_itself() {
    in_private_mounts(|| {
        let carrack = Program::new(place::program()).unwrap();
        let source = carrack.path("source");
        fs::create_dir_all(source.join("mounted")).unwrap();
        fs::write(source.join("file"), b"contents").unwrap();
        let stalled = StalledFs::mount(&source.join("mounted")).unwrap();
        let path = source.to_str().unwrap();

        let begun = Instant::now();
        let printed = carrack.run(["backup", "--source-timeout", "3", path], 12);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert!(
            printed.err.contains(&format!("{path}/mounted/never has not been read for")),
            "{}",
            printed.err
        );
        assert!(printed.err.contains("--source-timeout"), "the next step: {}", printed.err);
        carrack.run(["check", "--read-data"], 0);
        assert_eq!(carrack.run(["snapshots", "--json"], 0).message("snapshot"), serde_json::Value::Null);

        // Without what does not answer, the rest is kept.
        let left_out = format!("{path}/mounted");
        carrack.run(["backup", "--source-timeout", "3", "--exclude", &left_out, path], 0);
        let restored = carrack.restored(&source, &carrack.path("restored"), 0);
        assert_eq!(fs::read(restored.join("file")).unwrap(), b"contents");
        drop(stalled);
    });
}
