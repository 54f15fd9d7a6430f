//! A bucket that keeps older versions, and its owner who goes back to them.

use std::collections::BTreeSet;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use carrack_tests::{minio::BUCKET, stage::Stage};

/// Names of objects without the prefix, each with the version.
pub(crate) type Versions = BTreeSet<(String, String)>;

/// An empty repository in a bucket with versions.
pub(crate) fn versioned() -> Stage {
    Stage::empty(BUCKET, |bucket| {
        let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = bucket.client().put_bucket_versioning().bucket(BUCKET);
        bucket.run(put.versioning_configuration(versioning).send())?;
        Ok(())
    })
    .unwrap()
}

/// All versions of objects whose names begin so; markers of deletion apart.
fn listed(stage: &Stage, start: &str) -> (Versions, Versions) {
    let list = stage.owner.client().list_object_versions().bucket(BUCKET).prefix(stage.owner.key(start));
    let listed = stage.owner.run(list.send()).unwrap();
    assert_ne!(listed.is_truncated(), Some(true), "more versions than one page of a listing has");
    let prefix = stage.owner.key("");
    let named = |key: Option<&str>, version: Option<&str>| {
        (key.unwrap().strip_prefix(&prefix).unwrap().to_owned(), version.unwrap().to_owned())
    };
    let versions = listed.versions().iter().map(|version| named(version.key(), version.version_id()));
    let markers = listed.delete_markers().iter().map(|marker| named(marker.key(), marker.version_id()));
    (versions.collect(), markers.collect())
}

/// All versions that hold bytes.
pub(crate) fn with_bytes(stage: &Stage, start: &str) -> Versions {
    listed(stage, start).0
}

/// Everything that is there now.
pub(crate) fn all(stage: &Stage) -> Versions {
    let (mut versions, markers) = listed(stage, "");
    versions.extend(markers);
    versions
}

/// The bytes of a version.
pub(crate) fn bytes(stage: &Stage, (name, version): &(String, String)) -> Vec<u8> {
    let get = stage.owner.client().get_object().bucket(BUCKET).key(stage.owner.key(name)).version_id(version);
    stage.owner.run(async { get.send().await.unwrap().body.collect().await.unwrap().to_vec() })
}

/// The owner deletes every version that came since, markers of deletion too; gives how many that were.
pub(crate) fn go_back(stage: &Stage, to: &Versions) -> usize {
    let since: Versions = all(stage).difference(to).cloned().collect();
    for (name, version) in &since {
        let delete = stage.owner.client().delete_object().bucket(BUCKET).key(stage.owner.key(name));
        stage.owner.run(delete.version_id(version).send()).unwrap();
    }
    assert_eq!(&all(stage), to);
    since.len()
}
