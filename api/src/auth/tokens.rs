//! Checks a token, from its header to its claims.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::claims::Claims;
use super::jwks::{Jwks, JwksError, KeyLookup};
use super::{Caller, TokenError};
use crate::config::AuthArgs;

/// RFC 7518, section 3.2: a key for HS256 has at least as many bits as the hash.
const HS256_KEY_MIN: usize = 32;
/// How far the issuer's clock and ours may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// Knows whose tokens are believed.
pub struct Tokens {
    issuer: String,
    audience: String,
    shared: Option<DecodingKey>,
    published: Option<Jwks>,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokensError {
    /// The token is to blame.
    Refused(TokenError),
    /// The issuer's keys have never been had.
    KeysUnavailable,
}

impl From<TokenError> for TokensError {
    fn from(error: TokenError) -> Self {
        Self::Refused(error)
    }
}

/// Why tokens cannot be checked as configured.
#[derive(Debug, thiserror::Error)]
pub enum TokensConfigError {
    /// The shared key is short enough to be guessed.
    #[error("JWT_KEY must have at least {HS256_KEY_MIN} bytes")]
    ShortKey,
    /// The key set cannot be used.
    #[error("JWT_JWKS_URL cannot be used")]
    Jwks(#[from] JwksError),
}

/// The part of a token's header that decides which key is asked. `alg` is a text here, because the
/// library's own type knows no `none` and would call such a token malformed.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

impl Tokens {
    /// Reads the configuration; nothing is fetched yet.
    ///
    /// # Errors
    /// [`TokensConfigError`]
    pub fn new(args: &AuthArgs) -> Result<Self, TokensConfigError> {
        let shared = match &args.keys.jwt_key {
            None => None,
            Some(key) if key.expose_secret().len() < HS256_KEY_MIN => {
                return Err(TokensConfigError::ShortKey);
            }
            Some(key) => Some(DecodingKey::from_secret(key.expose_secret().as_bytes())),
        };
        let published = match &args.keys.jwt_jwks_url {
            None => None,
            Some(url) => Some(Jwks::new(url.clone(), args.jwt_jwks_refresh_seconds)?),
        };
        Ok(Self {
            issuer: args.jwt_issuer.clone(),
            audience: args.jwt_audience.clone(),
            shared,
            published,
        })
    }

    /// The caller whose token this is.
    ///
    /// # Errors
    /// [`TokensError`]
    pub async fn check(&self, token: &str) -> Result<Caller, TokensError> {
        let header = header(token)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical.into());
        }
        let (algorithm, key) = self.key(&header).await?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        Ok(claims.caller()?)
    }

    /// The key follows from the algorithm, and the algorithm from what is configured: a public key is
    /// never taken for a shared one.
    async fn key(&self, header: &Header) -> Result<(Algorithm, DecodingKey), TokensError> {
        let algorithm = match header.alg.as_str() {
            "HS256" => Algorithm::HS256,
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            _ => return Err(TokenError::Algorithm.into()),
        };
        let key = match (algorithm, &self.shared, &self.published) {
            (Algorithm::HS256, Some(shared), _) => shared.clone(),
            (Algorithm::RS256 | Algorithm::ES256, _, Some(published)) => {
                match published.key(header.kid.as_deref(), algorithm).await {
                    KeyLookup::Found(key) => key,
                    KeyLookup::Unknown => return Err(TokenError::UnknownKey.into()),
                    KeyLookup::Unavailable => return Err(TokensError::KeysUnavailable),
                }
            }
            _ => return Err(TokenError::Algorithm.into()),
        };
        Ok((algorithm, key))
    }
}

fn header(token: &str) -> Result<Header, TokenError> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let json = BASE64_URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            TokenError::Claim(match name.as_str() {
                "exp" => "exp",
                "nbf" => "nbf",
                "iss" => "iss",
                "aud" => "aud",
                _ => "registered",
            })
        }
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
            TokenError::Malformed
        }
        _ => TokenError::Signature,
    }
}
