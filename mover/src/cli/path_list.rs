//! Lists of paths to back up, one a line: as they are, or with patterns and comments as in restic.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use carrack_mover::{
    error::{Error, Result},
    limits,
    source::exclude::literal_braces,
};
use globset::{GlobBuilder, GlobMatcher};

/// Longest list of paths that is read, in bytes: a list of files by mistake is not read to its end.
const LIST_LIMIT: u64 = 1 << 30;

/// What a list names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) paths: Vec<PathBuf>,
    /// Patterns that nothing matches.
    pub(crate) unmatched: Vec<String>,
}

/// The paths of a list in which each line is one, whatever is in it.
pub(crate) fn verbatim(list: &Path) -> Result<Vec<PathBuf>> {
    let lines = lines(list)?.into_iter().filter(|line| !line.is_empty());
    Ok(lines.map(|line| PathBuf::from(OsString::from_vec(line))).collect())
}

/// The paths of a list in which blank lines and lines that begin with `#` do not count, blanks around a line neither,
/// and patterns stand for all that they match.
pub(crate) fn expanded(list: &Path) -> Result<Listed> {
    let mut listed = Listed::default();
    for line in lines(list)? {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if !is_pattern(line) {
            listed.paths.push(PathBuf::from(OsStr::from_bytes(line)));
            continue;
        }
        let found = expand(line)?;
        if found.is_empty() {
            listed.unmatched.push(Path::new(OsStr::from_bytes(line)).display().to_string());
        }
        listed.paths.extend(found);
    }
    Ok(listed)
}

fn lines(list: &Path) -> Result<Vec<Vec<u8>>> {
    if list == Path::new("-") {
        return lines_of(io::stdin().lock(), list, LIST_LIMIT);
    }
    lines_of(std::fs::File::open(list).map_err(|error| unreadable(error, list))?, list, LIST_LIMIT)
}

fn unreadable(error: io::Error, list: &Path) -> Error {
    Error::io(error, format!("list of paths {} cannot be read", list.display()))
}

/// The lines of a list of no more than `limit` bytes. What is beyond must not be left out in silence.
fn lines_of(input: impl io::Read, list: &Path, limit: u64) -> Result<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    let mut input = BufReader::new(input.take(limit + 1));
    for line in input.by_ref().split(b'\n') {
        let mut line = line.map_err(|error| unreadable(error, list))?;
        if line.ends_with(b"\r") {
            line.pop();
        }
        if line.len() > limits::PATH_LIMIT {
            return Err(Error::invalid(format!("list of paths {}: a line is too long", list.display())));
        }
        lines.push(line);
    }
    if input.get_ref().limit() == 0 {
        return Err(Error::invalid(format!("list of paths {} has more than {limit} bytes", list.display()))
            .with_hint("give a shorter list; a directory stands for all that is in it"));
    }
    Ok(lines)
}

fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[\\".contains(byte))
}

/// What a pattern matches, in order: `*`, `?` and `[…]` stand for parts of one name, a backslash takes the next
/// character for itself. What has the pattern itself for a name belongs to it too, so that a list made by `find` loses
/// nothing.
fn expand(pattern: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(if pattern.starts_with(b"/") { "/" } else { "" })];
    for part in pattern.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if !is_pattern(part) {
            found.iter_mut().for_each(|path| path.push(OsStr::from_bytes(part)));
            continue;
        }
        let matcher = matcher(part)?;
        let mut deeper = Vec::new();
        for directory in &found {
            add_matches(directory, &matcher, &mut deeper)?;
        }
        found = deeper;
    }
    if pattern.ends_with(b"/") {
        // Only directories have such a path.
        found.iter_mut().for_each(|path| path.push(""));
    }
    found.push(PathBuf::from(OsStr::from_bytes(pattern)));
    found.retain(|path| path.symlink_metadata().is_ok());
    found.sort();
    found.dedup();
    Ok(found)
}

fn matcher(part: &[u8]) -> Result<GlobMatcher> {
    let wrong = |why: &str| {
        Error::invalid(format!("pattern {:?} in a list of paths: {why}", String::from_utf8_lossy(part)))
            .with_hint("give a list of plain paths with --files-from-verbatim")
    };
    let text = str::from_utf8(part).map_err(|_| wrong("it is not UTF-8"))?;
    let glob = GlobBuilder::new(&literal_braces(text)).literal_separator(true).backslash_escape(true).build();
    Ok(glob.map_err(|error| wrong(&error.kind().to_string()))?.compile_matcher())
}

/// Adds what of a directory matches. What is no directory has nothing in it; but one that may not be read could have,
/// and must not be left out in silence.
fn add_matches(directory: &Path, matcher: &GlobMatcher, found: &mut Vec<PathBuf>) -> Result<()> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let failed = |error| Error::io(error, format!("{} cannot be searched for a pattern", here.display()));
    let names = match here.read_dir() {
        Ok(names) => names,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    for name in names {
        let name = name.map_err(failed)?.file_name();
        if matcher.is_match(&name) {
            found.push(directory.join(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_comments_of_a_list() {
        let place = tempfile::tempdir().unwrap();
        for name in ["a1/mail", "a2/mail", "a2/other", ".hidden", "{x}"] {
            std::fs::create_dir_all(place.path().join(name)).unwrap();
        }
        std::fs::write(place.path().join("file[1]"), "").unwrap();
        let list = place.path().join("list");
        let at = place.path().display();
        let read = |text: String| {
            std::fs::write(&list, text).unwrap();
            let Listed { paths, unmatched } = expanded(&list).unwrap();
            let shown = paths.iter().map(|path| path.display().to_string());
            (shown.map(|path| path.replace(&format!("{at}/"), "")).collect::<Vec<_>>(), unmatched)
        };
        let (paths, unmatched) = read(format!("# {at}/no\n\n  {at}/a?/mail  \n\t# no\n{at}/plain\r\n"));
        assert_eq!((paths, unmatched), (vec!["a1/mail".into(), "a2/mail".into(), "plain".into()], vec![]));
        assert_eq!(read(format!("{at}/*idden\n{at}/[^a]x*\n{at}/{{x}}*")).0, [".hidden", "{x}", "{x}"]);
        // As it stands, or escaped; and with nothing to match.
        assert_eq!(read(format!("{at}/file[1]\n{at}/file\\[1\\]")).0, ["file[1]", "file[1]"]);
        assert_eq!(read(format!("{at}/a*/")).0, ["a1/", "a2/"]);
        assert_eq!(
            read(format!("{at}/list/*\n{at}/none*")).1,
            [format!("{at}/list/*"), format!("{at}/none*")]
        );
        std::fs::write(&list, format!("{at}/file[\n")).unwrap();
        expanded(&list).unwrap_err();
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_and_not_cut() {
        let lines = |limit| lines_of(&b"/a\n/b\n"[..], Path::new("list"), limit);
        assert_eq!(lines(6).unwrap(), [b"/a", b"/b"]);
        for limit in 0..6 {
            let error = lines(limit).unwrap_err();
            assert!(error.to_string().contains("list has more than") && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn a_verbatim_list_is_taken_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let list = place.path().join("list");
        std::fs::write(&list, b"#a\n\n b \nc*\n\xff\n").unwrap();
        let expected: [&[u8]; 4] = [b"#a", b" b ", b"c*", b"\xff"];
        assert_eq!(verbatim(&list).unwrap(), expected.map(|name| PathBuf::from(OsStr::from_bytes(name))));
    }
}
