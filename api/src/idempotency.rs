//! `Idempotency-Key`: the same key and parameters get the same answer, however often and however
//! concurrently they are sent.
//!
//! <https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07>

use axum::extract::OptionalFromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
use domain::Parameters;
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::service::Service;

/// The header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in characters.
const KEY_MAX_LEN: usize = 255;

/// A key, unique to one request of one user. A key in double quotes (the draft's form) and the same
/// key without them are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let text = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let fits = (1..=KEY_MAX_LEN).contains(&text.len()) && !text.trim().is_empty();
        (printable && fits).then(|| Self(text.to_owned()))
    }

    /// The key as text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl OptionalFromRequestParts<Service> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Service) -> Result<Option<Self>, ApiError> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => match Self::parse(value.as_bytes()) {
                Some(key) => Ok(Some(key)),
                None => Err(ApiError::InvalidIdempotencyKey),
            },
            (Some(_), Some(_)) => Err(ApiError::InvalidIdempotencyKey),
        }
    }
}

/// What two requests with one key must have in common: the parameters as they are understood, so
/// that `{}` and the spelled-out defaults are the same. The form below must not change: keys outlive
/// an upgrade.
pub fn fingerprint(parameters: &Parameters) -> domain::Sha256 {
    let Parameters {
        from,
        to,
        genre,
        min_ratings,
        limit,
        prior_weight,
        compression,
        spreadsheet_safe,
    } = parameters;
    let canonical = serde_json::json!([
        from,
        to,
        genre,
        min_ratings,
        limit,
        prior_weight,
        compression,
        spreadsheet_safe
    ]);
    domain::Sha256::new(Sha256::digest(canonical.to_string()).into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bare(
        b"8e03978e-40d5-43e8-bc93-6894a57f9324",
        "8e03978e-40d5-43e8-bc93-6894a57f9324"
    )]
    #[case::quoted(b"\"monthly 2026-01\"", "monthly 2026-01")]
    #[case::padded(b" key\t", "key")]
    #[case::longest(&[b'k'; 255], &"k".repeat(255))]
    fn a_key_is_printable_text(#[case] value: &[u8], #[case] key: &str) {
        assert_eq!(IdempotencyKey::parse(value), Some(IdempotencyKey(key.to_owned())));
    }

    #[rstest]
    #[case::empty(b"")]
    #[case::blank(b"   ")]
    #[case::empty_in_quotes(b"\"\"")]
    #[case::too_long(&[b'k'; 256])]
    #[case::control_character(b"a\tb")]
    #[case::beyond_ascii("schlüssel".as_bytes())]
    #[case::not_utf_8(b"\xff")]
    fn anything_else_is_no_key(#[case] value: &[u8]) {
        assert_eq!(IdempotencyKey::parse(value), None);
    }

    #[test]
    fn spelled_out_defaults_are_the_same_request() {
        let spelled_out =
            Parameters::from_json(&serde_json::json!({"minRatings": 1, "limit": null})).unwrap();
        let other = Parameters::from_json(&serde_json::json!({"minRatings": 2})).unwrap();

        assert_eq!(fingerprint(&spelled_out), fingerprint(&Parameters::default()));
        assert_ne!(fingerprint(&other), fingerprint(&Parameters::default()));
    }
}
