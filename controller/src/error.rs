//! What can go wrong, and who can put it right.

use carrack_controller_api::reason;

/// A failure of the controller's own work; the request is looked at again after a while.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or did not answer.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// What it answered.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object lacks something that the API server promises.
    #[error("{0}")]
    Unexpected(String),
}

/// The outcome of the controller's own work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A request to the API server failed.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    /// Whether somebody else was quicker.
    pub fn is_conflict(&self) -> bool {
        let Self::Api { source, .. } = self else { return false };
        matches!(&**source, kube::Error::Api(status) if status.code == 409)
    }

    /// Whether the object is gone.
    pub fn is_absence(&self) -> bool {
        let Self::Api { source, .. } = self else { return false };
        matches!(&**source, kube::Error::Api(status) if status.code == 404)
    }

    /// What the API server refused, in words: rights, pod security, quotas, policies. Waiting does not change it, a person
    /// does.
    pub fn refusal(&self) -> Option<String> {
        let Self::Api { what, source } = self else { return None };
        let kube::Error::Api(status) = &**source else { return None };
        (status.code == 403 || status.code == 422).then(|| format!("{what}: {}", status.message))
    }
}

/// What a person must put right before a request can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// One word: a constant of [`reason`].
    pub reason: &'static str,
    /// What is wrong, where, and the next step.
    pub message: String,
    /// Whether waiting may help: something that is missing may still come.
    pub may_pass: bool,
}

impl Obstacle {
    /// Waiting may help.
    pub fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), may_pass: true }
    }

    /// Waiting does not help.
    pub fn lasting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), may_pass: false }
    }

    /// A field says something that cannot be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::lasting(reason::INVALID, message)
    }
}
