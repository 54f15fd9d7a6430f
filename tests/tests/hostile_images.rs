//! Snapshots of devices, image files and streams, made with valid keys by somebody who means harm. Whatever they hold,
//! every command ends in time with an error that says why, nothing outside of the target changes, and no more memory is
//! taken than was set.
//!
//! Needs root, FUSE, loop devices, Python for the peak of memory, and the program beside the tests
//! (`cargo build -p carrack-mover`).

use std::{fs, os::unix::fs::FileExt as _};

use carrack_mover::format::{
    entry::{Content, Run},
    frame::FrameKind,
    metadata::Kind,
    page::PageWriter,
    records::{SourceKind, Statistics},
};
use carrack_tests::{
    hostile::{
        Forger, entry,
        scene::{Scene, Single},
        with_contents,
    },
    program::{signal, text, wait, wait_until},
    trees::noise,
};
use rustix::process::Signal;

/// As long as a file can be.
const LONGEST: u64 = i64::MAX.unsigned_abs();

fn scene() -> Scene {
    Scene::new(assert_cmd::cargo::cargo_bin("carrack"))
}

fn holes(lengths: &[u64]) -> Content {
    Content::Inline(lengths.iter().map(|length| Run::Hole(*length)).collect())
}

/// Sizes at the end of 64 bits, and of what a file can be: whether that can be restored is for the file system to say.
fn at_the_end(single: Single, size: u64) {
    let scene = scene();
    let name = scene.forge_single(single, |_| Ok((holes(&[size]), size)));
    scene.everything_of(single, name, &[0, 2, 3]);
}

#[test]
fn an_image_that_is_a_hole_of_8_eib_takes_no_time() {
    at_the_end(Single::Image, LONGEST);
}

#[test]
fn a_stream_that_is_a_hole_of_8_eib_takes_no_time() {
    at_the_end(Single::Stream, LONGEST);
}

#[test]
fn an_image_that_no_file_is_long_enough_for_is_refused() {
    at_the_end(Single::Image, u64::MAX);
}

#[test]
fn contents_that_do_not_add_up_to_the_size_are_damage() {
    let scene = scene();
    for single in Single::ALL {
        // Blocks that end before the size, that go on behind it, that begin anew behind 64 bits, and an empty one.
        for (lengths, size) in
            [(vec![5], 6), (vec![65_536, 65_536], 65_537), (vec![1 << 63, 1 << 63], 0), (vec![0, 5], 5)]
        {
            let name = scene.forge_single(single, |_| Ok((holes(&lengths), size))).to_string();
            let target = scene.carrack.path("new image");
            let outcome = scene.run(&["restore", &name, "--target", text(&target)]);
            assert_eq!(outcome.code, Some(14), "{single:?} {lengths:?}: {outcome:?}");
            assert!(!target.exists(), "{single:?} {lengths:?}");
        }
    }
    let name = scene.forge_single(Single::Image, |forger| {
        let block = Run::Chunk(forger.chunk(FrameKind::Data, &noise(1, 64 << 10))?);
        Ok((Content::Inline(vec![block.clone(), block]), LONGEST))
    });
    scene.everything_of(Single::Image, name, &[14]);
}

/// Nearly nothing is said to be below each page, and all of it is below it a hundred times.
#[test]
fn lists_of_blocks_have_the_length_that_is_said_of_them() {
    for single in Single::ALL {
        let scene = scene();
        let name = scene.forge_single(single, |forger| {
            let (mut below, _) = forger.tower_of_runs(&Run::Hole(1), 1, 1)?;
            for _ in 0..8 {
                let mut page = PageWriter::runs_inner();
                (0..100).try_for_each(|_| page.push_runs_page(&below, 1))?;
                below = forger.page(&page)?;
            }
            Ok((Content::Paged { depth: 9, pages: vec![(below, 100)] }, 100))
        });
        let target = scene.carrack.path("new image");
        let restored = scene.run(&["restore", &name.to_string(), "--target", text(&target)]);
        assert_eq!(restored.code, Some(14), "{restored:?}");
        let checked = scene.run(&["check", "--no-mark"]);
        assert_eq!(checked.code, Some(14), "{checked:?}");
        scene.everything_of(single, name, &[0, 14]);
        scene.run(&["prune", "--wait", "0"]);
    }
}

/// Few pages that stand for more holes than anybody can go through: in one page, or each in a page of its own. Writers make
/// one hole of neighbours.
#[test]
fn holes_that_follow_each_other_are_damage() {
    for single in Single::ALL {
        // A terabyte, which a file can have.
        for (in_a_page, levels_above) in [(10_000, 2), (1, 3)] {
            let scene = scene();
            let name = scene.forge_single(single, |forger| {
                let (mut page, mut bytes) = forger.tower_of_runs(&Run::Hole(1), in_a_page, 1)?;
                for _ in 0..levels_above {
                    let mut above = PageWriter::runs_inner();
                    (0..10_000).try_for_each(|_| above.push_runs_page(&page, bytes))?;
                    (page, bytes) = (forger.page(&above)?, 10_000 * bytes);
                }
                Ok((Content::Paged { depth: levels_above + 1, pages: vec![(page, bytes)] }, bytes))
            });
            let target = scene.carrack.path("new image");
            for arguments in [
                &["restore", &name.to_string(), "--target", text(&target)][..],
                &["restore", &name.to_string(), "--dry-run", "--target", text(&target)],
                &["check", "--no-mark"],
            ] {
                let outcome = scene.run(arguments);
                assert_eq!(outcome.code, Some(14), "{arguments:?}: {outcome:?}");
            }
            scene.everything_of(single, name, &[0, 14]);
            scene.run(&["prune", "--wait", "0"]);
        }
    }
}

/// A list of changed blocks says that nearly nothing has changed since an image of a terabyte that is said to be of chunks
/// of a byte each. That is no image of a device: it is left, and the device is read, of which only the blocks take time.
#[test]
fn a_list_of_changes_is_not_held_up_by_what_is_no_image_of_a_device() {
    let scene = scene();
    let name = scene.forge_single(Single::Image, tower).to_string();
    let (volume, list) = (scene.volume(), scene.carrack.path("list"));
    let file = fs::File::options().write(true).open(&volume).expect("opens");
    file.set_len(1_000_000_000_000).expect("grows");
    fs::write(&list, "65536 65536\n").expect("writes");
    let backup = ["backup", "--host", "hostile", "--device", text(&volume), "--changed-blocks", text(&list)];
    let outcome = scene.run(&[&backup[..], &["--parent", &name]].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let target = scene.carrack.path("new image");
    scene.carrack.run(["restore", "latest", "--host", "hostile", "--target", text(&target)], 0);
    let restored = fs::File::open(&target).expect("opens");
    assert_eq!(restored.metadata().expect("is there").len(), 1_000_000_000_000);
    let (mut found, mut wanted) = (vec![0; 2 << 20], vec![0; 2 << 20]);
    restored.read_exact_at(&mut found, 0).expect("reads");
    fs::File::open(&volume).expect("opens").read_exact_at(&mut wanted, 0).expect("reads");
    assert!(found == wanted, "an image that never was");
}

/// Four pages that keep to every rule, each of which names the one below it so often that they stand for 2^54 runs.
#[test]
fn few_pages_that_stand_for_more_than_there_is_hold_nobody_up() {
    for single in Single::ALL {
        let scene = scene();
        let name = scene.forge_single(single, |forger| {
            let run = Run::Chunk(forger.chunk(FrameKind::Data, &noise(7, 512))?);
            let (page, bytes) = forger.tower_of_runs(&run, 10_000, 4)?;
            let pages = vec![(page.clone(), bytes), (page, bytes)];
            Ok((Content::Paged { depth: 4, pages }, 2 * bytes))
        });
        scene.everything_of(single, name, &[0, 2, 3]);
        scene.run(&["prune", "--wait", "0"]);
    }
}

/// Chunks of one frame that overlap and are no blocks of any grid: a reader does not care, and a list of changed blocks
/// makes no image that never was.
#[test]
fn chunks_that_are_no_blocks_are_what_they_are() {
    let scene = scene();
    let plain = noise(9, 200_000);
    let parts: [(usize, usize); 5] =
        [(0, 100_000), (50_000, 150_000), (99_999, 200_000), (0, 200_000), (7, 8)];
    let mut contents: Vec<u8> =
        parts.iter().flat_map(|(start, end)| plain[*start..*end].iter().copied()).collect();
    let size = contents.len() as u64;
    let name = scene.forge_single(Single::Image, |forger| {
        let whole = forger.chunk(FrameKind::Data, &plain)?;
        let chunk = |(start, end): (usize, usize)| forger.part(&whole, &plain, start..end).map(Run::Chunk);
        Ok((Content::Inline(parts.into_iter().map(chunk).collect::<anyhow::Result<_>>()?), size))
    });
    let target = scene.carrack.path("new image");
    scene.carrack.run(["restore", &name.to_string(), "--target", text(&target)], 0);
    assert!(fs::read(&target).expect("reads") == contents, "it is not what the chunks hold");
    // The second block of the grid.
    contents[64 << 10..128 << 10].fill(7);
    let (volume, list) = (scene.volume(), scene.carrack.path("list"));
    fs::write(&volume, &contents).expect("writes");
    fs::write(&list, "65536 65536\n").expect("writes");
    let backup = ["backup", "--host", "hostile", "--device", text(&volume), "--changed-blocks", text(&list)];
    let outcome = scene.run(&backup);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    scene.carrack.run(["restore", "latest", "--host", "hostile", "--target", text(&target)], 0);
    assert!(fs::read(&target).expect("reads") == contents, "an image that never was");
    scene.everything_of(Single::Image, name, &[0]);
}

/// How many blocks are in memory at once, or how long one is, hangs on the grid: a record names none that no device has.
#[test]
fn a_grid_is_one_that_devices_are_cut_on() {
    for grid in [1, 1 << 31] {
        let scene = scene();
        let name = scene.forge_single(Single::Image, |forger| {
            forger.be_of(SourceKind::Block, grid);
            // More than there is memory for.
            let block = Run::Chunk(forger.chunk(FrameKind::Data, &noise(3, 1 << 20))?);
            Ok((Content::Inline(vec![block; 300]), 300 << 20))
        });
        let target = scene.carrack.path("new image");
        let name = name.to_string();
        for arguments in
            [&["restore", &name, "--target", text(&target)][..], &["check", "--read-data", "--no-mark"]]
        {
            let outcome = scene.run(arguments);
            assert_eq!(outcome.code, Some(14), "{grid} {arguments:?}: {outcome:?}");
        }
        scene.back_up_over_single(Single::Image, None);
        scene.copies(&[14]);
    }
}

#[test]
fn numbers_of_a_record_may_be_any() {
    for single in Single::ALL {
        let scene = scene();
        let name = scene.forge_single(single, |forger| {
            let most = u64::MAX;
            forger.count(Statistics {
                files_new: most,
                files_changed: most,
                files_unmodified: most,
                directories: most,
                others: most,
                problems: most,
                bytes_total: most,
                ..Statistics::default()
            });
            Ok((holes(&[1 << 20]), 1 << 20))
        });
        scene.counts(single, name);
    }
}

/// A terabyte of one byte again and again, which keeps to every rule.
fn tower(forger: &mut Forger) -> anyhow::Result<(Content, u64)> {
    tower_of_bytes(forger, 10_000)
}

/// Fifteen gigabytes of the same: not yet so many runs that a copy refuses them.
fn lower_tower(forger: &mut Forger) -> anyhow::Result<(Content, u64)> {
    tower_of_bytes(forger, 2_500)
}

fn tower_of_bytes(forger: &mut Forger, wide: u64) -> anyhow::Result<(Content, u64)> {
    let byte = Run::Chunk(forger.chunk(FrameKind::Data, b"x")?);
    let (page, bytes) = forger.tower_of_runs(&byte, wide, 3)?;
    Ok((Content::Paged { depth: 3, pages: vec![(page, bytes)] }, bytes))
}

/// Asks a command to stop once it is at work.
fn stop(scene: &Scene, arguments: &[&str], is_at_work: impl FnMut() -> bool) {
    let child = scene.carrack.start(arguments);
    wait_until(is_at_work).expect("it comes so far");
    signal(&child, Signal::INT).expect("sends");
    wait(child, 130);
    scene.assert_outside();
}

/// A snapshot takes the time that its bytes take, and it may say that it has more of them than anybody waits for: that ends
/// when it is asked to.
#[test]
fn whoever_has_enough_is_obeyed() {
    let scene = scene();
    let name = scene.forge_single(Single::Image, lower_tower).to_string();
    let (image, directory) = (scene.carrack.path("new image"), scene.carrack.path("target"));
    stop(&scene, &["restore", &name, "--target", text(&image)], || {
        fs::metadata(&image).is_ok_and(|found| found.len() == 15_625_000_000)
    });
    let (key, copies) = (scene.carrack.path("key"), scene.carrack.path("copies"));
    let at = ["-r", text(&copies), "--key-file", text(&key)];
    scene.carrack.run([&at[..], &["init"]].concat(), 0);
    let repository = scene.carrack.path("repository");
    let from = ["copy", "--from-repo", text(&repository), "--from-key-file", text(&key), &name];
    let sessions = copies.join("sessions");
    stop(&scene, &[&at[..], &from].concat(), || fs::read_dir(&sessions).is_ok_and(|found| found.count() > 0));
    scene.forge(async |mut forger: Forger| {
        let (content, size) = lower_tower(&mut forger)?;
        let file = with_contents(b"x", content, size);
        forger.commit_entries(vec![entry(b"a", Kind::Directory), file]).await
    });
    stop(&scene, &["restore", "latest", "--target", text(&directory)], || directory.join("a").exists());
}
