//! Errors of the SDK in plain words. Its chain speaks of its own layers first, and only then of what happened.

use std::error::Error as StdError;
use std::fmt;

/// Words that name a layer of the SDK or of the client below it, and say nothing of the cause.
const LAYERS: &[&str] = &[
    "dispatch failure",
    "io error",
    "other",
    "user error",
    "timeout",
    "response error",
    "service error",
    "request has timed out",
    "failed to construct request",
    "client error (connect)",
    "client error (sendrequest)",
    "tcp connect error",
    "streaming error",
    "the credential provider was not enabled",
    "an error occurred while loading credentials",
    "the credentials provider was not properly configured",
    "unexpected credentials error",
];

/// What begins the list of a chain of sources of credentials.
const ATTEMPTS: &str = "no credentials found in chain. Attempted:";

/// A cause as text: the SDK's types are not ours to give away, and their debug form is not for people.
#[derive(Debug)]
pub(super) struct Plain(String);

impl Plain {
    pub(super) fn of(err: &(dyn StdError + 'static)) -> Self {
        let chain: Vec<String> =
            std::iter::successors(Some(err), |&err| err.source()).map(|err| tidy(&err.to_string())).collect();
        let mut words: Vec<&str> = Vec::new();
        for text in &chain {
            let known = words.last().is_some_and(|last| last.contains(text.as_str()));
            if known || text.is_empty() || LAYERS.contains(&text.to_lowercase().as_str()) {
                continue;
            }
            words.push(text);
        }
        // Where all are layers, the innermost one is nearest to the cause.
        let words =
            if words.is_empty() { chain.last().cloned().unwrap_or_default() } else { words.join(": ") };
        Self(words)
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Plain {}

/// One line, without numbers of the operating system, and without layers inside of a list.
fn tidy(text: &str) -> String {
    let text = text.strip_prefix(ATTEMPTS).unwrap_or(text).trim();
    let lines = text.lines().map(|line| {
        let line = line.trim().replace("the credential provider was not enabled: ", "");
        match line.rfind(" (os error ") {
            Some(at) if line.ends_with(')') => line[..at].to_owned(),
            _ => line,
        }
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::s3::testing::chain;

    fn plain(texts: &[&'static str]) -> String {
        Plain::of(&chain(texts)).to_string()
    }

    #[test]
    fn layers_are_left_out_and_causes_stay() {
        for (chain, words) in [
            (
                &[
                    "dispatch failure",
                    "io error",
                    "client error (Connect)",
                    "tcp connect error",
                    "Connection refused (os error 111)",
                ][..],
                "Connection refused",
            ),
            (
                &[
                    "dispatch failure",
                    "io error",
                    "client error (Connect)",
                    "dns error",
                    "failed to lookup address information: Name or service not known",
                ],
                "dns error: failed to lookup address information: Name or service not known",
            ),
            (
                &["dispatch failure", "io error", "invalid peer certificate: UnknownIssuer", "UnknownIssuer"],
                "invalid peer certificate: UnknownIssuer",
            ),
            (
                &[
                    "dispatch failure",
                    "other",
                    "the credential provider was not enabled",
                    "no credentials found in chain. Attempted:\n  Environment: the credential provider was not \
                     enabled: environment variable not set\n  Profile: No profiles were defined",
                ],
                "Environment: environment variable not set; Profile: No profiles were defined",
            ),
            (&["dispatch failure", "timeout"], "timeout"),
        ] {
            assert_eq!(plain(chain), words);
        }
    }
}
