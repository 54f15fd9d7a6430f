//! Which of the names that a walk meets are meant.

#[cfg(test)]
mod tests;

/// Names by their place among those of their sort that are selected, which every walk meets in the same order: a bit each.
#[derive(Debug, Default)]
pub(super) struct Places {
    bits: Vec<u64>,
}

impl Places {
    pub(super) fn add(&mut self, place: u64) {
        let (word, bit) = at(place);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= bit;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    pub(super) fn has(&self, place: u64) -> bool {
        let (word, bit) = at(place);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn at(place: u64) -> (usize, u64) {
    (usize::try_from(place / 64).expect("fewer files than memory has bits"), 1 << (place % 64))
}
