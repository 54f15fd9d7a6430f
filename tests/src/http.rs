//! Just enough HTTP to stand in for a server: one request per connection.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request, read to its end.
#[derive(Debug)]
pub struct Request {
    head: String,
    /// What came after the head.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads one; none if the other side has nothing to ask.
    pub async fn read(client: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let mut wanted = None;
        while wanted.is_none_or(|wanted| bytes.len() < wanted) {
            let read = client.read(&mut buffer).await?;
            if read == 0 {
                return Ok(None);
            }
            bytes.extend_from_slice(&buffer[..read]);
            if wanted.is_none()
                && let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
            {
                wanted = Some(at + 4 + length(&bytes[..at]));
            }
        }
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let body = bytes.split_off(at);
        Ok(Some(Self { head: String::from_utf8_lossy(&bytes).into_owned(), body }))
    }

    /// The method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The path, without what follows a question mark.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// A parameter of the query; slashes decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let query = self.target().split_once('?')?.1;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%2F", "/"))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The whole request for somebody who is to answer it and then hang up.
    pub fn passed_on(&self) -> Vec<u8> {
        let head = self.head.trim_end_matches("\r\n");
        [head.as_bytes(), b"\r\nConnection: close\r\n\r\n", &self.body].concat()
    }

    fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn length(head: &[u8]) -> usize {
    header(&String::from_utf8_lossy(head), "content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Sends an answer and closes.
pub async fn answer(mut client: TcpStream, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.shutdown().await
}
