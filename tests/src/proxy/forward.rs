//! A forward proxy, as stands between a company and the world: it takes requests for anywhere in absolute form, makes
//! tunnels, and wants a login. It is the only one who knows where the service is: whatever host it is asked for, it
//! connects to that.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::http::{Request, answer};
use crate::liar::reply;

/// The login in a URL: its password has what must be escaped there.
pub const LOGIN: &str = "carrack:p%40ss%3Aword";
/// The same as clients send it.
const AUTHORIZATION: &str = "Basic Y2FycmFjazpwQHNzOndvcmQ=";

/// A request that came to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its method; `CONNECT` for a tunnel.
    pub method: String,
    /// Host and port that it is for.
    pub host: String,
    /// Whether it was let through.
    pub passed: bool,
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct ForwardProxy {
    asked: Arc<Mutex<Vec<Asked>>>,
    port: u16,
    task: JoinHandle<()>,
}

impl ForwardProxy {
    /// Listens on a loopback port, wants [`LOGIN`], and connects to `upstream`.
    pub async fn start(upstream: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, asked) = (upstream.clone(), all.clone());
                // A client that goes away is no concern of the proxy.
                tokio::spawn(async move { serve(client, &upstream, &asked).await.ok() });
            }
        });
        Ok(Self { asked, port, task })
    }

    /// What `HTTP_PROXY` and `HTTPS_PROXY` are set to, with this login.
    pub fn url(&self, login: &str) -> String {
        format!("http://{login}@127.0.0.1:{}", self.port)
    }

    /// What it was asked for since the last time.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, upstream: &str, asked: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let Some(request) = Request::read(&mut client).await? else { return Ok(()) };
    let tunnel = request.method() == "CONNECT";
    let place = request.path().strip_prefix("http://");
    let host = if tunnel { Some(request.path()) } else { place.and_then(|place| place.split('/').next()) };
    let Some(host) = host else {
        return answer(client, &reply("400 Bad Request", "Content-Type: text/html\r\n", b"<html></html>"))
            .await;
    };
    let passed = request.header("proxy-authorization") == Some(AUTHORIZATION);
    let note = Asked { method: request.method().to_owned(), host: host.to_owned(), passed };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    if !passed {
        let challenge = "Proxy-Authenticate: Basic realm=\"carrack\"\r\nContent-Type: text/html\r\n";
        return answer(client, &reply("407 Proxy Authentication Required", challenge, b"<html></html>"))
            .await;
    }
    let mut server = TcpStream::connect(upstream).await?;
    if tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        return copy_bidirectional(&mut client, &mut server).await.map(drop);
    }
    server.write_all(&to_origin(&request.passed_on(), host)).await?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply).await?;
    answer(client, &reply).await
}

/// The request as its origin takes it: with a path only, and without what was for the proxy.
fn to_origin(request: &[u8], host: &str) -> Vec<u8> {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(request.len());
    let (head, body) = request.split_at(end);
    let head = String::from_utf8_lossy(head).replacen(&format!(" http://{host}"), " ", 1);
    let lines = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("proxy-"));
    [lines.collect::<Vec<_>>().join("\r\n").as_bytes(), body].concat()
}
