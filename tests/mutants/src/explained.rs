//! Changes that no test need notice, and why: `explained.txt`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tree::Mutant;

/// A file below `mover/src`, and what is changed there.
type Change<'a> = (&'a str, &'a str);

/// At how many places of its file a change is explained. The words of a change say in which function it is and not where, so
/// that lines may move; the number keeps them from speaking of what is written later.
#[derive(Debug)]
pub(crate) struct Explained<'a>(BTreeMap<Change<'a>, usize>);

impl<'a> Explained<'a> {
    /// Reads lines with a file, a change and a reason; behind the change, `× 2` says that it is explained at two places.
    ///
    /// # Errors
    ///
    /// A line is of another form, or says what another one has said.
    pub(crate) fn read(text: &'a str) -> Result<Self> {
        let mut known = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // With spaces: `||` is a word of some changes.
            let fields: Vec<&str> = line.splitn(3, " | ").map(str::trim).collect();
            let [file, change, reason] = fields[..] else {
                bail!("not a file, a change and a reason: {line}")
            };
            ensure!(!reason.is_empty(), "no reason: {line}");
            let (words, places) = match change.rsplit_once(" × ") {
                Some((words, places)) => (words, places.parse::<usize>().with_context(|| line.to_owned())?),
                None => (change, 1),
            };
            ensure!(places > 0, "at no place: {line}");
            ensure!(known.insert((file, words), places).is_none(), "explained twice: {line}");
        }
        Ok(Self(known))
    }

    /// Those of these changes that are explained: none of those of which there are more than that.
    pub(crate) fn among<'m>(&self, mutants: &'m [Mutant]) -> BTreeSet<Change<'m>> {
        let mut places: BTreeMap<Change<'m>, usize> = BTreeMap::new();
        for mutant in mutants {
            *places.entry((mutant.file.as_str(), mutant.words.as_str())).or_default() += 1;
        }
        places.retain(|change, places| self.0.get(change).is_some_and(|most| *places <= *most));
        places.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::place::sites;

    const TEXT: &str =
        "# a head\na.rs | > becomes >= in f | one\nb.rs | || becomes && in g × 2 | two | and more\n";

    fn mutants(changes: &[Change<'_>]) -> Vec<Mutant> {
        let mutant = |(index, (file, words)): (usize, &Change<'_>)| Mutant {
            number: index + 1,
            file: (*file).to_owned(),
            line: index,
            words: (*words).to_owned(),
        };
        changes.iter().enumerate().map(mutant).collect()
    }

    #[test]
    fn a_further_place_with_the_same_words_is_not_explained() {
        let explained = Explained::read(TEXT).expect("it is of the form");
        let (one, two) = (("a.rs", "> becomes >= in f"), ("b.rs", "|| becomes && in g"));
        let others =
            [("b.rs", "> becomes >= in f"), ("a.rs", "> becomes >= in g"), ("a.rs", "> becomes < in f")];
        let all = mutants(&[&[one, two, two][..], &others].concat());
        assert_eq!(explained.among(&all), BTreeSet::from([one, two]));
        assert_eq!(explained.among(&mutants(&[one, one, two])), BTreeSet::from([two]));
        assert_eq!(explained.among(&mutants(&[one, two, two, two])), BTreeSet::from([one]));
    }

    #[test]
    fn what_explains_nothing_is_refused() {
        for text in [
            "a.rs | > becomes >= in f",
            "a.rs | > becomes >= in f | ",
            "a.rs | > becomes >= in f × 0 | never",
            "a.rs | > becomes >= in f × two | not a number",
            "a.rs | > becomes >= in f | one\na.rs | > becomes >= in f × 2 | two",
        ] {
            Explained::read(text).expect_err(text);
        }
    }

    /// Whoever adds a place with words that are explained looks whether the explanation is true of it.
    #[test]
    fn the_numbers_are_those_of_the_engine() {
        let explained = Explained::read(include_str!("../explained.txt")).expect("it is of the form");
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mover/src");
        let mut wrong = Vec::new();
        for ((file, words), most) in &explained.0 {
            let text = fs::read_to_string(engine.join(file)).expect("a file of the engine");
            let sites = sites(&text).expect("it is Rust");
            let changes = sites.iter().flat_map(|site| &site.changes);
            let places = changes.filter(|change| change == words).count();
            if places != *most {
                wrong.push(format!("{file} | {words}: explained at {most}, and there are {places}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
