//! Any answer of a service, to each call of the store.
//!
//! It goes through all that an answer goes through but the network: the SDK's client, which reads its head and its XML, and
//! what this store makes of them.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::{Headers, StatusCode};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::unconnected::{ENDPOINT, client_over, store_of};
use super::{S3Store, ServiceReply};
use crate::error::{Error, ErrorKind};
use crate::store::{ByteRange, ObjectStore as _, Put, valid_name};

/// The service is asked whether it locks objects of this kind, and of the other it is not.
const PACK: &str = "packs/aa/x";
const SMALL: &str = "snapshots/x";

/// An answer: the status in a line, the head line by line, an empty line, and the body.
#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: Headers,
    body: Bytes,
}

thread_local! {
    /// What the service says to every request of this thread.
    static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

static CLIENT: LazyLock<Client> = LazyLock::new(|| client_over(SharedHttpConnector::new(OneAnswer)));

/// Stands where a connection is.
#[derive(Debug)]
struct OneAnswer;

impl HttpConnector for OneAnswer {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let response = ANSWER.with_borrow(|answer| {
            answer.as_ref().expect("nothing is asked without an answer").response(request.method())
        });
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl Answer {
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|two| two == b"\n\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split('\n');
        let status = StatusCode::try_from(lines.next()?.parse::<u16>().ok()?).ok()?;
        let mut headers = Headers::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            // What is no header does not come through a connection either.
            drop(headers.try_append(name.to_owned(), value.trim().to_owned()));
        }
        Some(Self { status, headers, body: Bytes::copy_from_slice(&bytes[end + 2..]) })
    }

    fn response(&self, method: &str) -> HttpResponse {
        // No connection gives a body to a request for the head.
        let body = if method == "HEAD" { SdkBody::empty() } else { SdkBody::from(self.body.clone()) };
        let mut response = HttpResponse::new(self.status, body);
        *response.headers_mut() = self.headers.clone();
        response
    }

    /// Whether it can mean that something was done: a page for people cannot.
    fn says_yes(&self) -> bool {
        let page = self.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        self.status.is_success() && !page
    }

    /// What must hold of every error that is made of it.
    fn check(&self, error: &Error) {
        let (kind, told) = (error.kind(), error.in_one_line());
        assert!(told.contains(ENDPOINT), "nobody knows where: {told}");
        if kind == ErrorKind::NotFound {
            assert!(
                self.status.as_u16() == 404 && !self.body.is_empty(),
                "no word of an absent object: {told}"
            );
        } else {
            use ErrorKind::{Corrupt, Denied, Invalid, NoSpace, Unavailable};
            assert!(matches!(kind, Corrupt | Denied | Invalid | NoSpace | Unavailable), "{kind:?}: {told}");
            assert!(error.hint().is_some(), "no next step: {told}");
        }
        if let Some(reply) = ServiceReply::of(error) {
            assert_eq!(reply.status, self.status.as_u16(), "{told}");
        }
    }
}

/// A store whose service says this.
fn asked<T>(answer: &Answer, work: impl AsyncFnOnce(S3Store) -> T) -> T {
    ANSWER.set(Some(answer.clone()));
    let store = store_of(CLIENT.clone(), Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(work(store))
}

/// The first byte says what is asked, and the rest is the answer.
pub(crate) fn fuzz_answer(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let Some(answer) = Answer::read(bytes) else { return };
    asked(&answer, async |store| match which % 8 {
        0 => put(&store, &answer).await,
        1 => get(&store, &answer, ByteRange::All).await,
        2 => get(&store, &answer, ByteRange::Slice { offset: 5, length: 5 }).await,
        3 => get(&store, &answer, ByteRange::Last(5)).await,
        4 => list(&store, &answer).await,
        5 => delete(&store, &answer, SMALL).await,
        6 => delete(&store, &answer, PACK).await,
        _ => locked_until(&store, &answer).await,
    });
}

async fn put(store: &S3Store, answer: &Answer) {
    match store.put_if_absent(SMALL, Bytes::from_static(b"contents")).await {
        Ok(Put::Created) => assert!(answer.says_yes() && answer.headers.contains_key("etag"), "{answer:?}"),
        Ok(Put::Exists) => assert_eq!(answer.status.as_u16(), 412),
        Err(error) => answer.check(&error),
    }
}

/// What is given out is what was sent, and no other part than was asked for.
async fn get(store: &S3Store, answer: &Answer, range: ByteRange) {
    let bytes = match store.get(PACK, range).await {
        Ok(bytes) => bytes,
        Err(error) => return answer.check(&error),
    };
    let length = bytes.len() as u64;
    match range {
        ByteRange::All => {}
        ByteRange::Slice { length: wanted, .. } => assert_eq!(length, wanted),
        // An empty object has no such part, or one of no bytes.
        ByteRange::Last(_) if bytes.is_empty() => {
            return assert!(answer.says_yes() || answer.status.as_u16() == 416, "{answer:?}");
        }
        ByteRange::Last(most) => assert!(length <= most, "{length} bytes"),
    }
    assert!(answer.says_yes(), "{answer:?}");
    assert_eq!(bytes, answer.body);
}

async fn list(store: &S3Store, answer: &Answer) {
    match store.list("packs/", None).await {
        Ok(page) => {
            assert!(answer.says_yes(), "{answer:?}");
            let ours = |name: &str| valid_name(name) && name.starts_with("packs/");
            assert!(page.objects.iter().all(|object| ours(&object.name)), "{:?}", page.objects);
        }
        Err(error) => answer.check(&error),
    }
}

async fn delete(store: &S3Store, answer: &Answer, name: &str) {
    match store.delete(name).await {
        Ok(true) => assert!(answer.says_yes(), "{answer:?}"),
        Ok(false) => assert!(answer.status.as_u16() == 404 && !answer.body.is_empty(), "{answer:?}"),
        Err(error) => answer.check(&error),
    }
}

async fn locked_until(store: &S3Store, answer: &Answer) {
    match store.locked_until(PACK).await {
        Ok(Some(_)) => assert!(answer.says_yes(), "{answer:?}"),
        Ok(None) => {
            assert!(answer.says_yes() || matches!(answer.status.as_u16(), 400..=499 | 501), "{answer:?}");
        }
        Err(error) => answer.check(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer::read(text.as_bytes()).unwrap()
    }

    /// A target whose answers never came through would pass whatever they are.
    #[test]
    fn answers_come_through_to_the_store() {
        let created = answer("200\netag: \"x\"\n\n");
        let put = asked(&created, async |store| store.put_if_absent(SMALL, Bytes::new()).await);
        assert_eq!(put.unwrap(), Put::Created);
        let sent = answer("200\ncontent-length: 8\n\ncontents");
        let got = asked(&sent, async |store| store.get(SMALL, ByteRange::All).await);
        assert_eq!(got.unwrap(), &b"contents"[..]);
        let absent = answer("404\n\n<Error><Code>NoSuchKey</Code></Error>");
        let got = asked(&absent, async |store| store.get(SMALL, ByteRange::All).await);
        assert_eq!(got.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!asked(&absent, async |store| store.delete(SMALL).await).unwrap());
    }

    #[test]
    #[should_panic(expected = "no word of an absent object")]
    fn an_error_that_does_not_follow_from_its_answer_is_noticed() {
        answer("403\n\n").check(&Error::not_found(format!("get x at {ENDPOINT}")));
    }
}
