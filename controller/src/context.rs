//! What every controller works with.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{
    Api, Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    error::{Error, Result},
    metrics::Metrics,
    placement::UserNamespaces,
    settings::Settings,
    slots::Slots,
};

/// Who changes objects, as the API server records it.
pub const MANAGER: &str = "carrack-controller";

/// What every controller works with.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the program was told.
    pub settings: Arc<Settings>,
    /// Name of this cluster in repositories.
    pub cluster: Arc<str>,
    /// Who is at work.
    pub slots: Arc<Slots>,
    /// Held by who gives a mover its place.
    pub placing: Arc<tokio::sync::Mutex<()>>,
    /// Held by who gives a mover a volume itself.
    pub lending: Arc<tokio::sync::Mutex<()>>,
    /// Whether pods can have users of their own.
    pub user_namespaces: Arc<UserNamespaces>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    recorder: Recorder,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Context {
    /// Asks the cluster for its name if none was given.
    pub async fn new(client: Client, settings: Settings) -> Result<Self> {
        let cluster = match &settings.cluster_name {
            Some(name) => name.clone(),
            None => {
                let namespaces: Api<Namespace> = Api::all(client.clone());
                let found = namespaces.get("kube-system").await.map_err(Error::api(
                    "the namespace kube-system, whose uid names the cluster (or give --cluster-name)",
                ))?;
                found.metadata.uid.ok_or_else(|| Error::Unexpected("kube-system has no uid".into()))?
            }
        };
        let reporter = Reporter { controller: MANAGER.into(), instance: std::env::var("POD_NAME").ok() };
        let recorder = Recorder::new(client.clone(), reporter);
        let slots = Arc::<Slots>::default();
        let metrics = Arc::new(Metrics::new(slots.clone()));
        Ok(Self {
            client,
            settings: Arc::new(settings),
            cluster: cluster.into(),
            slots,
            placing: Arc::default(),
            lending: Arc::default(),
            user_namespaces: Arc::default(),
            metrics,
            recorder,
        })
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Tells people what happened. An event that cannot be written is logged: it must not stop the work.
    pub async fn tell<K>(&self, about: &K, warning: bool, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = about.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::warn!(reason, note, %error, "an event could not be written");
        }
    }
}
