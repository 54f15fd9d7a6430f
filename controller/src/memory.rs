//! The newest snapshot of each volume that the cluster has seen.
//!
//! A store cannot prove that it is not an old state of itself; who remembers what was there can tell. It is kept beside the
//! keys of the volume, of which there are as many as volumes in each repository, and no object grows. A job takes it along, and
//! the mover looks whether it is still there. Without it nothing is noticed, and nothing else is the worse for it.

use std::cmp::Reverse;

use carrack_controller_api::{annotation, label};
use carrack_proto::{MaintainOutput, SeenSnapshot, Source};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;

use crate::{
    bundle,
    context::Context,
    error::{Error, Result},
    objects,
};

/// Most snapshots that one job is told of: it has to fit into an object.
const LIMIT: usize = 2000;

/// What is kept of a volume: its newest snapshot, and when that was begun.
fn to_text(seen: &SeenSnapshot) -> String {
    format!("{} {}", seen.snapshot, seen.started)
}

/// What people have changed is as good as nothing.
fn of_secret(secret: &Secret) -> Option<SeenSnapshot> {
    let (snapshot, started) = secret.annotations().get(annotation::LAST_SEEN)?.split_once(' ')?;
    Some(SeenSnapshot { snapshot: snapshot.to_owned(), started: started.parse().ok()? })
}

/// Whether these keys write snapshots of this name.
fn writes(secret: &Secret, snapshot: &str) -> bool {
    let bundle = secret.data.as_ref().and_then(|data| data.get(bundle::FILE));
    let lineage = bundle.and_then(|bytes| bundle::lineage(&bytes.0));
    lineage.is_some_and(|lineage| bundle::is_snapshot_of(&lineage, snapshot))
}

/// What a job is told that has to do with several volumes: of too many the newest.
fn chosen(secrets: &[Secret]) -> Vec<SeenSnapshot> {
    let mut seen: Vec<SeenSnapshot> = secrets.iter().filter_map(of_secret).collect();
    seen.sort_by_key(|seen| Reverse(seen.started));
    seen.truncate(LIMIT);
    seen
}

fn secrets(context: &Context) -> Api<Secret> {
    Api::namespaced(context.client.clone(), &context.settings.namespace)
}

/// The newest snapshot of a volume in a repository, if any is known.
pub async fn of_source(context: &Context, repository_id: &str, source: &Source) -> Result<Vec<SeenSnapshot>> {
    let found = objects::find(&secrets(context), &bundle::name(repository_id, source)).await?;
    Ok(found.iter().filter_map(of_secret).collect())
}

/// The newest snapshot of each volume in a repository.
pub async fn of_repository(context: &Context, repository_id: &str) -> Result<Vec<SeenSnapshot>> {
    Ok(chosen(&list(context, repository_id).await?))
}

async fn list(context: &Context, repository_id: &str) -> Result<Vec<Secret>> {
    let parameters = ListParams::default().labels(&format!("{}={repository_id}", label::REPOSITORY_ID));
    let found = secrets(context).list(&parameters).await;
    Ok(found.map_err(Error::api("Secrets cannot be listed"))?.items)
}

/// A snapshot was written. It is kept unless a newer one is: retention goes by when snapshots were begun too, so what is kept
/// here is what stays there.
pub async fn see(context: &Context, repository_id: &str, source: &Source, seen: &SeenSnapshot) -> Result<()> {
    let Some(secret) = objects::find(&secrets(context), &bundle::name(repository_id, source)).await? else {
        return Ok(());
    };
    // A clock that was ahead, or a mover that says so, must not have one outlive all that come after it.
    let now = context.now();
    let seen = SeenSnapshot { started: seen.started.min(now), ..seen.clone() };
    let is_old =
        of_secret(&secret).is_some_and(|known| known.started <= now && known.started >= seen.started);
    if is_old || !writes(&secret, &seen.snapshot) {
        return Ok(());
    }
    keep(context, &secret, Some((repository_id, &seen))).await
}

/// A snapshot was forgotten by its name. What came before it is not expected instead: rules may have forgotten that.
pub async fn forget(context: &Context, repository_id: &str, source: &Source, snapshot: &str) -> Result<()> {
    let Some(secret) = objects::find(&secrets(context), &bundle::name(repository_id, source)).await? else {
        return Ok(());
    };
    if of_secret(&secret).is_some_and(|known| known.snapshot == snapshot) {
        keep(context, &secret, None).await?;
    }
    Ok(())
}

/// Maintenance found that some are not there any more: people were told of those that should be. If those alone are too many
/// for all to be named, none is expected any more. Of the others, what is not named this time is named the next.
pub async fn forget_gone(context: &Context, repository_id: &str, done: &MaintainOutput) -> Result<()> {
    if done.gone == 0 {
        return Ok(());
    }
    let all = done.missing > done.first_gone.len() as u64;
    for secret in list(context, repository_id).await? {
        let Some(SeenSnapshot { snapshot, .. }) = of_secret(&secret) else { continue };
        if all || done.first_gone.contains(&snapshot) {
            let host = secret.annotations().get(annotation::OWNER).map_or("", String::as_str);
            tracing::warn!(host, snapshot, "a snapshot that was seen is expected no more");
            keep(context, &secret, None).await?;
        }
    }
    Ok(())
}

/// With the version that was seen: whoever else writes has seen another snapshot. What the API server refuses is not kept, and
/// no backup waits for it.
async fn keep(context: &Context, secret: &Secret, seen: Option<(&str, &SeenSnapshot)>) -> Result<()> {
    let patch = json!({ "metadata": {
        "resourceVersion": secret.resource_version(),
        "labels": { label::REPOSITORY_ID: seen.map(|(repository_id, _)| repository_id) },
        "annotations": { annotation::LAST_SEEN: seen.map(|(_, seen)| to_text(seen)) },
    }});
    match objects::change(&secrets(context), &secret.name_any(), patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_absence() => Ok(()),
        Err(error) if error.refusal().is_some() => {
            tracing::warn!(%error, "what was seen of a volume is not kept");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;
    use crate::{fake::Fake, pod::VolumeMode};

    fn source(claim: &str) -> Source {
        bundle::source("east", "shop", claim, VolumeMode::Filesystem.place())
    }

    fn lineage(claim: &str) -> String {
        objects::digits(claim)[..16].to_owned()
    }

    /// A snapshot of a claim that was begun in this second.
    fn seen(claim: &str, second: i64) -> SeenSnapshot {
        SeenSnapshot {
            snapshot: format!("b{}-{second:032}", lineage(claim)),
            started: jiff::Timestamp::new(second, 123_456_789).expect("a time"),
        }
    }

    fn with(text: &str) -> Secret {
        let annotations = BTreeMap::from([(annotation::LAST_SEEN.to_owned(), text.to_owned())]);
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        Secret { metadata, ..Secret::default() }
    }

    /// The keys of a volume in a repository.
    fn put(fake: &Fake, repository: &str, claim: &str) {
        let name = bundle::name(repository, &source(claim));
        let path = format!("/api/v1/namespaces/carrack/secrets/{name}");
        let keys = json!({ "lineage": lineage(claim) }).to_string().into_bytes();
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(bundle::FILE.to_owned(), ByteString(keys))])),
            ..Secret::default()
        };
        fake.put(&path, serde_json::to_value(&secret).expect("an object"));
    }

    async fn known(context: &Context, repository: &str) -> Vec<SeenSnapshot> {
        of_repository(context, repository).await.expect("an answer")
    }

    /// What is expected after so many were gone, so many of them without a reason, of which these were named.
    async fn left_after(
        context: &Context,
        (gone, missing): (u64, u64),
        first: &[SeenSnapshot],
    ) -> Vec<SeenSnapshot> {
        let first_gone = first.iter().map(|seen| seen.snapshot.clone()).collect();
        let done = MaintainOutput { gone, missing, first_gone, ..MaintainOutput::default() };
        forget_gone(context, "id", &done).await.expect("it is written");
        known(context, "id").await
    }

    #[test]
    fn what_is_kept_is_read_again_and_other_words_are_not() {
        let kept = seen("goods", 1_764_600_000);
        assert_eq!(of_secret(&with(&to_text(&kept))), Some(kept));
        for odd in ["", "b01-02", "b01-02 yesterday", " "] {
            assert_eq!(of_secret(&with(odd)), None, "{odd}");
        }
        assert_eq!(of_secret(&Secret::default()), None);
    }

    #[test]
    fn of_too_many_the_newest_are_told() {
        let last = LIMIT as i64;
        let many: Vec<Secret> = (0..=last).map(|at| with(&to_text(&seen("goods", at)))).collect();
        let told = chosen(&many);
        assert_eq!(told.len(), LIMIT);
        assert_eq!((&told[0], &told[LIMIT - 1]), (&seen("goods", last), &seen("goods", 1)));
    }

    #[tokio::test]
    async fn the_newest_snapshot_of_each_volume_is_known_until_it_is_forgotten() {
        let fake = Fake::default();
        let context = fake.context().await;
        for (repository, claim) in [("id", "goods"), ("id", "orders"), ("other", "goods")] {
            put(&fake, repository, claim);
        }
        let goods = source("goods");
        let of_goods = async || of_source(&context, "id", &goods).await.expect("an answer");
        assert_eq!(of_goods().await, []);
        let [old, late, new] = [10, 15, 20].map(|second| seen("goods", second));
        for written in [&old, &new, &late] {
            see(&context, "id", &goods, written).await.expect("it is kept");
        }
        assert_eq!(of_goods().await, std::slice::from_ref(&new), "of two at once the one that began later");
        let others = seen("orders", 5);
        see(&context, "other", &goods, &old).await.expect("it is kept");
        see(&context, "id", &source("orders"), &others).await.expect("it is kept");
        see(&context, "id", &source("no keys"), &old).await.expect("there is nothing to keep it beside");
        assert_eq!(known(&context, "id").await, [new.clone(), others.clone()]);

        forget(&context, "id", &goods, &old.snapshot).await.expect("another one is known");
        assert_eq!(of_goods().await, std::slice::from_ref(&new));
        forget(&context, "id", &goods, &new.snapshot).await.expect("it is not expected any more");
        assert_eq!(of_goods().await, [], "nor what came before it");
        assert_eq!(known(&context, "id").await, [others]);
        assert_eq!(known(&context, "other").await, [old]);
    }

    #[tokio::test]
    async fn a_mover_speaks_for_its_own_volume_only() {
        let fake = Fake::default();
        let context = fake.context().await;
        put(&fake, "id", "goods");
        let longer = format!("{}0", seen("goods", 1).snapshot);
        for odd in [
            seen("orders", 1),
            SeenSnapshot { snapshot: "latest".into(), ..seen("goods", 1) },
            SeenSnapshot { snapshot: longer, ..seen("goods", 1) },
        ] {
            see(&context, "id", &source("goods"), &odd).await.expect("it is not kept");
            assert_eq!(known(&context, "id").await, [], "{odd:?}");
        }
    }

    #[tokio::test]
    async fn what_lies_in_the_future_is_as_of_now() {
        let fake = Fake::default();
        let context = fake.context().await;
        put(&fake, "id", "goods");
        let goods = source("goods");
        let ahead = SeenSnapshot { started: jiff::Timestamp::MAX, ..seen("goods", 1) };
        see(&context, "id", &goods, &ahead).await.expect("it is kept");
        let kept = known(&context, "id").await;
        assert_eq!(kept[0].snapshot, ahead.snapshot);
        assert!(kept[0].started <= context.now(), "{kept:?}");

        // As if somebody had written it down as it was said.
        let path = format!("/api/v1/namespaces/carrack/secrets/{}", bundle::name("id", &goods));
        let mut secret = fake.get(&path);
        secret["metadata"]["annotations"][annotation::LAST_SEEN] = to_text(&ahead).into();
        fake.put(&path, secret);
        let honest = seen("goods", 2);
        see(&context, "id", &goods, &honest).await.expect("it is kept");
        assert_eq!(known(&context, "id").await, [honest]);
    }

    #[tokio::test]
    async fn what_maintenance_has_not_found_is_expected_no_more() {
        let fake = Fake::default();
        let context = fake.context().await;
        let [one, two, three] = [("a", 1), ("b", 2), ("c", 3)].map(|(claim, at)| (claim, seen(claim, at)));
        for (claim, written) in [&one, &two, &three] {
            put(&fake, "id", claim);
            see(&context, "id", &source(claim), written).await.expect("it is kept");
        }
        let [one, two, three] = [one.1, two.1, three.1];
        assert_eq!(left_after(&context, (0, 0), &[]).await, [three.clone(), two.clone(), one.clone()]);
        let named = std::slice::from_ref(&two);
        assert_eq!(left_after(&context, (2, 1), named).await, [three, one], "others are named the next time");
        assert_eq!(left_after(&context, (2, 2), &[two]).await, [], "which the other one was is not known");
    }
}
