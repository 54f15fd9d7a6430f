use super::{
    entry::{Content, Entry, Run, check_total},
    frame::{ChunkRef, Compression, Frame, FramePlace, Suite},
    metadata::{FileTime, Kind, Metadata, Xattr},
    pack::{PackSending, Trailer, is_newer, parse_pack_object},
    page::{Child, Page, PageWriter},
    records::{Generations, PageRef, RecordKind, decode_record, encode_record},
    session::{SessionKind, SessionName},
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::{ChunkId, LineageId, PackId, RepositoryId, SessionNonce},
    limits,
};

mod limit;

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

fn leaf(entries: &[Entry]) -> PageWriter {
    let mut page = PageWriter::leaf();
    for entry in entries {
        page.push_entry(entry).expect("its frames are known");
    }
    page
}

fn runs(runs: &[Run]) -> PageWriter {
    let mut page = PageWriter::runs();
    for run in runs {
        page.push_run(run).expect("its frames are known");
    }
    page
}

fn read(page: &PageWriter) -> Result<Page> {
    Page::from_bytes(&page.to_bytes()?)
}

fn trailer(footer_length: usize, suite: Suite) -> Trailer {
    let footer_length = u32::try_from(footer_length).expect("it fits");
    Trailer { footer_length, counter: 7, generation: 1, suite, session: session() }
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

#[test]
fn no_page_names_a_frame_that_was_lost() {
    let frame = Frame::pending();
    frame.lose(session());
    let error = PageWriter::runs().push_run(&Run::Chunk(ChunkRef { frame, ..chunk() }));
    assert_eq!(error.map_err(|error| error.kind()), Err(ErrorKind::Cancelled));
}

#[test]
fn every_kind_of_entry_comes_back() {
    let metadata = |size| Metadata {
        mode: 0o4755,
        uid: 1000,
        gid: u32::MAX,
        mtime: FileTime { seconds: -1, nanoseconds: 999_999_999 },
        ctime: FileTime { seconds: i64::MAX, nanoseconds: 1 },
        inode: u64::MAX,
        device: 1,
        links: 2,
        size,
        flags: 16,
        xattrs: vec![Xattr { name: b"user.comment".to_vec(), value: vec![0, 0xff] }],
    };
    let of_runs = Content::Inline(vec![Run::Chunk(chunk()), Run::Hole(5)]);
    let of_pages = Content::Paged { depth: 1, pages: vec![(chunk(), 9), (chunk(), 6)] };
    let kinds = [
        (Kind::File, 15, of_runs),
        (Kind::Image, 15, of_pages),
        (Kind::Directory, 0, Content::default()),
        (Kind::Symlink { target: b"../x".to_vec() }, 0, Content::default()),
        (Kind::BlockDevice { major: 8, minor: 1 }, 0, Content::default()),
        (Kind::CharDevice { major: 0, minor: u32::MAX }, 0, Content::default()),
        (Kind::Fifo, 0, Content::default()),
        (Kind::Socket, 0, Content::default()),
    ];
    let entries: Vec<_> = (0..)
        .zip(kinds)
        .map(|(name, (kind, size, content))| Entry {
            path: format!("d/{name}").into(),
            kind,
            metadata: metadata(size),
            content,
        })
        .collect();
    assert_eq!(read(&leaf(&entries)).expect("a page"), Page::Leaf(entries));
}

#[test]
fn a_name_in_a_page_leads_nowhere_else() {
    let named = |name: &[u8; 3]| {
        let mut bytes = leaf(&[entry("---")]).to_bytes().expect("a page");
        let at = bytes.windows(3).position(|piece| piece == b"---").expect("the name is in it");
        bytes[at..at + 3].copy_from_slice(name);
        Page::from_bytes(&bytes).is_ok()
    };
    assert!(named(b"a-b"));
    for wrong in [b"a/b", b"/ab", b"ab/", b"../", b"a\0b"] {
        assert!(!named(wrong), "{:?}", wrong.escape_ascii().to_string());
    }
}

#[test]
fn children_of_a_page_are_in_order_and_stand_for_something() {
    for (children, holds) in [
        (vec![child("a", "b", 1), child("c", "c", 1)], true),
        (vec![child("b", "a", 1)], false),
        (vec![child("a", "b", 1), child("b", "c", 1)], false),
        (vec![child("a", "b", 0)], false),
    ] {
        let mut page = PageWriter::inner();
        children.iter().for_each(|child| page.push_child(child).expect("its frame is known"));
        assert_eq!(read(&page).ok(), holds.then_some(Page::Inner(children)));
    }
    for (bytes, holds) in [(1, true), (0, false)] {
        let mut page = PageWriter::runs_inner();
        page.push_runs_page(&chunk(), bytes).expect("its frame is known");
        assert_eq!(read(&page).ok(), holds.then_some(Page::RunsInner(vec![(chunk(), bytes)])));
    }
}

#[test]
fn holes_of_a_page_are_apart_and_only_the_last_page_is_without_a_chunk() {
    let (stored, hole) = (Run::Chunk(chunk()), Run::Hole(5));
    let length = stored.length();
    for (rows, bytes, holds, is_last_only) in [
        (vec![hole.clone(), stored.clone(), hole.clone()], length + 10, true, false),
        (vec![stored.clone(), stored.clone()], 2 * length, true, false),
        (vec![hole.clone()], 5, true, true),
        (vec![hole.clone(), hole.clone()], 10, false, true),
        (vec![stored, hole.clone(), hole], length + 10, false, false),
    ] {
        assert_eq!(read(&runs(&rows)).ok(), holds.then(|| Page::Runs(rows.clone())), "{rows:?}");
        let page = Page::Runs(rows);
        assert!(page.stands_for(bytes, true), "{page:?}");
        assert_eq!(page.stands_for(bytes, false), !is_last_only, "{page:?}");
        assert!(!page.stands_for(bytes + 1, true), "{page:?}");
    }
    let inner = Page::RunsInner(vec![(chunk(), 3), (chunk(), 4)]);
    assert!(inner.stands_for(7, true) && inner.stands_for(7, false));
    assert!(!inner.stands_for(8, true));
    assert!(!Page::Leaf(vec![]).stands_for(0, true));
}

#[test]
fn what_a_later_program_wrote_is_not_called_damage() {
    let mut pack = trailer(1, Suite::Aes256Gcm).to_bytes();
    let mut page = leaf(&[]).to_bytes().expect("a page");
    let mut record = encode_record(RecordKind::Session, b"");
    for (version, kind, newer) in [(0, ErrorKind::Corrupt, false), (2, ErrorKind::Invalid, true)] {
        (pack[56], page[0], record[4]) = (version, version, version);
        let errors = [
            Trailer::from_bytes(&pack).err(),
            Page::from_bytes(&page).err(),
            decode_record("sessions/x", &record).err(),
        ];
        for error in errors {
            let error = error.expect("it is of another version");
            assert_eq!((error.kind(), is_newer(&error)), (kind, newer), "{error}");
        }
    }
    assert!(!is_newer(&Error::invalid("no such option").with_hint("look at the list")));
}

#[test]
fn a_sending_of_a_pack_has_one_name() {
    let hex = "000102030405060708090a0b0c0d0e0f";
    let pack = PackId::from_hex(hex).expect("an id");
    for (attempt, suffix) in [(0, ""), (1, ".1"), (limits::PACK_ATTEMPTS - 1, ".7")] {
        let sending = PackSending { pack, attempt };
        assert_eq!(sending.to_string(), format!("{hex}{suffix}"));
        assert_eq!(sending.to_string().parse::<PackSending>().expect("a sending"), sending);
        assert_eq!(sending.object(), format!("packs/08/{hex}{suffix}"));
        assert_eq!(parse_pack_object(&sending.object()), Some((pack, attempt)));
    }
    for suffix in [".", ".0", ".01", ".8"] {
        assert!(format!("{hex}{suffix}").parse::<PackSending>().is_err(), "{suffix}");
    }
}

#[test]
fn how_many_generations_there_are_is_said_of_one_repository() {
    let statement = Generations::statement(RepositoryId([7; 16]), 0x0201);
    assert_eq!(statement, [&[7; 16][..], &[1, 2, 0, 0]].concat());
}
