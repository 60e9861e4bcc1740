//! What can go wrong, and whether trying again can help.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::StatusCode;
use azure_core::http::headers::HeaderName;

/// A call that failed after all its retries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container cannot be made or seen.
    #[error("failed to ensure that container '{container}' exists")]
    EnsureContainer {
        /// The container.
        container: String,
        /// What came back.
        source: ServiceFailure,
    },
    /// A block was not taken.
    #[error("failed to upload block {index} of '{blob}'")]
    StageBlock {
        /// The blob.
        blob: String,
        /// The block's place, from 0.
        index: u32,
        /// What came back.
        source: ServiceFailure,
    },
    /// The blocks were not made a blob.
    #[error("failed to commit '{blob}'")]
    Commit {
        /// The blob.
        blob: String,
        /// What came back.
        source: ServiceFailure,
    },
    /// The writer was told to end while blocks were on their way, or one of them died.
    #[error("an upload of '{blob}' was broken off")]
    BrokenOff {
        /// The blob.
        blob: String,
    },
    /// More was written than a blob of so many blocks can hold.
    #[error("'{blob}' is larger than the {limit_bytes} bytes that its blocks can hold; use larger blocks")]
    TooLarge {
        /// The blob.
        blob: String,
        /// The most that would have fitted.
        limit_bytes: u64,
    },
    /// The blob's properties cannot be read.
    #[error("failed to read the facts of '{blob}'")]
    Facts {
        /// The blob.
        blob: String,
        /// What came back.
        source: ServiceFailure,
    },
    /// The blob cannot be read.
    #[error("failed to read '{blob}'")]
    Read {
        /// The blob.
        blob: String,
        /// What came back.
        source: ServiceFailure,
    },
    /// The blob cannot be deleted.
    #[error("failed to delete '{blob}'")]
    Delete {
        /// The blob.
        blob: String,
        /// What came back.
        source: ServiceFailure,
    },
    /// The container cannot be listed.
    #[error("failed to list container '{container}'")]
    List {
        /// The container.
        container: String,
        /// What came back.
        source: ServiceFailure,
    },
    /// No key to sign URLs with was given; the identity may lack Storage Blob Delegator.
    #[error("failed to get a user delegation key")]
    DelegationKey {
        /// What came back.
        source: ServiceFailure,
    },
    /// The URL cannot be signed with the key at hand.
    #[error("failed to sign a URL for '{blob}'")]
    Sign {
        /// The blob.
        blob: String,
        /// Why not.
        source: ServiceFailure,
    },
    /// A URL was asked for that lives too long, or ends beyond the calendar.
    #[error("a signed URL may live {} seconds at most", limit.as_secs())]
    UrlTtl {
        /// The most that it may live.
        limit: Duration,
    },
}

impl Error {
    /// What came back, where something did.
    pub fn failure(&self) -> Option<&ServiceFailure> {
        match self {
            Self::EnsureContainer { source, .. }
            | Self::StageBlock { source, .. }
            | Self::Commit { source, .. }
            | Self::Facts { source, .. }
            | Self::Read { source, .. }
            | Self::Delete { source, .. }
            | Self::List { source, .. }
            | Self::DelegationKey { source }
            | Self::Sign { source, .. } => Some(source),
            Self::BrokenOff { .. } | Self::TooLarge { .. } | Self::UrlTtl { .. } => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::BrokenOff { .. } => Refusal::Temporary,
            Self::TooLarge { .. } | Self::UrlTtl { .. } => Refusal::Permanent,
            other => other
                .failure()
                .map_or(Refusal::Temporary, ServiceFailure::refusal),
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It can: the network, a busy service, a race.
    Temporary,
    /// It cannot, until a person changes something: key, permission, container, request.
    Permanent,
}

/// What the service, or the way to it, said. Its text is one line and holds no secret.
#[derive(Debug)]
pub struct ServiceFailure(Kind);

#[derive(Debug)]
enum Kind {
    /// An answer with an error in it.
    Answer {
        status: u16,
        code: Option<String>,
        request_id: Option<String>,
    },
    /// No answer.
    Client(Box<azure_core::Error>),
    /// No answer within our own limit.
    TimedOut(Duration),
}

impl ServiceFailure {
    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self(Kind::TimedOut(limit))
    }

    /// The HTTP status, when there was an answer.
    pub fn status(&self) -> Option<u16> {
        match &self.0 {
            Kind::Answer { status, .. } => Some(*status),
            Kind::Client(_) | Kind::TimedOut(_) => None,
        }
    }

    /// The service's own code, such as `BlobAlreadyExists`.
    /// <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>
    pub fn code(&self) -> Option<&str> {
        match &self.0 {
            Kind::Answer { code, .. } => code.as_deref(),
            Kind::Client(_) | Kind::TimedOut(_) => None,
        }
    }

    /// What the source of tokens said, when there was no token to send.
    pub fn no_token(&self) -> Option<String> {
        let Kind::Client(error) = &self.0 else {
            return None;
        };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<azure_core::Error>()
                && matches!(error.kind(), ErrorKind::Credential)
            {
                return Some(one_line(&error.to_string()));
            }
            cause = error.source();
        }
        None
    }

    /// Whether trying again can help.
    pub fn refusal(&self) -> Refusal {
        match &self.0 {
            Kind::Answer { status, code, .. } => refusal_of(*status, code.as_deref()),
            Kind::TimedOut(_) => Refusal::Temporary,
            Kind::Client(error) => match error.kind() {
                // an identity that the token service refuses; when it is merely away there is no status
                ErrorKind::Credential => status_beneath(error)
                    .map_or(Refusal::Temporary, |status| refusal_of(u16::from(status), None)),
                ErrorKind::Connection | ErrorKind::Io => Refusal::Temporary,
                _ => Refusal::Permanent,
            },
        }
    }
}

fn refusal_of(status: u16, code: Option<&str>) -> Refusal {
    match (status, code) {
        // a block was damaged on its way
        (400, Some("Md5Mismatch" | "Crc64Mismatch")) => Refusal::Temporary,
        // another attempt's commit threw our blocks away
        (400, Some("InvalidBlockList")) => Refusal::Temporary,
        (408 | 412 | 429, _) | (500.., _) => Refusal::Temporary,
        (409, Some("BlockCountExceedsLimit")) => Refusal::Permanent,
        (409, _) => Refusal::Temporary,
        _ => Refusal::Permanent,
    }
}

fn status_beneath(error: &azure_core::Error) -> Option<StatusCode> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(status) = inner
            .downcast_ref::<azure_core::Error>()
            .and_then(azure_core::Error::http_status)
        {
            return Some(status);
        }
        cause = inner.source();
    }
    None
}

impl From<azure_core::Error> for ServiceFailure {
    fn from(error: azure_core::Error) -> Self {
        let ErrorKind::HttpResponse {
            status,
            error_code,
            raw_response,
        } = error.kind()
        else {
            return Self(Kind::Client(Box::new(error)));
        };
        let request_id = raw_response.as_ref().and_then(|response| {
            response
                .headers()
                .get_optional_str(&HeaderName::from_static("x-ms-request-id"))
                .map(str::to_owned)
        });
        Self(Kind::Answer {
            status: u16::from(*status),
            code: error_code.clone(),
            request_id,
        })
    }
}

impl fmt::Display for ServiceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Answer {
                status,
                code,
                request_id,
            } => {
                write!(f, "status {status}")?;
                if let Some(code) = code {
                    write!(f, " {code}")?;
                }
                if let Some(id) = request_id {
                    write!(f, ", request id {id}")?;
                }
                Ok(())
            }
            Kind::TimedOut(limit) => write!(f, "no answer within {} seconds", limit.as_secs()),
            Kind::Client(error) => write!(f, "{}", one_line(&error.to_string())),
        }
    }
}

impl std::error::Error for ServiceFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::Client(error) => error.source(),
            Kind::Answer { .. } | Kind::TimedOut(_) => None,
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::wrong_key(403, Some("AuthenticationFailed"), Refusal::Permanent)]
    #[case::no_permission(403, Some("AuthorizationPermissionMismatch"), Refusal::Permanent)]
    #[case::no_container(404, Some("ContainerNotFound"), Refusal::Permanent)]
    #[case::bad_request(400, Some("InvalidHeaderValue"), Refusal::Permanent)]
    #[case::damaged_block(400, Some("Crc64Mismatch"), Refusal::Temporary)]
    #[case::blocks_thrown_away(400, Some("InvalidBlockList"), Refusal::Temporary)]
    #[case::too_many_blocks(409, Some("BlockCountExceedsLimit"), Refusal::Permanent)]
    #[case::race(409, Some("BlobAlreadyExists"), Refusal::Temporary)]
    #[case::changed(412, Some("ConditionNotMet"), Refusal::Temporary)]
    #[case::busy(503, Some("ServerBusy"), Refusal::Temporary)]
    #[case::proxy_page(502, None, Refusal::Temporary)]
    #[case::throttled(429, None, Refusal::Temporary)]
    fn the_status_says_whether_trying_again_helps(
        #[case] status: u16,
        #[case] code: Option<&str>,
        #[case] refusal: Refusal,
    ) {
        assert_eq!(refusal_of(status, code), refusal);
    }
}
