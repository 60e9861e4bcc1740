//! Who may do what: the shared access key, and the tokens made from it.
//!
//! Shared access signatures: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas>.

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;

use crate::{clock::Moment, queue::path};

/// The key of the emulator's namespace, and whether Entra ID tokens are let in.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The name of the key.
    pub name: String,
    /// The key; its text is what signs, it is not base64-decoded.
    pub key: SecretString,
    /// Whether a JWT passes when it has not expired, whoever signed it.
    pub accept_jwt: bool,
    /// Whose JWTs pass.
    pub jwt_issuer: Option<JwtIssuer>,
}

/// Who issues Entra ID tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// The tokens' `iss`.
    pub issuer: String,
    /// The keys that they are signed with.
    pub keys: JwkSet,
}

/// The `aud` of Entra ID tokens for Service Bus, in every cloud and region; a final slash is usual too.
const JWT_AUDIENCES: [&str; 2] = ["https://servicebus.azure.net", "https://servicebus.azure.net/"];

/// Why a token is refused, in the words that go to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a token of a known form.
    #[error("MalformedToken: {0}")]
    Malformed(&'static str),
    /// Signed with another key.
    #[error("InvalidSignature: The token has an invalid signature.")]
    Signature,
    /// Its time is over.
    #[error("ExpiredToken: The token is expired.")]
    Expired,
    /// It is for something else.
    #[error("InvalidAudience: The token does not cover the audience that it was put for.")]
    Audience,
    /// A JWT, and those are not let in.
    #[error(
        "InvalidIssuer: This emulator takes no Entra ID tokens; start it with --jwt-issuer and --jwt-keys, or with \
         --accept-jwt to let them in unchecked."
    )]
    Jwt,
    /// A JWT of somebody else, or for something else.
    #[error("InvalidToken: The Entra ID token is not valid: {0}.")]
    Foreign(String),
}

impl Keys {
    /// Checks a token for an audience, and answers with the time until which it is good.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check(&self, token: &str, audience: &str, now: Moment) -> Result<Moment, Refused> {
        // Python says "jwt" for shared access signatures too, so only the text tells.
        let expires = match token.strip_prefix("SharedAccessSignature ") {
            Some(fields) => self.check_signature(fields, audience)?,
            None => self.check_jwt(token)?,
        };
        if expires <= now {
            Err(Refused::Expired)
        } else {
            Ok(expires)
        }
    }

    /// Checks a key name and key given at once, as SASL PLAIN does.
    pub fn check_plain(&self, name: &str, key: &str) -> bool {
        name == self.name && key == self.key.expose_secret()
    }

    fn check_signature(&self, fields: &str, audience: &str) -> Result<Moment, Refused> {
        let (mut resource, mut signature, mut expiry, mut key_name) = (None, None, None, None);
        for field in fields.split('&') {
            match field.split_once('=') {
                Some(("sr", value)) => resource = Some(value),
                Some(("sig", value)) => signature = Some(value),
                Some(("se", value)) => expiry = Some(value),
                Some(("skn", value)) => key_name = Some(value),
                _ => {}
            }
        }
        let resource = resource.ok_or(Refused::Malformed("sr is missing"))?;
        let signature = signature.ok_or(Refused::Malformed("sig is missing"))?;
        let expiry = expiry.ok_or(Refused::Malformed("se is missing"))?;
        let key_name = key_name.ok_or(Refused::Malformed("skn is missing"))?;

        let signature = BASE64_STANDARD
            .decode(decoded(signature))
            .map_err(|_| Refused::Malformed("sig is not percent-encoded base64"))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret().as_bytes())
            .map_err(|_| Refused::Signature)?;
        // Over the resource exactly as it was sent: Go writes %2f where Python and JavaScript write %2F.
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        if decoded(key_name) != self.name.as_bytes() || mac.verify_slice(&signature).is_err() {
            return Err(Refused::Signature);
        }
        if !covers(
            &path(&String::from_utf8_lossy(&decoded(resource))),
            &path(audience),
        ) {
            return Err(Refused::Audience);
        }
        let seconds: i64 = expiry
            .parse()
            .map_err(|_| Refused::Malformed("se is not a number of seconds"))?;
        Ok(Moment::from_millis(seconds.saturating_mul(1000)))
    }

    fn check_jwt(&self, token: &str) -> Result<Moment, Refused> {
        #[derive(Deserialize)]
        struct Claims {
            exp: i64,
        }
        const SHAPE: Refused =
            Refused::Malformed("neither a shared access signature nor a JWT with an exp claim");

        let claims = token.split('.').nth(1).ok_or(SHAPE)?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|_| SHAPE)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| SHAPE)?;
        match &self.jwt_issuer {
            Some(issuer) => issuer.check(token).map_err(Refused::Foreign)?,
            None if self.accept_jwt => {}
            None => return Err(Refused::Jwt),
        }
        Ok(Moment::from_millis(claims.exp.saturating_mul(1000)))
    }
}

impl JwtIssuer {
    /// Whether it signed the token, for Service Bus. The time is the caller's business.
    fn check(&self, token: &str) -> Result<(), String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        let key = header
            .kid
            .and_then(|id| self.keys.find(&id))
            .ok_or("no key of the issuer has signed it")?;
        let key = DecodingKey::from_jwk(key).map_err(|error| error.to_string())?;
        let mut rules = Validation::new(header.alg);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&JWT_AUDIENCES);
        rules.validate_exp = false;
        jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// Whether a right on one path is a right on another: on the same, on all below it, and the empty path
/// stands for the namespace.
pub fn covers(granted: &str, wanted: &str) -> bool {
    granted.is_empty()
        || wanted
            .strip_prefix(granted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: Moment = Moment::from_millis(1_700_000_000_000);
    const SOON: i64 = 1_700_000_060;

    fn keys() -> Keys {
        Keys {
            name: "Root".to_owned(),
            key: "c2VjcmV0".into(),
            accept_jwt: false,
            jwt_issuer: None,
        }
    }

    fn sas(resource: &str, key: &str, key_name: &str, expiry: i64) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let signature = signature
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={key_name}")
    }

    #[rstest]
    #[case::upper_case_escapes("sb%3A%2F%2Flocalhost%3A5672%2Fq")]
    #[case::lower_case_escapes("amqp%3a%2f%2flocalhost%3a5672%2fq")]
    #[case::namespace("sb%3A%2F%2Flocalhost")]
    fn a_signature_by_the_key_is_good_until_it_expires(#[case] resource: &str) {
        let token = sas(resource, "c2VjcmV0", "Root", SOON);

        assert_eq!(
            keys().check(&token, "sb://localhost/q/$management", NOW),
            Ok(Moment::from_millis(SOON * 1000))
        );
    }

    #[rstest]
    #[case::another_key(sas("sb%3A%2F%2Fh%2Fq", "b3RoZXI=", "Root", SOON), Refused::Signature)]
    #[case::another_key_name(sas("sb%3A%2F%2Fh%2Fq", "c2VjcmV0", "Send", SOON), Refused::Signature)]
    #[case::another_queue(sas("sb%3A%2F%2Fh%2Fother", "c2VjcmV0", "Root", SOON), Refused::Audience)]
    #[case::longer_name(sas("sb%3A%2F%2Fh%2Fq1", "c2VjcmV0", "Root", SOON), Refused::Audience)]
    #[case::expired(sas("sb%3A%2F%2Fh%2Fq", "c2VjcmV0", "Root", 1_700_000_000), Refused::Expired)]
    #[case::no_fields("SharedAccessSignature x".to_owned(), Refused::Malformed("sr is missing"))]
    #[case::jwt("e30.eyJleHAiOjQwMDAwMDAwMDB9.e30".to_owned(), Refused::Jwt)]
    fn a_bad_token_is_refused_with_its_reason(#[case] token: String, #[case] refused: Refused) {
        assert_eq!(keys().check(&token, "sb://h/q", NOW), Err(refused));
    }

    #[test]
    fn a_jwt_passes_when_they_are_let_in() {
        let keys = Keys {
            accept_jwt: true,
            ..keys()
        };

        let expires = keys.check("e30.eyJleHAiOjQwMDAwMDAwMDB9.e30", "sb://h/q", NOW);

        assert_eq!(expires, Ok(Moment::from_millis(4_000_000_000_000)));
    }
}
