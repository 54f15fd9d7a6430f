use std::time::Duration;

use super::Pacer;

#[test]
fn the_long_run_rate_is_the_wanted_one() {
    let pacer = Pacer::new(Some(100.0));
    assert_eq!(pacer.book(Duration::ZERO, 50.0), Duration::ZERO);
    assert_eq!(pacer.book(Duration::ZERO, 100.0), Duration::from_millis(500));
    assert_eq!(pacer.book(Duration::from_secs(1), 1.0), Duration::from_millis(500));
}

#[test]
fn idle_time_is_not_saved_up() {
    let pacer = Pacer::new(Some(10.0));
    assert_eq!(pacer.book(Duration::from_secs(100), 10.0), Duration::ZERO);
    assert_eq!(pacer.book(Duration::from_secs(100), 10.0), Duration::from_secs(1));
}

#[test]
fn no_rate_means_no_wait() {
    let pacer = Pacer::new(None);
    assert_eq!(pacer.book(Duration::ZERO, 1e18), Duration::ZERO);
    assert_eq!(pacer.book(Duration::ZERO, 1e18), Duration::ZERO);
}
