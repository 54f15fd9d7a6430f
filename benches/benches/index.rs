//! The index: a segment written, segments loaded, chunks looked up.

use std::hint::black_box;
use std::sync::Arc;

use carrack_benches::index::{Rows, create};
use carrack_mover::format::frame::Suite;
use carrack_mover::format::session::SessionKind;
use carrack_mover::id::{ChunkId, LineageId};
use carrack_mover::store::mem::MemStore;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

/// A quarter of a full segment: enough to leave the caches, few enough for a short measurement.
const ROWS: usize = 256 << 10;

fn index(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let repository = runtime.block_on(create(Arc::new(MemStore::new()))).expect("a repository");
    let begin = || repository.begin(SessionKind::Backup, LineageId::default(), Suite::Aes256Gcm);
    let session = runtime.block_on(begin()).expect("a session");
    let rows = Rows::new(1).take(ROWS);
    runtime.block_on(session.put_segment(&rows)).expect("a segment");

    let mut group = c.benchmark_group("index");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("load", |b| {
        b.iter(|| runtime.block_on(repository.load_index(usize::MAX)).expect("an index"));
    });
    group.bench_function("write-segment", |b| {
        // Each into a repository of its own, so that memory does not grow with the iterations.
        let prepare = || {
            let repository = runtime.block_on(create(Arc::new(MemStore::new()))).expect("a repository");
            let begun = repository.begin(SessionKind::Backup, LineageId::default(), Suite::Aes256Gcm);
            runtime.block_on(begun).expect("a session")
        };
        let write = |session: carrack_mover::repo::Session| {
            runtime.block_on(session.put_segment(&rows)).expect("a segment");
        };
        b.iter_batched(prepare, write, BatchSize::PerIteration);
    });

    let loaded = runtime.block_on(repository.load_index(usize::MAX)).expect("an index").index;
    let absent: Vec<ChunkId> = Rows::new(2).take(1024).into_iter().map(|(id, _)| id).collect();
    group.throughput(Throughput::Elements(1024));
    for (name, ids) in [
        ("lookup-present", rows.iter().step_by(ROWS / 1024).map(|(id, _)| *id).collect()),
        ("lookup-absent", absent),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| ids.iter().filter(|id| loaded.lookup(black_box(id)).next().is_some()).count());
        });
    }
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
