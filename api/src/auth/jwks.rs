//! An issuer's published keys (RFC 7517): fetched when first needed, kept, and looked at again when a
//! token names a key that is not among them, but not more often than the configuration allows.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use url::{Host, Url};

/// After this time the keys are fetched again, so that a key that the issuer took back does not go
/// on being believed.
const KEYS_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// The longest that one fetch may take; a caller waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The most bytes of a key set that are read.
const KEY_SET_MAX: usize = 256 * 1024;

/// A key set at a URL.
pub struct Jwks {
    url: Url,
    http: reqwest::Client,
    refresh_interval: Duration,
    keys: watch::Sender<Option<Arc<Fetched>>>,
    /// When it was last tried to fetch; held while fetching, so that one does it for all.
    tried_at: Mutex<Option<Instant>>,
}

struct Fetched {
    keys: JwkSet,
    at: Instant,
}

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Whoever is on the way could put in a key of their own.
    #[error("a key set must be fetched over https, or over http from this machine")]
    Insecure,
    /// No HTTP client.
    #[error("the HTTP client for key sets cannot be built")]
    Client(#[source] reqwest::Error),
}

/// What came of looking for a key.
pub enum KeyLookup {
    /// This one.
    Found(DecodingKey),
    /// The issuer has no such key.
    Unknown,
    /// The issuer's keys have never been had.
    Unavailable,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the key set cannot be fetched")]
    Fetch(#[source] reqwest::Error),
    #[error("the key set has more than {KEY_SET_MAX} bytes")]
    TooLarge,
    #[error("the key set is not a JSON Web Key Set")]
    Parse(#[source] serde_json::Error),
}

impl Jwks {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// [`JwksError`]
    pub fn new(url: Url, refresh_interval: Duration) -> Result<Self, JwksError> {
        let on_this_machine = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && on_this_machine) {
            return Err(JwksError::Insecure);
        }
        let http = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(JwksError::Client)?;
        Ok(Self {
            url,
            http,
            refresh_interval,
            keys: watch::Sender::new(None),
            tried_at: Mutex::new(None),
        })
    }

    /// The key with this id for this algorithm; without an id, the only one for the algorithm.
    pub async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> KeyLookup {
        let kept = self.keys.borrow().clone();
        let found = kept.as_ref().and_then(|kept| find(&kept.keys, kid, algorithm));
        match (kept, found) {
            (Some(kept), Some(key)) if kept.at.elapsed() < KEYS_MAX_AGE => KeyLookup::Found(key),
            (kept, _) => match self.refreshed(kept).await {
                None => KeyLookup::Unavailable,
                Some(fetched) => {
                    find(&fetched.keys, kid, algorithm).map_or(KeyLookup::Unknown, KeyLookup::Found)
                }
            },
        }
    }

    /// Fetches, unless somebody else did since `known` was read, or it was tried too short a while
    /// ago. When the issuer cannot be reached the keys that are there go on being used.
    async fn refreshed(&self, known: Option<Arc<Fetched>>) -> Option<Arc<Fetched>> {
        let mut tried_at = self.tried_at.lock().await;
        let newest = self.keys.borrow().clone();
        let changed = newest.as_ref().map(|keys| keys.at) != known.map(|keys| keys.at);
        let too_soon = tried_at.is_some_and(|at| at.elapsed() < self.refresh_interval);
        if changed || too_soon {
            return newest;
        }
        let fetched = self.fetch().await;
        *tried_at = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                let at = Instant::now();
                tracing::info!(url = %self.url, keys = keys.keys.len(), "fetched the token issuer's keys");
                self.keys.send_replace(Some(Arc::new(Fetched { keys, at })));
            }
            Err(error) => {
                tracing::warn!(
                    url = %self.url,
                    error = &error as &dyn std::error::Error,
                    "the token issuer's keys could not be fetched"
                );
            }
        }
        self.keys.borrow().clone()
    }

    async fn fetch(&self) -> Result<JwkSet, FetchError> {
        let mut answer = self
            .http
            .get(self.url.clone())
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(FetchError::Fetch)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(FetchError::Fetch)? {
            body.extend_from_slice(&chunk);
            if body.len() > KEY_SET_MAX {
                return Err(FetchError::TooLarge);
            }
        }
        serde_json::from_slice(&body).map_err(FetchError::Parse)
    }
}

fn find(keys: &JwkSet, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let mut fitting = keys.keys.iter().filter(|key| fits(key, algorithm));
    let key = match kid {
        Some(kid) => fitting.find(|key| key.common.key_id.as_deref() == Some(kid))?,
        None => {
            let only = fitting.next()?;
            if fitting.next().is_some() {
                return None;
            }
            only
        }
    };
    DecodingKey::from_jwk(key).ok()
}

/// Whether the issuer meant the key for signatures of this algorithm.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let (kind_fits, named) = match (algorithm, &key.algorithm) {
        (Algorithm::RS256, AlgorithmParameters::RSA(_)) => (true, KeyAlgorithm::RS256),
        (Algorithm::ES256, AlgorithmParameters::EllipticCurve(curve)) => {
            (curve.curve == EllipticCurve::P256, KeyAlgorithm::ES256)
        }
        _ => return false,
    };
    let for_signing = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let for_algorithm = key.common.key_algorithm.is_none_or(|meant| meant == named);
    kind_fits && for_signing && for_algorithm
}
