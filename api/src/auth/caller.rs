//! The extractor that every handler behind authentication takes.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use domain::Report;
use uuid::Uuid;

use super::{TokenError, TokensError};
use crate::error::ApiError;
use crate::service::Service;

/// The user whose token came with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The `userid` claim.
    pub user_id: Uuid,
    /// The `admin` claim; false when there is none.
    pub admin: bool,
}

impl Caller {
    /// Users see their own reports; admins see all, those too that came as custom resources.
    pub fn may_see(&self, report: &Report) -> bool {
        self.admin || report.requested_by == Some(self.user_id)
    }
}

impl FromRequestParts<Service> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        let checked = match bearer(&parts.headers) {
            Ok(token) => service.tokens.check(token).await,
            Err(error) => Err(TokensError::Refused(error)),
        };
        match checked {
            Ok(caller) => {
                tracing::Span::current().record("user.id", tracing::field::display(caller.user_id));
                Ok(caller)
            }
            Err(TokensError::Refused(error)) => {
                service.metrics.token_refused(error);
                Err(ApiError::Unauthenticated(error))
            }
            Err(TokensError::KeysUnavailable) => Err(ApiError::KeysUnavailable),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(TokenError::Missing),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(TokenError::Repeated),
    };
    let text = value.to_str().map_err(|_| TokenError::NotBearer)?;
    let (scheme, token) = text.split_once(' ').ok_or(TokenError::NotBearer)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("Bearer") || token.is_empty() || token.contains(' ') {
        return Err(TokenError::NotBearer);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bearer("Bearer a.b.c", Ok("a.b.c"))]
    #[case::scheme_in_any_case("bEARER a.b.c", Ok("a.b.c"))]
    #[case::scheme_alone("Bearer", Err(TokenError::NotBearer))]
    #[case::nothing_behind_it("Bearer  ", Err(TokenError::NotBearer))]
    #[case::two_tokens("Bearer a.b.c d.e.f", Err(TokenError::NotBearer))]
    #[case::basic("Basic dXNlcjpwYXNz", Err(TokenError::NotBearer))]
    #[case::token_alone("a.b.c", Err(TokenError::NotBearer))]
    #[case::empty("", Err(TokenError::NotBearer))]
    fn the_header_is_bearer_and_a_token(#[case] value: &str, #[case] token: Result<&str, TokenError>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        assert_eq!(bearer(&headers), token);
    }

    #[test]
    fn the_header_comes_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), Err(TokenError::Missing));
        headers.append(header::AUTHORIZATION, "Bearer a.b.c".parse().unwrap());
        headers.append(header::AUTHORIZATION, "Bearer d.e.f".parse().unwrap());
        assert_eq!(bearer(&headers), Err(TokenError::Repeated));
    }
}
