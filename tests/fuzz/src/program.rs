//! What the command line reads: sizes, times, lists of paths.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path, sync::LazyLock};

use carrack_mover::fuzz::Target;
use tempfile::TempDir;

use crate::{path_list, units};

pub(crate) const TARGETS: [Target; 2] =
    [Target { name: "path_list", run: path_list }, Target { name: "units", run: units }];

/// Sizes, rates, spans of time: what is read is within what the words allow.
fn units(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(size) = units::parse_size(text) {
        assert!(size as f64 <= 9e15);
    }
    assert!(units::parse_rate(text).is_ok_and(|rate| rate > 0) || units::parse_rate(text).is_err());
    assert!(
        units::parse_percent(text).is_ok_and(|part| part > 0.0 && part <= 100.0)
            || units::parse_percent(text).is_err()
    );
    assert!(units::parse_time(text).is_ok_and(|time| !time.is_zero()) || units::parse_time(text).is_err());
    if let Ok(wait) = units::parse_wait(text) {
        assert_eq!(units::parse_wait(&format!("{}s", wait.as_secs())), Ok(wait));
    }
    if let Ok(span) = units::parse_span(text) {
        assert!(!span.is_negative());
    }
    if let Ok(count) = units::parse_count::<u64>(text) {
        assert_eq!(units::parse_count(&count.to_string()), Ok(count));
    }
    let again = units::parse_compression(text);
    assert_eq!(again, units::parse_compression(text));
    if let Ok(tags) = units::parse_tags(text) {
        assert!(tags == text && !tags.is_empty());
    }
}

static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = TempDir::with_prefix("carrack-fuzz-").expect("a directory");
    for name in ["a1", "a2", "b/c", "[x]"] {
        fs::create_dir_all(place.path().join(name)).expect("makes");
    }
    place
});

/// A list of paths, as it is and with patterns. Each line is put below a folder of this test, so that no pattern looks
/// through the machine.
fn path_list(bytes: &[u8]) {
    let place = PLACE.path();
    let list = place.join(format!("list-{:?}", std::thread::current().id()));
    fs::write(&list, bytes).expect("writes");
    let verbatim = path_list::verbatim(&list).expect("any bytes are a list");
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !matches!(*line, b"" | b"\r"));
    assert_eq!(verbatim.len(), lines.count());
    let below = |line: &[u8]| {
        !line.split(|byte| *byte == b'/').any(|name| name.starts_with(b".")) && !line.contains(&b'\\')
    };
    let inside: Vec<u8> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| below(line))
        .flat_map(|line| [place.as_os_str().as_bytes(), b"/", line, b"\n"].concat())
        .collect();
    fs::write(&list, inside).expect("writes");
    if let Ok(listed) = path_list::expanded(&list) {
        for path in listed.paths {
            assert!(
                path.starts_with(place),
                "{} is not below the pattern",
                Path::new(OsStr::new(&path)).display()
            );
        }
    }
}
