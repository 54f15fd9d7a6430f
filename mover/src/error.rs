//! The public error: a kind that decides what happens next, and words for people.
//!
//! | Kind | Tried again | Exit code |
//! |---|---|---|
//! | Invalid | no | 2 |
//! | NotFound | no | 10 |
//! | Conflict | no | 11 |
//! | Unavailable | yes, with a budget | 12 |
//! | Denied | no | 13 |
//! | Corrupt | no | 14 |
//! | NoSpace | no | 15 |
//! | Internal | no | 70 |
//! | Cancelled | no | 130 |

use std::fmt;

/// What sort of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for makes no sense: options, patterns, names.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// Something is in the way: exists already, is busy, was fenced.
    Conflict,
    /// It did not work now and may work later. Of a write: whether it happened is not known.
    Unavailable,
    /// Password, keys, credentials or permissions do not suffice.
    Denied,
    /// Stored bytes are not what they must be.
    Corrupt,
    /// Somebody asked to stop.
    Cancelled,
    /// A disk or a quota is full.
    NoSpace,
    /// The program contradicts itself.
    Internal,
}

/// An error with its kind, a message that names the thing and the place, and the next step where there is one.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        })*
    };
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    constructors! {
        /// Kind `Invalid`.
        invalid => Invalid;
        /// Kind `NotFound`.
        not_found => NotFound;
        /// Kind `Conflict`.
        conflict => Conflict;
        /// Kind `Unavailable`.
        unavailable => Unavailable;
        /// Kind `Denied`.
        denied => Denied;
        /// Kind `Corrupt`.
        corrupt => Corrupt;
        /// Kind `Cancelled`.
        cancelled => Cancelled;
        /// Kind `NoSpace`.
        no_space => NoSpace;
        /// Kind `Internal`.
        internal => Internal;
    }

    /// An error of the operating system; `what` says what was tried on which path.
    pub fn io(error: std::io::Error, what: impl Into<String>) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
            Io::AlreadyExists | Io::ResourceBusy | Io::DirectoryNotEmpty => ErrorKind::Conflict,
            Io::InvalidInput | Io::InvalidFilename | Io::NotADirectory | Io::IsADirectory => {
                ErrorKind::Invalid
            }
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, what).with_source(error)
    }

    /// Adds the next step.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says what was being done when it happened.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.message = format!("{}: {}", context.into(), self.0.message);
        self
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The next step, where there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
