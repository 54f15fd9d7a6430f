//! A real S3 service for a test: MinIO on a loopback port of its own, with its own data.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use carrack_mover::{
    clock::World,
    error::ErrorKind,
    store::{ByteRange, StoreOptions, open_plain},
};
use tempfile::TempDir;

use crate::server::{Process, free_port, program};

/// Access key id of the test server.
pub const ACCESS_KEY: &str = "carrack-test";
/// Secret access key of the test server.
pub const SECRET_KEY: &str = "carrack-test-secret";
/// The bucket every test server has.
pub const BUCKET: &str = "carrack";
/// How long a start may take; seen: below a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running MinIO; ended and its data removed when dropped.
#[derive(Debug)]
pub struct MinioServer {
    // Declared before the directory: the process must end before its data goes.
    process: Process,
    directory: TempDir,
    port: u16,
}

impl MinioServer {
    /// Starts a server with one empty bucket, [`BUCKET`].
    pub fn start() -> Result<Self> {
        let directory = TempDir::with_prefix("carrack-minio-")?;
        // A folder in the data directory is a bucket.
        std::fs::create_dir_all(directory.path().join("data").join(BUCKET))?;
        std::fs::write(
            directory.path().join("credentials"),
            format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"),
        )?;
        let port = free_port()?;
        let process = Self::launch(&directory, port)?;
        Ok(Self { process, directory, port })
    }

    fn launch(directory: &TempDir, port: u16) -> Result<Process> {
        let path = directory.path();
        let mut command = Command::new(program("minio")?);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")])
            .args(["--console-address", "127.0.0.1:0", "--certs-dir"])
            .arg(path.join("certs"))
            .arg(path.join("data"))
            .env("HOME", path)
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off");
        let mut process = Process::start("minio", &mut command, &path.join("minio.log"))?;
        let options = options(port, directory);
        process.wait_until(START_LIMIT, || is_ready(port) && serves(&options)).context("start MinIO")?;
        Ok(process)
    }

    /// Base URL of the service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A credentials file with the server's keys.
    pub fn credentials_file(&self) -> PathBuf {
        self.directory.path().join("credentials")
    }

    /// The folder in which MinIO keeps its data.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Options that reach this server.
    pub fn options(&self) -> StoreOptions {
        options(self.port, &self.directory)
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
        self.process = Self::launch(&self.directory, self.port)?;
        Ok(())
    }

    /// Kills the server and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.start_again()
    }
}

fn options(port: u16, directory: &TempDir) -> StoreOptions {
    StoreOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        credentials_file: Some(directory.path().join("credentials")),
        ..StoreOptions::default()
    }
}

/// Whether it knows its own user and its bucket: it says so some time after its health pages call it ready.
fn serves(options: &StoreOptions) -> bool {
    let options = options.clone();
    // A thread of its own, because the caller may be in a runtime.
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let url = format!("s3://{BUCKET}/knock");
            let store = open_plain(&url, &options, &World::system()).await.ok()?;
            store.list("", None).await.ok()?;
            store
                .get("absent", ByteRange::All)
                .await
                .err()
                .filter(|error| error.kind() == ErrorKind::NotFound)
        })
    });
    matches!(asked.join(), Ok(Some(_)))
}

/// A signed request of somebody whom the server does not know: refused by 403 once the server can look users up, and
/// by 503 before, when its health pages say already that it is ready.
const KNOCK: &str = "GET / HTTP/1.0\r\nHost: localhost\r\nX-Amz-Date: 20260101T000000Z\r\n\
    X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nAuthorization: AWS4-HMAC-SHA256 \
    Credential=NOBODYKNOWSTHISKEY00/20260101/us-east-1/s3/aws4_request, \
    SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
    Signature=0000000000000000000000000000000000000000000000000000000000000000\r\n\r\n";

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(KNOCK.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 403"))
    };
    ask().unwrap_or(false)
}
