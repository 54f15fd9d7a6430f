use super::*;
use crate::pipeline::testing::chunk_ending;

/// Pages that were stored: rows and bytes of each. Their ids end with this byte.
struct Sink {
    last: u8,
    pages: Vec<(u64, usize)>,
}

impl Sink {
    fn ending(last: u8) -> Self {
        Self { last, pages: Vec::new() }
    }

    fn rows(&self) -> Vec<u64> {
        self.pages.iter().map(|(rows, _)| *rows).collect()
    }
}

impl PageSink for Sink {
    fn store(&mut self, page: &PageWriter) -> Result<ChunkRef> {
        let bytes = page.to_bytes()?.len();
        self.pages.push((page.count(), bytes));
        Ok(chunk_ending(self.last, self.pages.len() as u32, bytes as u32))
    }
}

fn chunk(last: u8, number: u32) -> Run {
    Run::Chunk(chunk_ending(last, number, 10))
}

/// A writer with chunks that say nothing about pages.
fn with_chunks(count: u32, sink: &mut Sink) -> RunsWriter {
    let mut writer = RunsWriter::default();
    for number in 0..count {
        writer.push(chunk(255, number), sink).unwrap();
        assert_eq!(writer.total(), u64::from(number + 1) * 10);
    }
    writer
}

#[test]
fn a_few_runs_stay_in_the_entry() {
    let mut sink = Sink::ending(255);
    let content = with_chunks(INLINE_RUNS as u32, &mut sink).finish(&mut sink).unwrap();
    let Content::Inline(runs) = content else { panic!("{content:?}") };
    assert_eq!((runs.len(), sink.pages.len()), (INLINE_RUNS, 0));
    let content = with_chunks(INLINE_RUNS as u32 + 1, &mut sink).finish(&mut sink).unwrap();
    let Content::Paged { depth: 1, pages } = content else { panic!("{content:?}") };
    assert_eq!((pages.len(), pages[0].1, sink.rows()), (1, 1290, vec![129]));
}

#[test]
fn neighbouring_holes_are_one_wherever_they_fall() {
    for before in [0, INLINE_RUNS as u32 - 1, INLINE_RUNS as u32, 1000] {
        let mut sink = Sink::ending(255);
        let mut writer = with_chunks(before, &mut sink);
        for length in [1, 2, 3] {
            writer.push(Run::Hole(length), &mut sink).unwrap();
        }
        writer.push(chunk(255, 9), &mut sink).unwrap();
        let total = u64::from(before) * 10 + 16;
        assert_eq!(writer.total(), total);
        match writer.finish(&mut sink).unwrap() {
            Content::Inline(runs) => assert_eq!(runs[before as usize..], [Run::Hole(6), chunk(255, 9)]),
            Content::Paged { depth, pages } => {
                assert_eq!((depth, pages.len(), pages[0].1), (1, 1, total));
                assert_eq!(sink.rows(), [u64::from(before) + 2]);
            }
        }
    }
}

/// A writer whose open page has exactly this size, by holes that say nothing.
fn filled(size: usize) -> RunsWriter {
    let mut writer = RunsWriter { page: Some((PageWriter::runs(), 0)), ..RunsWriter::default() };
    let mut sink = Sink::ending(255);
    let cost = |length| {
        let mut page = PageWriter::runs();
        page.push_run(&Run::Hole(1)).unwrap();
        let before = page.size();
        page.push_run(&Run::Hole(length)).unwrap();
        page.size() - before
    };
    let (short, long) = (cost(1), cost(1000));
    assert_eq!(long, short + 1);
    writer.push_paged(&Run::Hole(1), &mut sink).unwrap();
    while size_of_page(&writer) < size {
        let left = size - size_of_page(&writer);
        let length = if left.is_multiple_of(short) { 1 } else { 1000 };
        writer.push_paged(&Run::Hole(length), &mut sink).unwrap();
    }
    assert_eq!((size_of_page(&writer), sink.pages.len()), (size, 0));
    writer
}

fn size_of_page(writer: &RunsWriter) -> usize {
    writer.page.as_ref().unwrap().0.size()
}

/// How many pages are closed by a run behind so much of a page that this size is reached.
fn closed_by(run: &Run, reached: usize) -> usize {
    // What the first chunk of a page takes, with the tables it needs.
    let mut probe = filled(100);
    let mut sink = Sink::ending(255);
    probe.push_paged(run, &mut sink).unwrap();
    let mut writer = filled(reached - (size_of_page(&probe) - 100));
    writer.push_paged(run, &mut sink).unwrap();
    if sink.pages.is_empty() {
        assert_eq!(size_of_page(&writer), reached);
    } else {
        // An empty page is none.
        writer.close_page(&mut sink).unwrap();
    }
    sink.pages.len()
}

#[test]
fn a_page_ends_where_a_chunk_says_so_or_when_it_is_full() {
    let (rare, usual, plain) = (chunk(0, 1), chunk(3, 1), chunk(4, 1));
    for (run, reached, expected) in [
        (&rare, limits::PAGE_MIN - 1, 0),
        (&rare, limits::PAGE_MIN, 1),
        (&rare, limits::PAGE_AVERAGE + 1, 1),
        (&usual, limits::PAGE_MIN, 0),
        (&usual, limits::PAGE_AVERAGE, 0),
        (&usual, limits::PAGE_AVERAGE + 1, 1),
        (&plain, limits::PAGE_AVERAGE + 1, 0),
        (&plain, limits::PAGE_TARGET_MAX - 1, 0),
        (&plain, limits::PAGE_TARGET_MAX, 1),
        (&Run::Hole(1), limits::PAGE_AVERAGE + 1, 0),
        (&Run::Hole(1), limits::PAGE_TARGET_MAX, 1),
    ] {
        assert_eq!(closed_by(run, reached), expected, "{run:?} at {reached}");
    }
}

/// A writer with so many pages on its first level, stored by a sink whose ids end with this byte.
fn with_pages(count: u32, last: u8, sink: &mut Sink) -> RunsWriter {
    let mut writer = RunsWriter { page: Some((PageWriter::runs(), 0)), ..RunsWriter::default() };
    for number in 0..count {
        writer.add_page(0, chunk_ending(last, number, 1), 100, sink).unwrap();
    }
    writer
}

#[test]
fn many_pages_are_named_by_pages() {
    // Pages that were given, how their ids end; levels, and rows of the pages above.
    let cases: [(u32, u8, u8, &[u64]); 8] = [
        (64, 255, 1, &[]),
        (65, 255, 2, &[65]),
        (1023, 255, 2, &[1023]),
        (1025, 255, 2, &[1024, 1]),
        (127, 1, 2, &[127]),
        (129, 1, 2, &[128, 1]),
        (129, 2, 2, &[129]),
        (128 * 65, 0, 3, &[&[128; 65][..], &[65]].concat()),
    ];
    for (count, last, depth, rows) in cases {
        let mut sink = Sink::ending(255);
        let writer = with_pages(count, last, &mut sink);
        let content = writer.finish(&mut sink).unwrap();
        let Content::Paged { depth: found, pages } = content else { panic!("{content:?}") };
        assert_eq!((found, sink.rows()), (depth, rows.to_vec()), "{count} {last}");
        let below: u64 = pages.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(below, u64::from(count) * 100, "{count} {last}");
    }
}
