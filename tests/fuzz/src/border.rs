//! What crosses a process boundary: jobs, progress and results of mover pods, what is sealed in them, and the messages of
//! a service that tells which blocks of a volume have changed.

use carrack_mover::fuzz::Target;
use carrack_proto::{Job, JobResult, Outcome, Progress, SealError, SealKey, TERMINATION_MESSAGE_LIMIT};
use prost::Message;

use crate::wire::{GetMetadataDeltaRequest, GetMetadataDeltaResponse};

pub(crate) const TARGETS: [Target; 3] = [
    Target { name: "border", run: border },
    Target { name: "seal", run: seal },
    Target { name: "wire", run: wire },
];

/// Jobs, results and progress; the first byte says which.
fn border(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let Ok(text) = str::from_utf8(bytes) else { return };
    match which % 3 {
        0 => job(text),
        1 => result(text),
        _ => progress(text),
    }
}

fn job(text: &str) {
    let Ok(job) = serde_json::from_str::<Job>(text) else { return };
    let again = serde_json::to_string(&job).expect("what was read can be written");
    assert_eq!(serde_json::from_str::<Job>(&again).expect("what was written can be read"), job);
}

/// A message that is short enough says all; one that was cut says how it ended, or that it cannot be told.
fn result(text: &str) {
    let Some(result) = JobResult::read(text) else { return };
    let message = result.to_message();
    assert!(message.len() <= TERMINATION_MESSAGE_LIMIT, "{} bytes", message.len());
    let told = JobResult::read(&message).expect("what was written can be read");
    assert_eq!((told.version, told.problems), (result.version, result.problems));
    if told.output == result.output {
        assert_eq!((told.outcome, told.exit_code), (result.outcome, result.exit_code));
    } else if told.outcome != result.outcome {
        assert_eq!((told.outcome, told.output.clone()), (Outcome::Failed, None));
    }
    assert_eq!(told.to_message(), message, "what was cut is not cut again");
}

fn progress(text: &str) {
    let Some(progress) = Progress::read(text) else { return };
    assert!(progress.message_type == "status" && progress.total_bytes != Some(0));
    let again = serde_json::to_string(&progress).expect("what was read can be written");
    assert_eq!(Progress::read(&again), Some(progress));
}

/// First as a key and as a seal that somebody without the key has made, then as a secret.
fn seal(bytes: &[u8]) {
    let key = SealKey::from_text(&"07".repeat(32)).expect("a key");
    if let Ok(text) = str::from_utf8(bytes) {
        assert_eq!(key.open(text).err(), Some(SealError::Broken), "a seal was made without its key");
        if let Ok(other) = SealKey::from_text(text) {
            assert_eq!(other.to_text(), text.trim().to_ascii_lowercase());
        }
    }
    let secret = &bytes[..bytes.len().min(64 << 10)];
    let sealed = key.seal(secret).expect("it can be sealed");
    assert_eq!(key.open(&sealed).expect("what was sealed can be opened"), secret);
    let (start, end) = sealed.split_at(sealed.len() - 1);
    let other = if end == "0" { "1" } else { "0" };
    assert!(key.open(&format!("{start}{other}")).is_err(), "a seal that was changed");
}

fn wire(bytes: &[u8]) {
    same::<GetMetadataDeltaResponse>(bytes);
    same::<GetMetadataDeltaRequest>(bytes);
}

fn same<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let again = message.encode_to_vec();
    assert_eq!(M::decode(&again[..]).expect("what was written can be read"), message);
    assert_eq!(M::decode(&again[..]).expect("it was read before").encode_to_vec(), again);
}
