//! `Repository` and `ClusterRepository`: opened, made where there is none, looked after on a schedule; all by pods.

mod connect;
mod maintain;
mod schedule;

use std::{sync::Arc, time::Duration};

use carrack_controller_api::{
    ClusterRepository, DataMoverTypeSpec, Maintenance, Repository, RepositoryStatus, condition as conditions,
    finalizer, reason,
};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{Controller, controller::Action, watcher},
};

use crate::{
    access::Settled,
    condition,
    context::Context,
    error::{Error, Obstacle, Result},
    metrics::Name,
    objects::{self, Object},
    owners,
    pod::Owner,
    sweep::sweep,
};

/// How long after a failure of our own a repository is looked at again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often is looked at a pod that works.
const WORKING: Duration = Duration::from_secs(2);
/// How long after a failure a repository is opened again.
pub(crate) const HOLD_OFF: Duration = Duration::from_secs(20);
/// Longest time without a look, so that a schedule is not missed.
const LONGEST: Duration = Duration::from_secs(3600);

/// What both kinds are.
pub trait AnyRepository: Object + Send + Sync + 'static {
    /// Its objects in a namespace, or all.
    fn api(client: Client, namespace: Option<&str>) -> Api<Self>;
    /// Where it is, and its secrets.
    fn settled(&self) -> Settled;
    /// How it is looked after.
    fn maintenance(&self) -> &Maintenance;
    /// Whether it is made where there is none.
    fn initialise(&self) -> bool;
}

impl AnyRepository for Repository {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        namespace
            .map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
    }

    fn settled(&self) -> Settled {
        Settled::from(self)
    }

    fn maintenance(&self) -> &Maintenance {
        &self.spec.maintenance
    }

    fn initialise(&self) -> bool {
        self.spec.initialise
    }
}

impl AnyRepository for ClusterRepository {
    fn api(client: Client, _namespace: Option<&str>) -> Api<Self> {
        Api::all(client)
    }

    fn settled(&self) -> Settled {
        Settled::from(self)
    }

    fn maintenance(&self) -> &Maintenance {
        &self.spec.maintenance
    }

    fn initialise(&self) -> bool {
        self.spec.initialise
    }
}

/// Looks after one of the two kinds until the stream is dropped.
pub fn controller<R: AnyRepository>(context: &Context) -> impl Stream<Item = ()> + use<R> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let kind = R::kind(&()).to_lowercase();
    Controller::new(R::api(context.client.clone(), None), watcher::Config::default())
        .watches(pods, owners::watched(&kind), owners::of_pod)
        .run(reconcile::<R>, failed, Arc::new(context.clone()))
        .map(drop)
}

fn failed<R>(_repository: Arc<R>, error: &Error, _context: Arc<Context>) -> Action {
    tracing::warn!(%error, "a repository could not be looked after, it is looked at again");
    Action::requeue(AFTER_FAILURE)
}

/// How a pod looks that is no backup and no restore: as the template of no type, so as the defaults say.
pub(crate) fn plain() -> DataMoverTypeSpec {
    DataMoverTypeSpec::default()
}

async fn reconcile<R: AnyRepository>(repository: Arc<R>, context: Arc<Context>) -> Result<Action> {
    let api = R::api(context.client.clone(), repository.namespace().as_deref());
    let Some(mut repository) = objects::find(&api, &repository.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let owner = Owner::of(&repository);
    let held = repository.finalizers().iter().any(|found| found == finalizer::CLEAN_UP);
    if repository.meta().deletion_timestamp.is_some() {
        let name = Name { namespace: owner.namespace.clone(), name: owner.name.clone() };
        context.metrics.repository_ready.remove(&name);
        context.metrics.repository_maintained.remove(&name);
        if held && sweep(&context, &owner, None, None).await? {
            objects::hold(&api, &repository, finalizer::CLEAN_UP, false).await?;
        }
        return Ok(if held { Action::requeue(WORKING) } else { Action::await_change() });
    }
    if !held {
        repository = objects::hold(&api, &repository, finalizer::CLEAN_UP, true).await?;
    }
    let before = repository.settled().status.unwrap_or_default();
    let mut status = RepositoryStatus { observed_generation: repository.meta().generation, ..before.clone() };
    let again = match look_after(&context, &owner, &repository, &mut status).await {
        Ok(again) => again,
        Err(error) => {
            let Some(message) = error.refusal() else { return Err(error) };
            not_ready(&context, &mut status, &Obstacle::passing(reason::REFUSED, message));
            HOLD_OFF
        }
    };
    count(&context, &owner, &status);
    if status != before {
        objects::report(&api, &repository, &status).await?;
        tell(&context, &repository, &before, &status).await;
    }
    Ok(Action::requeue(again.min(LONGEST)))
}

/// Opens it if anything is new, then maintains it if that is due. Says when to look again.
async fn look_after<R: AnyRepository>(
    context: &Context,
    owner: &Owner,
    repository: &R,
    status: &mut RepositoryStatus,
) -> Result<Duration> {
    let settled = repository.settled();
    let (credentials, key) = match settled.secrets(context).await? {
        Ok(secrets) => secrets,
        Err(obstacle) => {
            not_ready(context, status, &obstacle);
            return Ok(HOLD_OFF);
        }
    };
    let work = connect::Work { context, owner, settled: &settled, credentials, key };
    let hash = work.settings_hash();
    let ready = condition::is_true(&status.conditions, conditions::READY);
    if !ready || status.settings_hash.as_ref() != Some(&hash) {
        return connect::step(&work, repository.initialise(), hash, status).await;
    }
    maintain::step(&work, repository, status).await
}

fn count(context: &Context, owner: &Owner, status: &RepositoryStatus) {
    let name = Name { namespace: owner.namespace.clone(), name: owner.name.clone() };
    let ready = condition::is_true(&status.conditions, conditions::READY);
    context.metrics.repository_ready.get_or_create(&name).set(i64::from(ready));
    if let Some(time) = &status.last_maintenance {
        context.metrics.repository_maintained.get_or_create(&name).set(time.0.as_second());
    }
}

pub(crate) fn not_ready(context: &Context, status: &mut RepositoryStatus, obstacle: &Obstacle) {
    let generation = status.observed_generation;
    let now = context.now();
    condition::set(
        &mut status.conditions,
        conditions::READY,
        Some(false),
        obstacle.reason,
        &obstacle.message,
        generation,
        now,
    );
}

async fn tell<R: AnyRepository>(
    context: &Context,
    repository: &R,
    before: &RepositoryStatus,
    after: &RepositoryStatus,
) {
    for kind in [conditions::READY, conditions::MAINTAINED] {
        let find =
            |status: &RepositoryStatus| status.conditions.iter().find(|found| found.type_ == kind).cloned();
        if let Some(now) = find(after)
            && find(before).is_none_or(|was| was.status != now.status || was.message != now.message)
        {
            let good = now.status == "True" || now.reason == reason::IN_PROGRESS;
            context
                .tell(
                    repository,
                    !good,
                    &format!("{kind}{}", if now.status == "True" { "" } else { "Not" }),
                    &now.message,
                )
                .await;
        }
    }
}
