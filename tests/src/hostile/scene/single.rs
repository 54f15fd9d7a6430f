//! Snapshots of one image, or of one stream, and every command that meets them.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use carrack_mover::format::{entry::Content, records::SourceKind, session::SessionName};

use super::{CODES, Memory, SECONDS, Scene, ends, runtime};
use crate::{
    hostile::{Forger, image, measured_until_closed, measured_with_input},
    images::LoopDevice,
    program::text,
    trees::noise,
};

/// Bytes of the device that is restored to, and of what is backed up if a test says nothing else.
const DEVICE_BYTES: u64 = 4 << 20;
/// Whoever reads a stream goes away behind so many bytes: far more than a pipe holds.
const READ_BYTES: u64 = 1 << 20;
/// The code of an output that nobody reads any more.
const CLOSED: i32 = 1;

/// A source that is one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// A device or image file.
    Image,
    /// What came from standard input.
    Stream,
}

impl Single {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Image, Self::Stream];

    fn source(self) -> (SourceKind, u32) {
        match self {
            Self::Image => (SourceKind::Block, 64 << 10),
            Self::Stream => (SourceKind::Stdin, 0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Image => "volume",
            Self::Stream => "stream",
        }
    }
}

impl Scene {
    /// The image file that hostile images are of, and that is backed up over them; streams are fed with it.
    pub fn volume(&self) -> PathBuf {
        let volume = self.carrack.path(Single::Image.name());
        if !volume.exists() {
            fs::write(&volume, noise(5, 1 << 20)).expect("writes");
        }
        volume
    }

    /// Commits a snapshot of the content and size that `make` makes; gives its name.
    pub fn forge_single(
        &self,
        single: Single,
        make: impl FnOnce(&mut Forger) -> anyhow::Result<(Content, u64)>,
    ) -> SessionName {
        let path = match single {
            Single::Image => self.volume(),
            Single::Stream => PathBuf::from("/").join(single.name()),
        };
        let done: anyhow::Result<SessionName> = runtime().block_on(async {
            let (repository, password) = (self.carrack.path("repository"), &self.carrack.password);
            let mut forger = Forger::begin(&repository, password, &path).await?;
            let (source, grid) = single.source();
            forger.be_of(source, grid);
            let name = forger.name();
            let (content, size) = make(&mut forger)?;
            forger.commit_entries(vec![image(single.name().as_bytes(), content, size)]).await?;
            Ok(name)
        });
        done.expect("it is written")
    }

    /// Every command that meets this snapshot; each must end like this, in much memory and in little. In the end its
    /// source is backed up over it, and everything is copied.
    pub fn everything_of(&self, single: Single, name: SessionName, codes: &[i32]) {
        let name = name.to_string();
        for memory in &self.memories() {
            self.read_single(&name, memory, codes);
            self.stream(&name, memory, codes);
            let mounted = self.mount(memory);
            assert!(ends(&mounted, &[0]), "mount {memory:?}: {mounted:?}");
        }
        self.back_up_over_single(single, Some(&name));
        self.copies(codes);
    }

    /// Commands that add up what the record of this snapshot counts, one of each: each must succeed.
    pub fn counts(&self, single: Single, name: SessionName) {
        let (name, file, [plenty, _]) = (name.to_string(), self.fresh("image"), self.memories());
        for arguments in [&["snapshots"][..], &["stats"], &["restore", &name, "--target", text(&file)]] {
            let outcome = self.run_within(&plenty, arguments);
            assert!(ends(&outcome, &[0]), "{arguments:?}: {outcome:?}");
        }
        self.back_up_single(single, &["--parent", &name], &plenty);
        let copied = self.copy(&plenty);
        assert!(ends(&copied, &[0, 3]), "copy: {copied:?}");
    }

    /// Copies everything, in much memory and in little.
    pub fn copies(&self, codes: &[i32]) {
        for memory in &self.memories() {
            let copied = self.copy(memory);
            // Of several snapshots what is whole is copied.
            assert!(copied.code == Some(3) || ends(&copied, codes), "copy {memory:?}: {copied:?}");
        }
    }

    /// Backs up over this snapshot, or over the latest that there is of the source: what comes of it is what is there.
    pub fn back_up_over_single(&self, single: Single, parent: Option<&str>) {
        let parent = parent.map_or(Vec::new(), |parent| vec!["--parent", parent]);
        for memory in &self.memories() {
            if single == Single::Image {
                self.back_up_changes(&parent, memory);
            }
            self.back_up_single(single, &parent, memory);
        }
    }

    fn read_single(&self, name: &str, memory: &Memory, codes: &[i32]) {
        let (file, directory) = (self.fresh("image"), self.fresh("target"));
        fs::create_dir(&directory).expect("makes");
        let device = LoopDevice::new(DEVICE_BYTES).expect("loop devices need root: run the tests as root");
        for arguments in [
            &["restore", name, "--target", text(&file)][..],
            // Over what the first one has left.
            &["restore", name, "--verify", "--target", text(&file)],
            &["restore", name, "--verify", "--target", text(device.path())],
            &["restore", name, "--target", text(&directory)],
            &["ls", name, "--recursive"],
            &["find", "*e*", "--snapshot", name],
            &["diff", self.honest.as_str(), name],
            &["check", "--read-data", "--no-mark"],
        ] {
            let outcome = self.run_within(memory, arguments);
            // A device may be too small, and a directory is no place for it: that is refused, or named.
            let is_refused = arguments[0] == "restore" && ends(&outcome, &[2, 3]);
            assert!(is_refused || ends(&outcome, codes), "{arguments:?} {memory:?}: {outcome:?}");
        }
    }

    /// Restores to standard output, whose reader goes away after a while.
    fn stream(&self, name: &str, memory: &Memory, codes: &[i32]) {
        let arguments = memory.with(&["restore", name, "--target", "-"]);
        let outcome = measured_until_closed(&self.carrack, &arguments, SECONDS, READ_BYTES).expect("it runs");
        memory.judge(&arguments, &[codes, &[CLOSED]].concat(), outcome);
        self.assert_outside();
    }

    /// The parent is believed where nothing is said to have changed; so it may be damage, and must not be endless.
    fn back_up_changes(&self, parent: &[&str], memory: &Memory) {
        let (volume, list) = (self.volume(), self.carrack.path("changed"));
        fs::write(&list, "0 65536\n").expect("writes");
        let changes =
            ["backup", "--host", "hostile", "--device", text(&volume), "--changed-blocks", text(&list)];
        let outcome = self.run_within(memory, &[&changes[..], parent].concat());
        assert!(ends(&outcome, &[0, 3, 14]), "backup of changes {memory:?}: {outcome:?}");
    }

    fn back_up_single(&self, single: Single, parent: &[&str], memory: &Memory) {
        let volume = self.volume();
        let source = match single {
            Single::Image => ["--device", text(&volume)],
            Single::Stream => ["--stdin", "--stdin-filename=stream"],
        };
        let arguments = [&["backup", "--host", "hostile"][..], &source, parent].concat();
        let arguments = memory.with(&arguments);
        let input = File::open(&volume).expect("opens");
        let outcome = measured_with_input(&self.carrack, &arguments, SECONDS, input).expect("it runs");
        let outcome = memory.judge(&arguments, &CODES, outcome);
        self.assert_outside();
        assert!(ends(&outcome, &[0, 3]), "backup {memory:?}: {outcome:?}");
        let target = self.fresh("image");
        self.carrack.run(["restore", "latest", "--host", "hostile", "--target", text(&target)], 0);
        let (restored, wanted) = (fs::read(&target).expect("reads"), fs::read(&volume).expect("reads"));
        assert!(restored == wanted, "not what was backed up: {outcome:?}");
    }
}
