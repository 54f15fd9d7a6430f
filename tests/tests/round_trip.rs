//! The program from end to end: what goes in comes out, from a directory and from a real S3 server, with backups
//! that are killed, run twice at once, and pruned between.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{fs, process::Command, time::Duration};

use carrack_tests::{
    minio::MinioServer,
    place::Place,
    proxy::{Disturbance, Proxy},
    trees::noise,
};

#[test]
fn a_tree_comes_back_as_it_was_at_each_time() {
    let place = Place::local();
    place.backup();
    let before = place.path("before");
    let copied = Command::new("cp").arg("-a").arg(place.source()).arg(&before).status().expect("cp runs");
    assert!(copied.success());
    fs::write(place.source().join("random"), noise(3, 8_000_000)).expect("writes");
    fs::remove_file(place.source().join("many/file 7")).expect("removes");
    fs::rename(place.source().join("many/deep"), place.source().join("moved")).expect("renames");
    place.backup();
    place.backup();
    assert_eq!(place.snapshots(), 3);
    place.compare("latest", &place.source(), "newest");
    place.run(&["check", "--read-data"], 0);

    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(place.snapshots(), 1);
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "after prune");
}

/// A large file is named by pages that name chunks of several backups; later backups name those pages unread.
#[test]
fn a_large_file_comes_back_from_every_backup_after_a_change() {
    let place = Place::local();
    let large = place.source().join("random");
    let mut contents = noise(20, 20_000_000);
    for round in 0..3 {
        contents[round * 5_000_000..][..5000].copy_from_slice(&noise(21 + round as u64, 5000));
        fs::write(&large, &contents).expect("writes");
        // What is younger than a backup by less than its clock tells is read again.
        std::thread::sleep(Duration::from_millis(3100));
        for _ in 0..2 {
            fs::write(place.source().join("other"), noise(30, 10)).expect("writes");
            place.backup();
        }
        place.compare("latest", &place.source(), &format!("round {round}"));
    }
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    place.compare("latest", &place.source(), "after prune");
    place.run(&["check", "--read-data"], 0);
}

/// A file that begins a batch because the one before was full of bytes must not be taken for one that needs no
/// reading.
#[test]
fn a_small_file_after_a_batch_full_of_bytes_is_not_lost() {
    let place = Place::local();
    for index in 0..40 {
        fs::write(place.source().join(format!("x megabyte {index:02}")), noise(index, 1 << 20))
            .expect("writes");
        fs::write(place.source().join(format!("y small {index:02}")), noise(index, 100)).expect("writes");
    }
    for count in 0..24 {
        let last = place.source().join(format!("x megabyte {count:02} and more"));
        fs::write(last, noise(count, 1000)).expect("writes");
        place.backup();
    }
    place.compare("latest", &place.source(), "restored");
    fs::remove_dir_all(place.source()).expect("removes");
    fs::create_dir(place.source()).expect("makes");
    for index in 0..20 {
        fs::write(place.source().join(format!("megabyte {index:02}")), noise(index, 1 << 20))
            .expect("writes");
        place.backup();
        place.compare("latest", &place.source(), &format!("restored {index}"));
    }
}

#[test]
fn killed_backups_leave_nothing_to_unlock_and_nothing_broken() {
    let place = Place::local();
    place.backup();
    for round in 0..6 {
        fs::write(place.source().join("random"), noise(10 + round, 12_000_000)).expect("writes");
        let mut child = place.start_backup();
        std::thread::sleep(Duration::from_millis(60 * round));
        child.kill().expect("it can be killed, ended or not");
        child.wait().expect("ends");
    }
    place.backup();
    place.compare("latest", &place.source(), "restored");
    place.run(&["check", "--read-data"], 0);
}

#[test]
fn two_backups_and_a_prune_at_once() {
    let server = MinioServer::start().expect("MinIO starts");
    for place in [Place::local(), Place::on(&server, "at-once")] {
        at_once(&place);
    }
}

fn at_once(place: &Place) {
    place.backup();
    place.run(&["forget", "--keep-last", "1"], 0);
    let (mut one, mut other) = (place.start_backup(), place.start_backup());
    place.run(&["prune"], 0);
    assert!(one.wait().expect("ends").success());
    assert!(other.wait().expect("ends").success());
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "restored");
}

#[test]
fn an_image_comes_back_and_a_list_of_changes_saves_reading() {
    let place = Place::local();
    let image = place.path("image");
    let mut contents = vec![0; 20 << 20];
    contents[3 << 20..7 << 20].copy_from_slice(&noise(4, 4 << 20));
    fs::write(&image, &contents).expect("writes");
    let device = ["backup", "--device", image.to_str().expect("UTF-8")];
    place.run(&device, 0);
    contents[5_000_000..5_004_096].copy_from_slice(&noise(5, 4096));
    fs::write(&image, &contents).expect("writes");
    let list = place.path("changes");
    fs::write(&list, "5000000 4096\n").expect("writes");
    let changes = ["--changed-blocks", list.to_str().expect("UTF-8")];
    place.run(&[&device[..], &changes[..]].concat(), 0);
    let target = place.path("restored");
    place.run(&["restore", "latest", "--target", target.to_str().expect("UTF-8")], 0);
    assert!(fs::read(&target).expect("reads") == contents, "the image differs");
}

/// A stream is cut by contents: a list of blocks says nothing of its chunks.
#[test]
fn a_list_of_changes_does_not_go_with_a_stream_as_the_parent() {
    let place = Place::local();
    let image = place.path("image");
    let mut contents = noise(4, 8 << 20);
    fs::write(&image, &contents).expect("writes");
    let mut stream = place.command(&["backup", "--stdin", "--stdin-filename", "image"]);
    let status = stream.stdin(fs::File::open(&image).expect("opens")).status().expect("starts");
    assert!(status.success());
    contents[3_000_000..3_000_100].copy_from_slice(&noise(5, 100));
    fs::write(&image, &contents).expect("writes");
    let list = place.path("changes");
    fs::write(&list, "3000000 100\n").expect("writes");
    let device = ["backup", "--device", image.to_str().expect("UTF-8"), "--parent", "latest"];
    let changes = ["--changed-blocks", list.to_str().expect("UTF-8")];
    place.run(&[&device[..], &changes[..]].concat(), 0);
    let target = place.path("restored");
    place.run(&["restore", "latest", "--target", target.to_str().expect("UTF-8")], 0);
    assert!(fs::read(&target).expect("reads") == contents, "the image differs");
}

#[test]
fn a_stream_comes_back() {
    let place = Place::local();
    let contents = noise(6, 10_000_000);
    let input = place.path("input");
    fs::write(&input, &contents).expect("writes");
    let mut command = place.command(&["backup", "--stdin", "--stdin-filename", "dump.sql"]);
    let status = command.stdin(fs::File::open(&input).expect("opens")).status().expect("runs");
    assert!(status.success());
    let output = place.command(&["restore", "latest:dump.sql", "--target", "-"]).output().expect("runs");
    assert!(output.stdout == contents, "the stream differs");
}

#[test]
fn a_network_that_fails_again_and_again_costs_time_only() {
    let server = MinioServer::start().expect("MinIO starts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let proxy = runtime.block_on(Proxy::start(server.address())).expect("a proxy");
    let place = Place::through(&server, "bad-network", &proxy.url());
    fs::write(place.source().join("random"), noise(9, 60_000_000)).expect("writes");
    let slow_down = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: 41\r\n\
        Connection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>      ";
    let disturbances = [
        Disturbance::CutRequest(3_000_000),
        Disturbance::Answer(slow_down.to_owned()),
        Disturbance::CutAnswer(1_000),
        Disturbance::ChangeRequest(1_000_000),
    ];
    let through_it = |arguments: &[&str]| {
        let before = proxy.disturbed();
        let mut child = place.command(arguments).spawn().expect("the program was built");
        let mut round = 0;
        while child.try_wait().expect("it can be asked").is_none() {
            proxy.disturb(disturbances[round % disturbances.len()].clone(), 2);
            proxy.cut();
            std::thread::sleep(Duration::from_millis(300));
            round += 1;
            // Every network has better times.
            if round > 8 {
                proxy.disturb(Disturbance::None, 0);
                break;
            }
        }
        assert!(child.wait().expect("ends").success(), "{arguments:?}");
        assert!(proxy.disturbed() > before, "{arguments:?}: nothing was disturbed");
    };
    let source = place.source().display().to_string();
    through_it(&["backup", &source]);
    let target = place.path("through").display().to_string();
    through_it(&["restore", "latest", "--target", &target]);
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "restored");
}

#[test]
fn s3_serves_as_a_directory_does_even_through_a_restart() {
    let mut server = MinioServer::start().expect("MinIO starts");
    let place = Place::on(&server, "round-trip");
    place.backup();
    fs::write(place.source().join("random"), noise(8, 30_000_000)).expect("writes");
    let mut child = place.start_backup();
    server.restart().expect("restarts");
    // It ends well, or says that it did not; either way nothing is lost and the next one succeeds.
    child.wait().expect("ends");
    place.backup();
    place.compare("latest", &place.source(), "restored");
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "after prune");
}
