//! What a sample of packs proves: arithmetic, and nothing else.

/// What a sample without damage says of the rest.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Packs it was drawn from.
    pub packs: u64,
    /// Packs that were drawn, each with the same chance.
    pub drawn: u64,
    /// The chance that damage in a single pack would have been found.
    pub finds_one: f64,
    /// The same for damage in one of a hundred packs (at least one).
    pub finds_one_percent: f64,
    /// The same for damage in ten of a hundred packs (at least one).
    pub finds_ten_percent: f64,
    /// With 95 % certainty fewer packs than this are damaged; absent if damage was found.
    pub fewer_than_95: Option<u64>,
    /// The same with 99 %.
    pub fewer_than_99: Option<u64>,
}

impl Sample {
    /// Of a sample of `drawn` out of `packs` packs.
    pub fn new(packs: u64, drawn: u64) -> Self {
        let share = |percent: u64| detection(packs, drawn, (packs * percent).div_ceil(100));
        Self {
            packs,
            drawn,
            finds_one: detection(packs, drawn, 1),
            finds_one_percent: share(1),
            finds_ten_percent: share(10),
            fewer_than_95: Some(fewer_than(packs, drawn, 0.95)),
            fewer_than_99: Some(fewer_than(packs, drawn, 0.99)),
        }
    }
}

/// How many packs a percentage is, at least one if there is any.
pub(super) fn size_of(packs: u64, percent: f64) -> u64 {
    ((packs as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64).min(packs)
}

/// The chance that `drawn` of `packs` packs have one of `damaged` damaged ones among them. Nothing is drawn twice,
/// so the chance of meeting none is the product of `(packs - drawn - i) / (packs - i)` over the damaged ones.
pub fn detection(packs: u64, drawn: u64, damaged: u64) -> f64 {
    let mut missed = 1.0;
    for step in 0..damaged.min(packs) {
        missed *= still_missed(packs, drawn, step);
    }
    1.0 - missed
}

/// The least number of damaged packs that such a sample finds with this confidence: if it found none, there are
/// fewer. One more than there are packs if it proves nothing.
pub fn fewer_than(packs: u64, drawn: u64, confidence: f64) -> u64 {
    let mut missed = 1.0;
    for step in 0..packs {
        missed *= still_missed(packs, drawn, step);
        if 1.0 - missed >= confidence {
            return step + 1;
        }
    }
    packs + 1
}

fn still_missed(packs: u64, drawn: u64, step: u64) -> f64 {
    packs.saturating_sub(drawn).saturating_sub(step) as f64 / (packs - step) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 0.0005, "{a} is not {b}");
    }

    #[test]
    fn the_chance_is_counted_without_putting_back() {
        near(detection(100, 5, 1), 0.05);
        // 1 - C(80,5) / C(100,5), and 1 - C(90,5) / C(100,5).
        near(detection(100, 5, 20), 0.6807);
        near(detection(100, 5, 10), 0.4162);
        near(detection(10, 10, 1), 1.0);
        near(detection(10, 0, 10), 0.0);
        near(detection(10, 5, 6), 1.0);
        near(detection(0, 0, 0), 0.0);
    }

    #[test]
    fn what_a_clean_sample_excludes() {
        assert_eq!(fewer_than(10, 10, 0.95), 1, "all were read");
        assert_eq!(fewer_than(10, 0, 0.95), 11, "none was read");
        let bound = fewer_than(100, 5, 0.95);
        assert!(detection(100, 5, bound) >= 0.95 && detection(100, 5, bound - 1) < 0.95, "{bound}");
        assert!(fewer_than(1_000_000, 50_000, 0.99) < 100);
    }

    #[test]
    fn a_percentage_is_rounded_up() {
        assert_eq!([size_of(0, 5.0), size_of(3, 5.0), size_of(100, 5.0), size_of(7, 100.0)], [0, 1, 5, 7]);
    }
}
