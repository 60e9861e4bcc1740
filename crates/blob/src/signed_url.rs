//! A URL that lets whoever has it read one blob for a while.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use url::Url;

/// The longest life of a signed URL. The API's own limit is shorter; this one keeps a URL within the life
/// of the key that signs it.
pub const URL_TTL_MAX: Duration = Duration::from_secs(60 * 60);

/// A signed URL. Debug shows it without its query, which is the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    pub(crate) url: Url,
    pub(crate) expires_at: Timestamp,
}

impl SignedUrl {
    /// The whole URL, secret included: for the reader, never for a log.
    pub fn expose(&self) -> &str {
        self.url.as_str()
    }

    /// The moment from which the service refuses it; whole seconds.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        shown.set_query(None);
        f.debug_struct("SignedUrl")
            .field("url", &shown.as_str())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_signature() {
        let url = SignedUrl {
            url: Url::parse("https://acct.example/reports/r.csv?sig=hidden").unwrap(),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        assert!(!format!("{url:?}").contains("hidden"));
    }
}
