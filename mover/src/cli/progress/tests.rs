use super::*;

#[test]
fn a_sentence_says_how_far_and_how_long() {
    let status = Status {
        phase: "backing up".into(),
        seconds_elapsed: 10.0,
        seconds_remaining: Some(30.0),
        percent_done: Some(0.25),
        files_done: 3,
        bytes_done: 1 << 30,
        total_bytes: 4 << 30,
        bytes_new: 1 << 29,
        ..Status::default()
    };
    assert_eq!(
        sentence(&status, true),
        "backing up: [=====               ]  25 %  1.00 GiB of 4.00 GiB  3 entries  102 MiB/s  30 s left  50 % new"
    );
    let unknown = Status {
        phase: "backup".into(),
        seconds_elapsed: 1.0,
        bytes_done: 17,
        error_count: 1,
        ..Status::default()
    };
    assert_eq!(sentence(&unknown, false), "backup: 17 B  17 B/s  1 problem");
}

#[test]
fn no_guess_from_the_first_instant() {
    assert_eq!(remaining(0.5, 0.5), None);
    assert_eq!(remaining(10.0, 0.001), None);
    assert_eq!(remaining(10.0, 0.5), Some(10.0));
    assert_eq!(share_done(3, 0), None);
    assert_eq!(share_done(4, 4), Some(1.0));
    assert_eq!(share_done(5, 4), None);
}
