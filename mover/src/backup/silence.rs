//! What is left out of a backup because it does not answer.

use super::BackupSource;
use crate::{
    error::Error,
    limits,
    monitor::escape_path,
    source::silent::{SilentPaths, holds, mount_of, mount_points},
};

/// The mounts of this process. Reading them asks none of the file systems.
const MOUNTS: &str = "/proc/self/mountinfo";

/// A part of the source that has not answered for so many seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silence {
    /// Slash-joined, without a leading slash.
    pub(super) path: Vec<u8>,
    pub(super) seconds: u64,
}

impl Silence {
    /// Why a backup ends that cannot do without.
    pub(super) fn into_error(self) -> Error {
        let Self { path, seconds } = self;
        let path = escape_path(&path);
        Error::unavailable(format!("/{path} has not been read for {seconds} s, and is waited for no longer"))
            .with_hint(
                "see what is mounted there, and run the same command again: it goes on where it was; or leave it out \
                 (--exclude), or wait longer (--source-timeout)",
            )
    }
}

/// What the next attempt leaves out.
#[derive(Debug, Default)]
pub(super) struct LeftOut<'p> {
    /// The absolute paths that were asked for; none if the source is no tree of files.
    roots: &'p [Vec<u8>],
    paths: SilentPaths,
    /// All that was silent so far.
    heard: Vec<Vec<u8>>,
    attempts: usize,
}

impl<'p> LeftOut<'p> {
    /// Nothing yet but what the source itself says.
    pub(super) fn of(source: &BackupSource, roots: &'p [Vec<u8>]) -> Self {
        let BackupSource::Files(walk_options) = source else { return Self::default() };
        Self { roots, paths: SilentPaths::clone(&walk_options.silent), ..Self::default() }
    }

    /// Leaves out what was silent in one attempt, by the mounts that there are now. Fails if the backup is to end instead.
    pub(super) fn add(&mut self, silences: Vec<Silence>) -> Result<(), Silence> {
        // Without the list each path stands for itself.
        let mounts = std::fs::read(MOUNTS).map(|list| mount_points(&list)).unwrap_or_default();
        self.add_by(silences, &mounts)
    }

    fn add_by(&mut self, silences: Vec<Silence>, mounts: &[Vec<u8>]) -> Result<(), Silence> {
        self.attempts += 1;
        let is_last = self.attempts >= limits::SILENT_ATTEMPTS;
        let before = self.heard.len();
        let mut known = None;
        for silence in silences {
            if is_last || !self.can_do_without(&silence.path) {
                return Err(silence);
            }
            if self.paths.hold(&silence.path) {
                known = Some(silence);
                continue;
            }
            let place = self.place(&silence.path, mounts);
            self.paths.insert(place, silence.seconds);
            self.heard.push(silence.path);
        }
        // What was not touched cannot be silent: going on would change nothing.
        known.filter(|_| self.heard.len() == before).map_or(Ok(()), Err)
    }

    /// The source, without what is left out.
    pub(super) fn apply(&self, source: &mut BackupSource) {
        if let BackupSource::Files(walk_options) = source {
            walk_options.silent = self.paths.clone().into();
        }
    }

    /// Whether it lies within what was asked for, and is and holds nothing that was itself asked for.
    fn can_do_without(&self, path: &[u8]) -> bool {
        let roots = || self.roots.iter().filter_map(|root| root.strip_prefix(b"/"));
        roots().any(|root| holds(root, path)) && !roots().any(|root| holds(path, root))
    }

    /// What to leave out for this path: itself, or all of its mount if another path there was silent before.
    fn place(&self, path: &[u8], mounts: &[Vec<u8>]) -> Vec<u8> {
        let mount = mount_of(mounts, path);
        let again = self.heard.iter().any(|heard| mount_of(mounts, heard) == mount);
        mount.filter(|mount| again && self.can_do_without(mount)).unwrap_or(path).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::walk::WalkOptions;

    const MOUNTS: [&str; 4] = ["", "home", "home/a/share", "home/a/share/inner"];

    fn absolute(roots: &[&str]) -> Vec<Vec<u8>> {
        roots.iter().map(|root| format!("/{root}").into_bytes()).collect()
    }

    fn of(roots: &[Vec<u8>]) -> LeftOut<'_> {
        LeftOut::of(&BackupSource::Files(WalkOptions::default()), roots)
    }

    fn silences(paths: &[&str]) -> Vec<Silence> {
        paths.iter().map(|path| Silence { path: path.as_bytes().to_vec(), seconds: 9 }).collect()
    }

    fn add(left_out: &mut LeftOut<'_>, paths: &[&str]) -> Result<(), Silence> {
        left_out.add_by(silences(paths), &MOUNTS.map(|mount| mount.as_bytes().to_vec()))
    }

    #[track_caller]
    fn holds_exactly(left_out: &LeftOut<'_>, paths: &[&str], others: &[&str]) {
        for (path, expected) in
            paths.iter().map(|path| (path, true)).chain(others.iter().map(|path| (path, false)))
        {
            assert_eq!(left_out.paths.hold(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn first_the_path_and_then_its_mount() {
        let roots = absolute(&["home/a", "etc"]);
        let mut left_out = of(&roots);
        add(&mut left_out, &["home/a/share/x"]).unwrap();
        holds_exactly(&left_out, &["home/a/share/x"], &["home/a/share", "home/a/share/y"]);
        // Another mount, though it lies in the first one.
        add(&mut left_out, &["home/a/share/inner/x"]).unwrap();
        holds_exactly(&left_out, &["home/a/share/inner/x"], &["home/a/share", "home/a/share/inner/y"]);
        add(&mut left_out, &["home/a/share/y/z"]).unwrap();
        holds_exactly(&left_out, &["home/a/share", "home/a/share/inner/y"], &["home/a/other", "etc"]);
    }

    #[test]
    fn several_in_one_attempt_are_enough_for_their_mount() {
        let roots = absolute(&["home/a"]);
        let mut left_out = of(&roots);
        add(&mut left_out, &["home/a/share/x", "home/a/share/y", "home/a/share/z"]).unwrap();
        holds_exactly(&left_out, &["home/a/share"], &["home/a/other"]);
    }

    #[test]
    fn a_mount_that_was_asked_for_is_not_left_out() {
        for roots in [&["home/a/share"][..], &["home", "home/a/share/y"], &["home/a/share/inner", "home/a"]] {
            let roots = absolute(roots);
            let mut left_out = of(&roots);
            add(&mut left_out, &["home/a/share/x", "home/a/share/z"]).unwrap();
            holds_exactly(
                &left_out,
                &["home/a/share/x", "home/a/share/z"],
                &["home/a/share", "home/a/share/q"],
            );
        }
    }

    #[test]
    fn what_was_asked_for_ends_the_backup() {
        let cases: [(&[&str], &str); 6] = [
            (&["home/a"], "home/a"),
            (&["home/a"], "home"),
            (&["home/a"], ""),
            (&[""], ""),
            (&["home", "home/a/share/inner/x"], "home/a/share/inner"),
            (&["home", "home/a/share/inner/x"], "home/a/share/inner/x"),
        ];
        for (roots, path) in cases {
            assert_eq!(
                add(&mut of(&absolute(roots)), &[path]),
                Err(silences(&[path]).remove(0)),
                "{roots:?} {path}"
            );
        }
        let paths = [b"/dev/sda".to_vec()];
        let device = BackupSource::Block { path: "/dev/sda".into(), changed: None, change_id: None };
        assert!(add(&mut LeftOut::of(&device, &paths), &["dev/sda"]).is_err());
    }

    #[test]
    fn it_ends_where_going_on_would_change_nothing_or_never_end() {
        let roots = absolute(&["home"]);
        let mut left_out = of(&roots);
        add(&mut left_out, &["home/a"]).unwrap();
        assert_eq!(add(&mut left_out, &["home/a/b"]), Err(silences(&["home/a/b"]).remove(0)));
        add(&mut left_out, &["home/a/b", "home/c"]).unwrap();
        let roots = absolute(&[""]);
        let mut left_out = of(&roots);
        let paths: Vec<String> = (0..limits::SILENT_ATTEMPTS).map(|number| format!("{number}")).collect();
        let (last, first) = paths.split_last().unwrap();
        for path in first {
            add(&mut left_out, &[path]).unwrap();
        }
        assert_eq!(add(&mut left_out, &[last]), Err(silences(&[last]).remove(0)));
    }

    #[test]
    fn the_error_names_path_and_next_step() {
        let error = Silence { path: b"home/a\xff".to_vec(), seconds: 9 }.into_error();
        assert_eq!(error.kind(), crate::error::ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "/home/a\\xff has not been read for 9 s, and is waited for no longer");
        assert!(error.hint().unwrap().contains("--source-timeout"));
    }
}
