use super::*;

fn point(size: f64, seconds: f64, peak_mib: f64) -> Point {
    let usage = Usage { seconds, peak_mib, ..Usage::default() };
    Point { step: "first".into(), size, unit: "GiB", usage }
}

#[test]
fn sizes_grow_and_do_not_repeat() {
    assert_eq!(sizes(1000), [250, 500, 1000]);
    assert_eq!(sizes(2), [1, 2]);
    assert_eq!(sizes(1), [1]);
}

#[test]
fn a_verdict_sees_time_that_grows_too_fast_and_memory_above_its_cap() {
    let points = vec![point(1.0, 10.0, 100.0), point(2.0, 21.0, 300.0), point(4.0, 80.0, 100.0)];
    let text = Outcome { subject: "files", memory_mib: 256, points }.markdown();
    assert!(text.contains("| **above the cap**; × 1.05 for one: linear |"), "{text}");
    assert!(text.contains("× 2.00 for one: **more than linear**"), "{text}");
}
