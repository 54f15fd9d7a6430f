//! What the chart gives the controller: its namespace, its rights and their limits. The controller itself is a process of the
//! test, which can be killed at any moment, and has no other rights; only the server that misbehaves for a test passes everything on
//! with all rights.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use carrack_cluster::{Cluster, program};
use serde_json::{Value, json};

use crate::install::{NAMESPACE, run};

/// The account of the controller.
const ACCOUNT: &str = "carrack-controller";

/// Installs the chart without a controller.
pub(crate) fn install(cluster: &Cluster) -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/carrack");
    let mut render = Command::new(program("helm")?);
    render.args(["template", "carrack"]).arg(chart).args(["--namespace", NAMESPACE]);
    let objects = run(render.args(["--set", "namespace.create=true,replicas=0"]))?;
    cluster.apply(&objects).context("the chart")?;
    // Without it, the first pods are refused.
    cluster.kubectl(&["wait", "--for=create", "serviceaccount/default", "-n", NAMESPACE, "--timeout=30s"])?;
    Ok(())
}

/// A kubeconfig of the controller's account.
pub(crate) fn kubeconfig(cluster: &Cluster) -> Result<PathBuf> {
    let token = cluster.kubectl(&["create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=24h"])?;
    let mut config: Value = serde_json::from_str(&fs::read_to_string(cluster.kubeconfig())?)?;
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let path = cluster.kubeconfig().with_file_name(format!("{ACCOUNT}.kubeconfig"));
    fs::write(&path, config.to_string()).with_context(|| path.display().to_string())?;
    Ok(path)
}
