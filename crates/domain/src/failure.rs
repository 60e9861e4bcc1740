//! Why a report failed, in words that a program can match and a person can act on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The end of a report that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The closed word for it.
    pub reason: FailureReason,
    /// What was wrong and what to do, in a sentence or two. Never a secret.
    pub message: String,
}

impl Failure {
    /// A failure with the reason's own text and, behind it, what was seen this time.
    pub fn new(reason: FailureReason, detail: &str) -> Self {
        let message = match detail.trim() {
            "" => reason.advice().to_owned(),
            detail => format!("{} ({detail})", reason.advice()),
        };
        Self { reason, message }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, retryable: $retryable:literal, $advice:literal;)+) => {
        /// The closed list of reasons. The word is the same in SQL, REST, conditions, Events and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum FailureReason {
            $($(#[$doc])* $name,)+
        }

        impl FailureReason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The CamelCase word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What happened and what to do about it.
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)+
                }
            }

            /// Whether asking for the same report again can be expected to succeed without a change
            /// to the request or to the installation.
            pub const fn retryable(self) -> bool {
                match self {
                    $(Self::$name => $retryable,)+
                }
            }
        }
    };
}

reasons! {
    /// Its owner asked for it to stop.
    Cancelled, retryable: true,
        "The report was cancelled before it was finished. Request a new one if it is still wanted.";
    /// The catalogue could not be read in any attempt.
    CatalogUnavailable, retryable: true,
        "The catalogue database could not be read. Check that it is reachable from the exporter, then request the report again.";
    /// The catalogue refuses the exporter for good: a missing table or permission.
    CatalogRejected, retryable: false,
        "The catalogue database refused the query. Check that the music-albums tables exist and that the exporter's role may SELECT from them.";
    /// The Job ran longer than the report's `activeDeadlineSeconds`.
    DeadlineExceeded, retryable: true,
        "The export did not finish within activeDeadlineSeconds. Request the report again with a longer deadline or a narrower window.";
    /// The custom resource was deleted before the report was finished.
    Deleted, retryable: true,
        "The PopularityReport was deleted before the report was finished. Request a new one if it is still wanted.";
    /// The exporter failed in a way that it could not name, in every attempt.
    ExporterFailed, retryable: true,
        "The exporter failed in every attempt. Read the Pod's log, then request the report again.";
    /// The exporter's container went over its memory limit.
    ExporterOutOfMemory, retryable: false,
        "The exporter ran out of memory. Raise the exporter's memory limit, then request the report again.";
    /// The catalogue holds something that the report's schema cannot express.
    InvalidData, retryable: false,
        "The catalogue holds data that the report cannot express. Correct the data, then request the report again.";
    /// The stored parameters are not valid for the exporter that read them.
    InvalidParameters, retryable: false,
        "The report's parameters are not valid. Correct them and request a new report.";
    /// The Job was deleted by a person before it ended.
    JobDeleted, retryable: true,
        "The exporter Job was deleted before it ended. Request the report again.";
    /// The API server refuses the Job itself.
    JobRejected, retryable: false,
        "The cluster refused the exporter Job. Check the operator's exporter settings, quotas and admission policies, then request the report again.";
    /// Blob storage refuses the exporter for good: container, permission or account.
    StorageRejected, retryable: false,
        "Blob storage refused the file. Check that the container exists and that the exporter may write to it, then request the report again.";
    /// Blob storage could not be reached in any attempt.
    StorageUnavailable, retryable: true,
        "Blob storage could not be reached. Check the account's endpoint and network, then request the report again.";
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is none of [`FailureReason`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a failure reason")]
pub struct UnknownReason(pub String);

impl FromStr for FailureReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_word() {
        for reason in FailureReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
    }

    #[test]
    fn every_reason_says_what_to_do() {
        for reason in FailureReason::ALL {
            let sentences = reason.advice().matches(". ").count() + 1;
            assert_eq!(
                sentences, 2,
                "{reason}: one sentence for what happened, one for what to do"
            );
        }
    }

    #[test]
    fn what_was_seen_stands_behind_the_advice() {
        let failure = Failure::new(FailureReason::StorageRejected, " 403 AuthorizationFailure ");
        assert!(
            failure
                .message
                .starts_with(FailureReason::StorageRejected.advice())
        );
        assert!(failure.message.ends_with("(403 AuthorizationFailure)"));
    }
}
