//! Names that more than one program must agree on.

/// API group of the kinds.
pub const GROUP: &str = "carrack.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// `spec.provisioner` of the mover types that Carrack serves; all others belong to somebody else.
pub const MOVER_PROVISIONER: &str = "carrack.dev/mover";

/// Labels.
pub mod label {
    /// Uid of the object that something was made for.
    pub const OWNER_UID: &str = "carrack.dev/owner-uid";
    /// Kind of the object that something was made for, in lower case.
    pub const OWNER_KIND: &str = "carrack.dev/owner-kind";
    /// What a mover pod does: `backup`, `restore`, `bundle`, `connect`, `maintain`, `forget`.
    pub const TASK: &str = "carrack.dev/task";
    /// On a snapshot that stays so that the next backup reads only what has changed: what it is the base of, as digits.
    pub const BASE: &str = "carrack.dev/base";
    /// On the keys of a volume of which a snapshot was seen: id of the repository that holds it.
    pub const REPOSITORY_ID: &str = "carrack.dev/repository-id";
    /// Who made it, as Kubernetes recommends.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Value of [`MANAGED_BY`].
    pub const MANAGER: &str = "carrack";
}

/// Annotations.
pub mod annotation {
    /// On a mover type: `"true"` makes it the one for requests that name none.
    pub const IS_DEFAULT: &str = "carrack.dev/is-default-type";
    /// On what was made elsewhere: namespace and name of the object that it was made for.
    pub const OWNER: &str = "carrack.dev/owner";
    /// On a volume that is handed over: the reclaim policy that it has again afterwards.
    pub const RECLAIM_POLICY: &str = "carrack.dev/reclaim-policy";
    /// On a mover pod: its type.
    pub const MOVER_TYPE: &str = "carrack.dev/mover-type";
    /// On a mover pod: the nodes that had no room for it, with commas.
    pub const AVOIDED_NODES: &str = "carrack.dev/avoided-nodes";
    /// On a snapshot that stays: what it stays for, for people.
    pub const BASE_OF: &str = "carrack.dev/base-of";
    /// On a second name of a volume, which a mover mounts: the volume that it stands for.
    pub const ALIAS_OF: &str = "carrack.dev/alias-of";
    /// On the keys of a volume: its newest snapshot that was seen, and when that was begun.
    pub const LAST_SEEN: &str = "carrack.dev/last-seen";
}

/// Finalizers.
pub mod finalizer {
    /// Holds an object until everything that was made for it is gone.
    pub const CLEAN_UP: &str = "carrack.dev/clean-up";
}

/// Types of conditions.
pub mod condition {
    /// Of repositories and mover types: they can be used.
    pub const READY: &str = "Ready";
    /// Of repositories: the last maintenance ended well.
    pub const MAINTAINED: &str = "Maintained";
    /// Of backups and restores: type and repository are settled, and a slot was given.
    pub const ACCEPTED: &str = "Accepted";
    /// Of backups: there is a snapshot of the volume that can be read.
    pub const SNAPSHOT_READY: &str = "SnapshotReady";
    /// Of backups: whether all that is read is of one moment.
    pub const CONSISTENT: &str = "Consistent";
    /// Of backups and restores: the mover pod runs or ran.
    pub const MOVER_STARTED: &str = "MoverStarted";
    /// Of backups and restores: the end is reached; the status says which.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Of backups that are deleted with the policy *Delete*: the snapshot is forgotten, or why it stays.
    pub const FORGOTTEN: &str = "Forgotten";
    /// Of backups and restores: nothing that was made for it is left.
    pub const CLEANED_UP: &str = "CleanedUp";
}

/// Reasons of conditions and events: one word that a program may decide by.
pub mod reason {
    /// All is well.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Done, but not all could be read or kept.
    pub const PARTIAL: &str = "Partial";
    /// Still at it.
    pub const IN_PROGRESS: &str = "InProgress";
    /// Waits for a free slot.
    pub const QUEUED: &str = "Queued";
    /// Stopped on request.
    pub const CANCELED: &str = "Canceled";
    /// There is no such mover type, or no default.
    pub const MOVER_TYPE_NOT_FOUND: &str = "MoverTypeNotFound";
    /// The repository is missing or not ready.
    pub const REPOSITORY_NOT_READY: &str = "RepositoryNotReady";
    /// A secret is missing or lacks a key.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// The volume claim is missing or has no volume.
    pub const CLAIM_NOT_FOUND: &str = "ClaimNotFound";
    /// The volume snapshot is missing or failed.
    pub const SNAPSHOT_FAILED: &str = "SnapshotFailed";
    /// The volume's driver makes no snapshots, or there is no class for it.
    pub const NO_SNAPSHOT_CLASS: &str = "NoSnapshotClass";
    /// The volume itself is read, while it may change.
    pub const LIVE: &str = "Live";
    /// The pod could not be started.
    pub const POD_FAILED: &str = "PodFailed";
    /// Something took longer than its limit.
    pub const TIMED_OUT: &str = "TimedOut";
    /// The mover ended with an error.
    pub const MOVER_FAILED: &str = "MoverFailed";
    /// The store refused the credentials, or the keys open nothing.
    pub const DENIED: &str = "Denied";
    /// The store did not answer.
    pub const STORE_UNAVAILABLE: &str = "StoreUnavailable";
    /// What the repository holds is damaged.
    pub const CORRUPT: &str = "Corrupt";
    /// The destination exists and is bound, or does not fit.
    pub const DESTINATION_IN_USE: &str = "DestinationInUse";
    /// A device that has no snapshots is in use.
    pub const SOURCE_IN_USE: &str = "SourceInUse";
    /// What to restore does not exist.
    pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
    /// The API server refused what was to be read or made: rights, pod security, quotas, policies.
    pub const REFUSED: &str = "Refused";
    /// A field says something that cannot be.
    pub const INVALID: &str = "Invalid";
}
