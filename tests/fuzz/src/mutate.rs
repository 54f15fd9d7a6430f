//! Changes of inputs from a seed: what damages bytes in the field, and what somebody does who knows the format.

/// Lengths and counts that are easily mistaken, as varints and as fixed numbers.
const PIECES: [&[u8]; 10] = [
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x08],
    &[0x80, 0x80, 0x04],
    &[0x80, 0x00],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0, 0, 0, 0, 0],
    b"..",
    b"/",
    b"\0",
];
/// Inputs become no longer, in bytes.
const LONGEST: usize = 64 << 10;

/// Gives the same changes for the same seed.
#[derive(Debug, Clone)]
pub struct Mutator(u64);

impl Mutator {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 16) % limit as u64) as usize
    }

    /// One to four changes; `other` is another input, of which a piece may come in.
    pub fn change(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            self.change_once(&mut bytes, other);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change_once(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let length = (1 + self.below(16)).min(bytes.len() - at);
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let again = bytes[at..at + length].to_vec();
                self.insert(bytes, &again);
            }
            5 => {
                let piece = PIECES[self.below(PIECES.len())];
                self.insert(bytes, piece);
            }
            6 => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..bytes.len().min(at + piece.len()), piece.iter().copied());
            }
            _ => {
                let from = self.below(other.len() + 1);
                let piece = &other[from..other.len().min(from + 1 + length * 8)];
                self.insert(bytes, piece);
            }
        }
    }

    fn insert(&mut self, bytes: &mut Vec<u8>, piece: &[u8]) {
        let at = self.below(bytes.len() + 1);
        bytes.splice(at..at, piece.iter().copied());
    }
}
