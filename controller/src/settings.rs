//! What the program is told when it starts.

use std::net::SocketAddr;

use clap::Args;

/// Settings of the controllers.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Namespace for mover pods, temporary volumes and what they need
    #[arg(long, env = "CARRACK_NAMESPACE", default_value = "carrack")]
    pub namespace: String,
    /// Image of mover pods
    #[arg(long, env = "CARRACK_MOVER_IMAGE", default_value = "docker.io/carrack/carrack:0.1.0")]
    pub image: String,
    /// When mover pods pull their image: Always, IfNotPresent or Never
    #[arg(long, env = "CARRACK_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Name of this cluster in repositories; it must differ between clusters that share one [default: the uid of the
    /// namespace kube-system]
    #[arg(long, env = "CARRACK_CLUSTER_NAME")]
    pub cluster_name: Option<String>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "CARRACK_METRICS_ADDRESS", default_value = "127.0.0.1:8080")]
    pub metrics_address: SocketAddr,
}
