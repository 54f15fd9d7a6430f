//! A service that begins well, and changes in the middle of a run: from the n-th object on it answers otherwise.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::http::{Request, answer};

/// What changes.
#[derive(Debug, Clone)]
pub struct Turn {
    /// So many puts go well.
    pub after_puts: usize,
    /// So many requests get the other answer; then all is well again.
    pub requests: usize,
    /// Whether puts only get it.
    pub puts_only: bool,
    /// The answer.
    pub answer: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    turn: Option<Turn>,
    puts: usize,
    turned: usize,
}

/// Stands before an honest service; ends when dropped.
#[derive(Debug)]
pub struct Turning {
    state: Arc<Mutex<State>>,
    port: u16,
    task: JoinHandle<()>,
}

impl Turning {
    /// Listens on a loopback port and passes everything on to `upstream`.
    pub async fn start(upstream: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, state) = (upstream.clone(), shared.clone());
                // A client that goes away is no concern of the service.
                tokio::spawn(async move { serve(client, &upstream, &state).await.ok() });
            }
        });
        Ok(Self { state, port, task })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Counts puts from now on, and turns.
    pub fn turn(&self, turn: Turn) {
        *lock(&self.state) = State { turn: Some(turn), ..State::default() };
    }

    /// Is honest from now on; tells how many requests got the other answer.
    pub fn calm(&self) -> usize {
        std::mem::take(&mut *lock(&self.state)).turned
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other answer, if it is time for it.
fn other(state: &Mutex<State>, put: bool) -> Option<Vec<u8>> {
    let mut state = lock(state);
    let turn = state.turn.clone()?;
    if state.puts < turn.after_puts {
        state.puts += usize::from(put);
        return None;
    }
    if state.turned == turn.requests || (turn.puts_only && !put) {
        return None;
    }
    state.turned += 1;
    Some(turn.answer)
}

async fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> io::Result<()> {
    let Some(request) = Request::read(&mut client).await? else { return Ok(()) };
    if let Some(bytes) = other(state, request.method() == "PUT") {
        return answer(client, &bytes).await;
    }
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(&request.passed_on()).await?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply).await?;
    answer(client, &reply).await
}
