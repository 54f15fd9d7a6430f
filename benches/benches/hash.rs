//! Chunk ids: keyed BLAKE3 on pieces as long as chunks are.

use std::hint::black_box;

use carrack_benches::rng::Rng;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn keyed_blake3(c: &mut Criterion) {
    let mut group = c.benchmark_group("blake3-keyed");
    let mut data = vec![0; 1 << 20];
    Rng::new(1, "hash").fill(&mut data);
    for size in [4 << 10, 16 << 10, 64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &data[..size], |b, piece| {
            b.iter(|| blake3::keyed_hash(&[7; 32], black_box(piece)));
        });
    }
    group.finish();
}

criterion_group!(benches, keyed_blake3);
criterion_main!(benches);
