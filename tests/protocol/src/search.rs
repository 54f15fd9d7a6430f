//! Breadth-first search: the first counter-example found is a shortest one. Own code instead of a library: only two
//! layers of states are held whole, the rest as fingerprints, and step labels come for free.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Something whose states can be explored.
pub trait Model {
    /// Store, clients and requests in flight.
    type State: Copy + Hash;

    /// Where every run begins.
    fn initial(&self) -> Self::State;

    /// Every step that some client or the network can take. The order must depend on the state alone.
    fn steps(&self, state: &Self::State, out: &mut Vec<Step<Self::State>>);

    /// The invariant that a state breaks, if any.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// One step and where it leads.
#[derive(Debug, Clone, Copy)]
pub struct Step<S> {
    /// Who takes it.
    pub who: &'static str,
    /// Which of them.
    pub number: u8,
    /// What it does.
    pub what: &'static str,
    /// The state after it.
    pub next: S,
}

/// What a search found.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states visited.
    pub states: usize,
    /// Whether every reachable state was visited.
    pub exhausted: bool,
    /// The violated invariant and the steps that lead to it.
    pub violation: Option<(&'static str, Vec<String>)>,
}

/// Where a state came from: its parent and which of the parent's steps.
type Origin = (u32, u8);

/// Explores a model, visiting at most `limit` states.
pub fn search<M: Model>(model: &M, limit: usize) -> Outcome {
    let first = model.initial();
    let mut seen: HashSet<u128, BuildHasherDefault<Same>> = HashSet::default();
    seen.insert(fingerprint(&first));
    let mut origins: Vec<Origin> = vec![(0, 0)];
    let (mut layer, mut below) = (vec![first], Vec::new());
    let (mut base, mut out) = (0, Vec::new());
    while !layer.is_empty() {
        for (at, state) in layer.iter().enumerate() {
            let index = base + at;
            if let Some(broken) = model.broken(state) {
                let violation = Some((broken, path(model, &origins, index)));
                return Outcome { states: origins.len(), exhausted: false, violation };
            }
            if origins.len() >= limit {
                return Outcome { states: origins.len(), exhausted: false, violation: None };
            }
            out.clear();
            model.steps(state, &mut out);
            for (number, step) in out.iter().enumerate() {
                if seen.insert(fingerprint(&step.next)) {
                    origins.push((u32::try_from(index).unwrap_or(0), u8::try_from(number).unwrap_or(0)));
                    below.push(step.next);
                }
            }
        }
        base += layer.len();
        layer = std::mem::take(&mut below);
    }
    Outcome { states: origins.len(), exhausted: true, violation: None }
}

/// The labels of the steps that lead to a state, found by taking them again.
fn path<M: Model>(model: &M, origins: &[Origin], mut at: usize) -> Vec<String> {
    let mut numbers = Vec::new();
    while at != 0 {
        numbers.push(origins[at].1);
        at = origins[at].0 as usize;
    }
    let (mut state, mut labels, mut out) = (model.initial(), Vec::new(), Vec::new());
    for number in numbers.into_iter().rev() {
        out.clear();
        model.steps(&state, &mut out);
        let step = &out[usize::from(number)];
        labels.push(format!("{} {}: {}", step.who, step.number, step.what));
        state = step.next;
    }
    labels
}

/// Both halves must collide before two states are taken for one.
fn fingerprint<S: Hash>(state: &S) -> u128 {
    let mut hasher = TwoLanes { left: 0x9E37_79B9_7F4A_7C15, right: 0xC2B2_AE3D_27D4_EB4F };
    state.hash(&mut hasher);
    u128::from(mix(hasher.left)) << 64 | u128::from(mix(hasher.right))
}

fn mix(mut lane: u64) -> u64 {
    lane = (lane ^ lane >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    lane = (lane ^ lane >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    lane ^ lane >> 33
}

struct TwoLanes {
    left: u64,
    right: u64,
}

impl TwoLanes {
    fn word(&mut self, word: u64) {
        self.left = (self.left.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
        self.right = (self.right.rotate_left(23) ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25);
    }
}

impl Hasher for TwoLanes {
    fn finish(&self) -> u64 {
        self.left
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, word: usize) {
        self.word(word as u64);
    }

    fn write_u8(&mut self, word: u8) {
        self.word(u64::from(word));
    }
}

/// Fingerprints are mixed already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |all, byte| all << 8 | u64::from(*byte));
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of a fingerprint is enough to find its place")]
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}
