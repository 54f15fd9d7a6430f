use jiff::Timestamp;

use super::*;

#[test]
fn what_is_no_name_of_a_session_is_not_missed() {
    let seen = |snapshot: &str| SeenSnapshot { snapshot: snapshot.into(), started: Timestamp::UNIX_EPOCH };
    let name = format!("b{}-{}", "1".repeat(16), "2".repeat(32));
    let read_back = read(&seen(&name)).unwrap();
    assert_eq!((read_back.session.to_string(), read_back.started), (name.clone(), Timestamp::UNIX_EPOCH));
    for bad in ["", "latest", &name[..20]] {
        assert_eq!(read(&seen(bad)), None, "{bad}");
    }
}
