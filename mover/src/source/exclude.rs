//! What a walk leaves out, in the manner of restic.
//!
//! A pattern without a leading slash matches at any depth, one with a slash from `/`; `*` and `?` stay within
//! a name, `**` spans names. What matches a directory matches everything in it. Patterns are looked at in
//! their order, and one that begins with `!` takes back what an earlier one left out; a directory that is
//! left out is not looked into.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::sys::directory::{holds, to_c_string};
use crate::sys::file::open_for_reading;

/// What a `CACHEDIR.TAG` begins with, by the Cache Directory Tagging Specification.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The largest file of patterns that is read, in bytes.
const PATTERN_FILE_MAX: u64 = 16 << 20;

/// The rules of one walk; the default leaves nothing out.
#[derive(Debug, Default, Clone)]
pub struct Exclude {
    patterns: Vec<Pattern>,
    set: GlobSet,
    tags: Vec<Tag>,
    larger_than: Option<u64>,
}

/// One pattern, as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    glob: Glob,
    /// It begins with `!`.
    pub(crate) negated: bool,
}

/// What `**` at the end of a pattern means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// `dir/**` is `dir` and all below, which is what `dir` is already to a walk.
    Whole,
    /// `dir/**` is all below `dir`.
    Below,
}

#[derive(Debug, Clone)]
struct Tag {
    name: Vec<u8>,
    header: Vec<u8>,
}

impl Exclude {
    /// Adds a pattern; `origin` says in an error where it comes from (an option, or file and line).
    pub fn add_pattern(&mut self, pattern: &str, ignore_case: bool, origin: &str) -> Result<()> {
        self.push_pattern(pattern, ignore_case, origin)?;
        self.rebuild(origin)
    }

    fn push_pattern(&mut self, pattern: &str, ignore_case: bool, origin: &str) -> Result<()> {
        self.patterns.push(Pattern::read(pattern, ignore_case, End::Whole, origin)?);
        Ok(())
    }

    fn rebuild(&mut self, origin: &str) -> Result<()> {
        self.set = set_of(&self.patterns, origin)?;
        Ok(())
    }

    /// Adds the patterns of a file: one a line, `#` begins a comment line, blank lines do not count.
    pub fn add_file(&mut self, path: &Path, ignore_case: bool) -> Result<()> {
        let failed = |error| Error::io(error, format!("cannot read the patterns in {}", path.display()));
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(PATTERN_FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > PATTERN_FILE_MAX {
            return Err(Error::invalid(format!("{} is larger than 16 MiB of patterns", path.display())));
        }
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.push_pattern(line, ignore_case, &format!("{}:{}", path.display(), index + 1))?;
            }
        }
        self.rebuild(&path.display().to_string())
    }

    /// Leaves out the contents of directories that hold a file `NAME`, or `NAME:HEADER` one beginning with
    /// the header; the file itself stays.
    pub fn add_if_present(&mut self, rule: &str) -> Result<()> {
        let (name, header) = rule.split_once(':').unwrap_or((rule, ""));
        if name.is_empty() || name.contains('/') {
            return Err(Error::invalid(format!(
                "exclude-if-present {rule:?}: expected a file name, or a file name, a colon and a header"
            )));
        }
        self.tags.push(Tag { name: name.into(), header: header.into() });
        Ok(())
    }

    /// Leaves out the contents of directories marked by a `CACHEDIR.TAG`.
    pub fn add_caches(&mut self) {
        self.tags.push(Tag { name: b"CACHEDIR.TAG".to_vec(), header: CACHE_SIGNATURE.to_vec() });
    }

    /// Leaves out regular files of more than `bytes`.
    pub fn set_larger_than(&mut self, bytes: u64) {
        self.larger_than = Some(bytes);
    }

    /// Whether any pattern has to be asked, for which a path must be built.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether a file of `size` bytes is left out by its size.
    pub fn is_too_large(&self, size: u64) -> bool {
        self.larger_than.is_some_and(|limit| size > limit)
    }

    /// Whether the patterns leave out `path` (slash-joined from `/`, without the leading slash).
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let absolute = absolute(path);
        if !self.takes_back() {
            return self.set.is_match_candidate(&candidate(&absolute));
        }
        // With `!`, a pattern may hold for an entry because it holds for a directory above it.
        let mut hit = vec![false; self.patterns.len()];
        let ends = (1..absolute.len()).filter(|&end| absolute[end] == b'/').chain([absolute.len()]);
        for end in ends {
            for index in self.set.matches_candidate(&candidate(&absolute[..end])) {
                hit[index] = true;
            }
        }
        let matched = self.patterns.iter().zip(hit).rfind(|(_, hit)| *hit);
        matched.is_some_and(|(pattern, _)| !pattern.negated)
    }

    /// Whether there is a pattern with `!`; then [`Self::matches`] looks at the directories above a path, too.
    pub fn takes_back(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// The tag file, if the directory is marked by one and everything else in it is left out. A tag file that
    /// cannot be read is no tag.
    pub fn tag_of(&self, directory: impl AsFd) -> Option<&[u8]> {
        let marked = |tag: &&Tag| tag.is_in(directory.as_fd());
        self.tags.iter().find(marked).map(|tag| tag.name.as_slice())
    }
}

impl Tag {
    fn is_in(&self, directory: impl AsFd) -> bool {
        if self.header.is_empty() {
            return holds(directory, &self.name);
        }
        let mut head = vec![0; self.header.len()];
        let read = to_c_string(&self.name)
            .and_then(|name| open_for_reading(directory, &name))
            .and_then(|mut file| file.read_exact(&mut head));
        read.is_ok() && head == self.header
    }
}

impl Pattern {
    /// Reads one; `origin` says in an error where it comes from.
    pub(crate) fn read(text: &str, ignore_case: bool, end: End, origin: &str) -> Result<Self> {
        parse(text, ignore_case, end).map_err(|reason| {
            Error::invalid(format!("{origin}: invalid pattern {text:?}: {reason}"))
                .with_hint("escape a literal *, ?, [ or \\ with a backslash")
        })
    }
}

/// All of them together, in their order.
pub(crate) fn set_of(patterns: &[Pattern], origin: &str) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(pattern.glob.clone());
    }
    builder.build().map_err(|error| Error::invalid(format!("{origin}: too many patterns: {error}")))
}

/// The path with the slash in front that patterns begin at.
pub(crate) fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

pub(crate) fn candidate(path: &[u8]) -> Candidate<'_> {
    Candidate::new(Path::new(OsStr::from_bytes(path)))
}

fn parse(text: &str, ignore_case: bool, end: End) -> Result<Pattern, String> {
    let (negated, body) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let mut names: Vec<&str> = body.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if end == End::Whole {
        let kept = names.iter().rposition(|name| *name != "**").map_or(1, |last| last + 1);
        names.truncate(kept);
    }
    if names.is_empty() {
        return Err("it names nothing".into());
    }
    let anchor = if body.starts_with('/') { "/" } else { "**/" };
    let glob = format!("{anchor}{}", literal_braces(&names.join("/")));
    let mut builder = GlobBuilder::new(&glob);
    builder.literal_separator(true).backslash_escape(true).case_insensitive(ignore_case);
    let glob = builder.build().map_err(|error| error.kind().to_string())?;
    Ok(Pattern { glob, negated })
}

/// Braces mean themselves in a restic pattern; alternatives are written as two patterns.
pub fn literal_braces(pattern: &str) -> String {
    let (mut out, mut in_class, mut escaped) = (String::with_capacity(pattern.len()), false, false);
    for c in pattern.chars() {
        if matches!(c, '{' | '}') && !in_class && !escaped {
            out.push('\\');
        }
        match c {
            '[' if !escaped => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}
