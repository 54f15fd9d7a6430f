//! The engine's content-defined cuts beside those of a crate, and its search for zero blocks.

use std::hint::black_box;

use carrack_benches::rng::Rng;
use carrack_mover::chunker::{Chunker, CutSizes, is_zero};
use carrack_mover::secret::Key;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastcdc::v2020::FastCDC;

fn cut(c: &mut Criterion) {
    let mut data = vec![0; 16 << 20];
    Rng::new(1, "cut").fill(&mut data);
    let chunker = Chunker::new(&Key::new([7; 32]), CutSizes::default());
    let mut group = c.benchmark_group("chunker");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("cut", |b| {
        b.iter(|| {
            let (mut at, mut chunks) = (0, 0);
            while at < data.len() {
                at += chunker.cut(black_box(&data[at..]));
                chunks += 1;
            }
            chunks
        });
    });
    group.bench_function("cut-fastcdc-2020", |b| {
        let CutSizes { minimum, average, maximum } = CutSizes::default();
        let [minimum, average, maximum] = [minimum, average, maximum].map(|bytes| bytes as usize);
        b.iter(|| FastCDC::new(black_box(&data), minimum, average, maximum).count());
    });
    let zeros = vec![0; 64 << 10];
    group.throughput(Throughput::Bytes(zeros.len() as u64));
    group.bench_function("is-zero", |b| b.iter(|| is_zero(black_box(&zeros))));
    group.finish();
}

criterion_group!(benches, cut);
criterion_main!(benches);
