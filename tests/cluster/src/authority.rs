//! Keys, certificates and users of a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::machine::{random, run, write};

/// The first address of the services, under which pods find kube-apiserver.
const SERVICE: &str = "10.96.0.1";
/// The user that may do everything.
pub(crate) const ADMIN: &str = "admin";

/// Files with the keys of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    folder: PathBuf,
    server: String,
}

impl Authority {
    /// Of the cluster whose files are in `folder` and whose API server has the address `server`.
    pub(crate) fn of(folder: &Path, server: &str) -> Self {
        Self { folder: folder.join("keys"), server: server.to_owned() }
    }

    /// The file with this name.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Where the kubeconfig of a user is.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// Makes keys and certificates, and a token and a kubeconfig for each user: name, name in Kubernetes, group.
    pub(crate) fn make(&self, address: &str, users: &[(&str, &str, &str)]) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        self.openssl("ecparam -name prime256v1 -genkey -noout -out ca.key")?;
        self.openssl("req -x509 -new -key ca.key -days 3650 -subj /CN=carrack-test-cluster -out ca.crt")?;
        // Tokens of service accounts are signed with it.
        self.openssl("genrsa -out service-account.key 2048")?;
        let names = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost";
        let names = format!("{names},IP:{address},IP:{SERVICE},IP:127.0.0.1");
        self.certificate("apiserver", "/CN=kube-apiserver", &format!("serverAuth\nsubjectAltName={names}"))?;
        self.certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver", "clientAuth")?;
        let own = format!("serverAuth\nsubjectAltName=IP:{address}");
        self.certificate("kubelet", "/CN=kubelet", &own)?;
        self.certificate("snapshot-metadata", "/CN=snapshot-metadata", &own)?;
        let mut tokens = String::new();
        for (name, user, group) in users {
            let token: String = random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect();
            tokens.push_str(&format!("{token},{user},{name},\"{group}\"\n"));
            self.write_kubeconfig(name, &token)?;
        }
        write(&self.folder.join("tokens.csv"), &tokens)
    }

    /// What clients of the cluster's servers trust, in base64 as Kubernetes' objects have it.
    pub(crate) fn bundle(&self) -> Result<String> {
        let path = self.folder.join("ca.crt");
        let text = run(Command::new("base64").args(["-w", "0"]).arg(&path));
        text.with_context(|| format!("encode {}", path.display()))
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        run(command.args(arguments.split(' ')).current_dir(&self.folder)).map(drop)
    }

    fn certificate(&self, name: &str, subject: &str, usage: &str) -> Result<()> {
        let extensions = format!("extendedKeyUsage={usage}\nkeyUsage=digitalSignature\n");
        write(&self.folder.join(format!("{name}.extensions")), &extensions)?;
        self.openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"))?;
        self.openssl(&format!("req -new -key {name}.key -subj {subject} -out {name}.request"))?;
        self.openssl(&format!(
            "x509 -req -in {name}.request -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 \
             -extfile {name}.extensions -out {name}.crt"
        ))
    }

    fn write_kubeconfig(&self, user: &str, token: &str) -> Result<()> {
        // JSON is YAML too.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.server, "certificate-authority-data": self.bundle()?}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        write(&self.kubeconfig(user), &format!("{config:#}\n"))
    }
}
