use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::http::StatusCode;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::store::s3::unconnected::{ENDPOINT, client_over, store_of};
use crate::store::s3::{S3Store, ServiceReply, Slow};
use crate::store::{ByteRange, ObjectStore as _};

const PACK: &str = "packs/aa/x";
const SMALL: &str = "snapshots/x";
/// Four times the longest answer: a test that takes all of it fails, and ends.
const ENDLESS: usize = 4 * LISTING_LIMIT;

/// A service that says the same to each request.
#[derive(Debug, Clone)]
struct Service {
    status: u16,
    headers: Vec<(&'static str, String)>,
    piece: Bytes,
    times: usize,
    /// Bytes of bodies that were taken from it.
    sent: Arc<AtomicUsize>,
}

/// The body of an answer, in pieces.
struct Pieces {
    left: usize,
    piece: Bytes,
    sent: Arc<AtomicUsize>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.sent.fetch_add(self.piece.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }
}

impl HttpConnector for Service {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let pieces = Pieces { left: self.times, piece: self.piece.clone(), sent: self.sent.clone() };
        let status = StatusCode::try_from(self.status).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from_body_1_x(pieces));
        for (name, value) in &self.headers {
            response.headers_mut().insert(*name, value.clone());
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// A service whose answers trickle: a piece comes at once, again and again, and none has a byte.
#[derive(Debug, Clone)]
struct Trickling;

#[derive(Default)]
struct Trickle {
    is_pause: bool,
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.is_pause = !self.is_pause;
        if self.is_pause {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
    }
}

impl HttpConnector for Trickling {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let status = StatusCode::try_from(206).unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from_body_1_x(Trickle::default()));
        response.headers_mut().insert("content-length", "5");
        response.headers_mut().insert("content-range", "bytes 0-4/5");
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl Service {
    fn once(status: u16, piece: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), piece: piece.into(), times: 1, sent: Arc::default() }
    }

    /// One whose answers do not end.
    fn endless(status: u16, piece: impl Into<Bytes>) -> Self {
        let once = Self::once(status, piece);
        Self { times: ENDLESS / once.piece.len(), ..once }
    }

    fn with(self, name: &'static str, value: impl ToString) -> Self {
        let mut headers = self.headers;
        headers.push((name, value.to_string()));
        Self { headers, ..self }
    }

    fn store(&self) -> S3Store {
        store_of(client_over(SharedHttpConnector::new(self.clone())), Duration::from_secs(600))
    }

    /// The request failed like this, and no more was taken than so many bytes and the piece that was too much.
    #[track_caller]
    fn expect(&self, error: &Error, most: usize, kind: ErrorKind, words: &str, cause: &str) {
        let source = error.source().map(ToString::to_string);
        assert_eq!(error.kind(), kind, "{error}: {source:?}");
        assert_eq!(ServiceReply::of(error).map(|reply| reply.status), Some(self.status), "{error}");
        assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
        assert!(error.to_string().contains(ENDPOINT), "nobody knows where: {error}");
        assert!(source.as_ref().is_some_and(|text| text.contains(cause)), "{cause:?} is not in: {source:?}");
        assert!(error.hint().is_some(), "no next step: {error}");
        let sent = self.sent.swap(0, Ordering::Relaxed);
        assert!(sent > 0 && sent <= most + self.piece.len(), "{sent} bytes of {most}: {error}");
    }
}

#[tokio::test]
async fn a_listing_without_end_is_given_up() {
    let long = format!("<Contents><Key>{}</Key></Contents>", "x".repeat(1000));
    for (piece, most, cause) in [
        (long, LISTING_LIMIT, format!("longer than {LISTING_LIMIT} bytes")),
        ("<Contents/>".to_owned(), ANSWER_TAGS * 11, format!("more than {ANSWER_TAGS} tags")),
        (" a=\"\"".to_owned(), ANSWER_STRETCH, format!("{ANSWER_STRETCH} bytes from one tag to the next")),
    ] {
        let service = Service::endless(200, piece);
        let error = service.store().list("packs/", None).await.unwrap_err();
        service.expect(&error, most, ErrorKind::Unavailable, "larger than any of an S3 service", &cause);
        assert!(error.to_string().contains("list s3://bucket/x/packs/"), "nobody knows what: {error}");
    }
}

#[tokio::test]
async fn a_yes_without_end_is_no_yes() {
    let service = Service::endless(200, "x".repeat(1000)).with("etag", "\"0\"");
    let cause = format!("the service answered 200: the answer is longer than {ANSWER_LIMIT} bytes");
    let expect = |error: &Error| {
        let words = "larger than any of an S3 service";
        service.expect(error, ANSWER_LIMIT, ErrorKind::Unavailable, words, &cause);
    };
    let store = service.store();
    expect(&store.put_if_absent(SMALL, Bytes::from_static(b"contents")).await.unwrap_err());
    expect(&store.delete(SMALL).await.unwrap_err());
    expect(&store.delete(PACK).await.unwrap_err());
    expect(&store.locked_until(PACK).await.unwrap_err());
}

/// The status says what it means, whatever comes behind it.
#[tokio::test]
async fn a_refusal_without_end_is_one_all_the_same() {
    let cause = format!("longer than {ANSWER_LIMIT} bytes");
    for (status, kind, words) in [
        (403, ErrorKind::Denied, "does not say why"),
        (404, ErrorKind::Invalid, "not answer as an S3 service"),
        (503, ErrorKind::Unavailable, "cannot do it now"),
    ] {
        let service = Service::endless(status, "x".repeat(1000));
        let expect = |error: &Error| service.expect(error, ANSWER_LIMIT, kind, words, &cause);
        let store = service.store();
        expect(&store.put_if_absent(SMALL, Bytes::from_static(b"contents")).await.unwrap_err());
        expect(&store.get(PACK, ByteRange::Last(5)).await.unwrap_err());
        expect(&store.list("packs/", None).await.unwrap_err());
        expect(&store.delete(SMALL).await.unwrap_err());
    }
}

fn entry(key: &str) -> String {
    format!(
        "<Contents><Key>{key}</Key><LastModified>2026-11-21T12:00:00.000Z</LastModified><ETag>&quot;{}&quot;</ETag>\
         <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>5</Size>\
         <StorageClass>STANDARD</StorageClass><Owner><ID>{}</ID><DisplayName>{}</DisplayName></Owner><RestoreStatus>\
         <IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents>",
        "0".repeat(32),
        "0".repeat(64),
        "&quot;".repeat(64)
    )
}

/// 1000 names as long as S3 lets them be, of which each byte takes as many as it may, and one that is ours.
#[tokio::test]
async fn the_longest_honest_listing_is_read() {
    let key = format!("x/packs/{}", "&quot;".repeat(1024 - "x/packs/".len()));
    let text = format!(
        "<ListBucketResult><KeyCount>1000</KeyCount><IsTruncated>false</IsTruncated>{}{}</ListBucketResult>",
        entry(&key).repeat(999),
        entry("x/packs/aa/x")
    );
    assert!(text.len() > LISTING_LIMIT / 4 * 3, "{}", text.len());
    let page = Service::once(200, text).store().list("packs/", None).await.unwrap();
    let [object] = &page.objects[..] else { panic!("{:?}", page.objects) };
    assert_eq!((object.name.as_str(), object.size), (PACK, 5));
}

/// An object has the length that was asked for or promised, which may be more than any other answer has.
#[tokio::test]
async fn a_get_takes_what_was_promised_and_no_more() {
    let length = LISTING_LIMIT + 1;
    let service = Service::once(200, vec![7; length]).with("content-length", length);
    assert_eq!(service.store().get(PACK, ByteRange::All).await.unwrap().len(), length);

    let part = || Service::endless(206, "x").with("content-range", "bytes 5-9/10");
    for (service, range) in [
        (Service::endless(200, "x").with("content-length", 5), ByteRange::All),
        (part(), ByteRange::Slice { offset: 5, length: 5 }),
        (part(), ByteRange::Last(5)),
    ] {
        let error = service.store().get(PACK, range).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("longer than the 5 bytes it promised"), "{error}");
        assert_eq!(service.sent.load(Ordering::Relaxed), 6, "{range:?}");
    }
}

#[tokio::test]
async fn credentials_are_no_long_answer() {
    let service = Service::endless(200, "x".repeat(1000));
    let connector = ShortAnswers(SharedHttpConnector::new(service.clone()));
    let response = connector.call(HttpRequest::new(SdkBody::empty())).await.unwrap();
    let error = ByteStream::new(response.into_body()).collect().await.unwrap_err();
    assert!(TooMuch::of(&error).is_some(), "{error}");
    let sent = service.sent.load(Ordering::Relaxed);
    assert!(sent <= ANSWER_LIMIT + 1000, "{sent} bytes");
}

/// Whatever the pieces, what is handed on is what came.
#[tokio::test]
async fn pieces_are_put_together() {
    let service = Service { times: 1000, ..Service::once(200, "<a>") };
    let connector = ShortAnswers(SharedHttpConnector::new(service));
    let response = connector.call(HttpRequest::new(SdkBody::empty())).await.unwrap();
    let whole = ByteStream::new(response.into_body()).collect().await.unwrap().into_bytes();
    assert_eq!(whole, "<a>".repeat(1000));
}

#[tokio::test]
async fn an_answer_that_trickles_is_given_up() {
    let store = store_of(client_over(SharedHttpConnector::new(Trickling)), Duration::from_millis(100));
    let error = store.get(PACK, ByteRange::Slice { offset: 0, length: 5 }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("was not there after 0.5 s"), "{error}");
    assert!(Slow::is_behind(&error), "{error:?}");
}
