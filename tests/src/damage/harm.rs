//! What can happen to the objects of a repository: one table of kinds, of their parts, and of harm.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use carrack_mover::{
    format::{
        frame::FrameKind,
        pack::{Trailer, parse_pack_object},
        records::{Fenced, RecordKind, decode_record, from_json, split_signature},
    },
    repo::Repository,
    store::{ByteRange, ObjectStore as _, mem::MemStore},
};

use super::{
    scene::{OWN_SECRET, Scene, open},
    support::Stretch,
};

/// What an object is, as a store sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `format`.
    Format,
    /// `keys/…` of the secret that verbs open the repository with.
    Key,
    /// `keys/…` of another secret.
    OtherKey,
    /// `sessions/b…`.
    Session,
    /// `sessions/r…`.
    RepackSession,
    /// `snapshots/b…` of a snapshot.
    Snapshot,
    /// `snapshots/r…` with relocations.
    Relocations,
    /// `snapshots/…` of a session that was shut out and is not cleaned up yet.
    Fence,
    /// The same of one that is gone.
    Tombstone,
    /// `snapshots/…` of a session that gave up.
    Abandoned,
    /// A pack of data.
    DataPack,
    /// A pack of pages.
    TreePack,
    /// A pack of data of an image.
    ImagePack,
    /// A pack of pages of an image.
    ImageTreePack,
    /// The first sending of a pack that was sent twice.
    FirstSending,
    /// `packs/….1`, the second one.
    SecondSending,
    /// `index/s-…`.
    Segment,
    /// `index/s-….joined`.
    Joined,
    /// `index/c…`.
    Checkpoint,
    /// `forgotten/…`.
    Forgotten,
    /// `marks/…`.
    Mark,
    /// `gc/….condemned`.
    Condemned,
    /// `gc/….final`.
    Final,
    /// `damaged/…`.
    Damaged,
}

/// All of them.
pub const KINDS: [Kind; 24] = [
    Kind::Format,
    Kind::Key,
    Kind::OtherKey,
    Kind::Session,
    Kind::RepackSession,
    Kind::Snapshot,
    Kind::Relocations,
    Kind::Fence,
    Kind::Tombstone,
    Kind::Abandoned,
    Kind::DataPack,
    Kind::TreePack,
    Kind::ImagePack,
    Kind::ImageTreePack,
    Kind::FirstSending,
    Kind::SecondSending,
    Kind::Segment,
    Kind::Joined,
    Kind::Checkpoint,
    Kind::Forgotten,
    Kind::Mark,
    Kind::Condemned,
    Kind::Final,
    Kind::Damaged,
];

impl Kind {
    fn is_pack(self) -> bool {
        matches!(
            self,
            Self::DataPack
                | Self::TreePack
                | Self::ImagePack
                | Self::ImageTreePack
                | Self::FirstSending
                | Self::SecondSending
        )
    }

    /// Whether its structure is that of other kinds, in which every part is harmed: of it a few are.
    fn is_like_others(self) -> bool {
        matches!(self, Self::Fence | Self::Tombstone | Self::Abandoned)
            || self.is_pack() && !matches!(self, Self::DataPack | Self::TreePack)
    }
}

/// Those few.
const FEW_PARTS: [&str; 7] =
    ["header version", "header kind", "signature", "session", "frame", "footer", "trailer length"];

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// It is gone.
    Missing,
    /// It has no bytes.
    Empty,
    /// It ends where this part begins.
    Cut(&'static str),
    /// It ends in the middle.
    Halved,
    /// One bit of this part is another.
    Flipped(&'static str),
    /// Two of its kind have changed names.
    Swapped,
    /// A copy of it lies under another name that its kind may have.
    Doubled,
    /// All of its kind are as they were when the repository was younger.
    Replayed,
}

/// One cell of the matrix.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What is harmed.
    pub kind: Kind,
    /// How.
    pub harm: Harm,
    /// What the store holds afterwards; nothing: the object is gone.
    pub changes: Vec<(String, Option<Bytes>)>,
    /// What it held before.
    before: Vec<(String, Option<Bytes>)>,
}

impl Cell {
    /// The objects that are not as they were.
    pub fn objects(&self) -> BTreeSet<&str> {
        self.changes.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The bytes of objects that are not as they were; none of a sending beside which another one is whole, for nobody needs
    /// it.
    pub fn harmed(&self) -> Vec<Stretch> {
        if matches!(self.kind, Kind::FirstSending | Kind::SecondSending) {
            return Vec::new();
        }
        let both = self.before.iter().zip(&self.changes);
        both.filter_map(|((name, before), (_, after))| {
            Stretch::harmed(name, before.as_ref()?, after.as_ref())
        })
        .collect()
    }

    /// A copy of the scene's store with the harm done.
    pub fn inflicted(&self, scene: &Scene) -> Arc<MemStore> {
        let store = scene.now.fork();
        self.changes.iter().for_each(|(name, bytes)| store.tamper(name, bytes.clone()));
        Arc::new(store)
    }

    /// Puts back what was there before.
    pub fn heal(&self, store: &MemStore) {
        self.before.iter().for_each(|(name, bytes)| store.tamper(name, bytes.clone()));
    }
}

/// The kind of an object, by its name, and for ends and packs by what is in them.
async fn kind_of(name: &str, repository: &Repository, scene: &Scene) -> Result<Option<Kind>> {
    let (folder, rest) = name.split_once('/').unwrap_or((name, ""));
    Ok(Some(match folder {
        "format" => Kind::Format,
        "keys" if name == scene.own_key => Kind::Key,
        "keys" => Kind::OtherKey,
        "sessions" if rest.starts_with('r') => Kind::RepackSession,
        "sessions" => Kind::Session,
        "snapshots" => kind_of_end(name, &repository.store().get(name, ByteRange::All).await?)?,
        "packs" => kind_of_pack(name, repository, scene).await?,
        "index" if rest.ends_with(".joined") => Kind::Joined,
        "index" if rest.starts_with("s-") => Kind::Segment,
        "index" => Kind::Checkpoint,
        "forgotten" => Kind::Forgotten,
        "marks" => Kind::Mark,
        "gc" if rest.ends_with(".condemned") => Kind::Condemned,
        "gc" => Kind::Final,
        "damaged" => Kind::Damaged,
        _ => return Ok(None),
    }))
}

fn kind_of_end(name: &str, bytes: &[u8]) -> Result<Kind> {
    let (kind, body) = decode_record(name, bytes)?;
    Ok(match kind {
        RecordKind::Relocation => Kind::Relocations,
        RecordKind::Abandoned => Kind::Abandoned,
        RecordKind::Fenced => match from_json::<Fenced>(name, split_signature(name, body)?.1)?.cleaned_up {
            true => Kind::Tombstone,
            false => Kind::Fence,
        },
        _ => Kind::Snapshot,
    })
}

async fn kind_of_pack(name: &str, repository: &Repository, scene: &Scene) -> Result<Kind> {
    let (pack, attempt) = parse_pack_object(name).context("the name of a pack")?;
    if pack == scene.twice {
        return Ok(if attempt == 0 { Kind::FirstSending } else { Kind::SecondSending });
    }
    let footer = repository.footer(pack).await?.footer;
    let has_data = footer.frames.iter().any(|frame| frame.kind == FrameKind::Data);
    Ok(match (has_data, pack.tag() == scene.image.nonce.tag()) {
        (true, false) => Kind::DataPack,
        (false, false) => Kind::TreePack,
        (true, true) => Kind::ImagePack,
        (false, true) => Kind::ImageTreePack,
    })
}

/// Every object of each kind.
async fn by_kind(store: &Arc<MemStore>, scene: &Scene) -> Result<Vec<(Kind, String)>> {
    let repository = open(store, OWN_SECRET, 0).await?;
    let mut found = Vec::new();
    for name in Scene::names(store).await? {
        found.extend(kind_of(&name, &repository, scene).await?.map(|kind| (kind, name)));
    }
    Ok(found)
}

/// Where the parts of an object begin, and a byte in each.
fn parts(kind: Kind, bytes: &[u8]) -> Vec<(&'static str, usize, usize)> {
    let end = bytes.len();
    if kind.is_pack() {
        let trailer = end - Trailer::LENGTH;
        let length = u32::from_le_bytes(bytes[trailer..trailer + 4].try_into().unwrap_or_default()) as usize;
        let footer = trailer - length;
        return vec![
            ("frame", 0, 30),
            ("footer counter", footer, footer),
            ("footer", footer + 8, footer + 20),
            ("footer tag", trailer - 16, trailer - 3),
            ("trailer length", trailer, trailer),
            ("trailer counter", trailer + 4, trailer + 4),
            ("trailer generation", trailer + 12, trailer + 12),
            ("trailer suite", trailer + 16, trailer + 16),
            ("trailer session", trailer + 17, trailer + 30),
            ("trailer zero", trailer + 42, trailer + 45),
            ("trailer version", trailer + 56, trailer + 56),
            ("trailer magic", trailer + 60, trailer + 61),
        ];
    }
    let mut parts =
        vec![("magic", 0, 1), ("header version", 4, 4), ("header kind", 5, 5), ("header zero", 6, 6)];
    match kind {
        Kind::Session | Kind::RepackSession => fields(bytes, 8, &mut parts),
        Kind::Snapshot | Kind::Relocations => parts.extend([
            ("signature", 8, 20),
            ("counter", 72, 72),
            ("sealed", 80, 100),
            ("tag", end - 16, end - 5),
        ]),
        Kind::Segment | Kind::Joined | Kind::Checkpoint => parts.extend([
            ("key session", 8, 20),
            ("key generation", 33, 33),
            ("key suite", 37, 37),
            ("sealed data key", 38, 50),
            ("counter", 118, 118),
            ("sealed", 126, 140),
            ("tag", end - 16, end - 5),
        ]),
        _ => {
            parts.push(("signature", 8, 20));
            fields(bytes, 72, &mut parts);
        }
    }
    parts
}

/// Parts that are versions, and what a newer one is called.
const VERSIONS: [(&str, &str); 3] = [
    ("header version", "newer header version"),
    ("trailer version", "newer trailer version"),
    ("version", "newer version"),
];

/// Names of JSON fields, so that cells have names that do not change.
const FIELDS: [&str; 24] = [
    "version",
    "repository",
    "maintenance_public",
    "generations",
    "minimum",
    "average",
    "maximum",
    "read_features",
    "created",
    "salt",
    "memory_kib",
    "commitment",
    "sealed_roots",
    "label",
    "session",
    "generation",
    "suite",
    "sealed_data_key",
    "signing_public",
    "started",
    "collection",
    "packs",
    "word",
    "kind",
];

/// The values of the fields of JSON: the first digit of each, or else its second byte.
fn fields(bytes: &[u8], from: usize, parts: &mut Vec<(&'static str, usize, usize)>) {
    parts.push(("json", from, from));
    for field in FIELDS {
        let quoted = format!("\"{field}\":");
        let Some(found) = bytes.windows(quoted.len()).position(|window| window == quoted.as_bytes()) else {
            continue;
        };
        let value = found + quoted.len();
        // Of a word up to its end: whether the first of its random digits are letters is chance.
        let rest = &bytes[value..];
        let length = match rest.strip_prefix(b"\"") {
            Some(word) => word.iter().take_while(|byte| **byte != b'"').count() + 1,
            None => 6,
        };
        let digit = rest.iter().take(length).position(u8::is_ascii_digit);
        parts.push((field, value, value + digit.unwrap_or(1)));
    }
}

struct Maker<'s> {
    scene: &'s Scene,
    repository: Repository,
    cells: Vec<Cell>,
}

impl Maker<'_> {
    async fn add(&mut self, kind: Kind, harm: Harm, changes: Vec<(String, Option<Bytes>)>) {
        let mut before = Vec::new();
        for (name, _) in &changes {
            before.push((name.clone(), self.scene.now.get(name, ByteRange::All).await.ok()));
        }
        self.cells.push(Cell { kind, harm, changes, before });
    }

    async fn one(&mut self, kind: Kind, name: &str) -> Result<()> {
        let whole = self.scene.now.get(name, ByteRange::All).await?;
        let with = |bytes: Option<Bytes>| vec![(name.to_owned(), bytes)];
        self.add(kind, Harm::Missing, with(None)).await;
        self.add(kind, Harm::Empty, with(Some(Bytes::new()))).await;
        self.add(kind, Harm::Halved, with(Some(whole.slice(..whole.len() / 2)))).await;
        let mut parts = parts(kind, &whole);
        parts.retain(|(part, ..)| !kind.is_like_others() || FEW_PARTS.contains(part));
        parts.extend(self.second_frame(kind, name).await?);
        for (part, start, byte) in parts {
            if start > 0 {
                self.add(kind, Harm::Cut(part), with(Some(whole.slice(..start)))).await;
            }
            let mut flipped = whole.to_vec();
            flipped[byte] ^= 1;
            self.add(kind, Harm::Flipped(part), with(Some(flipped.into()))).await;
            // The first version with its last bit changed is none; with the next one it claims to be newer.
            if let Some((_, newer)) = VERSIONS.iter().find(|(version, _)| *version == part) {
                let mut flipped = whole.to_vec();
                flipped[byte] ^= 2;
                self.add(kind, Harm::Flipped(newer), with(Some(flipped.into()))).await;
            }
        }
        // One more pack is no other harm for being like these.
        let is_known = kind.is_pack() && kind.is_like_others();
        if let Some(other) = another_name(name).filter(|_| !is_known) {
            self.add(kind, Harm::Doubled, vec![(other, Some(whole))]).await;
        }
        Ok(())
    }

    /// Where the second frame of a pack begins, if it has one: cut there, it ends between two frames.
    async fn second_frame(&self, kind: Kind, name: &str) -> Result<Option<(&'static str, usize, usize)>> {
        if !kind.is_pack() {
            return Ok(None);
        }
        let (pack, attempt) = parse_pack_object(name).context("the name of a pack")?;
        let footer = self.repository.footer_of_sending(pack, attempt).await?.footer;
        let start = footer.frames.get(1).map(|frame| frame.place.offset as usize);
        Ok(start.map(|start| ("second frame", start, start + 5)))
    }
}

/// A name that an object of the same kind may have: one digit of its random part is another.
fn another_name(name: &str) -> Option<String> {
    if name == "format" {
        return None;
    }
    let suffixes = [".condemned", ".final", ".joined"];
    let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    let last = stem.chars().next_back()?;
    let other = if last == '0' { '1' } else { '0' };
    Some(format!("{}{other}{}", &stem[..stem.len() - 1], &name[stem.len()..]))
}

/// The cells of all kinds, for the objects that the scene's snapshots need most.
pub async fn cells(scene: &Scene) -> Result<Vec<Cell>> {
    let store = Arc::new(scene.now.fork());
    let now = by_kind(&store, scene).await?;
    let older = by_kind(&Arc::new(scene.older.fork()), scene).await?;
    let repository = open(&store, OWN_SECRET, 0).await?;
    let mut maker = Maker { scene, repository, cells: Vec::new() };
    for kind in KINDS {
        let names: Vec<&String> = now.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name).collect();
        let chosen = chosen(scene, kind, &names).await?;
        let first = chosen.first().with_context(|| format!("the scene has no {kind:?}"))?;
        for name in &chosen {
            maker.one(kind, name).await?;
        }
        let alike = |of: Kind| of == kind || (of, kind) == (Kind::OtherKey, Kind::Key);
        let mut others = now.iter().filter(|(of, name)| alike(*of) && name != *first);
        if let Some((_, other)) = others.next() {
            let (a, b) = (store.get(first, ByteRange::All).await?, store.get(other, ByteRange::All).await?);
            let swapped = vec![((*first).clone(), Some(b)), (other.clone(), Some(a))];
            maker.add(kind, Harm::Swapped, swapped).await;
        }
        let before: Vec<&String> = older.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name).collect();
        let mut replayed = Vec::new();
        for name in names.iter().filter(|name| !before.contains(*name)) {
            // Where a tombstone is now, there was the end itself.
            replayed.push(((*name).clone(), scene.older.get(name, ByteRange::All).await.ok()));
        }
        for name in before.iter().filter(|name| !names.contains(*name)) {
            replayed.push(((*name).clone(), Some(scene.older.get(name, ByteRange::All).await?)));
        }
        if !replayed.is_empty() {
            maker.add(kind, Harm::Replayed, replayed).await;
        }
    }
    Ok(maker.cells)
}

/// Of sessions and ends the one that needs relocations; of packs those that the last snapshot needs.
async fn chosen<'n>(scene: &Scene, kind: Kind, names: &[&'n String]) -> Result<Vec<&'n String>> {
    let of = |text: String| names.iter().copied().filter(|name| name.contains(&text)).collect::<Vec<_>>();
    Ok(match kind {
        Kind::Session | Kind::Snapshot => of(scene.moved.to_string()),
        Kind::DataPack | Kind::TreePack => {
            let mut sizes = Vec::new();
            for name in names {
                let tag = parse_pack_object(name).context("the name of a pack")?.0.tag();
                let is_last = tag == scene.last.nonce.tag();
                sizes.push((is_last, scene.now.get(name, ByteRange::All).await?.len(), *name));
            }
            // The last snapshot's own, and the largest: what was moved, which two snapshots share.
            let own = sizes.iter().find(|(is_last, ..)| *is_last).context("a pack of the last snapshot")?.2;
            let largest = sizes.iter().max_by_key(|(_, size, _)| *size).context("a pack")?.2;
            let mut chosen = vec![own];
            chosen.extend((largest != own).then_some(largest));
            chosen
        }
        _ => names.first().copied().into_iter().collect(),
    })
}
