//! A gate in front of an S3 service that kills a program at any of its requests.

use std::io;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::{Ran, State, Steps};
use crate::http::Request;

/// How long the number of a process may take that was started just now.
const START_LIMIT: Duration = Duration::from_secs(30);

/// When a program is killed: at a step, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The service never sees the request.
    Before(u64),
    /// The service has carried it out, and the program does not hear of it.
    After(u64),
}

#[derive(Debug, Default)]
struct Control {
    steps: Steps,
    taken: u64,
    end: Option<End>,
    dead: bool,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    control: Mutex<Control>,
    victim: watch::Sender<Option<Pid>>,
}

/// A running gate; ends when dropped.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    port: u16,
    task: JoinHandle<()>,
}

impl Gate {
    /// Listens on a loopback port, in front of `upstream`.
    pub async fn start(upstream: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared =
            Arc::new(Shared { upstream, control: Mutex::default(), victim: watch::Sender::new(None) });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                // A connection ends with the program that is killed.
                tokio::spawn(async move { shared.serve(client).await.ok() });
            }
        });
        Ok(Self { shared, port, task })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs a program that reaches the service through this gate, and kills it when it is asked for.
    pub fn run(&self, command: &mut Command, steps: Steps, end: Option<End>) -> Result<Ran> {
        self.shared.victim.send_replace(None);
        *self.shared.lock() = Control { steps, end, ..Control::default() };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        self.shared.victim.send_replace(i32::try_from(child.id()).ok().and_then(Pid::from_raw));
        let output = child.wait_with_output().context("wait for the program")?;
        let mut control = self.shared.lock();
        let killed = std::mem::take(&mut control.dead);
        control.end = None;
        Ok(Ran { output, state: State::default(), steps: control.taken, killed, synced_last: false })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is passed on, and whether the program dies of it.
    fn count(&self, changes: bool) -> (bool, bool) {
        let mut control = self.lock();
        if control.dead {
            return (false, false);
        }
        if !changes && control.steps == Steps::Changes {
            return (true, false);
        }
        control.taken += 1;
        let (passes, dies) = match control.end {
            Some(End::Before(step)) if step == control.taken => (false, true),
            Some(End::After(step)) if step == control.taken => (true, true),
            _ => (true, false),
        };
        control.dead = dies;
        (passes, dies)
    }

    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(&mut client).await? else { return Ok(()) };
        let (passes, dies) = self.count(!matches!(request.method(), "GET" | "HEAD"));
        let mut answer = Vec::new();
        if passes {
            let mut server = TcpStream::connect(&self.upstream).await?;
            server.write_all(&request.passed_on()).await?;
            server.read_to_end(&mut answer).await?;
        }
        if dies {
            let mut victim = self.victim.subscribe();
            let started = tokio::time::timeout(START_LIMIT, victim.wait_for(Option::is_some)).await;
            if let Ok(Ok(id)) = started
                && let Some(id) = *id
            {
                rustix::process::kill_process(id, Signal::KILL)?;
            }
            return Ok(());
        }
        client.write_all(&answer).await?;
        client.shutdown().await
    }
}
