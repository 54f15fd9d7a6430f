use super::*;

#[test]
fn directories_wait_as_long_as_there_is_room() {
    // Room for ten of them, whose paths have 36 bytes.
    let mut others = Others::new(NAMES_SHARE * 1000);
    let directory = |number: u32| format!("{number:036}").into_bytes();
    (0..10).for_each(|number| others.wait(&directory(number)));
    let waiting = |others: &Others| (others.waiting.as_ref().map(HashSet::len), others.waiting_bytes);
    assert_eq!(waiting(&others), (Some(10), 1000));
    // One that waits already, and one that never did.
    others.wait(&directory(3));
    others.came(&directory(77));
    assert_eq!(waiting(&others), (Some(10), 1000));
    others.came(&directory(3));
    assert_eq!(waiting(&others), (Some(9), 900));
    others.wait(&directory(10));
    assert_eq!(waiting(&others), (Some(10), 1000));
    others.wait(&directory(11));
    assert_eq!(waiting(&others).0, None);
    // What was forgotten cannot be had back: the tree tells.
    others.came(&directory(0));
    others.wait(&directory(0));
    assert_eq!(waiting(&others).0, None);
}
