//! Golden vectors: the bytes of every structure, made from fixed inputs. They pin the format against change by
//! accident, and the Python reader decodes the same file from the document alone.
//!
//! After a change that is meant, write them again with `CARRACK_WRITE_GOLDEN=1 cargo test --test golden_vectors` and
//! say so in the format document and the changelog.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use carrack_mover::{
    chunker::{Chunker, CutSizes},
    clock::{Clock, Entropy, World},
    codec::{self, Cipher, Domain},
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace, Suite},
        metadata::{FileTime, Kind, Metadata, Xattr},
        pack::{Footer, FooterChunk, FooterFrame, Trailer, pack_object},
        page::{Child, PageWriter},
        session::{SessionKeyInfo, SessionKind, SessionName},
    },
    id::{LineageId, PackId, RepositoryId, SessionNonce},
    keys::{Keys, SigningKey},
    limits,
    secret::Key,
};
use serde_json::{Value, json};

const REPOSITORY: RepositoryId = RepositoryId([0x11; 16]);
const GENERATION: u32 = 1;
const PACK: PackId = PackId(*b"01234567\x09\x08\x07\x06\x05\x04\x03\x02");
const DATA_KEY: [u8; 32] = [0x55; 32];

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
        pack: PACK,
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
        FrameKind::Data => Key::new(DATA_KEY),
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

/// One frame as it lies in a pack, and its row in the footer.
fn packed(
    keys: &Keys,
    (kind, compression, counter): (FrameKind, Compression, u64),
    offset: u32,
    chunks: &[Vec<u8>],
) -> (FooterFrame, Vec<u8>) {
    let ids: Vec<_> = chunks.iter().map(|chunk| (keys.chunk_id(chunk), chunk.len() as u32)).collect();
    let plain = chunks.concat();
    let mut place = FramePlace {
        session: session(),
        pack: PACK,
        offset,
        stored: 0,
        plain: plain.len() as u32,
        compression,
        counter,
        id: codec::frame_id(keys, &ids),
    };
    let mut bytes = match compression {
        Compression::Stored => plain,
        Compression::Zstd => codec::compress(&plain, 3).unwrap(),
    };
    let cipher = cipher_of(keys, kind);
    cipher.seal(kind.into(), counter, &codec::frame_aad(kind, &place), &mut bytes, 0).unwrap();
    place.stored = bytes.len() as u32;
    let (mut at, mut listed) = (0, Vec::new());
    for (id, length) in ids {
        if length >= limits::INDEXED_CHUNK_MIN {
            listed.push(FooterChunk { id, offset: at, length });
        }
        at += length;
    }
    (FooterFrame { kind, place, chunks: listed }, bytes)
}

fn cipher_of(keys: &Keys, kind: FrameKind) -> Cipher {
    let key = match kind {
        FrameKind::Data => Key::new(DATA_KEY),
        FrameKind::Metadata => keys.session_metadata_key(GENERATION, session()).unwrap(),
    };
    Cipher::new(Suite::Aes256Gcm, &key)
}

/// A whole pack: data with chunks that are listed and one that is not, a page, padding, a footer, a trailer.
fn pack(keys: &Keys, info: &SessionKeyInfo) -> Value {
    let lines = |number: usize| format!("line {number} of many\n").repeat(number).into_bytes();
    let page = PageWriter::leaf().to_bytes().unwrap();
    let contents = [
        (FrameKind::Data, Compression::Zstd, 0, vec![lines(300), lines(3), lines(400)]),
        (FrameKind::Data, Compression::Stored, 1, vec![lines(5)]),
        (FrameKind::Metadata, Compression::Zstd, 0, vec![page]),
    ];
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    for (kind, compression, counter, chunks) in contents {
        let how = (kind, compression, counter);
        let (frame, stored) = packed(keys, how, bytes.len() as u32, &chunks);
        bytes.extend_from_slice(&stored);
        frames.push(frame);
    }
    bytes.extend_from_slice(&[0xaa; 50]);
    let described: Vec<_> = frames.iter().map(describe_packed).collect();
    let (suite, counter) = (info.suite, 2);
    let cipher = Cipher::new(suite, &keys.session_index_key(GENERATION, session()).unwrap());
    let footer = Footer { sessions: vec![info.clone()], frames }.to_bytes();
    let aad = codec::footer_aad(session(), PACK);
    let footer = codec::seal_bound(&cipher, Domain::Footer, &aad, counter, &footer).unwrap();
    bytes.extend_from_slice(&footer);
    let footer_length = footer.len() as u32;
    let trailer = Trailer { footer_length, counter, generation: GENERATION, suite, session: session() };
    bytes.extend_from_slice(&trailer.to_bytes());
    json!({ "name": pack_object(PACK, 0), "bytes": hex::encode(bytes), "frames": described })
}

fn describe_packed(frame: &FooterFrame) -> Value {
    let chunks: Vec<_> =
        frame.chunks.iter().map(|chunk| json!([chunk.offset, chunk.length, chunk.id])).collect();
    json!({ "kind": frame.kind.code(), "place": frame.place, "chunks": chunks })
}

/// Noise with zeros in it; the reader's tests make the same.
fn cut_data(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let byte = |at| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (20_000..110_000).contains(&at) { 0 } else { (state >> 56) as u8 }
    };
    (0..length).map(byte).collect()
}

/// Lengths of chunks, by several sizes: the defaults, smaller ones, and the smallest that there may be.
fn cuts(keys: &Keys) -> Value {
    let defaults = CutSizes::default();
    let small = CutSizes { minimum: 4096, average: 16_384, maximum: 65_536 };
    let least = CutSizes { minimum: 64, average: 1024, maximum: 1024 };
    let cut = |(sizes, length): (CutSizes, usize)| {
        let (chunker, data) = (Chunker::new(keys.chunk_seed(), sizes), cut_data(length));
        let (mut at, mut lengths) = (0, Vec::new());
        while at < data.len() {
            lengths.push(chunker.cut(&data[at..]));
            at += lengths[lengths.len() - 1];
        }
        let sizes = [sizes.minimum, sizes.average, sizes.maximum];
        json!({ "sizes": sizes, "bytes": length, "lengths": lengths })
    };
    [(defaults, 900_000), (small, 300_000), (least, 30_000)].into_iter().map(cut).collect()
}

fn vectors() -> Value {
    let keys = keys();
    let world = World { clock: Arc::new(Fixed), entropy: Arc::new(Fixed) };
    let suite = Suite::Aes256Gcm;
    let sealed_data_key = keys.seal_data_key(GENERATION, session(), &Key::new(DATA_KEY), &world).unwrap();
    let info = SessionKeyInfo { session: session(), generation: GENERATION, suite, sealed_data_key };
    let metadata_key = keys.session_metadata_key(GENERATION, session()).unwrap();
    let index_key = keys.session_index_key(GENERATION, session()).unwrap();
    let cipher = Cipher::new(suite, &metadata_key);
    let object = codec::seal_object(&cipher, Domain::Record, session(), 9, b"{\"a record\":true}").unwrap();
    let signing = SigningKey::new(&Key::new([0x66; 32])).unwrap();
    let trailer =
        Trailer { footer_length: 700, counter: 3, generation: GENERATION, suite, session: session() }
            .to_bytes();
    let pack = pack(&keys, &info);
    json!({
        "repository": REPOSITORY,
        "roots": [hex::encode([0x33; 32]), hex::encode([0x44; 32])],
        "key_info": info,
        "data_key": hex::encode(DATA_KEY),
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
        "pack": pack,
        "cuts": cuts(&keys),
    })
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/vectors.json")
}

#[test]
fn golden_vectors_do_not_move() {
    let file = file();
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

#[test]
fn the_golden_pack_is_read_to_the_last_chunk() {
    let kept: Value = serde_json::from_str(&fs::read_to_string(file()).unwrap()).unwrap();
    let (keys, bytes) = (keys(), hex::decode(kept["pack"]["bytes"].as_str().unwrap()).unwrap());
    let (rest, trailer) = bytes.split_at(bytes.len() - Trailer::LENGTH);
    let trailer = Trailer::from_bytes(trailer).unwrap();
    let (rest, sealed) = rest.split_at(rest.len() - trailer.footer_length as usize);
    let cipher =
        Cipher::new(trailer.suite, &keys.session_index_key(trailer.generation, trailer.session).unwrap());
    let aad = codec::footer_aad(trailer.session, PACK);
    let footer = codec::open_bound(&cipher, Domain::Footer, &aad, sealed, limits::FOOTER_LIMIT).unwrap();
    let footer = Footer::from_bytes(&footer, PACK, rest.len() as u64).unwrap();
    assert_eq!(json!(footer.frames.iter().map(describe_packed).collect::<Vec<_>>()), kept["pack"]["frames"]);
    let info = &footer.sessions[0];
    let data_key = keys.open_data_key(info.generation, info.session, &info.sealed_data_key).unwrap();
    assert_eq!(*data_key.expose(), DATA_KEY);
    let mut chunks = 0;
    for frame in &footer.frames {
        let range = frame.place.offset as usize..(frame.place.offset + frame.place.stored) as usize;
        let (mut stored, mut plain) = (rest[range].to_vec(), Vec::new());
        let cipher = cipher_of(&keys, frame.kind);
        codec::open_frame(&cipher, frame.kind, &frame.place, &mut stored, &mut plain).unwrap();
        for chunk in &frame.chunks {
            let contents = &plain[chunk.offset as usize..(chunk.offset + chunk.length) as usize];
            assert_eq!(keys.chunk_id(contents), chunk.id);
            chunks += 1;
        }
    }
    assert_eq!((footer.frames.len(), chunks), (3, 2));
}
