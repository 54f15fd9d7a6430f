//! A copy of the engine with all changes in it, of which none or one is on.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::place::{Insertion, Site, sites};

/// What the changed engine asks which change is on, and tells which ones it has come to.
const MUTANT: &str = include_str!("mutant.rs.txt");
/// Rounds in which changes go that the compiler refuses.
const ROUNDS: usize = 12;

/// A change with its number, which begins at 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// Its number.
    pub(crate) number: usize,
    /// Below `mover/src`.
    pub(crate) file: String,
    /// Line of the file.
    pub(crate) line: usize,
    /// In words.
    pub(crate) words: String,
}

/// Programs of tests, and the directory of each one's package; the first one has the unit tests.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) directories: Vec<PathBuf>,
}

/// Lines of a file below `mover/src`.
type Place = (String, std::ops::RangeInclusive<usize>);

/// The copy.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    target: PathBuf,
    files: Vec<(String, String, Vec<Site>)>,
    refused: HashSet<(usize, usize)>,
}

impl Tree {
    /// Copies what the engine is built from to `work`, and looks for places in the files that begin with one of `parts`: for
    /// every so-manieth.
    ///
    /// # Errors
    ///
    /// Something cannot be read or written.
    pub(crate) fn of(repository: &Path, work: &Path, parts: &[String], every: usize) -> Result<Self> {
        let root = work.join("tree");
        fs::create_dir_all(&root)?;
        let built = [".git", ".cache", "target"].map(|name| repository.join(name));
        mirror(repository, &root, &built)?;
        let source = root.join("mover/src");
        let (mut files, mut places) = (Vec::new(), 0);
        for path in rust_files(&source)? {
            let name = path.strip_prefix(&source)?.display().to_string();
            let is_test =
                name.ends_with("tests.rs") || name.contains("tests/") || name.ends_with("testing.rs");
            if is_test || !parts.iter().any(|part| name.starts_with(part)) {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let mut found = sites(&text).with_context(|| name.clone())?;
            found.retain(|_| {
                places += 1;
                places % every == 0
            });
            files.push((name, text, found));
        }
        fs::write(source.join("mutant.rs"), MUTANT)?;
        let library = source.join("lib.rs");
        let text = fs::read_to_string(&library)?;
        fs::write(&library, format!("{text}\n#[doc(hidden)]\npub mod mutant;\n"))?;
        Ok(Self { root, target: work.join("target"), files, refused: HashSet::new() })
    }

    /// Builds the tests with as many changes as the compiler takes: those of the engine, and `outside`, which are tests of
    /// the whole engine and of the program.
    ///
    /// # Errors
    ///
    /// What is refused has to do with no change.
    pub(crate) fn build(&mut self, outside: &[String]) -> Result<(Programs, Vec<Mutant>)> {
        for _ in 0..ROUNDS {
            let mutants = self.write()?;
            let (mut paths, errors) = self.compile(&["test", "--no-run", "--lib", "-p", "carrack-mover"])?;
            if errors.is_empty() {
                let mut directories = vec![self.root.join("mover")];
                if !outside.is_empty() {
                    paths.extend(self.outside(outside)?);
                    directories.resize(paths.len(), self.root.join("tests"));
                }
                return Ok((Programs { paths, directories }, mutants));
            }
            let before = self.refused.len();
            errors.iter().for_each(|place| self.refuse(place));
            ensure!(self.refused.len() > before, "the compiler refuses what is no change: {errors:?}");
            let (errors, refused) = (errors.len(), self.refused.len());
            writeln!(std::io::stderr(), "{errors} errors; {refused} places are left out so far")?;
        }
        bail!("the compiler still refuses something after {ROUNDS} rounds")
    }

    /// Takes out what lies in these lines.
    fn refuse(&mut self, (name, lines): &Place) {
        for (file, (_, text, sites)) in self.files.iter().enumerate().filter(|(_, (found, ..))| found == name)
        {
            for (index, site) in sites.iter().enumerate() {
                let touches =
                    site.insertions.iter().any(|insertion| lines.contains(&line_of(text, insertion.at)));
                if touches {
                    self.refused.insert((file, index));
                }
            }
        }
    }

    fn write(&self) -> Result<Vec<Mutant>> {
        let mut mutants = Vec::new();
        for (file, (name, text, sites)) in self.files.iter().enumerate() {
            let mut insertions = Vec::new();
            for (index, site) in sites.iter().enumerate() {
                if self.refused.contains(&(file, index)) {
                    continue;
                }
                let first = mutants.len() + 1;
                for (at, words) in site.changes.iter().enumerate() {
                    let (file, line, words) = (name.clone(), site.line, words.clone());
                    mutants.push(Mutant { number: first + at, file, line, words });
                }
                insertions.extend(site.insertions.iter().map(|insertion| numbered(insertion, first)));
            }
            fs::write(self.root.join("mover/src").join(name), inserted(text, insertions))?;
        }
        Ok(mutants)
    }

    /// Tests of the whole engine, and the program beside them.
    fn outside(&self, tests: &[String]) -> Result<Vec<PathBuf>> {
        let mut arguments = vec!["build", "-p", "carrack-mover", "-p", "carrack-tests", "--bin", "carrack"];
        tests.iter().for_each(|test| arguments.extend(["--test", test]));
        let (programs, errors) = self.compile(&arguments)?;
        ensure!(errors.is_empty(), "the compiler takes the unit tests but not the rest: {errors:?}");
        ensure!(programs.len() == tests.len(), "{} programs of {} tests", programs.len(), tests.len());
        Ok(programs)
    }

    /// Programs of tests, or in which lines of which files the compiler has found errors.
    fn compile(&self, what: &[&str]) -> Result<(Vec<PathBuf>, Vec<Place>)> {
        let mut cargo = Command::new("cargo");
        cargo.args(what).args(["--locked", "--message-format=json"]);
        cargo
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        let mut child = cargo.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cargo")?;
        let (mut programs, mut errors) = (Vec::new(), Vec::new());
        for line in BufReader::new(child.stdout.take().context("its output")?).lines() {
            let message: Value = serde_json::from_str(&line?)?;
            let is_program = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
            if is_program && message["target"]["kind"] != serde_json::json!(["bin"]) {
                programs.extend(message["executable"].as_str().map(PathBuf::from));
            }
            if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
                errors.extend(places(&message["message"]));
            }
        }
        let ended = child.wait()?;
        ensure!(ended.success() || !errors.is_empty(), "cargo: {ended}");
        Ok((programs, errors))
    }
}

/// Where an error is. One that spans many lines is where it begins.
fn places(message: &Value) -> Vec<Place> {
    let spans = message["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    spans
        .iter()
        .filter(|span| span["is_primary"] == true)
        .filter_map(|span| {
            let name = span["file_name"].as_str()?.strip_prefix("mover/src/")?.to_owned();
            let line = |field: &str| usize::try_from(span[field].as_u64()?).ok();
            let (start, end) = (line("line_start")?, line("line_end")?);
            Some((name, start..=if end - start > 3 { start } else { end }))
        })
        .collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn numbered(insertion: &Insertion, first: usize) -> Insertion {
    let text = insertion.text.replace("#0", &first.to_string()).replace("#1", &(first + 1).to_string());
    Insertion { text, ..insertion.clone() }
}

/// The text with all of them. They come from the outside to the inside, so of several at one byte those close first that
/// come last, and then those open that come first.
fn inserted(text: &str, insertions: Vec<Insertion>) -> String {
    let mut ordered: Vec<(usize, Insertion)> = insertions.into_iter().enumerate().collect();
    let closing = |insertion: &Insertion| if insertion.closes { 0 } else { 1 };
    ordered.sort_by_key(|(index, insertion)| {
        let order = if insertion.closes { -(*index as isize) } else { *index as isize };
        (insertion.at, closing(insertion), order)
    });
    let (mut made, mut at) = (String::with_capacity(text.len() * 2), 0);
    for (_, insertion) in ordered {
        made.push_str(&text[at..insertion.at]);
        made.push_str(&insertion.text);
        at = insertion.at + insertion.removed;
    }
    made.push_str(&text[at..]);
    made
}

/// Files that are the same already keep their times, and what is built from them.
fn mirror(from: &Path, to: &Path, left_out: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if left_out.contains(&path) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            mirror(&path, &copy, left_out)?;
        } else if kind.is_file() && fs::read(&copy).ok().as_deref() != Some(&fs::read(&path)?[..]) {
            fs::copy(&path, &copy)?;
        }
    }
    Ok(())
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> String {
        let (mut insertions, mut next) = (Vec::new(), 1);
        for site in sites(text).expect("it is Rust") {
            insertions.extend(site.insertions.iter().map(|insertion| numbered(insertion, next)));
            next += site.changes.len();
        }
        let made = inserted(text, insertions);
        syn::parse_file(&made).expect("it is Rust still");
        assert_eq!(made.lines().count(), text.lines().count(), "lines are what errors are found by");
        made
    }

    #[test]
    fn all_changes_of_a_place_are_in_it() {
        assert_eq!(
            changed("fn f(a: u8) -> Other { a < 1 }"),
            "fn f(a: u8) -> Other { if crate::mutant::is(1) { return Default::default(); } (match (&(a) , &(1)) \
             { (l, r) => if crate::mutant::is(2) { *l <= *r } else if crate::mutant::is(3) { *l > *r } else \
             { *l < *r } }) }"
        );
        assert_eq!(
            changed("fn f() -> &str { if !a || b { g() } }"),
            "fn f() -> &str { if crate::mutant::not(1, crate::mutant::not(1, (crate::mutant::is(2) ^ !a)) || \
             crate::mutant::not(1, b)) { g() } }"
        );
    }

    #[test]
    fn what_lies_inside_of_another_is_changed_inside() {
        assert_eq!(
            changed("fn f() -> &str { a + b * c }"),
            "fn f() -> &str { (match ((a) , ((match ((b) , (c)) { (l, r) => if crate::mutant::is(2) { l + r } else \
             { l * r } }))) { (l, r) => if crate::mutant::is(1) { l - r } else { l + r } }) }"
        );
        assert_eq!(
            changed("fn f() -> &str { match a { 1 => x, n if n == 2 => y, _ => z } }"),
            "fn f() -> &str { match a { 1 if !crate::mutant::is(1) => x, n if ((((match (&(n) , &(2)) { (l, r) => if \
             crate::mutant::is(4) { *l != *r } else { *l == *r } })) || crate::mutant::is(2)) && \
             !crate::mutant::is(3)) => y, _ => z } }"
        );
    }

    #[test]
    fn what_the_compiler_works_out_and_tests_stay_as_they_are() {
        for text in [
            "const A: u8 = 1 + 1;",
            "const fn f() -> u8 { 1 + 1 }",
            "#[cfg(test)] mod tests { fn f() -> u8 { 1 + 1 } }",
            "impl Debug for A { fn fmt(&self) -> u8 { 1 + 1 } }",
            "fn f() -> &str { if let Some(a) = b && c { d() } }",
            "fn f() -> &str { match a { Some(1) => b, None => c } }",
        ] {
            assert_eq!(changed(text), text);
        }
    }
}
