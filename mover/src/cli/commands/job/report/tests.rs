use std::fs;

use carrack_proto::TERMINATION_MESSAGE_LIMIT;

use super::*;
use crate::cli::args::OutputArgs;

fn output() -> Output {
    Output::new(&OutputArgs { json: true, ..OutputArgs::default() }, &|_| None)
}

#[test]
fn every_end_has_a_result() {
    let record = Record::default();
    let ended = |done: Result<Outcome>| {
        let result = result(&done, None, &record);
        (result.outcome, result.exit_code, result.message, result.next)
    };
    assert_eq!(ended(Ok(Outcome::Done)), (Ended::Completed, 0, String::new(), None));
    let (outcome, code, message, next) = ended(Ok(Outcome::Damaged));
    assert_eq!((outcome, code), (Ended::Partial, 14));
    assert!(message.contains("damage") && next.is_some_and(|next| next.contains("carrack check")));
    let (outcome, code, message, next) = ended(Err(Error::denied("no").with_hint("ask").with_source("why")));
    assert_eq!((outcome, code, &*message, next.as_deref()), (Ended::Failed, 13, "no: why", Some("ask")));
    let (outcome, code, ..) = ended(Err(Error::cancelled("stopped")));
    assert_eq!((outcome, code), (Ended::Cancelled, 130));
    record.problem("/data/a", "cannot be read");
    let partial = result(&Ok(Outcome::Partial), None, &record);
    assert_eq!((partial.outcome, partial.exit_code, partial.problems), (Ended::Partial, 3, 1));
    assert_eq!((&*partial.message, &*partial.first_problems[0].item), ("done, but for 1 problem", "/data/a"));
}

#[test]
fn a_panic_and_a_stop_leave_a_result_too() {
    let record = Record::default();
    record.problem("/data/a", "cannot be read");
    let panicked = failed(&Error::internal("internal error at a.rs:1: why"), None, &record);
    assert_eq!((panicked.outcome, panicked.exit_code, panicked.problems), (Ended::Failed, 70, 1));
    assert!(panicked.message.contains("a.rs:1") && panicked.next.is_some());
    let stopped = failed(&Error::cancelled("stopped"), None, &record);
    assert_eq!((stopped.outcome, stopped.exit_code), (Ended::Cancelled, 130));
}

#[test]
fn a_source_that_is_waited_for_no_longer_is_no_defect() {
    let silent =
        Error::unavailable("/data/a has not been read for 9 s").with_hint("see what is mounted there");
    let result = failed(&silent, None, &Record::default());
    assert_eq!((result.outcome, result.exit_code), (Ended::Failed, 12));
    assert_eq!(result.next.as_deref(), Some("see what is mounted there"));
}

#[test]
fn the_first_result_counts_and_an_old_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("result");
    fs::write(&file, "of an earlier run").unwrap();
    let record = Arc::new(Record::default());
    let report = Report::open(Some(&file), &output(), &record).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    report.write(result(&Err(Error::invalid("x".repeat(9000))), None, &record));
    report.write(result(&Ok(Outcome::Done), None, &record));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.len() <= TERMINATION_MESSAGE_LIMIT);
    assert_eq!(JobResult::read(&text).unwrap().exit_code, 2);
    let absent = Report::open(Some(&directory.path().join("a/b")), &output(), &record).unwrap_err();
    assert!(absent.to_string().contains("a/b") && absent.hint().is_some());
}
