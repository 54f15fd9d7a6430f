//! zstd at the levels the engine moves between, on a database's pages, on text and code, on random bytes.

use std::hint::black_box;

use carrack_benches::dataset::{self, Dataset};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A MiB of `dataset`, files in path order.
fn sample(dataset: Dataset) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    dataset::create(dir.path(), dataset, 0.002, 1).expect("a dataset");
    let mut files = carrack_benches::walk::walk(dir.path()).expect("a walk").files;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(std::fs::read(file.path).expect("a file"));
        if bytes.len() >= 1 << 20 {
            break;
        }
    }
    bytes.truncate(1 << 20);
    bytes
}

fn zstd_levels(c: &mut Criterion) {
    for dataset in [Dataset::Db, Dataset::Tree, Dataset::Random] {
        let data = sample(dataset);
        let mut group = c.benchmark_group(format!("zstd-{}", dataset.name()));
        group.throughput(Throughput::Bytes(data.len() as u64));
        for level in [3, 1, -1] {
            let mut codec = zstd::bulk::Compressor::new(level).expect("a codec");
            group.bench_function(BenchmarkId::new("compress", level), |b| {
                b.iter(|| codec.compress(black_box(&data)).expect("compressed bytes"));
            });
        }
        let packed = zstd::bulk::compress(&data, 3).expect("compressed bytes");
        let mut codec = zstd::bulk::Decompressor::new().expect("a codec");
        group.bench_function("decompress", |b| {
            b.iter(|| codec.decompress(black_box(&packed), data.len()).expect("plain bytes"));
        });
        group.finish();
    }
}

criterion_group!(benches, zstd_levels);
criterion_main!(benches);
