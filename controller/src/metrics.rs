//! What Prometheus is told, and whether the program lives.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::slots::Slots;

/// How a backup or restore ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ended {
    /// `Completed`, `PartiallyCompleted`, `Failed` or `Canceled`.
    pub result: String,
}

/// A volume.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Volume {
    /// Namespace of its claim.
    pub namespace: String,
    /// Its claim.
    pub claim: String,
}

/// A repository; the namespace is empty for one of the whole cluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Name {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    slots: Arc<Slots>,
    movers_running: Gauge,
    queue_length: Gauge,
    /// Backups that came to an end.
    pub backups: Family<Ended, Counter>,
    /// Restores that came to an end.
    pub restores: Family<Ended, Counter>,
    /// Bytes of volumes in snapshots.
    pub backup_bytes: Counter,
    /// Bytes that went to the store for them.
    pub backup_stored_bytes: Counter,
    /// From the free slot to the end.
    pub backup_duration: Histogram,
    /// When a volume was last backed up whole.
    pub last_success: Family<Volume, Gauge>,
    /// 1 if a repository can be used.
    pub repository_ready: Family<Name, Gauge>,
    /// When maintenance last ended well.
    pub repository_maintained: Family<Name, Gauge>,
}

impl Metrics {
    /// All at zero.
    pub fn new(slots: Arc<Slots>) -> Self {
        let seconds = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("carrack"),
            slots,
            movers_running: Gauge::default(),
            queue_length: Gauge::default(),
            backups: Family::default(),
            restores: Family::default(),
            backup_bytes: Counter::default(),
            backup_stored_bytes: Counter::default(),
            backup_duration: Histogram::new(seconds),
            last_success: Family::default(),
            repository_ready: Family::default(),
            repository_maintained: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("backups", "Backups that came to an end, by result", self.backups.clone());
        registry.register("restores", "Restores that came to an end, by result", self.restores.clone());
        let bytes = "Bytes of volumes in snapshots";
        registry.register_with_unit("backup", bytes, Unit::Bytes, self.backup_bytes.clone());
        let stored = "Bytes that went to the store for backups";
        registry.register_with_unit("backup_stored", stored, Unit::Bytes, self.backup_stored_bytes.clone());
        let duration = "Time of backups from their free slot to their end";
        registry.register_with_unit("backup_duration", duration, Unit::Seconds, self.backup_duration.clone());
        let success = "When a volume was last backed up whole";
        registry.register_with_unit(
            "last_success_timestamp",
            success,
            Unit::Seconds,
            self.last_success.clone(),
        );
        registry.register("movers_running", "Requests that have a slot", self.movers_running.clone());
        registry.register("queue_length", "Requests that wait for a slot", self.queue_length.clone());
        registry.register("repository_ready", "1 if a repository can be used", self.repository_ready.clone());
        let maintained = "When maintenance of a repository last ended well";
        let family = self.repository_maintained.clone();
        registry.register_with_unit(
            "repository_last_maintenance_timestamp",
            maintained,
            Unit::Seconds,
            family,
        );
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.movers_running.set(count(self.slots.taken()));
        self.queue_length.set(count(self.slots.waiting()));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the program ends.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(show))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .with_state(metrics);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} cannot be listened on"))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics are served");
    }
    axum::serve(listener, router).await.context("metrics cannot be served any more")
}

async fn show(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.text() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_alerts_use() {
        let metrics = Metrics::new(Arc::default());
        metrics.backups.get_or_create(&Ended { result: "Completed".into() }).inc();
        metrics.last_success.get_or_create(&Volume { namespace: "shop".into(), claim: "data".into() }).set(5);
        metrics
            .repository_ready
            .get_or_create(&Name { namespace: String::new(), name: "main".into() })
            .set(1);
        metrics
            .repository_maintained
            .get_or_create(&Name { namespace: String::new(), name: "main".into() })
            .set(7);
        let text = metrics.text().expect("text");
        for line in [
            "carrack_backups_total{result=\"Completed\"} 1",
            "carrack_backup_bytes_total 0",
            "carrack_backup_stored_bytes_total 0",
            "carrack_backup_duration_seconds_count 0",
            "carrack_last_success_timestamp_seconds{namespace=\"shop\",claim=\"data\"} 5",
            "carrack_movers_running 0",
            "carrack_queue_length 0",
            "carrack_repository_ready{namespace=\"\",name=\"main\"} 1",
            "carrack_repository_last_maintenance_timestamp_seconds{namespace=\"\",name=\"main\"} 7",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
