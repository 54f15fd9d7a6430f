//! How much of an answer is taken into memory.
//!
//! The SDK reads an answer to its end before it looks at it. The object that a get brings is the exception: this store
//! reads it itself, and never more than was promised. Every other answer has a bound here, and nothing beyond it is read.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, Metadata};
use aws_smithy_types::body::SdkBody;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use crate::limits::{ANSWER_LIMIT, ANSWER_STRETCH, ANSWER_TAGS, LISTING_LIMIT};

/// Gives each answer of S3 its bound.
#[derive(Debug)]
pub(super) struct BoundedAnswers;

impl Intercept for BoundedAnswers {
    fn name(&self) -> &'static str {
        "BoundedAnswers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let asked = config.load::<Metadata>().map(Metadata::name);
        let response = context.response_mut();
        match (asked, response.status().is_success()) {
            // The SDK does not read it.
            (Some("GetObject"), true) => {}
            (Some("ListObjectsV2"), true) => bound(response, LISTING_LIMIT),
            _ => bound(response, ANSWER_LIMIT),
        }
        Ok(())
    }
}

/// A way to whoever gives out credentials: all that they answer is short.
pub(super) fn short_answers(client: SharedHttpClient) -> SharedHttpClient {
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(ShortAnswers(client.http_connector(settings, components)))
    })
}

#[derive(Debug)]
struct ShortAnswers(SharedHttpConnector);

impl HttpConnector for ShortAnswers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            answer.await.map(|mut response| {
                bound(&mut response, ANSWER_LIMIT);
                response
            })
        })
    }
}

fn bound(response: &mut HttpResponse, most: usize) {
    let inner = response.take_body();
    let whole = Whole { inner, most, taken: BytesMut::new(), tags: 0, stretch: 0, ended: false };
    *response.body_mut() = SdkBody::from_body_1_x(whole);
}

/// More came than any service has to say.
#[derive(Debug)]
pub(super) struct TooMuch(String);

impl TooMuch {
    /// The one behind an error, if that is why it failed.
    pub(super) fn of<'e>(err: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        std::iter::successors(Some(err), |&err| err.source()).find_map(|err| err.downcast_ref())
    }
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for TooMuch {}

/// A body that is handed on in one piece once it has ended within its bounds: pieces of a byte each would take many times
/// their length.
struct Whole {
    inner: SdkBody,
    /// In bytes.
    most: usize,
    taken: BytesMut,
    tags: usize,
    /// Bytes since the last tag began.
    stretch: usize,
    ended: bool,
}

impl Whole {
    fn take(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        if bytes.len() > self.most - self.taken.len() {
            return Err(TooMuch(format!("the answer is longer than {} bytes", self.most)));
        }
        for byte in bytes {
            if *byte == b'<' {
                self.tags += 1;
                self.stretch = 0;
            } else {
                self.stretch += 1;
            }
            if self.tags > ANSWER_TAGS {
                return Err(TooMuch(format!("the answer has more than {ANSWER_TAGS} tags")));
            }
            if self.stretch > ANSWER_STRETCH {
                let what =
                    format!("the answer has more than {ANSWER_STRETCH} bytes from one tag to the next");
                return Err(TooMuch(what));
            }
        }
        self.taken.extend_from_slice(bytes);
        Ok(())
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !this.ended {
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                // What comes behind the data as headers says nothing that anybody here asks for.
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref()
                        && let Err(error) = this.take(bytes)
                    {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.ended = true,
            }
        }
        let whole = std::mem::take(&mut this.taken).freeze();
        Poll::Ready((!whole.is_empty()).then(|| Ok(Frame::data(whole))))
    }
}

#[cfg(test)]
mod tests;
