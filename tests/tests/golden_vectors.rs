//! Golden vectors: the bytes of every structure, made from fixed inputs. They pin the format against change by
//! accident, and the Python reader decodes the same file from the document alone.
//!
//! After a change that is meant, write them again with `CARRACK_WRITE_GOLDEN=1 cargo test --test golden_vectors` and
//! say so in the format document and the changelog.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{fs, path::Path, sync::Arc};

use carrack_mover::{
    clock::{Clock, Entropy, World},
    codec::{self, Cipher, Domain},
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace, Suite},
        metadata::{FileTime, Kind, Metadata, Xattr},
        pack::Trailer,
        page::{Child, PageWriter},
        session::{SessionKeyInfo, SessionKind, SessionName},
    },
    id::{LineageId, PackId, RepositoryId, SessionNonce},
    keys::{Keys, SigningKey},
    secret::Key,
};
use serde_json::{Value, json};

const REPOSITORY: RepositoryId = RepositoryId([0x11; 16]);
const GENERATION: u32 = 1;

fn session() -> SessionName {
    SessionName {
        kind: SessionKind::Backup,
        lineage: LineageId([0x22; 8]),
        nonce: SessionNonce(*b"0123456789abcdef"),
    }
}

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

impl Entropy for Fixed {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0x77);
    }
}

fn keys() -> Keys {
    Keys::from_roots(REPOSITORY, &[Key::new([0x33; 32]), Key::new([0x44; 32])]).unwrap()
}

fn place(keys: &Keys, plain: &[u8], counter: u64, compression: Compression) -> FramePlace {
    let id = keys.chunk_id(plain);
    FramePlace {
        session: session(),
        pack: PackId(*b"01234567\x09\x08\x07\x06\x05\x04\x03\x02"),
        offset: 4096,
        stored: 0,
        plain: plain.len() as u32,
        compression,
        counter,
        id: codec::frame_id(keys, &[(id, plain.len() as u32)]),
    }
}

fn frame(keys: &Keys, suite: Suite, kind: FrameKind, compression: Compression) -> Value {
    let plain = b"contents that are worth keeping, contents that are worth keeping".to_vec();
    let place = place(keys, &plain, 5, compression);
    let mut bytes = match compression {
        Compression::Stored => plain.clone(),
        Compression::Zstd => codec::compress(&plain, 3).unwrap(),
    };
    let key = match kind {
        FrameKind::Data => Key::new([0x55; 32]),
        FrameKind::Metadata => keys.session_metadata_key(GENERATION, session()).unwrap(),
    };
    let aad = codec::frame_aad(kind, &place);
    Cipher::new(suite, &key).seal(kind.into(), place.counter, &aad, &mut bytes, 0).unwrap();
    json!({
        "suite": suite, "kind": kind.code(), "sealed": hex::encode(&bytes), "plain": hex::encode(&plain),
        "chunk_id": keys.chunk_id(&plain), "place": FramePlace { stored: bytes.len() as u32, ..place },
    })
}

fn entry(path: &str, kind: Kind, content: Content, size: u64) -> Entry {
    let metadata = Metadata {
        mode: 0o4755,
        uid: 1000,
        gid: 70_000,
        mtime: FileTime { seconds: -2, nanoseconds: 999_999_999 },
        ctime: FileTime { seconds: 1_800_000_000, nanoseconds: 1 },
        inode: u64::MAX - path.len() as u64,
        device: 2049,
        links: 2,
        size,
        flags: 0x10,
        xattrs: vec![Xattr { name: b"user.comment".to_vec(), value: vec![0, 255, 10] }],
    };
    Entry { path: path.as_bytes().to_vec(), kind, metadata, content }
}

fn leaf(keys: &Keys) -> Value {
    let first = Frame::settled(FramePlace { stored: 500, ..place(keys, &[1; 300], 7, Compression::Zstd) });
    let second = Frame::settled(FramePlace {
        offset: 9000,
        stored: 80,
        pack: PackId([0x99; 16]),
        ..place(keys, &[2; 64], u64::MAX, Compression::Stored)
    });
    let chunk = |frame: &Frame, offset: usize, length: usize| ChunkRef {
        id: keys.chunk_id(&vec![1; length]),
        offset: offset as u32,
        length: length as u32,
        frame: frame.clone(),
    };
    let inline = vec![
        Run::Chunk(chunk(&first, 100, 50)),
        Run::Chunk(chunk(&first, 150, 25)),
        Run::Hole(1 << 40),
        Run::Chunk(chunk(&second, 0, 64)),
        Run::Chunk(chunk(&first, 0, 10)),
    ];
    let size = inline.iter().map(Run::length).sum();
    let pages = vec![(chunk(&second, 0, 64), 1000), (chunk(&first, 20, 30), 24)];
    let entries = [
        entry("a", Kind::Directory, Content::default(), 0),
        entry("link", Kind::Symlink { target: b"../else\xff".to_vec() }, Content::default(), 0),
        entry("a/block", Kind::BlockDevice { major: 8, minor: 300 }, Content::default(), 0),
        entry("a/char", Kind::CharDevice { major: 1, minor: 3 }, Content::default(), 0),
        entry("a/file", Kind::File, Content::Inline(inline), size),
        entry("a/pipe", Kind::Fifo, Content::default(), 0),
        entry("a/socket", Kind::Socket, Content::default(), 0),
        entry("a/b/image", Kind::Image, Content::Paged { depth: 2, pages }, 1024),
    ];
    let mut writer = PageWriter::leaf();
    for entry in &entries {
        writer.push_entry(entry).unwrap();
    }
    let expected: Vec<_> = entries.iter().map(describe).collect();
    json!({ "bytes": hex::encode(writer.to_bytes().unwrap()), "entries": expected })
}

fn describe(entry: &Entry) -> Value {
    let describe_chunk = |chunk: &ChunkRef| {
        let place = chunk.frame.place().unwrap();
        json!({ "place": place, "offset": chunk.offset, "length": chunk.length, "id": chunk.id })
    };
    let content = match &entry.content {
        Content::Inline(runs) => runs
            .iter()
            .map(|run| match run {
                Run::Hole(length) => json!(length),
                Run::Chunk(chunk) => describe_chunk(chunk),
            })
            .collect::<Vec<_>>(),
        Content::Paged { pages, .. } => {
            pages.iter().map(|(page, length)| json!([describe_chunk(page), length])).collect()
        }
    };
    let metadata = &entry.metadata;
    json!({
        "path": hex::encode(&entry.path), "mode": metadata.mode, "uid": metadata.uid, "gid": metadata.gid,
        "mtime": [metadata.mtime.seconds, metadata.mtime.nanoseconds],
        "ctime": [metadata.ctime.seconds, metadata.ctime.nanoseconds],
        "inode": metadata.inode, "device": metadata.device, "links": metadata.links, "size": metadata.size,
        "flags": metadata.flags, "content": content,
        "xattrs": metadata.xattrs.iter().map(|x| [hex::encode(&x.name), hex::encode(&x.value)]).collect::<Vec<_>>(),
    })
}

fn inner(keys: &Keys) -> Value {
    let page = ChunkRef {
        id: keys.chunk_id(b"page"),
        offset: 0,
        length: 64,
        frame: Frame::settled(place(keys, &[3; 64], 1, Compression::Zstd)),
    };
    let mut writer = PageWriter::inner();
    let child = Child { first: b"a".to_vec(), last: b"b/c".to_vec(), entries: 300, bytes: 1 << 33, page };
    writer.push_child(&child).unwrap();
    json!({ "bytes": hex::encode(writer.to_bytes().unwrap()), "first": "61", "last": "622f63", "entries": 300,
            "contents": 1u64 << 33 })
}

fn vectors() -> Value {
    let keys = keys();
    let world = World { clock: Arc::new(Fixed), entropy: Arc::new(Fixed) };
    let suite = Suite::Aes256Gcm;
    let sealed_data_key = keys.seal_data_key(GENERATION, session(), &Key::new([0x55; 32]), &world).unwrap();
    let info = SessionKeyInfo { session: session(), generation: GENERATION, suite, sealed_data_key };
    let metadata_key = keys.session_metadata_key(GENERATION, session()).unwrap();
    let index_key = keys.session_index_key(GENERATION, session()).unwrap();
    let cipher = Cipher::new(suite, &metadata_key);
    let object = codec::seal_object(&cipher, Domain::Record, session(), 9, b"{\"a record\":true}").unwrap();
    let signing = SigningKey::new(&Key::new([0x66; 32])).unwrap();
    let trailer =
        Trailer { footer_length: 700, counter: 3, generation: GENERATION, suite, session: session() }
            .to_bytes();
    json!({
        "repository": REPOSITORY,
        "roots": [hex::encode([0x33; 32]), hex::encode([0x44; 32])],
        "key_info": info,
        "data_key": hex::encode([0x55; 32]),
        "metadata_key": hex::encode(metadata_key.expose()),
        "index_key": hex::encode(index_key.expose()),
        "chunk_id_of_nothing": keys.chunk_id(b""),
        "sealed_object": hex::encode(object),
        "signing_public": hex::encode(signing.public()),
        "signature_of_message": hex::encode(signing.sign("end", b"message")),
        "maintenance_signature_of_message": hex::encode(keys.sign_maintenance("forgotten", b"message").unwrap()),
        "trailer": hex::encode(trailer),
        "frames": [
            frame(&keys, Suite::Aes256Gcm, FrameKind::Data, Compression::Zstd),
            frame(&keys, Suite::ChaCha20Poly1305, FrameKind::Data, Compression::Stored),
            frame(&keys, Suite::Aes256Gcm, FrameKind::Metadata, Compression::Stored),
        ],
        "leaf": leaf(&keys),
        "inner": inner(&keys),
    })
}

#[test]
fn golden_vectors_do_not_move() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/vectors.json");
    let made = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("CARRACK_WRITE_GOLDEN").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    for (name, value) in made.as_object().unwrap() {
        assert_eq!(Some(value), kept.get(name), "{name} is not what it was");
    }
}
