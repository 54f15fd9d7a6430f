use proptest::prelude::*;

use super::*;
use crate::{cancel::Cancel, chunker::CutSizes, pipeline::promise::promise, secret::Key};

fn chunker() -> Chunker {
    Chunker::new(&Key::new([7; 32]), CutSizes { minimum: 256, average: 1024, maximum: 4096 })
}

/// All cuts of `data`, by segments that never know their entry in time.
fn by_segments(data: &[u8], segment: usize, always_wait: bool) -> Vec<usize> {
    let (chunker, never) = (chunker(), Cancel::default());
    let mut all = Vec::new();
    let mut entry = 0;
    for start in (0..data.len()).step_by(segment) {
        let length = segment.min(data.len() - start);
        let piece = &data[start..data.len().min(start + length + 4096)];
        let (give_entry, promised) = promise(|| 0);
        let (next, after) = promise(|| unreachable!("it is always given"));
        let (_, ends) = if always_wait {
            std::thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    cut_segment(&chunker, piece, start as u64, length, Entry::Later(promised), next, &never)
                });
                std::thread::sleep(std::time::Duration::from_millis(2));
                give_entry.give(entry);
                worker.join().unwrap()
            })
        } else {
            cut_segment(&chunker, piece, start as u64, length, Entry::At(entry), next, &never)
        };
        all.extend(ends.iter().map(|end| start + end));
        entry = after.wait(&never);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn segments_cut_as_one_thread_does(seed: u64, length in 0usize..60_000, zeros in 0usize..40_000, segment in 5_000usize..20_000, wait: bool) {
        let mut data = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
        let middle = length / 2;
        data.splice(middle..middle, std::iter::repeat_n(0, zeros));
        let expected = cuts_from(&chunker(), &data, 0, data.len(), |_| false);
        prop_assert_eq!(by_segments(&data, segment, wait), expected);
    }
}
