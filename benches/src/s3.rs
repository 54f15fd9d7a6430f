//! A real S3 server on loopback, started for one run and ended with it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;

use crate::tools::{S3, write};

/// The bucket that all repositories of a run share, each under its own prefix.
const BUCKET: &str = "bench";
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// How long a server may take to answer; generous, as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which server, and its program.
#[derive(Clone, Debug)]
pub enum Program {
    /// MinIO.
    Minio(PathBuf),
    /// Garage.
    Garage(PathBuf),
    /// Versity S3 Gateway in front of a directory.
    Versitygw(PathBuf),
}

impl std::str::FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("minio", path)) => Ok(Self::Minio(path.into())),
            Some(("garage", path)) => Ok(Self::Garage(path.into())),
            Some(("versitygw", path)) => Ok(Self::Versitygw(path.into())),
            _ => Err("expected minio=PATH, garage=PATH or versitygw=PATH".into()),
        }
    }
}

/// A running server. Dropping it ends the server and removes its data; when the run is killed, the kernel
/// ends the server, and the next run removes the data. Start it from the main thread: the kernel's tie is to
/// the thread that started the child.
#[derive(Debug)]
pub struct Server {
    child: Child,
    data: PathBuf,
    address: String,
    _held: [Port; 2],
    region: &'static str,
    /// Where each prefix is a directory of its own; none for a server that mixes prefixes in its data files.
    prefixes: Option<PathBuf>,
    creates_if_absent: bool,
}

impl Server {
    /// Starts `program` with its data in `dir`, which is made anew.
    pub fn start(program: &Program, dir: &Path) -> Result<Self> {
        crate::dataset::remove(dir)?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        // The second one is for a server whose parts speak with each other.
        let held = [Port::reserve()?, Port::reserve()?];
        let address = format!("127.0.0.1:{}", held[0].number);
        let log = File::create(dir.join("server.log"))?;
        let (mut command, region) = match program {
            Program::Minio(path) => (minio(path, dir, &address)?, "us-east-1"),
            Program::Garage(path) => (garage(path, dir, &held)?, "garage"),
            Program::Versitygw(path) => (versitygw(path, dir, &address)?, "us-east-1"),
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {program:?}"))?;
        let is_garage = matches!(program, Program::Garage(_));
        let mut server = Self {
            child,
            data: dir.to_path_buf(),
            address,
            _held: held,
            region,
            prefixes: (!is_garage).then(|| buckets(dir).join(BUCKET)),
            // Garage 2.5 ignores the condition on a put.
            creates_if_absent: !is_garage,
        };
        server.wait()?;
        if let Program::Garage(path) = program {
            set_up_garage(path, dir)?;
        }
        Ok(server)
    }

    /// What a tool needs to keep a repository under `prefix`.
    pub fn location(&self, prefix: &str) -> S3 {
        S3 {
            address: self.address.clone(),
            bucket: BUCKET.into(),
            prefix: prefix.into(),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: self.region.into(),
            creates_if_absent: self.creates_if_absent,
        }
    }

    /// Processor time that the server has used since it was started.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Behind the name in brackets, which may hold spaces: state first, and at 11 and 12 the ticks.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Bytes of the server's files for `prefix`; unknown where prefixes have no directories.
    pub fn stored(&self, prefix: &str) -> Option<u64> {
        crate::walk::stored(&self.prefixes.as_ref()?.join(prefix)).ok()
    }

    /// Frees what `prefix` holds, where that can be done without the server.
    pub fn clear(&self, prefix: &str) -> Result<()> {
        self.prefixes.as_ref().map_or(Ok(()), |prefixes| crate::dataset::remove(&prefixes.join(prefix)))
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.data.join("server.log")).unwrap_or_default();
                bail!(
                    "the S3 server ended at once with {status}: {}",
                    log.lines().last().unwrap_or("no output")
                );
            }
            if answers(&self.address) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the S3 server at {} did not answer within {PATIENCE:?}; see its server.log", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the server has ended by itself, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(crate::dataset::remove(&self.data));
    }
}

fn answers(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut reply = [0; 12];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut reply).is_ok()
        // Any answer below 500 (it will be 403) comes from a server that is up.
        && matches!(reply[9], b'2'..=b'4')
}

/// A port on the loopback interface. While this is there, nobody is given it who asks for any; a server that takes one which
/// others have bound and do not listen on, as all of these do, can listen on it. `Port` of the black-box tests, which this
/// package does not use, is reserved in the same way.
#[derive(Debug)]
struct Port {
    number: u16,
    _bound: TcpSocket,
}

impl Port {
    /// One that nobody has.
    fn reserve() -> Result<Self> {
        let socket = TcpSocket::new_v4().context("make a socket")?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("bind a loopback port")?;
        Ok(Self { number: socket.local_addr()?.port(), _bound: socket })
    }
}

/// A command that the kernel kills when this process ends in whatever way: a signal or a panic that aborts
/// runs no destructor, and the server must not outlive the run. `setpriv` is of util-linux, thus everywhere.
fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The directory of a server that takes each directory in it for a bucket.
fn buckets(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn minio(program: &Path, dir: &Path, address: &str) -> Result<Command> {
    let data = buckets(dir);
    fs::create_dir_all(data.join(BUCKET))?;
    let mut command = tied(program);
    command.args(["server", "--quiet", "--address", address]).arg(data);
    command.env("HOME", dir).env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
    command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
    Ok(command)
}

fn versitygw(program: &Path, dir: &Path, address: &str) -> Result<Command> {
    let data = buckets(dir);
    fs::create_dir_all(data.join(BUCKET))?;
    let mut command = tied(program);
    // Without --keep-alive it closes the connection after each answer, and connecting is what would be measured.
    command
        .args(["--quiet", "--keep-alive", "--region", "us-east-1", "--port", address])
        .arg("posix")
        .arg(data);
    command.env("HOME", dir).env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
    Ok(command)
}

fn garage(program: &Path, dir: &Path, [api, rpc]: &[Port; 2]) -> Result<Command> {
    let (api, rpc) = (api.number, rpc.number);
    // compression_level "none": the server must not do what the tools are measured for.
    let config = format!(
        "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"sqlite\"\nreplication_factor = 1\ncompression_level = \"none\"\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{SECRET_KEY}\"\n\
         [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{api}\"\n",
        dir.join("meta"),
        dir.join("data")
    );
    write(&dir.join("garage.toml"), &config)?;
    let mut command = tied(program);
    command.arg("-c").arg(dir.join("garage.toml")).arg("server");
    Ok(command)
}

fn set_up_garage(program: &Path, dir: &Path) -> Result<()> {
    let ask = |args: &[&str]| -> Result<String> {
        let output = Command::new(program).arg("-c").arg(dir.join("garage.toml")).args(args).output()?;
        if !output.status.success() {
            bail!("garage {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let node = ask(&["node", "id", "-q"])?;
    let node = node.split('@').next().unwrap_or_default();
    ask(&["layout", "assign", "-z", "local", "-c", "100G", node])?;
    ask(&["layout", "apply", "--version", "1"])?;
    ask(&["key", "import", "--yes", "-n", "bench", ACCESS_KEY, SECRET_KEY])?;
    ask(&["bucket", "create", BUCKET])?;
    ask(&["bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", ACCESS_KEY])?;
    Ok(())
}
