//! A network that can be disturbed: a TCP proxy that cuts connections, or answers itself.

pub mod forward;
pub mod turning;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::http::{Request, answer};

/// What happens to a connection that arrives now.
#[derive(Debug, Clone)]
pub enum Disturbance {
    /// Nothing.
    None,
    /// Cut after so many bytes from client to server.
    CutRequest(usize),
    /// The server gets everything; its answer is cut after so many bytes.
    CutAnswer(usize),
    /// The client gets this, and the server nothing.
    Answer(String),
    /// The byte at this place from client to server arrives changed.
    ChangeRequest(usize),
    /// Accepted, and then silence.
    Silence,
}

#[derive(Debug, Default)]
struct State {
    disturbance: Option<Disturbance>,
    left: usize,
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
    disturbed: Arc<AtomicUsize>,
    end: Arc<Notify>,
    port: u16,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a loopback port and connects to `upstream`.
    pub async fn start(upstream: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State::default()));
        let disturbed = Arc::new(AtomicUsize::new(0));
        let end = Arc::new(Notify::new());
        let (shared, counter, ending) = (state.clone(), disturbed.clone(), end.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let disturbance = next(&shared, &counter);
                let upstream = upstream.clone();
                let ending = ending.clone();
                // A connection that breaks is what a proxy of this kind is for.
                tokio::spawn(async move {
                    tokio::select! {
                        done = serve(client, &upstream, disturbance) => done.ok(),
                        () = ending.notified() => None,
                    }
                });
            }
        });
        Ok(Self { state, disturbed, end, port, task })
    }

    /// Base URL of the proxy.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Disturbs the next `connections` connections. Connections that exist already stay as they are.
    pub fn disturb(&self, disturbance: Disturbance, connections: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { disturbance: Some(disturbance), left: connections };
    }

    /// Ends all connections that exist.
    pub fn cut(&self) {
        self.end.notify_waiters();
    }

    /// How many connections were disturbed.
    pub fn disturbed(&self) -> usize {
        self.disturbed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn next(state: &Mutex<State>, disturbed: &AtomicUsize) -> Disturbance {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.left == 0 {
        return Disturbance::None;
    }
    state.left -= 1;
    disturbed.fetch_add(1, Ordering::SeqCst);
    state.disturbance.clone().unwrap_or(Disturbance::None)
}

async fn serve(mut client: TcpStream, upstream: &str, disturbance: Disturbance) -> io::Result<()> {
    let (mut request, mut reply) = (Way::default(), Way::default());
    match disturbance {
        Disturbance::None => {}
        Disturbance::CutRequest(bytes) => request.limit = bytes,
        Disturbance::CutAnswer(bytes) => reply.limit = bytes,
        Disturbance::ChangeRequest(place) => request.changes = Some(place),
        Disturbance::Answer(text) => {
            return match Request::read(&mut client).await? {
                Some(_) => answer(client, text.as_bytes()).await,
                None => Ok(()),
            };
        }
        Disturbance::Silence => {
            let mut sink = [0; 16 << 10];
            while client.read(&mut sink).await? > 0 {}
            return Ok(());
        }
    }
    let server = TcpStream::connect(upstream).await?;
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.into_split();
    // The first side to end, or to reach its limit, ends both: dropping the sockets is the cut.
    tokio::select! {
        done = copy(&mut client_read, &mut server_write, request) => done,
        done = copy(&mut server_read, &mut client_write, reply) => done,
    }
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy)]
struct Way {
    limit: usize,
    changes: Option<usize>,
}

impl Default for Way {
    fn default() -> Self {
        Self { limit: usize::MAX, changes: None }
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    way: Way,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let pass = read.min(way.limit - passed);
        if let Some(byte) = way.changes.and_then(|place| buffer[..pass].get_mut(place.checked_sub(passed)?)) {
            *byte ^= 1;
        }
        to.write_all(&buffer[..pass]).await?;
        passed += pass;
        if passed == way.limit {
            return Ok(());
        }
    }
}
