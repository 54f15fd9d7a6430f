use super::*;
use crate::{
    format::{
        frame::{Compression, FrameKind},
        metadata::Kind,
    },
    reader::testing::{Writer, entry, noise},
    store::mem::MemStore,
};

/// Fetches what may be copied of a repository without packs.
fn fetch(reader: SnapshotReader, least: u64) -> Fetch {
    let allowance = Allowance::with_least(Arc::new(MemStore::new()), least);
    Fetch { reader, budget: 1 << 20, kept: VecDeque::new(), allowance }
}

fn chunk(writer: &mut Writer, length: usize) -> Run {
    Run::Chunk(writer.frame(FrameKind::Data, &[&noise(1, length)], Compression::Stored).remove(0))
}

#[tokio::test]
async fn an_exbibyte_that_few_pages_stand_for_is_refused_before_any_of_it_is_fetched() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let run = chunk(&mut writer, 64 << 10);
    let (page, bytes) = writer.tower(&run, 1 << 11, 4);
    assert_eq!(bytes, 1 << 60);
    let fetch = fetch(writer.finish(Vec::new(), 2), 1 << 40);
    let content = Content::Paged { depth: 4, pages: vec![(page, bytes)] };
    let refused = fetch.large(&content, 0, &Cancel::default()).await;
    let error = refused.err().unwrap();
    assert!(is_damage(&error), "{error}");
    // What lies in the pack beside the pages is not asked for: each of them once, and some of the lowest together.
    let reads = packs.reads.load(Ordering::Relaxed);
    assert!(reads < 10, "{reads}");
}

/// Pages that are all different are not all opened to see that they are too much: at the last of them is damage.
#[tokio::test]
async fn what_is_too_much_is_seen_before_all_of_it_was_looked_at() {
    let mut writer = Writer::new();
    let run = chunk(&mut writer, 64 << 10);
    let runs: Vec<Run> = (1..=200).flat_map(|length| [run.clone(), Run::Hole(length)]).collect();
    let Content::Paged { depth, mut pages } = writer.paged(&runs, 2) else { panic!("it has pages") };
    // What cannot be a page of runs, as whoever opens it would say.
    let (top, bytes) = pages[0].clone();
    pages.push((top, bytes + 1));
    let content = Content::Paged { depth, pages };
    let reader = writer.finish(Vec::new(), 2);
    for (least, words) in [(1 << 20, "nobody backs up"), (1 << 40, "the page above says")] {
        let fetch = fetch(reader.clone(), least);
        let error = fetch.large(&content, 0, &Cancel::default()).await.err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Contents that are too much together, and one of few bytes that is of too many runs.
#[tokio::test]
async fn what_is_copied_in_all_has_an_end() {
    let mut writer = Writer::new();
    let [large, byte] = [64 << 10, 1].map(|length| chunk(&mut writer, length));
    let [large, bytes] = [vec![large; 8], vec![byte; 1000]].map(|runs| writer.paged(&runs, 4));
    let reader = writer.finish(Vec::new(), 2);
    for (content, times, least) in [(&large, 3, 2 * 10 * (64 << 10)), (&bytes, 1, 500 * (4 << 10))] {
        let fetch = fetch(reader.clone(), least);
        for _ in 1..times {
            let mut contents = fetch.large(content, 0, &Cancel::default()).await.unwrap();
            while contents.next().await.unwrap().is_some() {}
        }
        let error = fetch.large(content, 0, &Cancel::default()).await.err().unwrap();
        assert!(is_damage(&error), "{error}");
    }
}

/// A content that does not fit is refused as a whole, and those behind it are copied.
#[tokio::test]
async fn what_is_refused_takes_nothing_from_others() {
    let mut writer = Writer::new();
    let run = chunk(&mut writer, 64 << 10);
    let large = writer.paged(&vec![run.clone(); 64], 4);
    let [small, wide] = [1, 3].map(|times: usize| {
        let size = (times as u64) * (64 << 10);
        entry("x", Kind::File, Content::Inline(vec![run.clone(); times]), size)
    });
    let mut fetch = fetch(writer.finish(Vec::new(), 2), 2 * (64 << 10));
    assert!(fetch.large(&large, 0, &Cancel::default()).await.is_err());
    let files = fetch.small(&[&wide, &small, &wide, &small, &small], &Cancel::default()).await.unwrap();
    let whole: Vec<bool> = files.iter().map(|file| file.is_ok()).collect();
    assert_eq!(whole, [false, true, false, true, false]);
}
