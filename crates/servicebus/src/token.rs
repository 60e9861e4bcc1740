//! Tokens for claims-based security: shared access signatures and JSON web tokens.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::hmac::hmac_sha256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Cause, Error};
use crate::settings::Credential;

/// The scope of Entra ID tokens for Service Bus, in every cloud and region.
const SCOPE: &str = "https://servicebus.azure.net/.default";

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The earliest renewal before expiry; the Go SDK's (`internal/namespace.go`).
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(10 * 60);

/// The shortest pause before a renewal, so that a credential that hands out a token about to expire is not
/// asked without end.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// A token to put to `$cbs`.
#[derive(Debug)]
pub(crate) struct Token {
    pub text: SecretString,
    /// The `type` of the put-token request.
    pub kind: &'static str,
    pub expires_at: Option<Timestamp>,
    /// Whether asking again gives a token that is valid for longer.
    pub renewable: bool,
}

impl Credential {
    /// A token for `audience`; `now` and `sas_lifetime` matter for signatures only.
    pub(crate) async fn token(
        &self,
        audience: &str,
        now: Timestamp,
        sas_lifetime: Duration,
    ) -> Result<Token, Error> {
        match self {
            Self::SharedAccessKey { name, key } => {
                let expires_at = now
                    .checked_add(sas_lifetime)
                    // A signature tells its end in whole seconds.
                    .and_then(|at| Timestamp::from_second(at.as_second()))
                    .map_err(|error| get_token(Cause::Protocol(error.to_string())))?;
                Ok(Token {
                    text: sign(audience, name, key, expires_at.as_second())
                        .map_err(|error| get_token(Cause::Credential(Arc::new(error))))?,
                    kind: "servicebus.windows.net:sastoken",
                    expires_at: Some(expires_at),
                    renewable: true,
                })
            }
            Self::SharedAccessSignature(signature) => Ok(Token {
                text: signature.clone(),
                kind: "servicebus.windows.net:sastoken",
                expires_at: expiry(signature),
                renewable: false,
            }),
            Self::Token(credential) => json_web_token(credential.as_ref()).await,
        }
    }
}

async fn json_web_token(credential: &dyn TokenCredential) -> Result<Token, Error> {
    let token = credential
        .get_token(&[SCOPE], None)
        .await
        .map_err(|error| get_token(Cause::Credential(Arc::new(error))))?;
    Ok(Token {
        text: token.token.secret().into(),
        kind: "jwt",
        expires_at: Timestamp::from_second(token.expires_on.unix_timestamp()).ok(),
        renewable: true,
    })
}

fn get_token(source: Cause) -> Error {
    Error::GetToken { source }
}

/// A shared access signature for `resource`, valid until `expiry` (seconds since the epoch).
///
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas#generate-a-shared-access-signature-token>:
/// the key is used as text, not decoded.
fn sign(resource: &str, key_name: &str, key: &SecretString, expiry: i64) -> azure_core::Result<SecretString> {
    let resource = utf8_percent_encode(resource, RESERVED).to_string();
    // The SDK's function takes its key in base64.
    let key = Secret::new(STANDARD.encode(key.expose_secret()));
    let signature = hmac_sha256(&format!("{resource}\n{expiry}"), &key)?;
    let signature = utf8_percent_encode(&signature, RESERVED);
    let key_name = utf8_percent_encode(key_name, RESERVED);
    Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={key_name}").into())
}

/// The `se` of a shared access signature.
fn expiry(signature: &SecretString) -> Option<Timestamp> {
    let (_, fields) = signature.expose_secret().split_once(' ')?;
    let seconds = fields.split('&').find_map(|field| field.strip_prefix("se="))?;
    Timestamp::from_second(seconds.parse().ok()?).ok()
}

/// How long after `now` a token that expires at `expires_at` is to be renewed: ten minutes before the end,
/// or when a fifth of a shorter life is left.
pub(crate) fn renewal_delay(now: Timestamp, expires_at: Timestamp) -> Duration {
    let left = Duration::try_from(expires_at.duration_since(now)).unwrap_or_default();
    let margin = RENEW_BEFORE_EXPIRY.min(left / 5);
    left.saturating_sub(margin).max(SHORTEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Computed with Python's hmac, hashlib, base64 and urllib.parse.
    #[rstest]
    #[case::emulator(
        "sb://localhost/report-requests",
        "RootManageSharedAccessKey",
        "SAS_KEY_VALUE",
        1_700_000_000,
        "SharedAccessSignature sr=sb%3A%2F%2Flocalhost%2Freport-requests&sig=JWTKHu4GOsesBmUCfG1nyRYVWZOv7KF7fz572sw86Ck%3D&se=1700000000&skn=RootManageSharedAccessKey"
    )]
    #[case::key_in_base64_is_text(
        "sb://ns.servicebus.windows.net/queue/$DeadLetterQueue",
        "send listen",
        "q6pT+0/Zm3k=",
        1_893_456_000,
        "SharedAccessSignature sr=sb%3A%2F%2Fns.servicebus.windows.net%2Fqueue%2F%24DeadLetterQueue&sig=lrky%2Feofed%2BY%2BsxOjws%2B%2FXfDF0ai%2FgDsVytJOCF7YMU%3D&se=1893456000&skn=send%20listen"
    )]
    fn signature_equals_the_known_vector(
        #[case] resource: &str,
        #[case] name: &str,
        #[case] key: &str,
        #[case] expiry: i64,
        #[case] expected: &str,
    ) {
        let signed = sign(resource, name, &key.into(), expiry).unwrap();

        assert_eq!(signed.expose_secret(), expected);
    }

    #[test]
    fn expiry_is_read_from_a_ready_made_signature() {
        let signature = "SharedAccessSignature sr=a&sig=b&se=1700000000&skn=c".into();

        assert_eq!(
            expiry(&signature),
            Some(Timestamp::from_second(1_700_000_000).unwrap())
        );
    }

    #[tokio::test]
    async fn ready_made_signature_is_used_as_it_is_and_never_renewed() {
        let credential = Credential::SharedAccessSignature("SharedAccessSignature sr=a&se=9".into());

        let token = credential
            .token("sb://other/queue", Timestamp::UNIX_EPOCH, Duration::from_secs(60))
            .await
            .unwrap();

        assert_eq!(token.text.expose_secret(), "SharedAccessSignature sr=a&se=9");
        assert!(!token.renewable);
    }

    #[rstest]
    #[case::an_hour(3_600, 3_000_000)]
    #[case::a_day(86_400, 85_800_000)]
    #[case::ten_minutes(600, 480_000)]
    #[case::three_seconds(3, 2_400)]
    #[case::now(0, 500)]
    #[case::already_over(-10, 500)]
    fn renewal_comes_before_expiry(#[case] seconds_left: i64, #[case] expected_millis: u64) {
        let now = Timestamp::UNIX_EPOCH;
        let expires_at = Timestamp::from_second(seconds_left).unwrap();

        assert_eq!(
            renewal_delay(now, expires_at),
            Duration::from_millis(expected_millis)
        );
    }
}
