//! Pages of trees: encoded, decoded, and a tree of many entries cut into pages.

use std::hint::black_box;

use carrack_benches::rng::Rng;
use carrack_mover::format::entry::{Content, Entry, Run};
use carrack_mover::format::frame::{ChunkRef, Compression, Frame, FramePlace};
use carrack_mover::format::metadata::{FileTime, Kind, Metadata};
use carrack_mover::format::page::{Page, PageWriter};
use carrack_mover::format::session::{SessionKind, SessionName};
use carrack_mover::id::{ChunkId, LineageId, PackId, SessionNonce};
use carrack_mover::limits;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// About what an average page holds.
const PAGE: usize = 512;

/// Files of one chunk each, in tree order; sixty of them to a frame.
fn entries(count: usize) -> Vec<Entry> {
    let session = SessionName {
        kind: SessionKind::Backup,
        lineage: LineageId::default(),
        nonce: SessionNonce::default(),
    };
    let mut rng = Rng::new(1, "tree");
    let mut frame = Frame::pending();
    (0..count)
        .map(|number| {
            let mut id = ChunkId::default();
            rng.fill(&mut id.0);
            if number % 60 == 0 {
                frame = Frame::settled(FramePlace {
                    session,
                    pack: PackId::default(),
                    offset: (number as u32 / 60) << 18,
                    stored: 1 << 18,
                    plain: 1 << 20,
                    compression: Compression::Zstd,
                    counter: number as u64,
                    id,
                });
            }
            let length = 1 + rng.below(16 << 10) as u32;
            let place = ChunkRef { id, offset: (number as u32 % 60) << 14, length, frame: frame.clone() };
            let time = FileTime {
                seconds: 1_790_000_000 + rng.below(1 << 20) as i64,
                nanoseconds: rng.u32() % 1_000_000_000,
            };
            Entry {
                path: format!("home/user/project/source-{number:08}.rs").into_bytes(),
                kind: Kind::File,
                metadata: Metadata {
                    mode: 0o644,
                    mtime: time,
                    ctime: time,
                    inode: 1 << 20 | number as u64,
                    device: 65025,
                    links: 1,
                    size: u64::from(length),
                    ..Metadata::default()
                },
                content: Content::Inline(vec![Run::Chunk(place)]),
            }
        })
        .collect()
}

fn page(entries: &[Entry]) -> Vec<u8> {
    let mut writer = PageWriter::leaf();
    for entry in entries {
        writer.push_entry(entry).expect("an entry");
    }
    writer.to_bytes().expect("a page")
}

fn tree(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree");
    let few = entries(PAGE);
    group.throughput(Throughput::Elements(PAGE as u64));
    group.bench_function("page-encode", |b| b.iter(|| page(black_box(&few))));
    let bytes = page(&few);
    group.bench_function("page-decode", |b| b.iter(|| Page::from_bytes(black_box(&bytes)).expect("a page")));

    let many = entries(64 << 10);
    group.throughput(Throughput::Elements(many.len() as u64)).sample_size(20);
    group.bench_function("build", |b| {
        b.iter(|| {
            let (mut writer, mut pages) = (PageWriter::leaf(), Vec::new());
            for entry in &many {
                writer.push_entry(entry).expect("an entry");
                if writer.size() >= limits::PAGE_AVERAGE {
                    pages
                        .push(std::mem::replace(&mut writer, PageWriter::leaf()).to_bytes().expect("a page"));
                }
            }
            pages
        });
    });
    group.finish();
}

criterion_group!(benches, tree);
criterion_main!(benches);
