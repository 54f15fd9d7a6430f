//! An API server that misbehaves when it is told to, for the controller alone: it stands before the real one.

use std::{
    collections::HashSet,
    convert::Infallible,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use carrack_cluster::Cluster;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, body::Frame, body::Incoming, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::look;

/// How long a watch lives if watches break.
const WATCH_LIVES: Duration = Duration::from_millis(700);
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 128;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections end, and new ones are refused.
    Away,
    /// The first try of every write is answered with a conflict and does nothing.
    Conflict,
    /// The first try of every write is done, and its connection ends without an answer.
    LostReply,
    /// Watches end after less than a second, those that run at once, and every other one is refused as too old.
    BrokenWatch,
}

/// The server.
#[derive(Debug)]
pub struct FaultyServer {
    kubeconfig: PathBuf,
    fault: watch::Sender<Fault>,
    injected: Arc<AtomicU64>,
    /// Has the port also while nobody listens there, so that no other program gets it.
    _held: TcpSocket,
    _runtime: Runtime,
}

impl FaultyServer {
    /// Starts on a free port, with a kubeconfig for the controller in `directory`.
    ///
    /// # Errors
    ///
    /// There is no port, or the cluster's kubeconfig cannot be used.
    pub fn start(cluster: &Cluster, directory: &Path) -> Result<Self> {
        let runtime = Runtime::new().context("a runtime")?;
        let client = runtime.block_on(look::client(cluster))?;
        let held = bound((Ipv4Addr::LOCALHOST, 0).into()).context("a free port")?;
        let address = held.local_addr()?;
        let (fault, faults) = watch::channel(Fault::None);
        let injected = Arc::new(AtomicU64::new(0));
        let answerer = Arc::new(Answerer {
            client,
            faults: faults.clone(),
            injected: Arc::clone(&injected),
            failed_once: Mutex::default(),
        });
        runtime.spawn(serve(address, faults, answerer));
        let kubeconfig = directory.join("faulty.kubeconfig");
        let text = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "faulty",
            "clusters": [{ "name": "faulty", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "faulty", "user": {} }],
            "contexts": [{ "name": "faulty", "context": { "cluster": "faulty", "user": "faulty" } }] });
        fs::write(&kubeconfig, text.to_string()).with_context(|| kubeconfig.display().to_string())?;
        Ok(Self { kubeconfig, fault, injected, _held: held, _runtime: runtime })
    }

    /// How the controller finds it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Sets what is wrong from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many requests have met a fault since this was last asked.
    pub fn injected(&self) -> u64 {
        self.injected.swap(0, Ordering::Relaxed)
    }
}

/// A socket with this address, which others of this program may have too; only one that listens gets connections. `Port` of the
/// black-box tests, which this package does not use, is reserved in the same way.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections until the server is away, and again once it is back.
async fn serve(address: SocketAddr, mut faults: watch::Receiver<Fault>, answerer: Arc<Answerer>) {
    loop {
        if faults.wait_for(|fault| *fault != Fault::Away).await.is_err() {
            return;
        }
        // The port may be in use for a moment more.
        let Ok(listener) = bound(address).and_then(|socket| socket.listen(BACKLOG)) else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Dropped with the listener, which ends them in the middle of whatever they did.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    connections.spawn(converse(stream, Arc::clone(&answerer)));
                },
                changed = faults.changed() => {
                    if changed.is_err() { return; }
                    let fault = *faults.borrow_and_update();
                    if matches!(fault, Fault::Away | Fault::BrokenWatch) {
                        answerer.injected.fetch_add(connections.len() as u64, Ordering::Relaxed);
                        connections.abort_all();
                    }
                    if fault == Fault::Away { break; }
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn converse(stream: TcpStream, answerer: Arc<Answerer>) {
    let service = service_fn(|request| {
        let answerer = Arc::clone(&answerer);
        async move { answerer.answer(request).await }
    });
    // How a connection ends is the client's matter.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

struct Answerer {
    client: Client,
    faults: watch::Receiver<Fault>,
    injected: Arc<AtomicU64>,
    /// Requests whose first try has failed; the second passes.
    failed_once: Mutex<HashSet<String>>,
}

impl Answerer {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer> {
        let fault = *self.faults.borrow();
        let is_write = request.method() != Method::GET;
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        match fault {
            Fault::Conflict if is_write && self.fails_now(&request) => {
                Ok(status(StatusCode::CONFLICT, "Conflict"))
            }
            Fault::LostReply if is_write && self.fails_now(&request) => {
                self.forward(request).await?.into_body().collect().await?;
                anyhow::bail!("the answer is lost")
            }
            Fault::BrokenWatch if is_watch => {
                if self.fails_now(&request) {
                    return Ok(status(StatusCode::GONE, "Expired"));
                }
                let (head, body) = self.forward(request).await?.into_parts();
                let frames = body.into_data_stream().take_until(sleep(WATCH_LIVES));
                Ok(Response::from_parts(
                    head,
                    StreamBody::new(frames.map(|data| data.map(Frame::data))).boxed_unsync(),
                ))
            }
            _ => self.forward(request).await,
        }
    }

    fn fails_now(&self, request: &Request<Incoming>) -> bool {
        let name = format!("{} {}", request.method(), request.uri().path());
        let mut failed = self.failed_once.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.remove(&name) {
            return false;
        }
        failed.insert(name);
        self.injected.fetch_add(1, Ordering::Relaxed);
        true
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Answer> {
        let (mut head, body) = request.into_parts();
        for name in [header::HOST, header::CONNECTION, header::ACCEPT_ENCODING] {
            head.headers.remove(name);
        }
        let body = Body::from(body.collect().await?.to_bytes());
        let (mut head, body) = self.client.send(Request::from_parts(head, body)).await?.into_parts();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }
}

fn status(code: StatusCode, reason: &str) -> Answer {
    let text = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code.as_u16(),
        "message": "the object has been modified; please apply your changes to the latest version and try again" });
    let body = Full::new(Bytes::from(text.to_string())).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}
