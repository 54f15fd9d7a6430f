//! Packs that a check found damaged: no later backup relies on them, so what their sources still have is stored
//! again.
//!
//! A note is a hint. Without it a backup believes its parent (W3) and what it finds by the index; with it those packs
//! are absent to a session, as condemned ones are. A note that is lost, or speaks of a pack that is whole, costs work
//! and no data. It carries a maintenance signature, so that a stolen writer cannot make everybody store everything
//! again.

use std::collections::BTreeSet;

use super::Repository;
use crate::{
    error::{ErrorKind, Result},
    format::records::{Damaged, RecordKind},
    id::PackId,
    limits,
    store::{ByteRange, list_all},
};

#[cfg(test)]
mod tests;

/// The folder of the notes.
const FOLDER: &str = "damaged/";

/// One note of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageNote {
    name: String,
    /// The packs that it names.
    pub packs: Vec<PackId>,
}

impl Repository {
    /// All notes that verify. Others are no reason to fail: what they say is not believed.
    pub async fn damage_notes(&self) -> Result<Vec<DamageNote>> {
        let mut notes = Vec::new();
        for object in list_all(self.store().as_ref(), FOLDER).await? {
            let bytes = match self.store().get(&object.name, ByteRange::All).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match self.open_signed::<Damaged>(&object.name, RecordKind::Damaged, &bytes) {
                Ok(note) => notes.push(DamageNote { name: object.name, packs: note.packs }),
                Err(error) => {
                    tracing::warn!(object = object.name, %error, "a note of damage is not believed");
                }
            }
        }
        Ok(notes)
    }

    /// Notes that these packs are damaged.
    pub async fn note_damage(&self, packs: &BTreeSet<PackId>) -> Result<()> {
        let packs: Vec<PackId> = packs.iter().copied().collect();
        for packs in packs.chunks(limits::CONDEMNED_PACKS) {
            let note = |random| {
                (
                    format!("{FOLDER}{random}"),
                    Damaged { created: self.world().clock.now(), packs: packs.to_vec() },
                )
            };
            self.put_signed_anew(RecordKind::Damaged, "a note of damage", note).await?;
        }
        self.store().flush().await
    }

    /// Takes a note back, of whose packs none is damaged any more.
    pub async fn drop_note(&self, note: &DamageNote) -> Result<()> {
        self.check_maintenance_known()?;
        self.store().delete(&note.name).await.map(|_existed| ())
    }
}
