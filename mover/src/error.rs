//! The one error type of the engine.
//!
//! Callers decide by [`ErrorKind`]; people read the message (which names the thing and the place), the hint
//! (the next step) and the chain of sources. `Display` prints the message alone, so that a printer of error
//! chains does not repeat itself.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::panic::Location;

type Source = Box<dyn StdError + Send + Sync>;

/// The result of everything in the engine that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong: an option, a name, a setting.
    Invalid,
    /// The thing asked for does not exist.
    NotFound,
    /// Somebody else has decided otherwise in the meantime.
    Conflict,
    /// The other side does not answer, or its answer was lost: the effect is unclear.
    Unavailable,
    /// Credentials or permissions do not suffice.
    Denied,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The operation was stopped on request.
    Cancelled,
    /// A disk or a quota is full.
    NoSpace,
    /// Not all could be done, and all or nothing was asked for.
    Incomplete,
    /// An invariant of the engine does not hold.
    Internal,
}

/// An invariant that does not hold, in words that stand in the program itself: nothing of it comes from a user, so
/// that it can be shown to anybody.
#[derive(Debug, Clone, Copy)]
pub struct Contradiction {
    /// What is wrong.
    pub what: &'static str,
    /// Where the program found that.
    pub place: &'static Location<'static>,
}

/// An error with its kind, message, next step and cause.
#[derive(Debug)]
pub struct Error(Box<Inner>);

// Boxed, so that a `Result` on a hot path stays small.
#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Source>,
    contradiction: Option<Contradiction>,
}

impl Error {
    /// An error of `kind`; the message names the thing and the place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (hint, source, contradiction) = (None, None, None);
        Self(Box::new(Inner { kind, message: message.into(), hint, source, contradiction }))
    }

    /// Adds the next step a person can take.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the underlying cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Prefixes the message with what was being done: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.message = format!("{}: {}", context.into(), self.0.message);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The next step a person can take, if one is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The same error for one more who meets it: its causes are in the message then.
    #[must_use]
    pub fn again(&self) -> Self {
        let (kind, message, hint) = (self.kind(), self.in_one_line(), self.0.hint.clone());
        Self(Box::new(Inner { kind, message, hint, source: None, contradiction: self.0.contradiction }))
    }

    /// Which invariant does not hold, if it is that.
    pub fn contradiction(&self) -> Option<Contradiction> {
        self.0.contradiction
    }

    /// Whether it speaks of the run, and not of what was looked at: a defect of the program, or a request to stop. Who passes
    /// over what cannot be read hands it on all the same.
    pub fn is_of_the_run(&self) -> bool {
        matches!(self.kind(), ErrorKind::Internal | ErrorKind::Cancelled)
    }

    /// Whether a disk could not read what it holds: asked again, it says so again.
    pub fn is_of_broken_disk(&self) -> bool {
        let source = std::error::Error::source(self);
        let errno = source.and_then(|source| source.downcast_ref::<std::io::Error>()?.raw_os_error());
        errno == Some(rustix::io::Errno::IO.raw_os_error())
    }

    /// The message and its causes in one line, for lists of problems.
    pub fn in_one_line(&self) -> String {
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// An error of kind [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// An error of kind [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// An error of kind [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// An error of kind [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// An error of kind [`ErrorKind::Denied`].
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// An error of kind [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// An error of kind [`ErrorKind::Cancelled`].
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Cancelled, message)
    }

    /// An error of kind [`ErrorKind::NoSpace`].
    pub fn no_space(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NoSpace, message)
    }

    /// An error of kind [`ErrorKind::Internal`]. What is wrong is a text of the program, and is sent with a report: what
    /// else helps, and may be a user's, goes into the context or the source.
    #[track_caller]
    pub fn internal(what: &'static str) -> Self {
        let mut error = Self::new(ErrorKind::Internal, what);
        error.0.contradiction = Some(Contradiction { what, place: Location::caller() });
        error
    }

    /// The error of a system call; `what` names the action and the path.
    pub fn io(err: io::Error, what: impl Into<String>) -> Self {
        Self::new(kind_of_io(err.kind()), what).with_source(err)
    }
}

fn kind_of_io(kind: io::ErrorKind) -> ErrorKind {
    use io::ErrorKind as Io;
    match kind {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::AlreadyExists => ErrorKind::Conflict,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
        Io::InvalidInput
        | Io::InvalidFilename
        | Io::NotADirectory
        | Io::IsADirectory
        | Io::Unsupported
        | Io::FileTooLarge => ErrorKind::Invalid,
        Io::UnexpectedEof | Io::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests;
