//! Sees whether anybody comes to a directory: lists it, opens what is in it, or changes it.

use std::{mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init},
    io::Errno,
};

/// Looks at some directories, by the paths that lead there: who opens a file of them by another of its names is not seen.
#[derive(Debug)]
pub struct Lookout(OwnedFd);

impl Lookout {
    /// From now on.
    pub fn at(directories: &[&Path]) -> Self {
        let looking = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("the kernel has inotify");
        let noticed = WatchFlags::OPEN
            | WatchFlags::ACCESS
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE;
        for directory in directories {
            add_watch(&looking, *directory, noticed | WatchFlags::ONLYDIR).expect("it is watched");
        }
        Self(looking)
    }

    /// What was done there, and to which name, since the last look.
    pub fn seen(&self) -> Vec<String> {
        let mut buffer: [MaybeUninit<u8>; 4096] = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut seen = Vec::new();
        loop {
            let event = match reader.next() {
                Err(Errno::AGAIN) => return seen,
                event => event.expect("it sees what happens"),
            };
            seen.push(format!("{:?} {:?}", event.events(), event.file_name()));
        }
    }
}
