//! etcd, kube-apiserver and what else makes a cluster that has objects and no nodes.

use anyhow::{Context, Result};

use crate::authority::ADMIN;
use crate::cluster::Cluster;
use crate::machine::tell;
use crate::part::{Part, Probe};
use crate::programs::program;

/// Addresses of services, the same in every cluster.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// Seconds until a condition that is a matter of moments counts as failed.
const MOMENTS: u32 = 60;

/// Tests break things often: five minutes between two tries, as is usual, are longer than a test.
pub(crate) const RETRY: &str = "--retry-interval-max=5s";

impl Cluster {
    /// Starts the control plane and waits until it serves.
    pub(crate) fn start_control_plane(&self) -> Result<()> {
        self.make_keys().context("make keys and certificates")?;
        self.ledger.launch(vec![self.etcd()?])?;
        self.ledger.launch(vec![self.kube_apiserver()?])?;
        // The snapshot controller ends if its kinds are not there.
        self.add_snapshot_kinds().context("add the kinds of snapshots")?;
        self.ledger.launch(vec![self.kube_controller_manager()?, self.snapshot_controller()?])?;
        // Without it, the first pods of a test are refused.
        let account = self.wait_for("serviceaccount/default", "create", MOMENTS);
        account.context("wait for the default service account")
    }

    fn make_keys(&self) -> Result<()> {
        let node = format!("system:node:{}", self.node());
        let address = self.address().to_string();
        self.authority.make(
            &address,
            &[
                (ADMIN, "admin", "system:masters"),
                ("controller-manager", "system:kube-controller-manager", ""),
                ("scheduler", "system:kube-scheduler", ""),
                ("proxy", "system:kube-proxy", ""),
                ("kubelet", &node, "system:nodes"),
            ],
        )
    }

    fn etcd(&self) -> Result<Part> {
        let arguments = [
            format!("--data-dir={}", self.folder.join("etcd").display()),
            "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            // No machine fails here, only processes, and what those wrote stays.
            "--unsafe-no-fsync".to_owned(),
        ];
        Ok(self.part(
            "etcd",
            program("etcd")?,
            &arguments,
            Probe::Url("http://127.0.0.1:2379/health".to_owned()),
        ))
    }

    fn kube_apiserver(&self) -> Result<Part> {
        let file = |name: &str| self.authority.file(name);
        let arguments = [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={}", self.address()),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("service-account.key")),
            format!("--service-account-signing-key-file={}", file("service-account.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--kubelet-certificate-authority={}", file("ca.crt")),
            format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", file("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        let probe = Probe::Url("https://127.0.0.1:6443/readyz".to_owned());
        Ok(self.part("kube-apiserver", program("kube-apiserver")?, &arguments, probe))
    }

    fn kube_controller_manager(&self) -> Result<Part> {
        let arguments = [
            self.kubeconfig_of("controller-manager"),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--root-ca-file={}", self.authority.file("ca.crt")),
            format!("--service-account-private-key-file={}", self.authority.file("service-account.key")),
        ];
        let probe = Probe::Url("https://127.0.0.1:10257/healthz".to_owned());
        Ok(self.part("kube-controller-manager", program("kube-controller-manager")?, &arguments, probe))
    }

    fn snapshot_controller(&self) -> Result<Part> {
        Ok(self.part(
            "snapshot-controller",
            program("snapshot-controller")?,
            &[self.kubeconfig_of(ADMIN), RETRY.to_owned()],
            Probe::Runs,
        ))
    }

    fn add_snapshot_kinds(&self) -> Result<()> {
        let folder = program("crd")?.display().to_string();
        self.kubectl(&["create", "-f", &folder])?;
        let established = "--for=condition=Established";
        self.kubectl(&["wait", established, &format!("--timeout={MOMENTS}s"), "-f", &folder])?;
        tell(&format!("{}/kinds of snapshots are there", self.name()));
        Ok(())
    }

    /// The argument with which a program acts as this user.
    pub(crate) fn kubeconfig_of(&self, user: &str) -> String {
        format!("--kubeconfig={}", self.authority.kubeconfig(user).display())
    }
}
