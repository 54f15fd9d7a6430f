//! Where the real servers' programs are, and how their processes are held.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;

/// The root of this repository.
pub fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository").to_owned()
}

/// The program of a server that `tests/servers/build.sh` builds.
pub fn program(server: &str) -> Result<PathBuf> {
    let root = repository_root();
    let cache = std::env::var_os("CARRACK_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let sums = root.join("tests/servers").join(server).join("go.sum");
    let output = Command::new("sha256sum").arg(&sums).output().context("run sha256sum")?;
    let digest = String::from_utf8(output.stdout)?;
    let key = digest.get(..16).with_context(|| format!("no digest of {}", sums.display()))?;
    let path = cache.join("servers").join(format!("{server}-{key}")).join(server);
    if !path.is_file() {
        bail!("{} is not built; run: tests/servers/build.sh {server}", path.display());
    }
    Ok(path)
}

/// An address at which nobody answers: the first port is reserved for a protocol that nothing speaks any more, and only root
/// could listen there.
pub const NOWHERE: &str = "127.0.0.1:1";

/// A port on the loopback interface. While this is there, nobody is given it who asks for any, and no connection goes out from
/// it; a server that shares its port, as MinIO does, can listen on it, and again after it was killed. `faulty.rs` of the tests in
/// clusters and `s3.rs` of the benchmarks, which do not use this package, reserve their own in the same way.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _bound: TcpSocket,
}

impl Port {
    /// One that nobody has.
    pub fn reserve() -> Result<Self> {
        let socket = TcpSocket::new_v4().context("make a socket")?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("bind a loopback port")?;
        Ok(Self { number: socket.local_addr()?.port(), _bound: socket })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A running process; ended by its id when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose output goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Waits until `ready` says so; fails with the log if the process ends or the time is over.
    pub fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > limit {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} is not ready ({ended:?}) after {:?}; its log:\n{log}", self.name, start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills it at once, as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
