use super::*;

const NAME: &str = "/home/ada/letters";

#[test]
fn what_is_no_defect_has_no_report() {
    for kind in [ErrorKind::Corrupt, ErrorKind::Denied, ErrorKind::Unavailable] {
        assert_eq!(of_error(&Error::new(kind, "x")), None);
    }
}

#[test]
fn a_report_of_an_error_has_the_texts_of_the_program_and_no_others() {
    let deeper = Error::internal("deeper").context(NAME).with_source(NAME);
    let error = Error::internal("two and two are five").context(NAME).with_hint(NAME).with_source(deeper);
    for error in [error.again(), error] {
        let report = of_error(&error).unwrap();
        assert!(!report.contains(NAME) && error.to_string().contains(NAME), "{report}");
        for line in
            ["message: two and two are five", "place: mover/src/cli/contradiction/tests.rs:", "verb: "]
        {
            assert!(report.contains(line), "{line}: {report}");
        }
        // Whoever meets an error after others has its causes in the message.
        let causes: Vec<&str> = report.lines().filter(|line| line.starts_with("cause: ")).collect();
        if error.source().is_none() {
            assert_eq!(causes, [""; 0]);
        } else {
            assert!(causes[0].starts_with("cause: deeper at mover/src/"), "{causes:?}");
            assert_eq!(causes[1..], [format!("cause: {LEFT_OUT}")]);
        }
    }
}

#[test]
fn words_that_were_put_together_are_left_out() {
    let report = of_error(&Error::new(ErrorKind::Internal, NAME)).unwrap();
    assert!(
        report.contains("place: unknown") && report.contains(LEFT_OUT) && !report.contains(NAME),
        "{report}"
    );
    for (literal, message) in [(Some("five"), "message: five\n"), (None, LEFT_OUT)] {
        let report = of_panic("main", "a.rs:1:2", literal, "frames");
        for line in ["thread: main\n", "place: a.rs:1:2\n", message, "backtrace: of this thread\nframes"] {
            assert!(report.contains(line), "{line}: {report}");
        }
    }
}

#[test]
fn where_the_program_was_built_is_in_no_report() {
    let backtrace = "   0: add::<u8>\n             at /home/ada/letters/src/two.rs:3:4\n   1: main\n             at ./src/main.rs:5:6";
    let report = of_panic("main", "/home/ada/letters/src/one.rs:1:2", None, backtrace);
    assert!(!report.contains(NAME), "{report}");
    for line in
        ["place: one.rs:1:2\n", "   0: add::<u8>\n             at two.rs:3:4\n", "at ./src/main.rs:5:6"]
    {
        assert!(report.contains(line), "{line}: {report}");
    }
}

#[test]
fn causes_of_the_system_are_told_without_what_others_put_into_them() {
    let told = |cause: io::Error| {
        of_error(&Error::internal("x").with_source(cause)).unwrap().lines().last().unwrap().to_owned()
    };
    assert_eq!(told(io::Error::from_raw_os_error(2)), "cause: the system's error 2");
    assert_eq!(told(io::Error::new(io::ErrorKind::InvalidData, NAME)), "cause: invalid data");
    let of_kind = of_error(&Error::internal("x").with_source(Error::corrupt(NAME))).unwrap();
    assert!(of_kind.ends_with("cause: an error of kind Corrupt"), "{of_kind}");
}

#[test]
fn a_key_cannot_be_made_a_message() {
    use carrack_mover::secret::{Key, Passphrase};

    let printed = format!("{:?} {:?}", Key::new([b'k'; 32]), Passphrase::new(b"correct horse".to_vec()));
    assert_eq!(printed, "Key(…) Passphrase(…)");
}
