use super::*;

#[test]
fn a_volume_is_there_and_what_was_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("file"), "").unwrap();
    fs::create_dir(path("folder")).unwrap();
    require(&Place::Directory(path("folder"))).unwrap();
    require(&Place::Device(path("file"))).unwrap();
    for wrong in [
        Place::Directory(path("file")),
        Place::Directory(path("absent")),
        Place::Device(path("folder")),
        Place::Device(path("absent")),
    ] {
        let error = require(&wrong).unwrap_err();
        assert!(error.to_string().contains(wrong.path()) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn lost_and_found_is_left_out_as_long_as_nothing_was_found() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::Directory(directory.path().display().to_string());
    assert_eq!(lost_and_found(&place), None);
    let inside = directory.path().join(LOST_AND_FOUND);
    fs::create_dir(&inside).unwrap();
    // Only root makes what root owns.
    let is_root = rustix::process::getuid().is_root();
    assert_eq!(lost_and_found(&place), is_root.then(|| inside.clone()));
    fs::write(inside.join("#1234"), "found").unwrap();
    assert_eq!(lost_and_found(&place), None);
    fs::remove_dir_all(&inside).unwrap();
    std::os::unix::fs::symlink("elsewhere", &inside).unwrap();
    assert_eq!(lost_and_found(&place), None);
    assert_eq!(lost_and_found(&Place::Device("/dev/null".into())), None);
}
