//! Messages of the Kubernetes `SnapshotMetadata` service (KEP 3314, `schema.proto` of external-snapshot-metadata 1.0), as
//! far as they are used here. Field numbers are theirs.

use prost::Message;

/// What differs between two snapshots of a volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct GetMetadataDeltaRequest {
    /// A token for the audience that the service names.
    #[prost(string, tag = "1")]
    pub(super) security_token: String,
    /// Where the `VolumeSnapshot` is.
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    /// The storage's handle of the earlier snapshot.
    #[prost(string, tag = "3")]
    pub(super) base_snapshot_id: String,
    /// Name of the `VolumeSnapshot` of the later one.
    #[prost(string, tag = "4")]
    pub(super) target_snapshot_name: String,
    /// The first byte that matters.
    #[prost(int64, tag = "5")]
    pub(super) starting_offset: i64,
    /// Most extents in a message; 0 leaves it to the service.
    #[prost(int32, tag = "6")]
    pub(super) max_results: i32,
}

/// One of the messages that are the answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct GetMetadataDeltaResponse {
    /// Bytes of the volume.
    #[prost(int64, tag = "2")]
    pub(super) volume_capacity_bytes: i64,
    /// What differs, in ascending order.
    #[prost(message, repeated, tag = "3")]
    pub(super) block_metadata: Vec<BlockMetadata>,
}

/// An extent.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct BlockMetadata {
    /// Its first byte.
    #[prost(int64, tag = "1")]
    pub(super) byte_offset: i64,
    /// Its bytes.
    #[prost(int64, tag = "2")]
    pub(super) size_bytes: i64,
}
