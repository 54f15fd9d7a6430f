//! A mount that is killed: at most a dead mount stays, which the command takes away that the program names; the
//! repository is as it was.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    process::Command,
};

use carrack_tests::{
    disk::{Disk, State},
    images::{in_private_mounts, run},
    program::{Running, wait_until},
};

use crate::world::{World, ended};

#[test]
fn a_killed_mount_leaves_the_repository_as_it_was() {
    in_private_mounts(|| {
        let world = World::new();
        let (place, point) = (world.path("place"), world.path("point"));
        fs::create_dir(&point).expect("makes");
        let disk = Disk::mount(State::default(), &place).expect("mounts");
        let command = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let mut command = world.command("first", &arguments);
            command.env("CARRACK_REPOSITORY", place.join("repository"));
            command
        };
        let source = world.source().display().to_string();
        for arguments in [&["init"][..], &["backup", &source]] {
            ended(&command(arguments).output().expect("starts"), &[0], arguments[0]).expect("succeeds");
        }
        let shown = point.display().to_string();
        let before = disk.state().paths("");
        // At once, while somebody reads, and when somebody has read all.
        for read in [0, 300_000, usize::MAX] {
            let mut child = Running::start(&mut command(&["mount", &shown]));
            let mut line = String::new();
            let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
            err.read_line(&mut line).expect("reads");
            assert!(line.contains("until ctrl-C or umount"), "{line}");
            let mut file =
                File::open(point.join("latest").join(source.trim_start_matches('/')).join("large 0"));
            if let Ok(file) = &mut file {
                let mut bytes = vec![0; read.min(1 << 20)];
                file.read_exact(&mut bytes).expect("reads");
            }
            child.kill().expect("kills");
            child.wait().expect("ends");
            wait_until(|| fs::read_dir(&point).is_err()).expect("it is dead");
            let said = ended(&command(&["mount", &shown]).output().expect("starts"), &[0], "mount");
            let said = format!("{:#}", said.expect_err("a dead mount is in the way"));
            let advice =
                said.lines().find_map(|line| line.trim().split_once("first: ")).expect("a command").1;
            let mut words = advice.split(' ');
            run(Command::new(words.next().expect("a program")).args(words)).expect("the advice works");
            assert_eq!(fs::read_dir(&point).expect("it answers").count(), 0);
        }
        assert_eq!(disk.state().paths(""), before);
        ended(&command(&["check", "--read-data"]).output().expect("starts"), &[0], "check").expect("whole");
    });
}
