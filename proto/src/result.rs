//! How the run of a mover pod ended.

use serde::{Deserialize, Serialize};

/// Bytes that Kubernetes keeps of the termination message of a container.
pub const TERMINATION_MESSAGE_LIMIT: usize = 4096;

/// Most problems that are named in a result; all are counted.
const NAMED_PROBLEMS: usize = 5;

/// Most bytes of one text in a result.
const TEXT_LIMIT: usize = 400;

/// Exit code of what cannot be told: that of an internal error.
const TOO_LONG: u8 = 70;

/// How the run of a mover pod ended: its termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobResult {
    /// [`crate::VERSION`] of who wrote it.
    pub version: u32,
    /// In one word.
    pub outcome: Outcome,
    /// Exit code of the program.
    pub exit_code: u8,
    /// What happened, for a person; empty after success.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many things could not be read, kept or restored.
    #[serde(default)]
    pub problems: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_problems: Vec<Problem>,
    /// What came out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All of it was done.
    Completed,
    /// Done, but for what the problems name. Of maintenance also: the check ran to its end and found damage, with exit
    /// code 14.
    Partial,
    /// Not done.
    Failed,
    /// Stopped on request; running it again goes on where it was.
    Cancelled,
}

/// Something that could not be read, kept or restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A path or an object.
    pub item: String,
    /// What is wrong with it.
    pub message: String,
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Output {
    /// Of [`crate::Task::Connect`].
    Connect(ConnectOutput),
    /// Of [`crate::Task::Bundle`]: the sealed bundle.
    Bundle {
        /// [`crate::SealKey::seal`] of the bundle.
        sealed: String,
    },
    /// Of [`crate::Task::Backup`].
    Backup(BackupOutput),
    /// Of [`crate::Task::Restore`].
    Restore(RestoreOutput),
    /// Of [`crate::Task::Maintain`].
    Maintain(MaintainOutput),
    /// Of [`crate::Task::Forget`].
    Forget {
        /// Snapshots that went: 0 if it was gone already.
        forgotten: u64,
    },
}

/// Which repository was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectOutput {
    /// Its id.
    pub id: String,
    /// Whether this run made it.
    pub initialised: bool,
}

/// What a backup wrote. All counts are of this run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupOutput {
    /// Session of the snapshot; none if nothing was written.
    pub snapshot: Option<String>,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<jiff::Timestamp>,
    /// Bytes of the source.
    pub logical_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes in chunks that were new, before compression.
    pub added_bytes: u64,
    /// Bytes that went to the store.
    pub stored_bytes: u64,
    /// Files of the source.
    pub files: u64,
    /// Entries that rules left out.
    pub excluded: u64,
    /// Of a device whose storage was asked what has changed: what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
}

/// What a storage said of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Changes {
    /// So many bytes lie in blocks that differ from the snapshot before; only those were read.
    Listed {
        /// Bytes.
        bytes: u64,
    },
    /// There was no list to go by, so all was read.
    Unknown {
        /// Why not.
        because: String,
    },
}

/// What a restore wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOutput {
    /// Session of the snapshot.
    pub snapshot: String,
    /// Files that are there now.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that came from the store.
    pub fetched_bytes: u64,
    /// Files that were read back and compared.
    pub verified_files: u64,
}

/// What maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintainOutput {
    /// Snapshots that were forgotten.
    pub forgotten: u64,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// Bytes of packs that the repository holds now, if known.
    pub repository_bytes: Option<u64>,
    /// Snapshots that a check looked at.
    pub checked_snapshots: u64,
    /// Objects that a check found damaged.
    pub damaged_objects: u64,
    /// How many of the snapshots in [`crate::Job::last_seen`] are not there any more, whatever became of them. Those that
    /// nothing explains are problems as well. Nobody needs to expect again what is named.
    #[serde(default)]
    pub gone: u64,
    /// How many of those nothing explains.
    #[serde(default)]
    pub missing: u64,
    /// Sessions of those that are gone, at most [`NAMED_GONE`]; first of those that nothing explains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_gone: Vec<String>,
}

/// Most snapshots that are named in [`MaintainOutput::first_gone`]: a result is short, and has to stay whole.
pub const NAMED_GONE: usize = 32;

impl JobResult {
    /// The termination message: at most [`TERMINATION_MESSAGE_LIMIT`] bytes. Long texts are cut, the number of problems
    /// that are named goes down, and what came out of the run stays whole; a sealed bundle that does not fit makes it a
    /// failure.
    pub fn to_message(&self) -> String {
        let mut shown = self.clone();
        shown.message = cut(&shown.message);
        shown.next = shown.next.as_deref().map(cut);
        if let Some(Output::Backup(BackupOutput { changes: Some(Changes::Unknown { because }), .. })) =
            &mut shown.output
        {
            *because = cut(because);
        }
        shown.first_problems.truncate(NAMED_PROBLEMS);
        for problem in &mut shown.first_problems {
            problem.item = cut(&problem.item);
            problem.message = cut(&problem.message);
        }
        loop {
            let text = serde_json::to_string(&shown).unwrap_or_default();
            if text.len() <= TERMINATION_MESSAGE_LIMIT {
                return text;
            }
            if shown.first_problems.pop().is_none() && shown.next.take().is_none() {
                shown = shown.without_output(text.len());
            }
        }
    }

    /// Half of a secret is none: whoever waits for it has to know.
    fn without_output(self, bytes: usize) -> Self {
        Self {
            outcome: Outcome::Failed,
            exit_code: TOO_LONG,
            message: format!(
                "the result takes {bytes} bytes, and a termination message has {TERMINATION_MESSAGE_LIMIT}"
            ),
            output: None,
            ..self
        }
    }

    /// Reads a termination message; none if it is something else, as after the program was killed.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The beginning of a long text, by the bytes that it takes in JSON.
fn cut(text: &str) -> String {
    let mut bytes = 0;
    for (at, character) in text.char_indices() {
        bytes += match character {
            '"' | '\\' => 2,
            // As `\u001b`.
            '\0'..' ' => 6,
            _ => character.len_utf8(),
        };
        if bytes > TEXT_LIMIT {
            return format!("{}…", &text[..at]);
        }
    }
    text.to_owned()
}
