//! The two AEADs of aws-lc, sealing frames of 64 KiB and 1 MiB in place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn seal(c: &mut Criterion) {
    for (name, algorithm) in [("aes-256-gcm", &AES_256_GCM), ("chacha20-poly1305", &CHACHA20_POLY1305)] {
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).expect("a key"));
        let mut group = c.benchmark_group(name);
        for size in [64 << 10, 1 << 20] {
            let mut data = vec![0; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
                    key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut data).expect("a tag")
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, seal);
criterion_main!(benches);
