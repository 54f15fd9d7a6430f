//! Trees of earlier runs, read ahead in order beside the walk: the parent snapshot's, which is believed, and those
//! of checkpoints, of which every pack is looked at before it is named again.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{self, AtomicBool},
    },
    thread,
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    repeats::PagesMet,
    vouch::{Vouch, packs_of},
};
use crate::{
    codec::{self, Cipher},
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Frame, FrameKind, FramePlace},
        order,
        page::{Child, Page},
        session::{SessionKeyInfo, SessionName},
    },
    id::PackId,
    limits,
    pipeline::{bridge::Bridge, tree::EarlierPages},
    repo::Repository,
    store::ByteRange,
};

/// Pages of the parent that the new tree may name again.
pub(crate) type SharedPages = Arc<Mutex<EarlierPages>>;

/// Opens pages of a tree, whichever session wrote them.
pub(crate) struct PageOpener {
    repository: Repository,
    bridge: Arc<Bridge>,
    infos: HashMap<SessionName, SessionKeyInfo>,
    ciphers: Mutex<HashMap<SessionName, Arc<Cipher>>>,
    pages: SharedPages,
    /// Of a tree that is not believed: looks at its packs.
    vouch: Option<Arc<Vouch>>,
    /// Whether the new snapshot carries all keys of this tree.
    all_carried: AtomicBool,
}

/// Keys that a snapshot may carry without need, about: 30 KiB of its record.
pub(super) const KEYS_CARRIED: usize = 128;
/// One backup in so many looks up which keys are needed, once there are many.
const KEYS_LOOKED_UP_EVERY: u8 = 32;

impl PageOpener {
    /// An opener for trees that refer to these sessions; pages that it sees are offered to `pages`.
    pub(crate) fn new(
        repository: Repository,
        bridge: Arc<Bridge>,
        infos: &[SessionKeyInfo],
        pages: SharedPages,
        vouch: Option<Arc<Vouch>>,
    ) -> Self {
        let infos = infos.iter().map(|info| (info.session, info.clone())).collect();
        let (ciphers, all_carried) = (Mutex::default(), AtomicBool::new(false));
        Self { repository, bridge, infos, ciphers, pages, vouch, all_carried }
    }

    /// Reads one page and moves every reference off packs that were repacked (W5).
    pub(crate) fn open(&self, page: &ChunkRef) -> Result<Page> {
        Ok(self.relocate(self.read(page)?))
    }

    /// Reads one page as it is.
    fn read(&self, page: &ChunkRef) -> Result<Page> {
        Page::from_bytes(&self.plain(page)?)
    }

    /// The bytes of one page.
    fn plain(&self, page: &ChunkRef) -> Result<Vec<u8>> {
        let mut place = *page.frame.place().ok_or_else(|| Error::internal("a stored page has no place"))?;
        let session = self.bridge.session();
        let usable = session.usable(place.pack, place.offset);
        // What is condemned may still be read: it only must not be named (W2).
        let at = usable.or_else(|| session.relocated(place.pack, place.offset));
        (place.pack, place.offset) = at.unwrap_or((place.pack, place.offset));
        let at_place = ChunkRef { frame: Frame::settled(place), ..page.clone() };
        if self.vouch.is_some() {
            self.require_chunk(&at_place)?;
        }
        let range = ByteRange::Slice { offset: place.offset.into(), length: place.stored.into() };
        let cipher = self.cipher(place.session)?;
        let open = |stored: Bytes| {
            let mut plain = Vec::new();
            codec::open_frame(&cipher, FrameKind::Metadata, &place, &mut stored.to_vec(), &mut plain)?;
            if self.repository.keys().chunk_id(&plain) != page.id {
                let FramePlace { pack, offset, .. } = place;
                return Err(Error::corrupt(format!("the page at {offset} of pack {pack} is another")));
            }
            Ok(plain)
        };
        let plain = self.bridge.wait(self.repository.open_part(place.pack, range, open))?;
        if usable.is_some() {
            self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(at_place);
        }
        Ok(plain)
    }

    /// Has the new snapshot carry the keys that this content needs, whose pages it names again unread: all keys of
    /// this tree. So they would become more with each backup; once they are many, some backups look up which of them
    /// are needed.
    pub(crate) fn carry_keys(&self, content: &Content) -> Result<()> {
        let Content::Paged { depth, pages } = content else { return Ok(()) };
        if self.all_carried.load(atomic::Ordering::Relaxed) {
            return Ok(());
        }
        let mut needed = HashSet::new();
        let nonce = self.bridge.session().name().nonce;
        let looks = self.infos.len() > KEYS_CARRIED && nonce.0[0].is_multiple_of(KEYS_LOOKED_UP_EVERY);
        let mut are_known = false;
        if looks {
            match self.keys_below(*depth, pages, true, &mut needed, &mut PagesMet::default()) {
                Ok(()) => are_known = true,
                Err(error) if error.is_of_the_run() => return Err(error),
                Err(_) => {}
            }
        }
        if !are_known {
            self.all_carried.store(true, atomic::Ordering::Relaxed);
            needed.extend(self.infos.keys());
        }
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).carry(needed);
        Ok(())
    }

    fn keys_below(
        &self,
        depth: u8,
        pages: &[(ChunkRef, u64)],
        is_end: bool,
        needed: &mut HashSet<SessionName>,
        met: &mut PagesMet,
    ) -> Result<()> {
        for (page, bytes, is_last) in listed(pages, is_end) {
            if !met.is_new(page, depth, bytes) {
                continue;
            }
            let (page, sessions) = Page::with_sessions(&self.plain(page)?)?;
            needed.extend(sessions);
            match as_said(page, bytes, is_last)? {
                Page::RunsInner(pages) if depth > 1 => {
                    self.keys_below(depth - 1, &pages, is_last, needed, met)?;
                }
                Page::Runs(_) if depth == 1 => {}
                _ => return Err(wrong_level()),
            }
        }
        Ok(())
    }

    /// Whether a new record may name this chunk where the tree has it (W2, W5).
    fn is_in_place(&self, chunk: &ChunkRef) -> bool {
        let session = self.bridge.session();
        session.all_usable_in_place()
            || chunk.frame.place().is_some_and(|place| {
                session.usable(place.pack, place.offset) == Some((place.pack, place.offset))
            })
    }

    /// Whether this chunk may be named again.
    pub(crate) fn is_sound(&self, chunk: &ChunkRef) -> Result<bool> {
        Ok(self.is_in_place(chunk) && self.vouch.as_ref().map_or(Ok(true), |vouch| vouch.chunk(chunk))?)
    }

    fn require_chunk(&self, chunk: &ChunkRef) -> Result<()> {
        if self.is_sound(chunk)? { Ok(()) } else { Err(unsound()) }
    }

    /// Fails unless all of these runs may be named again.
    fn require_runs(&self, runs: &[Run]) -> Result<()> {
        let in_place = runs.iter().all(|run| match run {
            Run::Chunk(chunk) => self.is_in_place(chunk),
            Run::Hole(_) => true,
        });
        let vouched = match &self.vouch {
            Some(vouch) if in_place => vouch.all(&packs_of(runs.iter()))?,
            _ => true,
        };
        if in_place && vouched { Ok(()) } else { Err(unsound()) }
    }

    /// Looks at the packs of all these entries at once, so that it does not happen one by one later.
    fn look_ahead(&self, entries: &[Entry]) -> Result<()> {
        let Some(vouch) = &self.vouch else { return Ok(()) };
        let inline = entries.iter().filter_map(|entry| match &entry.content {
            Content::Inline(runs) => Some(runs),
            Content::Paged { .. } => None,
        });
        vouch.all(&packs_of(inline.flatten())).map(|_verdict| ())
    }

    /// Fails unless everything that this content names, in its pages too, may be named again as it is. What a page
    /// names on packs that were repacked would be named by whoever names the page (W5).
    pub(crate) fn require_all(&self, content: &Content) -> Result<()> {
        if self.vouch.is_none() && self.bridge.session().all_usable_in_place() {
            return Ok(());
        }
        match content {
            Content::Inline(runs) => self.require_runs(runs),
            Content::Paged { depth, pages } => {
                self.require_pages(*depth, pages, true, &mut PagesMet::default())
            }
        }
    }

    fn require_pages(
        &self,
        depth: u8,
        pages: &[(ChunkRef, u64)],
        is_end: bool,
        met: &mut PagesMet,
    ) -> Result<()> {
        for (page, bytes, is_last) in listed(pages, is_end) {
            self.require_chunk(page)?;
            if !met.is_new(page, depth, bytes) {
                continue;
            }
            match as_said(self.read(page)?, bytes, is_last)? {
                Page::Runs(runs) if depth == 1 => self.require_runs(&runs)?,
                Page::RunsInner(pages) if depth > 1 => self.require_pages(depth - 1, &pages, is_last, met)?,
                _ => return Err(wrong_level()),
            }
        }
        Ok(())
    }

    /// Whether anything of this tree may be condemned.
    pub(crate) fn may_be_absent(&self) -> bool {
        !self.bridge.session().all_usable_in_place()
    }

    fn cipher(&self, session: SessionName) -> Result<Arc<Cipher>> {
        let mut ciphers = self.ciphers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cipher) = ciphers.get(&session) {
            return Ok(Arc::clone(cipher));
        }
        let info = self.infos.get(&session).ok_or_else(|| {
            Error::corrupt(format!(
                "the snapshot does not carry the key of session {session}, which it refers to"
            ))
        })?;
        let key = self.repository.keys().session_metadata_key(info.generation, session)?;
        let cipher = Arc::new(Cipher::new(info.suite, &key));
        ciphers.insert(session, Arc::clone(&cipher));
        Ok(cipher)
    }

    fn relocate(&self, mut page: Page) -> Page {
        if self.bridge.session().all_usable_in_place() {
            return page;
        }
        let mut moved = HashMap::new();
        let mut fix = |chunk: &mut ChunkRef| self.relocate_chunk(chunk, &mut moved);
        match &mut page {
            Page::Leaf(entries) => {
                for entry in entries {
                    match &mut entry.content {
                        Content::Inline(runs) => runs.iter_mut().filter_map(as_chunk).for_each(&mut fix),
                        Content::Paged { pages, .. } => pages.iter_mut().for_each(|(page, _)| fix(page)),
                    }
                }
            }
            Page::Runs(runs) => runs.iter_mut().filter_map(as_chunk).for_each(&mut fix),
            Page::RunsInner(pages) => pages.iter_mut().for_each(|(page, _)| fix(page)),
            Page::Inner(children) => children.iter_mut().for_each(|child| fix(&mut child.page)),
        }
        page
    }

    fn relocate_chunk(&self, chunk: &mut ChunkRef, moved: &mut HashMap<(PackId, u32), Frame>) {
        let Some(place) = chunk.frame.place().copied() else { return };
        let Some((pack, offset)) = self.bridge.session().usable(place.pack, place.offset) else { return };
        if (pack, offset) == (place.pack, place.offset) {
            return;
        }
        let frame = moved.entry((place.pack, place.offset));
        chunk.frame = frame
            .or_insert_with(|| Frame::settled(crate::format::frame::FramePlace { pack, offset, ..place }))
            .clone();
    }

    /// Runs of a content, page by page, in order; `visit` says whether to go on. Of a tree that is not believed none
    /// is visited that may not be named again; of one that is, `is_sound` tells which those are.
    pub(crate) fn runs(&self, content: &Content, visit: &mut dyn FnMut(Run) -> bool) -> Result<()> {
        match content {
            Content::Inline(runs) => {
                if self.vouch.is_some() {
                    self.require_runs(runs)?;
                }
                let _all = runs.iter().cloned().all(visit);
                Ok(())
            }
            Content::Paged { depth, pages } => {
                self.paged_runs(*depth, pages, true, visit).map(|_going_on| ())
            }
        }
    }

    fn paged_runs(
        &self,
        depth: u8,
        pages: &[(ChunkRef, u64)],
        is_end: bool,
        visit: &mut dyn FnMut(Run) -> bool,
    ) -> Result<bool> {
        for (page, bytes, is_last) in listed(pages, is_end) {
            let going_on = match as_said(self.open(page)?, bytes, is_last)? {
                Page::Runs(runs) if depth == 1 => {
                    if self.vouch.is_some() {
                        self.require_runs(&runs)?;
                    }
                    runs.into_iter().all(&mut *visit)
                }
                Page::RunsInner(pages) if depth > 1 => self.paged_runs(depth - 1, &pages, is_last, visit)?,
                _ => return Err(wrong_level()),
            };
            if !going_on {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn unsound() -> Error {
    Error::not_found("a pack that an earlier run had stored cannot be used")
}

/// Pages of a list of runs with the bytes below each, and which is the last of its list if these are at the list's end.
fn listed(pages: &[(ChunkRef, u64)], is_end: bool) -> impl Iterator<Item = (&ChunkRef, u64, bool)> {
    let last = pages.len().saturating_sub(1);
    pages.iter().enumerate().map(move |(at, (page, bytes))| (page, *bytes, is_end && at == last))
}

/// A page of runs that must be what is said of it: one that was not could be named again and again for nothing.
fn as_said(page: Page, bytes: u64, is_last: bool) -> Result<Page> {
    if page.stands_for(bytes, is_last) { Ok(page) } else { Err(wrong_level()) }
}

fn wrong_level() -> Error {
    Error::corrupt("a page of runs is not what the page above says")
}

fn as_chunk(run: &mut Run) -> Option<&mut ChunkRef> {
    match run {
        Run::Chunk(chunk) => Some(chunk),
        Run::Hole(_) => None,
    }
}

/// Entries of the parent in tree order, read ahead by a thread of its own.
pub(crate) struct ParentStream {
    pages: Option<Receiver<Result<Vec<Entry>>>>,
    current: std::vec::IntoIter<Entry>,
    next: Option<Entry>,
    failed: Option<Error>,
}

/// Decoded leaves that wait to be used: enough to keep ahead of the walk.
const LEAVES_AHEAD: usize = 4;

impl ParentStream {
    /// A stream without entries.
    pub(crate) fn empty() -> Self {
        Self { pages: None, current: Vec::new().into_iter(), next: None, failed: None }
    }

    /// Starts reading the tree below `root`.
    pub(crate) fn start(opener: Arc<PageOpener>, root: ChunkRef, depth: u8) -> Self {
        let (sender, receiver) = bounded(LEAVES_AHEAD);
        let spawned = thread::Builder::new().name("parent".to_owned()).spawn(move || {
            if let Err(error) = read_leaves(&opener, &root, depth, None, &sender) {
                // Nobody listens any more when the backup has ended: then the error concerns nobody.
                drop(sender.send(Err(error)));
            }
        });
        let mut stream = Self { pages: Some(receiver), ..Self::empty() };
        if let Err(error) = spawned {
            stream.pages = None;
            stream.failed = Some(Error::io(error, "no thread could be started to read the parent snapshot"));
        }
        stream.step();
        stream
    }

    /// The parent's entry of this path. Paths must be asked for in tree order.
    pub(crate) fn find(&mut self, path: &[u8]) -> Option<Entry> {
        loop {
            match order::compare_paths(&self.next.as_ref()?.path, path) {
                Ordering::Less => self.step(),
                Ordering::Greater => return None,
                Ordering::Equal => {
                    let found = self.next.take();
                    self.step();
                    return found;
                }
            }
        }
    }

    /// What ended the stream early, once.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.failed.take()
    }

    fn step(&mut self) {
        loop {
            self.next = self.current.next();
            if self.next.is_some() {
                return;
            }
            match self.pages.as_ref().and_then(|pages| pages.recv().ok()) {
                Some(Ok(entries)) => self.current = entries.into_iter(),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    self.pages = None;
                    return;
                }
                None => return,
            }
        }
    }
}

/// Sends the leaves below a page; answers whether somebody still listens.
fn read_leaves(
    opener: &PageOpener,
    page: &ChunkRef,
    depth: u8,
    above: Option<&Child>,
    sender: &Sender<Result<Vec<Entry>>>,
) -> Result<bool> {
    if depth == 0 || depth > limits::TREE_DEPTH {
        return Err(Error::corrupt(format!("a tree of {depth} levels")));
    }
    let opened = opener.open(page)?;
    if above.is_some_and(|above| !above.describes(&opened)) {
        return Err(Error::corrupt("a page of the tree is not what the page above says"));
    }
    match opened {
        Page::Leaf(entries) if depth == 1 => {
            opener.look_ahead(&entries)?;
            Ok(sender.send(Ok(entries)).is_ok())
        }
        Page::Inner(children) if depth > 1 => {
            for child in &children {
                if !read_leaves(opener, &child.page, depth - 1, Some(child), sender)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Err(Error::corrupt("a page of the tree is not of the level that it should be")),
    }
}
