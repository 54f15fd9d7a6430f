//! The limit's content-defined cut; beside it belongs the engine's chunker.

use std::hint::black_box;

use carrack_benches::cut::Gear;
use carrack_benches::rng::Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn gear(c: &mut Criterion) {
    let mut data = vec![0; 16 << 20];
    Rng::new(1, "cut").fill(&mut data);
    let gear = Gear::new(&[7; 32]);
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("limit-gear", |b| {
        b.iter(|| {
            let (mut at, mut chunks) = (0, 0);
            while at < data.len() {
                at += gear.cut(black_box(&data[at..]));
                chunks += 1;
            }
            chunks
        });
    });
    group.finish();
}

criterion_group!(benches, gear);
criterion_main!(benches);
