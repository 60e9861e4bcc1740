//! Federated credentials: whose service account may be which identity.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use uuid::Uuid;

/// The audience of service accounts' tokens for Entra ID.
/// <https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust-user-assigned-managed-identity>
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// A managed identity with its federated credential.
#[derive(Clone, Debug)]
pub struct Federation {
    /// The identity's client id.
    pub client_id: Uuid,
    /// The cluster that issues the service account's tokens.
    pub issuer: String,
    /// The service account, `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
}

/// A refusal in Entra ID's words:
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: &'static str,
    pub(crate) code: u32,
    pub(crate) text: String,
}

impl Federation {
    /// Whether an assertion is this identity's, by the cluster's keys.
    pub(crate) fn check(&self, assertion: &str, keys: &JwkSet) -> Result<(), Refusal> {
        #[derive(Deserialize)]
        struct Claims {
            sub: String,
        }
        let invalid = |code, text: String| Refusal {
            error: "invalid_client",
            code,
            text,
        };
        let unsigned = |error: jsonwebtoken::errors::Error| {
            invalid(
                50027,
                format!("The presented assertion is no valid JWT: {error}."),
            )
        };
        let header = jsonwebtoken::decode_header(assertion).map_err(unsigned)?;
        let key = header.kid.and_then(|id| keys.find(&id)).ok_or_else(|| {
            invalid(
                7_000_272,
                "The assertion's key is not among the issuer's.".to_owned(),
            )
        })?;
        let key = DecodingKey::from_jwk(key).map_err(unsigned)?;
        let mut rules = Validation::new(header.alg);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        rules.leeway = 0;
        let claims = jsonwebtoken::decode::<Claims>(assertion, &key, &rules)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                    invalid(700_024, "The client assertion is not within its valid time range.".to_owned())
                }
                jsonwebtoken::errors::ErrorKind::InvalidAudience => invalid(
                    700_212,
                    format!("No matching federated identity record found for the assertion's audience; it must be {AUDIENCE}."),
                ),
                jsonwebtoken::errors::ErrorKind::InvalidIssuer => invalid(
                    700_211,
                    "No matching federated identity record found for the assertion's issuer.".to_owned(),
                ),
                _ => unsigned(error),
            })?
            .claims;
        if claims.sub == self.subject {
            Ok(())
        } else {
            Err(invalid(
                700_213,
                format!(
                    "No matching federated identity record found for presented assertion subject '{}'.",
                    claims.sub
                ),
            ))
        }
    }
}
