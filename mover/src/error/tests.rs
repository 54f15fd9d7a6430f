use std::error::Error as _;
use std::io;

use super::{Error, ErrorKind};

#[test]
fn message_hint_and_source_stay_apart() {
    let err = Error::io(io::Error::from(io::ErrorKind::NotFound), "open /repo/format")
        .with_hint("run init first")
        .context("repository /repo");
    assert_eq!(err.to_string(), "repository /repo: open /repo/format");
    assert_eq!(err.hint(), Some("run init first"));
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert_eq!(err.source().expect("a source").to_string(), "entity not found");
}

#[test]
fn system_errors_map_to_what_a_caller_can_do() {
    for (errno, kind) in [
        (rustix::io::Errno::NOENT, ErrorKind::NotFound),
        (rustix::io::Errno::ACCESS, ErrorKind::Denied),
        (rustix::io::Errno::PERM, ErrorKind::Denied),
        (rustix::io::Errno::ROFS, ErrorKind::Denied),
        (rustix::io::Errno::NOSPC, ErrorKind::NoSpace),
        (rustix::io::Errno::DQUOT, ErrorKind::NoSpace),
        (rustix::io::Errno::EXIST, ErrorKind::Conflict),
        (rustix::io::Errno::IO, ErrorKind::Unavailable),
        (rustix::io::Errno::STALE, ErrorKind::Unavailable),
    ] {
        assert_eq!(Error::io(errno.into(), "x").kind(), kind, "{errno}");
    }
}

#[test]
fn what_contradicts_itself_keeps_what_and_where_whoever_meets_it() {
    let line = line!() + 1;
    let first = Error::internal("two and two are five").context("/home/ada").with_source("a cause");
    let again = first.again();
    assert_eq!(again.to_string(), "/home/ada: two and two are five: a cause");
    for error in [first, again] {
        let known = error.contradiction().unwrap();
        assert_eq!((error.kind(), known.what), (ErrorKind::Internal, "two and two are five"));
        assert_eq!((known.place.file(), known.place.line()), (file!(), line));
    }
    assert!(Error::new(ErrorKind::Internal, "of unknown origin").contradiction().is_none());
    let other = Error::denied("no").with_hint("ask").again();
    assert_eq!((other.kind(), other.hint()), (ErrorKind::Denied, Some("ask")));
    assert!(other.contradiction().is_none());
}
