//! Who runs the program, for the record of a snapshot.

use super::context::environment;

/// Where the system keeps the names of its users.
const USERS: &str = "/etc/passwd";

/// The name of the user: as the system has it; of a user from elsewhere, such as a directory service, as the
/// environment has it; the number if nobody knows a name.
pub(crate) fn name() -> String {
    let id = rustix::process::getuid().as_raw();
    let known = std::fs::read(USERS).ok().and_then(|users| name_of(&String::from_utf8_lossy(&users), id));
    let told = || environment("USER").or_else(|| environment("LOGNAME"));
    known.or_else(|| Some(told()?.to_string_lossy().into_owned())).unwrap_or_else(|| id.to_string())
}

/// The first name with this number, as the system itself would answer.
fn name_of(users: &str, id: u32) -> Option<String> {
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(id) && !name.is_empty()).then_some(name)
    });
    found.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number() {
        let users = "# comment\n\nroot:x:0:0:root:/root:/bin/sh\n:x:7::\n+::::::\n\
                     toor:x:0:0::/:/bin/sh\ndb:x:1000:1000::/:/bin/sh";
        assert_eq!(name_of(users, 0).as_deref(), Some("root"));
        assert_eq!(name_of(users, 1000).as_deref(), Some("db"));
        assert_eq!((name_of(users, 7), name_of(users, 1)), (None, None));
    }
}
