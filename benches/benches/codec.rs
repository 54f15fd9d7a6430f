//! The engine's codec: zstd at the levels it moves between, on a database's pages, on text and code, on random
//! bytes; and both ciphers, sealing and opening frames.

use std::hint::black_box;

use carrack_benches::dataset::{self, Dataset};
use carrack_mover::codec::{self, Cipher, Domain, Effort};
use carrack_mover::format::frame::Suite;
use carrack_mover::secret::Key;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::AeadInOut as _};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

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

fn compression(c: &mut Criterion) {
    for dataset in [Dataset::Db, Dataset::Tree, Dataset::Random] {
        let data = sample(dataset);
        let mut group = c.benchmark_group(format!("codec-{}", dataset.name()));
        group.throughput(Throughput::Bytes(data.len() as u64));
        let levels = [1, 3, 6, 9].map(|level| (level.to_string(), Effort::Level(level)));
        for (name, effort) in levels.into_iter().chain([("quick".into(), Effort::Quick)]) {
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new("compress", name), |b| {
                b.iter(|| {
                    out.clear();
                    codec::compress_into(black_box(&data), effort, &mut out).expect("compressed bytes");
                });
            });
        }
        let packed = codec::compress(&data, 3).expect("compressed bytes");
        let mut out = Vec::new();
        group.bench_function("decompress", |b| {
            b.iter(|| codec::decompress(black_box(&packed), data.len(), &mut out).expect("plain bytes"));
        });
        group.finish();
    }
}

fn ciphers(c: &mut Criterion) {
    for (name, suite) in [("aes-256-gcm", Suite::Aes256Gcm), ("chacha20-poly1305", Suite::ChaCha20Poly1305)] {
        let cipher = Cipher::new(suite, &Key::new([7; 32]));
        let mut group = c.benchmark_group(format!("codec-{name}"));
        for size in [64 << 10, 1 << 20] {
            let plain = vec![0; size];
            group.throughput(Throughput::Bytes(size as u64));
            let mut buffer = Vec::with_capacity(size + codec::TAG_LENGTH);
            group.bench_function(BenchmarkId::new("seal", size), |b| {
                b.iter(|| {
                    buffer.resize(size, 0);
                    cipher.seal(Domain::Data, 1, &[0; 71], &mut buffer, 0).expect("a seal");
                });
            });
            let mut sealed = plain;
            cipher.seal(Domain::Data, 1, &[0; 71], &mut sealed, 0).expect("a seal");
            group.bench_function(BenchmarkId::new("open", size), |b| {
                let open = |mut bytes: Vec<u8>| {
                    cipher.open(Domain::Data, 1, &[0; 71], &mut bytes).expect("an open seal");
                    bytes
                };
                b.iter_batched(|| sealed.clone(), open, BatchSize::LargeInput);
            });
        }
        group.finish();
    }
}

/// What the engine would use if it did not use aws-lc.
fn portable(c: &mut Criterion) {
    let cipher = ChaCha20Poly1305::new(&[7; 32].into());
    let mut group = c.benchmark_group("codec-chacha20poly1305-crate");
    for size in [64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(size as u64));
        let mut buffer = vec![0; size];
        group.bench_function(BenchmarkId::new("seal", size), |b| {
            b.iter(|| {
                cipher
                    .encrypt_inout_detached(&[0; 12].into(), &[0; 71], buffer.as_mut_slice().into())
                    .expect("a seal")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, compression, ciphers, portable);
criterion_main!(benches);
