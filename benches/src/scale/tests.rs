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
    let outcome = Outcome { subject: "files", memory_mib: 256, points };
    let text: String = outcome.points.iter().map(|point| outcome.row(point)).collect();
    assert!(text.contains("| **above the cap**; × 1.05 for one: linear |"), "{text}");
    assert!(text.contains("× 2.00 for one: **more than linear**"), "{text}");
}

#[test]
fn the_figures_are_kept_after_every_point() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("figures.json");
    let mut outcome = Outcome { subject: "files", memory_mib: 256, points: Vec::new() };
    for count in 1..=2 {
        outcome.points.push(point(count as f64, 1.0, 1.0));
        outcome.save(&path).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept["points"].as_array().unwrap().len(), count);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}
