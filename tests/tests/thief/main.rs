//! A stolen mover: somebody with real credentials of the bucket that may create, get and list but not delete, and with
//! a mover's keys. Whatever he does, what was backed up before is listed and comes back, and maintenance goes on, or
//! says what to do. What he still can do stands in `docs/threat-model.md`.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod forged;
mod joined;
mod lies;
mod moved;
mod overwrites;
mod reach;
mod versions;

use std::path::PathBuf;

use carrack_mover::{
    clock::World,
    format::{
        frame::Suite,
        records::{self, RecordKind},
        session::{SessionKeyInfo, SessionKind, SessionName, SessionObject},
    },
    id::{LineageId, SessionNonce},
    keys::{Keys, SigningKey, WriterBundle},
    repo::Repository,
    secret::Key,
};
use carrack_tests::{
    bucket::{Bucket, careless_policy, mover_policy},
    minio::BUCKET,
    program::Printed,
    stage::{PREFIX, Stage},
};

/// The thief with what he stole from `db1`.
struct Thief {
    bucket: Bucket,
    bundle: WriterBundle,
    bundle_file: PathBuf,
    signing: SigningKey,
}

impl Thief {
    /// With the rights of the operator guide, or with a policy that is too wide.
    fn of(stage: &Stage, careless: bool) -> Self {
        let policy = if careless { careless_policy(BUCKET, PREFIX) } else { mover_policy(BUCKET, PREFIX) };
        let bucket = Bucket::of(&stage.server, &policy, &stage.path("stolen"), PREFIX).unwrap();
        let (bundle_file, bundle) = stage.bundle("db1").unwrap();
        Self { bucket, bundle, bundle_file, signing: SigningKey::new(&Key::new([7; 32])).unwrap() }
    }

    fn engine(&self, stage: &Stage) -> Repository {
        stage.owner.run(stage.engine(&self.bucket, Some(&self.bundle))).unwrap()
    }

    /// A session object as an honest writer would put it, for any name.
    fn session(&self, session: SessionName, started: jiff::Timestamp) -> Vec<u8> {
        let keys = Keys::from_bundle(&self.bundle).unwrap();
        let generation = self.bundle.generation;
        let data = keys.seal_data_key(generation, session, &Key::new([8; 32]), &World::system()).unwrap();
        let suite = Suite::ChaCha20Poly1305;
        let key = SessionKeyInfo { session, generation, suite, sealed_data_key: data };
        let object = SessionObject { version: 1, key, signing_public: self.signing.public(), started };
        records::encode_record(RecordKind::Session, &records::to_json(&object).unwrap())
    }

    /// A record signed with a key of his own.
    fn signed(&self, name: &str, kind: RecordKind, json: &[u8]) -> Vec<u8> {
        let mut body = self.signing.sign(name, json);
        body.extend_from_slice(json);
        records::encode_record(kind, &body)
    }
}

fn name(kind: SessionKind, lineage: LineageId, number: u64) -> SessionName {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[8..].fill(0xee);
    SessionName { kind, lineage, nonce: SessionNonce(nonce) }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// What a run printed names this.
fn names(printed: &Printed, word: &str) {
    let said = printed.out.contains(word) || printed.err.contains(word);
    assert!(said, "nothing says {word:?}:\n{}\n{}", printed.out, printed.err);
}

/// Backs a host up, which must end with this code, and keeps a copy of what that must hold.
fn backed_up(stage: &mut Stage, host: &str, code: i32) -> Printed {
    let source = stage.source(host).display().to_string();
    let printed = stage.run(&["backup", "--json", "--host", host, &source], code);
    stage.keep(printed.message("summary")["session"].as_str().unwrap(), host).unwrap();
    printed
}

/// Bytes of contents that a backup stored anew.
fn added(printed: &Printed) -> u64 {
    printed.message("summary")["data_added"].as_u64().unwrap()
}

/// The lineage of a host, as its snapshots' names have it.
fn lineage_of(stage: &Stage, host: &str) -> LineageId {
    let path = stage.source(host).display().to_string();
    let repository = stage.owner.run(stage.engine(&stage.owner, None)).unwrap();
    repository.lineage(host, &[path.into_bytes()])
}
