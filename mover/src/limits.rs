//! Every bound and default size, each with its unit and its reason.

/// Shortest chunk of a file in bytes, but for the last one.
pub const CHUNK_MIN: u32 = 16 << 10;
/// Average chunk of a file in bytes: a database that changes 2 % of its pages stores about a fifth again, where
/// chunks of 1 MiB store nearly all of it.
pub const CHUNK_AVERAGE: u32 = 64 << 10;
/// Longest chunk of a file in bytes.
pub const CHUNK_MAX: u32 = 256 << 10;
/// No chunk of any repository is longer, in bytes; what a reader allocates at most for one.
pub const CHUNK_LIMIT: u32 = 4 << 20;

/// A frame is closed when it holds this many bytes: several neighbouring chunks compress as one of 1 MiB would.
pub const FRAME_TARGET: usize = 1 << 20;
/// No frame holds more, in bytes before compression; what a reader allocates at most for one.
pub const FRAME_LIMIT: usize = 8 << 20;
/// Most chunks in one frame, so that a footer row stays small.
pub const FRAME_CHUNKS: usize = 4096;

/// Chunks shorter than this many bytes are not listed in footers and index: they are found again by their place
/// in the parent snapshot, and ten million small files are not ten million entries.
pub const INDEXED_CHUNK_MIN: u32 = 4 << 10;

/// Size of a full pack in bytes: one PUT each, 33 000 PUTs a TiB.
pub const PACK_TARGET: usize = 32 << 20;
/// No pack is longer, in bytes; offsets in it fit 32 bits with room.
pub const PACK_LIMIT: u64 = 1 << 30;
/// How often a pack is sent again under another name after an unclear answer.
pub const PACK_ATTEMPTS: u8 = 8;
/// What a reader fetches from the end of a pack to get its footer in one request, in bytes.
pub const FOOTER_GUESS: u64 = 64 << 10;
/// No footer is longer, in bytes: 32 MiB of 4 KiB chunks need less than half.
pub const FOOTER_LIMIT: usize = 16 << 20;

/// A pack is closed when its footer has about so many bytes, come what may: frames may be tiny.
pub const FOOTER_TARGET: usize = 4 << 20;

/// A page of a tree or of a list of chunks is closed at a name or chunk that says so, from this many bytes on.
pub const PAGE_MIN: usize = 16 << 10;
/// Pages tend to this many bytes.
pub const PAGE_AVERAGE: usize = 64 << 10;
/// A page is closed when it has this many bytes, come what may.
pub const PAGE_TARGET_MAX: usize = 256 << 10;
/// No page is longer, in bytes, before compression: one entry with the largest attributes fits in.
pub const PAGE_LIMIT: usize = 16 << 20;
/// The extended attributes of one entry take at most so many bytes, half a page, so that any entry fits into one.
pub const ATTRIBUTES_LIMIT: usize = 8 << 20;
/// Rows of one page at most, those within rows (runs, pages, attributes) counted too: twice what pages of 256 KiB can
/// have, and a few tens of MiB when they are decoded.
pub const PAGE_ROWS: usize = 1 << 16;
/// The paths that one page spells out take at most so many bytes together: a directory is written once for all of its
/// names, so a short page could stand for any number of long paths.
pub const PAGE_PATHS: usize = 8 << 20;
/// A page is closed when the paths in it take this many bytes, come what may.
pub const PAGE_PATHS_TARGET: usize = 2 << 20;
/// Most levels of a tree: far beyond what 2^64 entries need.
pub const TREE_DEPTH: u8 = 12;
/// Longest path in a tree, in bytes.
pub const PATH_LIMIT: usize = 1 << 20;
/// Longest path that is backed up, in bytes: thirty-two times what one call of the system takes. A walk holds the path of each
/// directory above the one that it is in, and anybody can nest directories.
pub const SOURCE_PATH_LIMIT: usize = 128 << 10;
/// Longest single name or value in an entry, in bytes (an extended attribute has at most 64 KiB).
pub const FIELD_LIMIT: usize = 1 << 20;

/// Least time between two checkpoints: what a killed backup reads again, and a request or three a minute.
pub const CHECKPOINT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);
/// How long one read of the source may take before it is left out: network file systems come back from a restart of their
/// server within minutes, and what takes longer is gone.
pub const SOURCE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30 * 60);
/// So often a backup is begun anew without what did not answer in time, before it ends: each time somebody has waited that
/// long, and a thread is left behind that nobody can call back, at worst each that reads. Besides its stack such a thread
/// holds what it works on (of a worker the slab and one frame, some 15 MiB with the largest; of one that walks, the names of a
/// directory; of the one that compares, a few pages of earlier trees and the verdicts on their packs, some 6 MiB), and the
/// last four footers of its session. All else of its attempt is given back; packs that are being written to a disk, when they
/// are there.
pub const SILENT_ATTEMPTS: usize = 8;
/// So long an attempt that is given up may take for a last checkpoint: its requests have some seconds each.
pub const GIVE_UP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// A checkpoint is written after so many bytes were read, however little time that took: minutes of a fast disk.
pub const CHECKPOINT_BYTES: u64 = 64 << 30;

/// Longest record (session, end, condemned list, key) in bytes, before and after compression.
pub const RECORD_LIMIT: usize = 64 << 20;
/// Longest record of a snapshot in bytes, before and after compression: the keys of about 100 000 sessions.
pub const SNAPSHOT_LIMIT: usize = 32 << 20;
/// Longest session object, key file or marker in bytes: a few hundred are written.
pub const SHORT_RECORD_LIMIT: u64 = 64 << 10;
/// Longest condemned list, final or note of damage in bytes: one that is full has about a million.
pub const SIGNED_RECORD_LIMIT: usize = 4 << 20;
/// Packs named by one condemned list: every writer reads the list.
pub const CONDEMNED_PACKS: usize = 20_000;

/// Objects of one listing that are kept in memory at once, in about half a GiB: a hundred times the sessions of a large
/// repository. Packs are not among them.
pub const LISTED_KEPT: u64 = 1 << 22;
/// Objects of one listing: the packs of two PiB. A service may name new ones for ever.
pub const LISTED: u64 = 1 << 26;
/// Longest page of a listing in bytes: 1000 entries, each with a name of 1024 bytes, of which one takes six when it is
/// escaped (`&quot;`), and 2 KiB for what else is said of an object.
pub const LISTING_LIMIT: usize = 8 << 20;
/// Longest other answer of a store's service in bytes, but for objects: a refusal has some hundred, and each request
/// under way may get one.
pub const ANSWER_LIMIT: usize = 64 << 10;
/// Most tags in one answer: 64 for each of 1000 entries, where an honest one has 30. One of eleven bytes can stand for
/// an entry that takes more than two hundred in memory.
pub const ANSWER_TAGS: usize = 1 << 16;
/// Most bytes of an answer from the beginning of a tag to that of the next: ten times the longest name, where a tag with
/// attributes without number would take many times its length in memory.
pub const ANSWER_STRETCH: usize = 64 << 10;

/// What may be copied of one snapshot however little its repository stores, in bytes: no larger volume is known to be backed
/// up as one, and zeros that were written take nearly nothing. To copy so many takes some hours.
pub const COPIED_LEAST: u64 = 64 << 40;

/// Memory the program keeps to when nothing else is said, in bytes.
pub const MEMORY_DEFAULT: u64 = 256 << 20;
/// The least memory it works with, in bytes.
pub const MEMORY_MIN: u64 = 64 << 20;
