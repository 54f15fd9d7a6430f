//! Somebody who works against a restore in its target: while it runs, directories become links, and files become links
//! and further names of what lies outside.

use std::{
    fs::{hard_link, remove_file, rename},
    io,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// How often something was another thing for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swaps {
    /// A directory was a link to the one outside.
    pub directories: u32,
    /// A file was a link to the one outside.
    pub links: u32,
    /// A file was a further name of the one outside.
    pub names: u32,
}

impl Swaps {
    /// Each kind has happened.
    pub fn all_happened(self) -> bool {
        self.directories > 0 && self.links > 0 && self.names > 0
    }
}

impl std::ops::AddAssign for Swaps {
    fn add_assign(&mut self, other: Self) {
        self.directories += other.directories;
        self.links += other.links;
        self.names += other.names;
    }
}

/// Does `work`, and swaps meanwhile: `directory` with a link to `outside`, and these files in it with `victim` there.
/// Everything is as before when it comes back.
pub fn while_swapping<T>(
    directory: &Path,
    outside: &Path,
    files: &[String],
    work: impl FnOnce() -> T,
) -> (T, Swaps) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let swapping = scope.spawn(|| swap(directory, outside, files, &done));
        // Also where the work ends as it must not.
        let ending = Done(&done);
        let made = work();
        drop(ending);
        (made, swapping.join().expect("it swaps to the end"))
    })
}

/// Ends the other thread.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn swap(directory: &Path, outside: &Path, files: &[String], done: &AtomicBool) -> Swaps {
    let mut swaps = Swaps::default();
    let victim = outside.join("victim");
    for name in files.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let file = directory.join(name);
        swaps.directories += one(directory, |at| symlink(outside, at));
        swaps.links += one(&file, |at| symlink(&victim, at));
        swaps.names += one(&file, |at| hard_link(&victim, at));
        thread::sleep(Duration::from_micros(50));
    }
    swaps
}

/// Puts something in the place of a thing for a while; tells how often, which is never where the restore has not come
/// so far, or comes in between.
fn one(at: &Path, put: impl FnOnce(&Path) -> io::Result<()>) -> u32 {
    let mut aside = at.as_os_str().to_owned();
    aside.push(".aside");
    if rename(at, &aside).is_err() {
        return 0;
    }
    let swapped = put(at).is_ok();
    thread::sleep(Duration::from_micros(200));
    if swapped {
        // The restore may have put something of its own there.
        remove_file(at).ok();
    }
    rename(&aside, at).ok();
    u32::from(swapped)
}
