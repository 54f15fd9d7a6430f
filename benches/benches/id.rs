//! Chunk ids: the keyed hash on pieces as long as chunks and frames are.

use std::hint::black_box;

use carrack_benches::rng::Rng;
use carrack_mover::id::RepositoryId;
use carrack_mover::keys::Keys;
use carrack_mover::secret::Key;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn chunk_id(c: &mut Criterion) {
    let keys = Keys::from_roots(RepositoryId::default(), &[Key::new([7; 32])]).expect("keys");
    let mut data = vec![0; 1 << 20];
    Rng::new(1, "hash").fill(&mut data);
    let mut group = c.benchmark_group("id");
    for size in [4 << 10, 16 << 10, 64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &data[..size], |b, piece| {
            b.iter(|| keys.chunk_id(black_box(piece)));
        });
    }
    group.finish();
}

criterion_group!(benches, chunk_id);
criterion_main!(benches);
