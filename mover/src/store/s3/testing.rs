//! Errors behind each other, as those of the SDK are.

use std::{error::Error as StdError, fmt};

/// One of them, and what is behind it.
#[derive(Debug)]
pub(super) struct Link(&'static str, Option<Box<Self>>);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl StdError for Link {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.1.as_deref().map(|next| next as &(dyn StdError + 'static))
    }
}

/// The first of these texts, with the others behind it.
pub(super) fn chain(texts: &[&'static str]) -> Link {
    let (first, rest) = texts.split_first().expect("there is a text");
    Link(first, (!rest.is_empty()).then(|| Box::new(chain(rest))))
}
