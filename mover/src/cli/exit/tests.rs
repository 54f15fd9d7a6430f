use super::*;

#[test]
fn every_kind_has_its_code() {
    let table = [
        (ErrorKind::Invalid, 2),
        (ErrorKind::NotFound, 10),
        (ErrorKind::Conflict, 11),
        (ErrorKind::Unavailable, 12),
        (ErrorKind::Denied, 13),
        (ErrorKind::Corrupt, 14),
        (ErrorKind::NoSpace, 15),
        (ErrorKind::Incomplete, 16),
        (ErrorKind::Internal, 70),
        (ErrorKind::Cancelled, 130),
    ];
    for (kind, expected) in table {
        assert_eq!(code(&Error::new(kind, "x")), expected, "{kind:?}");
    }
    let closed = Error::unavailable("standard output").with_source(OutputClosed);
    assert_eq!(code(&closed), 1);
}

#[test]
fn outcomes_have_codes() {
    assert_eq!(Outcome::of_problems(0).code(), 0);
    assert_eq!(Outcome::of_problems(7).code(), 3);
    assert_eq!(Outcome::Damaged.code(), 14);
}
