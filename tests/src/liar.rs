//! A service that speaks S3 well enough to hold a repository, and breaks one of its promises.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::http::{Request, answer};

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None: the service is honest.
    None,
    /// A condition on a put is ignored.
    ConditionsIgnored,
    /// A part is answered with the whole object.
    RangesIgnored,
    /// A part is answered with another part of the same length, and says so.
    OtherPart,
    /// The last bytes are answered with more than was asked for.
    LongTail,
    /// The head of an answer promises more bytes than come.
    ShortBody,
    /// A put is answered by somebody who answers 200 to everything.
    EmptyYes,
    /// Every answer is a web page, with status 200.
    WebPage,
    /// What was put is not there.
    PutsForgotten,
    /// What was deleted is still there.
    DeletesForgotten,
    /// A listing breaks off in the middle, and its length agrees with that.
    ListingCut,
    /// A listing is in the form of version 1.
    ListingOld,
    /// A listing is an empty answer.
    ListingEmpty,
    /// A listing has everything, whatever the prefix.
    PrefixIgnored,
    /// A listing does not end.
    EndlessListing,
    /// The answer to a put does not end, nor does one to a post, which is how credentials are asked for.
    EndlessPut,
    /// What comes with a refusal does not end.
    EndlessRefusal,
}

/// What an answer without end comes to, in bytes, where nobody hangs up: more than the program may take.
const ENDLESS: usize = 512 << 20;

#[derive(Debug)]
struct State {
    lie: Lie,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// A running liar; ends when dropped.
#[derive(Debug)]
pub struct Liar {
    port: u16,
    task: JoinHandle<()>,
}

impl Liar {
    /// Listens on a loopback port. Any bucket exists.
    pub async fn start(lie: Lie) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { lie, objects: Mutex::default() });
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = state.clone();
                // A client that goes away is no concern of the service.
                tokio::spawn(async move { state.serve(client).await.ok() });
            }
        });
        Ok(Self { port, task })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(&mut client).await? else { return Ok(()) };
        let bytes = match (self.lie, request.method()) {
            (Lie::WebPage, _) => {
                reply("200 OK", "Content-Type: text/html; charset=utf-8\r\n", b"<html></html>")
            }
            (Lie::EmptyYes, "PUT") | (Lie::EndlessPut, "POST") => reply("200 OK", "", b""),
            (_, "PUT") => self.put(&request),
            (_, "DELETE") => {
                if self.lie != Lie::DeletesForgotten {
                    self.objects().remove(request.path());
                }
                reply("204 No Content", "", b"")
            }
            (_, _) if request.parameter("list-type").is_some() => self.list(&request),
            (_, _) => self.get(&request),
        };
        let is_endless = match self.lie {
            Lie::EndlessListing => request.parameter("list-type").is_some(),
            Lie::EndlessPut => matches!(request.method(), "PUT" | "POST"),
            Lie::EndlessRefusal => bytes.starts_with(b"HTTP/1.1 4"),
            _ => false,
        };
        if is_endless { go_on(client, &bytes).await } else { answer(client, &bytes).await }
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, request: &Request) -> Vec<u8> {
        let mut objects = self.objects();
        let conditional = request.header("if-none-match") == Some("*") && self.lie != Lie::ConditionsIgnored;
        if conditional && objects.contains_key(request.path()) {
            return error("412 Precondition Failed", "PreconditionFailed");
        }
        if self.lie != Lie::PutsForgotten {
            objects.insert(request.path().to_owned(), request.body.clone());
        }
        reply("200 OK", "ETag: \"0\"\r\n", b"")
    }

    fn get(&self, request: &Request) -> Vec<u8> {
        let objects = self.objects();
        let Some(body) = objects.get(request.path()) else { return error("404 Not Found", "NoSuchKey") };
        let size = body.len();
        let range = request.header("range").and_then(|range| span(range, size));
        let Some((first, last)) = range.filter(|_| self.lie != Lie::RangesIgnored) else {
            let mut bytes = reply("200 OK", "ETag: \"0\"\r\n", body);
            if self.lie == Lie::ShortBody {
                bytes.truncate(bytes.len() - 1);
            }
            return bytes;
        };
        let tail = request.header("range").is_some_and(|range| range.starts_with("bytes=-"));
        let (first, last) = match self.lie {
            Lie::OtherPart if !tail && first > 0 => (first - 1, last - 1),
            Lie::LongTail if tail => (0, last),
            _ => (first, last),
        };
        let head = format!("ETag: \"0\"\r\nContent-Range: bytes {first}-{last}/{size}\r\n");
        reply("206 Partial Content", &head, &body[first..=last])
    }

    fn list(&self, request: &Request) -> Vec<u8> {
        let bucket = format!("{}/", request.path().trim_end_matches('/'));
        let prefix = request.parameter("prefix").unwrap_or_default();
        let objects = self.objects();
        let entries: Vec<String> = objects
            .iter()
            .filter_map(|(path, body)| Some((path.strip_prefix(&bucket)?, body)))
            .filter(|(key, _)| self.lie == Lie::PrefixIgnored || key.starts_with(&prefix))
            .map(|(key, body)| format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", body.len()))
            .collect();
        let count = match self.lie {
            Lie::ListingOld => String::new(),
            _ => format!("<KeyCount>{}</KeyCount>", entries.len()),
        };
        let mut text = format!(
            "<?xml version=\"1.0\"?><ListBucketResult>{count}<IsTruncated>false</IsTruncated>{}</ListBucketResult>",
            entries.concat()
        );
        match self.lie {
            Lie::ListingCut => text.truncate(text.find("<Contents>").unwrap_or(text.len())),
            Lie::ListingEmpty => text.clear(),
            _ => {}
        }
        reply("200 OK", "Content-Type: application/xml\r\n", text.as_bytes())
    }
}

/// Sends the head of an answer, and then entries of a listing without end.
async fn go_on(mut client: TcpStream, honest: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(honest);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("Content-Length:")).collect();
    let head = format!("{}\r\nTransfer-Encoding: chunked\r\n\r\n", lines.join("\r\n"));
    client.write_all(head.as_bytes()).await?;
    let entries = format!("<Contents><Key>{}</Key></Contents>", "x".repeat(1000)).repeat(64);
    let chunk = format!("{:x}\r\n{entries}\r\n", entries.len());
    for _ in 0..ENDLESS / entries.len() {
        client.write_all(chunk.as_bytes()).await?;
    }
    client.write_all(b"0\r\n\r\n").await?;
    client.shutdown().await
}

/// First and last byte of a `Range` header.
fn span(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some((size.saturating_sub(last.parse().ok()?), size - 1));
    }
    Some((first.parse().ok()?, last.parse::<usize>().ok()?.min(size - 1)))
}

fn error(status: &str, code: &str) -> Vec<u8> {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    reply(status, "Content-Type: application/xml\r\n", text.as_bytes())
}

/// An answer with these headers, each with its end of line.
pub fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
