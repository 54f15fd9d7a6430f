//! Packs: their footers, and whole backups into a store in memory, which is the packer with all that feeds it.

use std::hint::black_box;
use std::sync::Arc;

use carrack_benches::dataset::{self, Dataset};
use carrack_benches::index::create;
use carrack_benches::rng::Rng;
use carrack_mover::backup::{BackupOptions, BackupSource, backup};
use carrack_mover::cancel::Cancel;
use carrack_mover::codec::{self, Cipher, Domain};
use carrack_mover::format::frame::{Compression, FrameKind, FramePlace, Suite};
use carrack_mover::format::pack::{Footer, FooterChunk, FooterFrame};
use carrack_mover::format::session::{SessionKeyInfo, SessionKind, SessionName};
use carrack_mover::id::{ChunkId, LineageId, PackId, SessionNonce};
use carrack_mover::keys::SEALED_KEY_LENGTH;
use carrack_mover::limits;
use carrack_mover::monitor::CollectMonitor;
use carrack_mover::secret::Key;
use carrack_mover::source::walk::WalkOptions;
use carrack_mover::store::mem::MemStore;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const CHUNKS: u32 = 16;

/// The footer of a full pack: frames of 1 MiB with sixteen chunks each.
fn full_footer() -> (Footer, SessionName) {
    let session = SessionName {
        kind: SessionKind::Backup,
        lineage: LineageId::default(),
        nonce: SessionNonce::default(),
    };
    let mut rng = Rng::new(1, "footer");
    let mut id = || {
        let mut id = ChunkId::default();
        rng.fill(&mut id.0);
        id
    };
    let frames = (0..(limits::PACK_TARGET / limits::FRAME_TARGET) as u32).map(|number| FooterFrame {
        kind: FrameKind::Data,
        place: FramePlace {
            session,
            pack: PackId::default(),
            offset: number << 20,
            stored: 1 << 20,
            plain: 1 << 20,
            compression: Compression::Zstd,
            counter: u64::from(number),
            id: id(),
        },
        chunks: (0..CHUNKS)
            .map(|chunk| FooterChunk { id: id(), offset: chunk << 16, length: 1 << 16 })
            .collect(),
    });
    let key = SessionKeyInfo {
        session,
        generation: 0,
        suite: Suite::Aes256Gcm,
        sealed_data_key: vec![0; SEALED_KEY_LENGTH],
    };
    (Footer { frames: frames.collect(), sessions: vec![key] }, session)
}

fn footers(c: &mut Criterion) {
    let (footer, session) = full_footer();
    let cipher = Cipher::new(Suite::Aes256Gcm, &Key::new([7; 32]));
    let aad = codec::footer_aad(session, PackId::default());
    let seal = || codec::seal_bound(&cipher, Domain::Footer, &aad, 1, &footer.to_bytes()).expect("a footer");
    let mut group = c.benchmark_group("packer");
    group.throughput(Throughput::Elements((footer.frames.len() as u64) * u64::from(CHUNKS)));
    group.bench_function("footer-write", |b| b.iter(seal));
    let sealed = seal();
    group.bench_function("footer-read", |b| {
        b.iter(|| {
            let sealed = black_box(&sealed);
            let plain = codec::open_bound(&cipher, Domain::Footer, &aad, sealed, limits::FOOTER_LIMIT);
            let plain = plain.expect("an open footer");
            Footer::from_bytes(&plain, PackId::default(), limits::PACK_LIMIT).expect("a footer")
        });
    });
    group.finish();
}

fn into_memory(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("packer-backup");
    group.sample_size(10);
    for dataset in [Dataset::Random, Dataset::Db, Dataset::Small] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        dataset::create(dir.path(), dataset, 0.03, 1).expect("a dataset");
        let bytes = carrack_benches::walk::stored(dir.path()).expect("a walk");
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(dataset.name(), |b| {
            let prepare = || runtime.block_on(create(Arc::new(MemStore::new()))).expect("a repository");
            let run = |repository| {
                let walk = WalkOptions { roots: vec![dir.path().to_path_buf()], ..WalkOptions::default() };
                let options = BackupOptions::new(BackupSource::Files(walk));
                let monitor = Arc::new(CollectMonitor::default());
                runtime.block_on(backup(&repository, options, monitor, Cancel::default())).expect("a backup")
            };
            b.iter_batched(prepare, run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, footers, into_memory);
criterion_main!(benches);
