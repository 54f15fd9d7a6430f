//! What is as large as it may be is taken; what is one larger is not.

use super::{chunk, entry, leaf, place, read, runs, session, trailer};
use crate::{
    error::{ErrorKind, Result},
    format::{
        bytes::{Reader, put_varint},
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Frame, FrameKind, FramePlace, Suite},
        metadata::{Kind, Xattr},
        pack::{Footer, FooterChunk, FooterFrame, Trailer},
        page::Page,
        session::SessionKeyInfo,
    },
    id::{ChunkId, PackId},
    keys::SEALED_KEY_LENGTH,
    limits,
};

fn key() -> SessionKeyInfo {
    SessionKeyInfo {
        session: session(),
        generation: 1,
        suite: Suite::Aes256Gcm,
        sealed_data_key: vec![9; SEALED_KEY_LENGTH],
    }
}

/// The footer with these frames, written and read again.
fn footer(places: &[FramePlace], pack_length: u64) -> Result<Footer> {
    let frame = |place: &FramePlace| FooterFrame { kind: FrameKind::Data, place: *place, chunks: vec![] };
    let footer = Footer { sessions: vec![key()], frames: places.iter().map(frame).collect() };
    let again = Footer::from_bytes(&footer.to_bytes(), PackId([2; 16]), pack_length)?;
    assert_eq!(again, footer);
    Ok(again)
}

#[test]
fn a_frame_takes_no_more_of_a_footer_than_it_says() {
    for count in [0, 1, 3000] {
        let chunk = |at: u32| FooterChunk { id: ChunkId([7; 32]), offset: at * 1000, length: 1000 };
        let place = FramePlace { offset: u32::MAX, counter: u64::MAX, ..place(8 << 20, 8 << 20) };
        let frame = FooterFrame { kind: FrameKind::Data, place, chunks: (0..count).map(chunk).collect() };
        let length = |frames| Footer { sessions: vec![key()], frames }.to_bytes().len();
        let taken = length(vec![frame.clone()]) - length(Vec::new());
        let most = taken + 40 + 10 * count as usize;
        assert!((taken..most).contains(&frame.bytes_at_most()), "{count}: {taken}");
    }
}

#[test]
fn a_number_has_one_form() {
    let number = |bytes: &[u8]| {
        let mut reader = Reader::new("a number", bytes);
        let value = reader.varint().ok()?;
        reader.finish().is_ok().then_some(value)
    };
    for value in [0, 1, 127, 128, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        assert_eq!(number(&bytes), Some(value));
    }
    let tenth = |byte| [&[0xff; 9][..], &[byte]].concat();
    assert_eq!(number(&tenth(1)), Some(u64::MAX));
    let (too_short, too_long, not_shortest, followed) = (vec![0x80], tenth(0x81), vec![0x80, 0], vec![1, 0]);
    for wrong in [vec![], too_short, too_long, tenth(2), tenth(0), not_shortest, followed] {
        assert_eq!(number(&wrong), None, "{wrong:x?}");
    }
}

#[test]
fn a_count_or_a_length_is_no_larger_than_what_follows() {
    let count = |bytes: &[u8], least| Reader::new("a count", bytes).count(least).ok();
    assert_eq!(count(&[2, 0, 0, 0, 0, 0, 0], 3), Some(2));
    assert_eq!(count(&[3, 0, 0, 0, 0, 0, 0, 0, 0], 3), None, "the third is cut short");
    let field = |bytes: &[u8], limit| Reader::new("a field", bytes).bytes(limit).ok().map(<[u8]>::to_vec);
    assert_eq!(field(&[3, 4, 5, 6], 3), Some(vec![4, 5, 6]));
    assert_eq!(field(&[3, 4, 5, 6], 2), None);
    assert_eq!(field(&[3, 4, 5], 3), None);
}

#[test]
fn times_and_depths_of_an_entry_have_an_end() {
    let holds = |change: &dyn Fn(&mut Entry)| {
        let mut changed = entry("a");
        change(&mut changed);
        read(&leaf(&[changed])).is_ok()
    };
    for (nanoseconds, held) in [(999_999_999, true), (1_000_000_000, false)] {
        assert_eq!(holds(&|entry| entry.metadata.mtime.nanoseconds = nanoseconds), held, "{nanoseconds}");
        assert_eq!(holds(&|entry| entry.metadata.ctime.nanoseconds = nanoseconds), held, "{nanoseconds}");
    }
    for (depth, held) in [(limits::TREE_DEPTH, true), (limits::TREE_DEPTH + 1, false)] {
        let nested = |entry: &mut Entry| entry.content = Content::Paged { depth, pages: vec![] };
        assert_eq!(holds(&nested), held, "{depth}");
    }
}

#[test]
fn one_entry_takes_a_page_and_no_more() {
    let xattr = |length| Xattr { name: b"user.x".to_vec(), value: vec![0; length] };
    let page = |last: usize| {
        let mut large = entry("a");
        large.metadata.xattrs = vec![xattr(limits::FIELD_LIMIT); 15];
        large.metadata.xattrs.push(xattr(last));
        leaf(&[large])
    };
    let some = limits::FIELD_LIMIT / 2;
    let most = some + limits::PAGE_LIMIT - page(some).to_bytes().expect("a page").len();
    assert_eq!(page(most).to_bytes().expect("a page").len(), limits::PAGE_LIMIT);
    assert!(read(&page(most)).is_ok());
    let error = page(most + 1).to_bytes().expect_err("it is too long");
    assert_eq!((error.kind(), error.hint().is_some()), (ErrorKind::Invalid, true));
}

#[test]
fn a_page_spells_out_no_more_than_so_many_bytes_of_paths() {
    let directory = "d".repeat(limits::PATH_LIMIT - 2);
    let in_it = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| entry(&format!("{directory}/{name}")));
    assert_eq!(in_it.len() * in_it[0].path.len(), limits::PAGE_PATHS);
    assert!(read(&leaf(&in_it)).is_ok());
    assert!(read(&leaf(&[&[entry("a")][..], &in_it].concat())).is_err());
}

#[test]
fn a_page_is_full_by_its_bytes_or_by_its_paths() {
    assert!(!leaf(&[]).is_full());
    let link =
        |length: usize| leaf(&[Entry { kind: Kind::Symlink { target: vec![0; length] }, ..entry("a") }]);
    let some = limits::PAGE_TARGET_MAX / 2;
    let most = some + limits::PAGE_TARGET_MAX - link(some).size();
    assert!(link(most).is_full());
    assert!(!link(most - 1).is_full());

    // Short names in one directory take few bytes, but their paths take many.
    let directory = "d".repeat(8187);
    let files: Vec<_> = (0..256).map(|name| entry(&format!("{directory}/{name:04}"))).collect();
    assert_eq!(files.len() * files[0].path.len(), limits::PAGE_PATHS_TARGET);
    assert!(leaf(&files).is_full());
    assert!(leaf(&files).size() < limits::PAGE_TARGET_MAX);
    assert!(!leaf(&files[1..]).is_full());
}

#[test]
fn a_page_knows_about_how_long_it_becomes() {
    let in_frame = |index: u32| {
        let place = FramePlace { offset: index << 20, counter: u64::from(index), ..place(400_000, 1 << 20) };
        Run::Chunk(ChunkRef { frame: Frame::settled(place), ..chunk() })
    };
    let page = runs(&(0..100).map(in_frame).collect::<Vec<_>>());
    let length = page.to_bytes().expect("a page").len();
    assert!((length * 3 / 4..length * 5 / 4).contains(&page.size()), "{} {length}", page.size());
}

#[test]
fn a_footer_is_no_longer_than_allowed() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let longest = trailer(limits::FOOTER_LIMIT, suite);
        assert_eq!(Trailer::from_bytes(&longest.to_bytes()).expect("a trailer"), longest);
        assert!(Trailer::from_bytes(&trailer(limits::FOOTER_LIMIT + 1, suite).to_bytes()).is_err());
    }
}

#[test]
fn frames_lie_beside_each_other_and_within_their_pack() {
    for (second, pack_length, holds) in
        [(26, 52, true), (27, 53, true), (1000, 2000, true), (25, 52, false), (0, 52, false), (26, 51, false)]
    {
        let places = [place(26, 10), FramePlace { offset: second, ..place(26, 10) }];
        assert_eq!(footer(&places, pack_length).is_ok(), holds, "{second} {pack_length}");
    }
}

#[test]
fn a_frame_is_no_longer_than_allowed_wherever_it_is_named() {
    let longest = limits::FRAME_LIMIT.max(limits::PAGE_LIMIT);
    for (stored, plain, holds) in
        [(longest + 4096, longest, true), (26, longest + 1, false), (longest + 4097, 10, false)]
    {
        let place = place(stored, plain);
        assert_eq!(footer(&[place], limits::PACK_LIMIT).is_ok(), holds, "in a footer: {stored} {plain}");
        let run = Run::Chunk(ChunkRef { frame: Frame::settled(place), ..chunk() });
        let page = read(&runs(std::slice::from_ref(&run)));
        assert_eq!(page.ok(), holds.then_some(Page::Runs(vec![run])), "in a page: {stored} {plain}");
    }
}
