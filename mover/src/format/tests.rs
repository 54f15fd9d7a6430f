use super::{
    entry::{Content, Entry, check_total},
    frame::{ChunkRef, Compression, Frame, FramePlace},
    metadata::{Kind, Metadata},
    page::{Child, Page},
    records::{PageRef, RecordKind, decode_record, encode_record},
    session::{SessionKind, SessionName},
};
use crate::{
    id::{ChunkId, LineageId, PackId, SessionNonce},
    limits,
};

fn session() -> SessionName {
    SessionName { kind: SessionKind::Backup, lineage: LineageId([1; 8]), nonce: SessionNonce([2; 16]) }
}

fn place(stored: usize, plain: usize) -> FramePlace {
    let bytes = |count: usize| u32::try_from(count).expect("it fits");
    FramePlace {
        session: session(),
        pack: PackId([2; 16]),
        offset: 0,
        stored: bytes(stored),
        plain: bytes(plain),
        compression: Compression::Stored,
        counter: 0,
        id: ChunkId::default(),
    }
}

fn chunk() -> ChunkRef {
    ChunkRef { id: ChunkId::default(), offset: 0, length: 10, frame: Frame::settled(place(26, 10)) }
}

fn entry(path: &str) -> Entry {
    let metadata = Metadata::default();
    Entry { path: path.into(), kind: Kind::File, metadata, content: Content::default() }
}

fn child(first: &str, last: &str, entries: u64) -> Child {
    Child { first: first.into(), last: last.into(), entries, bytes: 0, page: chunk() }
}

#[test]
fn a_page_is_what_its_parent_says_or_it_is_not_followed() {
    let leaf = Page::Leaf(vec![entry("a"), entry("b")]);
    let inner = Page::Inner(vec![child("a", "b", 2), child("c", "d", 3)]);
    assert!(child("a", "b", 2).describes(&leaf));
    assert!(child("a", "d", 5).describes(&inner));
    for wrong in [child("b", "b", 2), child("a", "c", 2), child("a", "b", 3)] {
        assert!(!wrong.describes(&leaf), "{wrong:?}");
    }
    assert!(!child("a", "d", 4).describes(&inner));
    let too_many = Page::Inner(vec![child("a", "b", u64::MAX), child("c", "d", 1)]);
    assert!(!child("a", "d", 0).describes(&too_many), "it has gone round");
    for page in [Page::Leaf(vec![]), Page::Inner(vec![]), Page::Runs(vec![]), Page::RunsInner(vec![])] {
        assert!(!child("", "", 0).describes(&page));
    }
}

#[test]
fn no_page_is_read_that_would_take_too_much() {
    let is_bounded =
        |stored, plain| PageRef { id: ChunkId::default(), place: place(stored, plain) }.is_bounded();
    assert!(is_bounded(10, limits::PAGE_LIMIT));
    assert!(!is_bounded(10, limits::PAGE_LIMIT + 1));
    assert!(is_bounded(100 + 4096, 100));
    assert!(!is_bounded(100 + 4097, 100));
    let record = |length: usize| {
        let bytes = encode_record(RecordKind::Session, &vec![0; length]);
        decode_record("sessions/x", &bytes).map(|(_, body)| body.len()).ok()
    };
    let header = encode_record(RecordKind::Session, b"").len();
    assert_eq!(record(limits::RECORD_LIMIT - header), Some(limits::RECORD_LIMIT - header));
    assert_eq!(record(limits::RECORD_LIMIT - header + 1), None);
}

#[test]
fn contents_are_as_long_as_their_entry_says() {
    assert!(check_total([3, 4].into_iter(), 7).is_ok());
    assert!(check_total([].into_iter(), 0).is_ok());
    for (lengths, size) in [(vec![3, 4], 8), (vec![], 1), (vec![u64::MAX, 1], 0)] {
        assert!(check_total(lengths.iter().copied(), size).is_err(), "{lengths:?} {size}");
    }
}

#[test]
fn a_pack_is_of_the_session_whose_tag_it_has() {
    assert!(session().owns(PackId([2; 16])));
    assert!(!session().owns(PackId([3; 16])));
    let text = session().to_string();
    assert_eq!(text.parse::<SessionName>().expect("a name"), session());
    assert!(text.replacen('b', "x", 1).parse::<SessionName>().is_err(), "no such kind");
    let repack = SessionName { kind: SessionKind::Repack, ..session() };
    assert_eq!(repack.to_string().parse::<SessionName>().expect("a name"), repack);
}

#[test]
fn frames_are_equal_by_their_place() {
    assert_eq!(Frame::settled(place(26, 10)), Frame::settled(place(26, 10)));
    assert_ne!(Frame::settled(place(26, 10)), Frame::settled(place(27, 10)));
    let lost = Frame::pending();
    lost.lose(session());
    assert_eq!((lost.wait().stored, lost.wait().plain), (0, 0));
}
