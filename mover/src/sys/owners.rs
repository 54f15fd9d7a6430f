//! Owners that a user namespace hides.
//!
//! A process in a namespace of its own sees every owner that the namespace has no number for as one and the same:
//! nobody. To such a process nobody may be anybody.

use std::fs;
use std::sync::OnceLock;

/// Numbers there are: the last one means none.
const ALL: u64 = u32::MAX as u64;

/// What stands for owners and groups without a number; none where all have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StandIns {
    user: Option<u32>,
    group: Option<u32>,
}

/// Whether user or group may be another than these numbers say.
pub fn are_hidden(user: u32, group: u32) -> bool {
    let known = stand_ins();
    known.user == Some(user) || known.group == Some(group)
}

/// Whether a list of rights names somebody without a number: it cannot be set again.
pub fn are_hidden_in_acl(value: &[u8]) -> bool {
    /// A version, then entries of kind, rights and number.
    const HEADER: usize = 4;
    const ENTRY: usize = 8;
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let entries = value.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
    entries.into_iter().any(|entry| {
        let kind = u16::from_le_bytes([entry[0], entry[1]]);
        (kind == USER || kind == GROUP) && entry[4..] == u32::MAX.to_le_bytes()
    })
}

fn stand_ins() -> StandIns {
    static OF_PROCESS: OnceLock<StandIns> = OnceLock::new();
    // Without /proc there is nothing to go by; what the kernel shows is believed.
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    *OF_PROCESS.get_or_init(|| StandIns {
        user: stand_in(&read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid")),
        group: stand_in(&read("/proc/self/gid_map"), &read("/proc/sys/kernel/overflowgid")),
    })
}

/// What the kernel shows for numbers that a map (`INSIDE OUTSIDE COUNT` in each line) leaves out.
fn stand_in(map: &str, overflow: &str) -> Option<u32> {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    let mapped: u64 = counts.sum();
    if mapped == 0 || mapped >= ALL { None } else { overflow.trim().parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_map_leaves_out_has_a_stand_in() {
        assert_eq!(stand_in("         0          0 4294967295\n", "65534\n"), None, "that of the machine");
        assert_eq!(stand_in("0 327680 65536\n", "65534\n"), Some(65534), "that of a pod");
        assert_eq!(
            stand_in("0 1000 1\n1 100000 65536\n", "99\n"),
            Some(99),
            "that of a container without root"
        );
        assert_eq!(stand_in("", "65534\n"), None);
    }

    #[test]
    fn a_list_of_rights_tells_whom_it_cannot_name() {
        let list = |user: u32| {
            let entry = |kind: u16, id: u32| [&kind.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
            [&2_u32.to_le_bytes()[..], &entry(0x01, u32::MAX), &entry(0x02, user), &entry(0x10, u32::MAX)]
                .concat()
        };
        assert!(!are_hidden_in_acl(&list(1000)), "owner and mask have no number in any list");
        assert!(are_hidden_in_acl(&list(u32::MAX)));
        assert!(!are_hidden_in_acl(&list(u32::MAX)[..9]) && !are_hidden_in_acl(&[]));
    }
}
