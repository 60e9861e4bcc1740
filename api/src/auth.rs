//! Who asks: bearer tokens (RFC 6750) that are JSON Web Tokens (RFC 7519).

mod caller;
mod claims;
mod jwks;
mod tokens;

use axum::http::HeaderValue;

pub use caller::Caller;
pub use tokens::{Tokens, TokensConfigError, TokensError};

/// What is wrong with a token. The text tells its owner what to do, and nothing of the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// There is no `Authorization` header.
    #[error("send the header Authorization: Bearer <token>")]
    Missing,
    /// The header is there twice.
    #[error("send the Authorization header once")]
    Repeated,
    /// Another scheme, or no token behind it.
    #[error("the Authorization header must be Bearer, one space, and the token")]
    NotBearer,
    /// Not three base64url parts of which the first two are JSON objects.
    #[error("the token is not a signed JSON Web Token (three base64url parts)")]
    Malformed,
    /// `none`, or one for which no key is configured.
    #[error("the token's algorithm (alg) is not accepted")]
    Algorithm,
    /// The header demands an extension.
    #[error("the token's header demands an extension (crit) that is not understood")]
    Critical,
    /// The issuer's key set has no such key.
    #[error("the token's key (kid) is not one of the issuer's signing keys")]
    UnknownKey,
    /// Signed with another key, or changed afterwards.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is past.
    #[error("the token has expired (exp); get a new one")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// `exp`, `iss` or `aud` is missing or of the wrong type.
    #[error("the token lacks a usable {0} claim")]
    Claim(&'static str),
    /// Another `iss`.
    #[error("the token's issuer (iss) is not the expected one")]
    Issuer,
    /// Another `aud`.
    #[error("the token's audience (aud) is not this API")]
    Audience,
    /// `userid` is missing or no UUID.
    #[error("the token's userid claim is missing or is not a UUID")]
    UserId,
    /// `admin` is there and neither true nor false.
    #[error("the token's admin claim is neither true nor false")]
    Admin,
}

impl TokenError {
    /// The word for it, for the metric's label.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::NotBearer => "not_bearer",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Claim(_) => "claim",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::UserId => "user_id",
            Self::Admin => "admin",
        }
    }

    /// The `WWW-Authenticate` header (RFC 6750, section 3): without an error code when there was
    /// nothing to be wrong.
    pub fn challenge(self) -> HeaderValue {
        let error = match self {
            Self::Missing => return HeaderValue::from_static("Bearer"),
            Self::Repeated | Self::NotBearer => "invalid_request",
            _ => "invalid_token",
        };
        HeaderValue::try_from(format!(r#"Bearer error="{error}", error_description="{self}""#))
            .unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}
