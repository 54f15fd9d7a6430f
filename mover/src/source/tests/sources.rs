use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::source::block::BlockSource;
use crate::source::changed::ChangedBlocks;
use crate::source::file::SourceFile;
use crate::source::stdin::StreamSource;
use crate::source::walk::{WalkEvent, WalkOptions, walk};

#[test]
fn a_change_while_reading_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "one").unwrap();
    let options = WalkOptions { roots: vec![path.clone()], ..WalkOptions::default() };
    let Some(WalkEvent::Entry(entry)) = walk(options).unwrap().last() else { panic!("no entry") };
    let file = SourceFile::open(&entry).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert!(file.is_unchanged().unwrap());
    fs::write(&path, "longer").unwrap();
    assert!(!file.is_unchanged().unwrap());
    fs::write(dir.path().join("other"), "").unwrap();
    fs::rename(dir.path().join("other"), &path).unwrap();
    assert_eq!(SourceFile::open(&entry).unwrap_err().kind(), crate::error::ErrorKind::Conflict);
}

#[test]
fn an_image_is_read_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let contents: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &contents).unwrap();
    let image = BlockSource::open(&path).unwrap();
    assert_eq!(image.size(), 100_000);
    let mut buffer = [0; 8192];
    for offset in [0, 4096, 5000, 98_304, 99_999] {
        let count = image.read_at(&mut buffer, offset).unwrap();
        assert_eq!(buffer[..count], contents[offset as usize..][..count], "at {offset}");
        assert_eq!(count as u64, (100_000 - offset).min(8192));
    }
    BlockSource::open(dir.path()).unwrap_err();
    BlockSource::open(std::path::Path::new("/dev/null")).unwrap_err();
}

#[test]
fn holes_of_an_image_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let file = File::create(&path).unwrap();
    file.set_len(4 << 20).unwrap();
    file.write_all_at(&[1; 4096], 1 << 20).unwrap();
    let image = BlockSource::open(&path).unwrap();
    assert_eq!(
        image.extents().map(|extent| (extent.offset, extent.length)).collect::<Vec<_>>(),
        [(1 << 20, 4096)]
    );
}

#[test]
fn changed_blocks_come_from_lines_and_from_json() {
    let lines = "# list\n0 1\n\n4095 2\n 40960 4096 # one\n";
    let json =
        r#" [{"offset":0,"length":1},{"byte_offset":4095,"size_bytes":2},{"offset":40960,"length":4096}]"#;
    for text in [lines, json] {
        let changed = ChangedBlocks::read(text.as_bytes(), "list", 65_536, 4096).unwrap();
        assert_eq!(changed.iter().collect::<Vec<_>>(), [0, 1, 10]);
        assert_eq!(changed.count(), 3);
        assert!(changed.contains(10) && !changed.contains(11) && !changed.contains(1 << 40));
    }
}

#[test]
fn a_wrong_list_is_refused_with_its_place() {
    for text in ["0 1\nx 2", "0 1\n5", "0 1\n1 2 3", "0 1\n65536 1", "0 1\n18446744073709551615 2"] {
        let error = ChangedBlocks::read(text.as_bytes(), "list", 65_536, 4096).unwrap_err();
        assert!(error.to_string().contains("list:2"), "{error}");
    }
    for text in ["[{}]", "[{\"offset\":0,\"length\":1}", "[{\"offset\":65536,\"length\":1}]", "[] x"] {
        ChangedBlocks::read(text.as_bytes(), "list", 65_536, 4096).unwrap_err();
    }
}

#[test]
fn a_stream_is_read_to_its_end() {
    let mut stream = StreamSource::new(&b"abcdef"[..]);
    let mut buffer = [0; 4];
    assert_eq!((stream.fill(&mut buffer).unwrap(), stream.fill(&mut buffer).unwrap()), (4, 2));
    assert_eq!((stream.fill(&mut buffer).unwrap(), stream.position()), (0, 6));
}
