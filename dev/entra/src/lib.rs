//! A stand-in of Entra ID's token endpoint for tests of workload identity: it checks the token of a service
//! account as Entra ID checks it against a federated credential, issues short-lived access tokens, counts them,
//! and can be told to refuse, to be away or to be slow.
//!
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential>.
//! What it does not have: tenants, users, consent, roles. The tokens' claims are those that Azurite looks at.

mod endpoint;
mod federation;
mod keys;
mod tls;

pub use endpoint::{Entra, Fault, Issued, Setup};
pub use federation::{AUDIENCE, Federation};
pub use keys::SigningKey;
pub use tls::{Front, Speaks, Tls};
