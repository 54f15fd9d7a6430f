//! `carrack restore --delete`: what of the target goes, and what stays although the snapshot does not have it.
//!
//! Needs root, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use carrack_tests::{
    images::{in_private_mounts, run},
    program::{Printed, Program},
};

/// A file system in memory with a file, where nobody else sees it.
fn mounted_with(at: &Path, file: &str) {
    fs::create_dir_all(at).expect("makes");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at)).expect("mounts");
    fs::write(at.join(file), file).expect("writes");
}

/// A system of which only the first file system was backed up: where others were mounted it has empty directories.
fn backed_up() -> (Program, PathBuf) {
    let carrack = Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
    let system = carrack.path("system");
    for empty in ["plain", "mnt/below"] {
        fs::create_dir_all(system.join(empty)).expect("makes");
    }
    fs::write(system.join("file"), "file").expect("writes");
    mounted_with(&system.join("home"), "of that time");
    carrack.run(["backup", "--one-file-system"].map(OsStr::new).into_iter().chain([system.as_os_str()]), 0);
    (carrack, system)
}

fn restore(carrack: &Program, system: &Path, target: &Path, options: &[&str], code: i32) -> Printed {
    let what = format!("latest:{}", system.display());
    let start = ["restore", &what, "--json", "--delete", "--target"].map(OsStr::new);
    let options = options.iter().map(OsStr::new);
    carrack.run(start.into_iter().chain([target.as_os_str()]).chain(options), code)
}

fn names(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let names = fs::read_dir(directory).expect("lists").map(name);
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("plain")).collect();
    names.sort();
    names
}

#[test]
fn what_is_mounted_at_an_empty_directory_stays() {
    in_private_mounts(|| {
        let (carrack, system) = backed_up();
        // As from a rescue system, with the other file systems mounted where they belong. The target is mounted, too.
        let target = carrack.path("target");
        mounted_with(&target, "stray");
        mounted_with(&target.join("home"), "precious");
        mounted_with(&target.join("mnt/below"), "precious");
        fs::create_dir_all(target.join("plain/stray")).expect("makes");
        for options in [&["--dry-run"][..], &[]] {
            let printed = restore(&carrack, &system, &target, options, 3);
            let summary = printed.message("summary");
            assert_eq!(
                (&summary["deleted"], &summary["problems"]),
                (&2.into(), &2.into()),
                "{}",
                printed.out
            );
            for place in ["home", "mnt/below"] {
                assert!(printed.err.contains(&format!("\"{place}\"")), "{place}: {}", printed.err);
                assert_eq!(names(&target.join(place)), ["precious"]);
            }
            assert!(printed.err.contains("another file system is mounted there"), "{}", printed.err);
        }
        assert_eq!(names(&target), ["file", "home", "mnt", "plain"]);
        assert_eq!(names(&target.join("plain")), [""; 0]);
        // What patterns leave out would stay anyway, and one that is new loses nothing.
        fs::remove_file(target.join("mnt/below/precious")).expect("removes");
        fs::create_dir(target.join("mnt/below/lost+found")).expect("makes");
        restore(&carrack, &system, &target, &["--exclude", "precious"], 0);
        // The directories themselves are as all others.
        for place in ["home", "mnt/below"] {
            rustix::mount::unmount(target.join(place), rustix::mount::UnmountFlags::empty())
                .expect("unmounts");
            fs::write(target.join(place).join("stray"), "stray").expect("writes");
        }
        let printed = restore(&carrack, &system, &target, &[], 0);
        assert_eq!(printed.message("summary")["deleted"], 2, "{}", printed.out);
    });
}
