//! What a service answered, kept as the source of an error: for people, and for the layers that slow down.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// An answer that was not a success.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceReply {
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl ServiceReply {
    /// The answer behind an error, if there was one.
    pub(crate) fn of(err: &Error) -> Option<&Self> {
        std::error::Error::source(err)?.downcast_ref()
    }

    /// Whether the service says that it gets too much.
    pub(crate) fn is_overload(&self) -> bool {
        matches!(self.status, 429 | 503)
    }
}

/// An answer that came, and too slowly: fewer requests at once may get theirs in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow;

impl Slow {
    /// Whether that is behind an error.
    pub(crate) fn is_behind(err: &Error) -> bool {
        std::error::Error::source(err).is_some_and(|source| source.is::<Self>())
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the service or the way to it is too slow for as many requests at once")
    }
}

impl std::error::Error for Slow {}

impl fmt::Display for ServiceReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answered {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServiceReply {}
