//! A real S3 service for a test: MinIO on a loopback port of its own, with its own data.

pub mod sts;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use carrack_mover::{
    clock::World,
    error::{Error, ErrorKind},
    store::{ByteRange, Page, StoreOptions, open_plain},
};
use tempfile::TempDir;

use crate::images::run;
use crate::server::{Port, Process, program};

/// Access key id of the test server.
pub const ACCESS_KEY: &str = "carrack-test";
/// Secret access key of the test server.
pub const SECRET_KEY: &str = "carrack-test-secret";
/// The bucket every test server has.
pub const BUCKET: &str = "carrack";
/// Name and bytes of a key that means nothing to anybody.
const OWN_KEY: &str = "test-key:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// How long a start may take; seen: below a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How a server is set up.
#[derive(Debug, Default)]
pub struct Setup {
    /// Where the data is kept, instead of a directory of its own.
    pub data: Option<PathBuf>,
    /// The region that requests must be for.
    pub region: Option<&'static str>,
    /// Speaks TLS, with a certificate for 127.0.0.1 that nobody vouches for but itself.
    pub tls: bool,
    /// Has a key of its own to encrypt objects with, for those who ask.
    pub encrypts: bool,
    /// Takes the bucket from the name of the host, where that is below this one.
    pub domain: Option<&'static str>,
}

/// A running MinIO; ended and its data removed when dropped.
#[derive(Debug)]
pub struct MinioServer {
    // Declared before the directory: the process must end before its data goes.
    process: Process,
    directory: TempDir,
    setup: Setup,
    port: Port,
}

impl MinioServer {
    /// Starts a server with one empty bucket, [`BUCKET`].
    pub fn start() -> Result<Self> {
        Self::start_with(Setup::default())
    }

    /// The same, set up otherwise.
    pub fn start_with(setup: Setup) -> Result<Self> {
        let directory = TempDir::with_prefix("carrack-minio-")?;
        // A folder in the data directory is a bucket.
        std::fs::create_dir_all(data(&setup, &directory).join(BUCKET))?;
        if setup.tls {
            certify(&directory.path().join("certs"))?;
        }
        for (name, id, secret) in
            [("credentials", ACCESS_KEY, SECRET_KEY), ("stranger", "stranger", "unknown")]
        {
            let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
            std::fs::write(directory.path().join(name), text)?;
        }
        let port = Port::reserve()?;
        let process = Self::launch(&setup, &directory, port.number())?;
        Ok(Self { process, directory, setup, port })
    }

    fn launch(setup: &Setup, directory: &TempDir, port: u16) -> Result<Process> {
        let path = directory.path();
        let mut command = Command::new(program("minio")?);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")])
            .args(["--console-address", "127.0.0.1:0", "--certs-dir"])
            .arg(path.join("certs"))
            .arg(data(setup, directory))
            .env("HOME", path)
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .envs(setup.encrypts.then_some(("MINIO_KMS_SECRET_KEY", OWN_KEY)))
            .envs(setup.domain.map(|domain| ("MINIO_DOMAIN", domain)))
            .envs(setup.region.map(|region| ("MINIO_REGION", region)));
        let mut process = Process::start("minio", &mut command, &path.join("minio.log"))?;
        let options = options(setup, port, directory);
        let stranger = StoreOptions { credentials_file: Some(path.join("stranger")), ..options.clone() };
        let ready = || serves(&options) && refuses(&stranger);
        process.wait_until(START_LIMIT, ready).context("start MinIO")?;
        Ok(process)
    }

    /// Base URL of the service.
    pub fn url(&self) -> String {
        url(&self.setup, self.port.number())
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// A credentials file with the server's keys.
    pub fn credentials_file(&self) -> PathBuf {
        self.directory.path().join("credentials")
    }

    /// The folder in which MinIO keeps its data.
    pub fn data(&self) -> PathBuf {
        data(&self.setup, &self.directory)
    }

    /// Options that reach this server.
    pub fn options(&self) -> StoreOptions {
        options(&self.setup, self.port.number(), &self.directory)
    }

    /// A place in the bucket.
    pub fn repository(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port, with the same data.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Self::launch(&self.setup, &self.directory, self.port.number())?;
        Ok(())
    }

    /// Kills the server and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start_again()
    }
}

fn data(setup: &Setup, directory: &TempDir) -> PathBuf {
    setup.data.clone().unwrap_or_else(|| directory.path().join("data"))
}

fn url(setup: &Setup, port: u16) -> String {
    format!("{}://127.0.0.1:{port}", if setup.tls { "https" } else { "http" })
}

fn options(setup: &Setup, port: u16, directory: &TempDir) -> StoreOptions {
    StoreOptions {
        endpoint: Some(url(setup, port)),
        region: setup.region.map(str::to_owned),
        credentials_file: Some(directory.path().join("credentials")),
        ca_file: setup.tls.then(|| directory.path().join("certs/public.crt")),
        ..StoreOptions::default()
    }
}

/// A certificate that vouches for itself. As openssl makes them by default, they are of authorities, which no server
/// may have.
const CERTIFICATE: &str = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n\
    [name]\nCN = carrack test\n[extensions]\nbasicConstraints = critical,CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";

/// Makes key and certificate where MinIO looks for them.
fn certify(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let config = directory.join("openssl.cnf");
    std::fs::write(&config, CERTIFICATE)?;
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-config"]).arg(config);
    command.arg("-keyout").arg(directory.join("private.key"));
    command.arg("-out").arg(directory.join("public.crt"));
    run(&mut command).map(drop)
}

/// Whether it knows its own user and its bucket: it says so some time after its health pages call it ready.
fn serves(options: &StoreOptions) -> bool {
    asked(options, |listed, got| listed.is_ok() && got == ErrorKind::NotFound)
}

/// Whether it can look users up: before, it tells one whom it does not know to come again.
fn refuses(options: &StoreOptions) -> bool {
    asked(options, |_, got| got == ErrorKind::Denied)
}

/// What it says to a listing, and the kind of error that an absent object gives.
fn asked(options: &StoreOptions, holds: fn(Result<Page, Error>, ErrorKind) -> bool) -> bool {
    let options = options.clone();
    // A thread of its own, because the caller may be in a runtime.
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let url = format!("s3://{BUCKET}/knock");
            let store = open_plain(&url, &options, &World::system()).await.ok()?;
            let got = store.get("absent", ByteRange::All).await.err()?;
            Some(holds(store.list("", None).await, got.kind()))
        })
    });
    matches!(asked.join(), Ok(Some(true)))
}
