use super::*;
use crate::rng::Rng;

#[test]
fn chunks_keep_their_bounds_and_find_their_cuts_again() {
    let gear = Gear::new(&[3; 32]);
    let mut data = vec![0; 16 << 20];
    Rng::new(1, "cut").fill(&mut data);
    let ends = |data: &[u8]| {
        let (mut at, mut ends) = (0, Vec::new());
        while at < data.len() {
            let length = gear.cut(&data[at..]);
            assert!(length <= MAX && (length >= MIN || at + length == data.len()));
            at += length;
            ends.push(data.len() - at);
        }
        ends
    };
    let whole = ends(&data);
    let average = data.len() / whole.len();
    assert!((AVERAGE * 3 / 4..AVERAGE * 3 / 2).contains(&average), "average {average}");
    // Cuts counted from the end are the same when bytes in front are lost.
    let shifted = ends(&data[100_001..]);
    let same = shifted.iter().filter(|end| whole.contains(end)).count();
    assert!(same * 10 > shifted.len() * 9, "{same} of {}", shifted.len());
}
