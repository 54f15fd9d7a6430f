//! Which bytes of which objects each file of each snapshot needs, found in the undamaged repository: what is contained
//! is judged by this, and not by what restore and check say of each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use carrack_mover::{
    format::{
        entry::Content,
        frame::ChunkRef,
        pack::pack_object,
        page::Page,
        session::{SessionKind, SessionName},
    },
    reader::{SnapshotReader, walk::has_contents},
    repo::Repository,
    store::mem::MemStore,
};

use super::scene::Scene;

/// Bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The object.
    pub object: String,
    /// Which of its bytes.
    pub bytes: Range<u64>,
}

impl Stretch {
    fn whole(object: String) -> Self {
        Self { object, bytes: 0..u64::MAX }
    }

    /// The bytes of an object that are not what they were; none if nobody can tell the difference.
    pub fn harmed(object: &str, before: &Bytes, after: Option<&Bytes>) -> Option<Self> {
        let Some(after) = after else { return Some(Self::whole(object.to_owned())) };
        let differs = |(one, other): (&u8, &u8)| one != other;
        let shorter = before.len().min(after.len());
        let first = before.iter().zip(after).position(differs).unwrap_or(shorter);
        let end = match before.len() == after.len() {
            true => before.iter().zip(after).rposition(differs).map_or(first, |last| last + 1) as u64,
            false => u64::MAX,
        };
        let bytes = first as u64..end;
        (!bytes.is_empty()).then(|| Self { object: object.to_owned(), bytes })
    }

    fn meets(&self, other: &Self) -> bool {
        self.object == other.object
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

fn meet(some: &[Stretch], others: &[Stretch]) -> bool {
    some.iter().any(|one| others.iter().any(|other| one.meets(other)))
}

/// What one snapshot needs.
#[derive(Debug, Default)]
struct Needs {
    /// To be there at all.
    record: Vec<Stretch>,
    /// To know its names.
    pages: Vec<Stretch>,
    /// To give back each file: its contents, and the pages that lead there.
    files: BTreeMap<String, Vec<Stretch>>,
}

/// What all snapshots need.
#[derive(Debug, Default)]
pub struct Support(BTreeMap<SessionName, Needs>);

impl Support {
    /// Of these snapshots of an undamaged repository.
    pub async fn of(
        store: &Arc<MemStore>,
        repository: &Repository,
        sessions: impl IntoIterator<Item = SessionName>,
    ) -> Result<Self> {
        let names: BTreeSet<String> = Scene::names(store).await?.into_iter().collect();
        let mut support = Self::default();
        for session in sessions {
            let reader = SnapshotReader::of(repository, session).await?;
            support.0.insert(session, Tracer { reader, names: &names }.needs(session).await?);
        }
        Ok(support)
    }

    fn needs(&self, session: SessionName) -> &Needs {
        self.0.get(&session).expect("every snapshot of the scene was looked at")
    }

    /// Whether this harm may take a snapshot out of view.
    pub fn hides(&self, session: SessionName, harmed: &[Stretch]) -> bool {
        meet(&self.needs(session).record, harmed)
    }

    /// Whether this harm may keep some names of a snapshot from everybody.
    pub fn hides_names(&self, session: SessionName, harmed: &[Stretch]) -> bool {
        let needs = self.needs(session);
        meet(&needs.record, harmed) || meet(&needs.pages, harmed)
    }

    /// Files of a snapshot that this harm may change. All others must be as they were.
    pub fn touched(&self, session: SessionName, harmed: &[Stretch]) -> BTreeSet<String> {
        let needs = self.needs(session);
        let hidden = meet(&needs.record, harmed);
        let touched = needs.files.iter().filter(|(_, needed)| hidden || meet(needed, harmed));
        touched.map(|(path, _)| path.clone()).collect()
    }

    /// How many files there are in all snapshots.
    pub fn files(&self) -> usize {
        self.0.values().map(|needs| needs.files.len()).sum()
    }
}

struct Tracer<'r> {
    reader: SnapshotReader,
    names: &'r BTreeSet<String>,
}

impl Tracer<'_> {
    async fn needs(&self, session: SessionName) -> Result<Needs> {
        let record = [session.session_object(), session.end_object()].map(Stretch::whole).to_vec();
        let mut needs = Needs { record, ..Needs::default() };
        let root = self.reader.snapshot().root.as_ref().context("a tree")?;
        let mut waiting = vec![(root.to_chunk(), Vec::new())];
        while let Some((page, mut way)) = waiting.pop() {
            let place = self.place(&page).await?;
            needs.pages.extend(place.iter().cloned());
            way.extend(place);
            match &*self.reader.page(&page).await? {
                Page::Inner(children) => {
                    waiting.extend(children.iter().map(|child| (child.page.clone(), way.clone())));
                }
                Page::Leaf(entries) => {
                    for entry in entries.iter().filter(|entry| has_contents(entry)) {
                        let path = String::from_utf8(entry.path.clone())?;
                        let contents = self.contents(&entry.content).await?;
                        needs.files.insert(path, [&way[..], &contents].concat());
                    }
                }
                other => bail!("a page of names is {other:?}"),
            }
        }
        Ok(needs)
    }

    async fn contents(&self, content: &Content) -> Result<Vec<Stretch>> {
        let mut waiting: Vec<ChunkRef> = content.named().into_iter().cloned().collect();
        let mut levels = match content {
            Content::Inline(_) => 0,
            Content::Paged { depth, .. } => *depth,
        };
        let mut needed = Vec::new();
        loop {
            let mut below = Vec::new();
            for chunk in &waiting {
                needed.extend(self.place(chunk).await?);
                if levels > 0 {
                    below.extend(self.reader.page(chunk).await?.named().into_iter().cloned());
                }
            }
            if levels == 0 {
                return Ok(needed);
            }
            (waiting, levels) = (below, levels - 1);
        }
    }

    /// Where a frame lies: where it was written, or else where a repack has moved it, which must be known then.
    async fn place(&self, chunk: &ChunkRef) -> Result<Vec<Stretch>> {
        let place = chunk.frame.place().context("a frame that is stored")?;
        let at = |pack, offset: u32| Stretch {
            object: pack_object(pack, 0),
            bytes: offset.into()..u64::from(offset) + u64::from(place.stored),
        };
        let written = at(place.pack, place.offset);
        if self.names.contains(&written.object) {
            return Ok(vec![written]);
        }
        let moved = self.reader.access().resolve(place.pack, place.offset, false).await?;
        let (pack, offset) = moved.context("a frame that was moved")?;
        let of_a_repack = |name: &&String| {
            let name = name.split_once('/').map_or("", |(_, name)| name);
            name.parse::<SessionName>().is_ok_and(|session| session.kind == SessionKind::Repack)
        };
        let records = self.names.iter().filter(of_a_repack).cloned().map(Stretch::whole);
        Ok([at(pack, offset)].into_iter().chain(records).collect())
    }
}
