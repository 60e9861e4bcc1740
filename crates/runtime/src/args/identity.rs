use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use url::Url;

/// The Pod's workload identity. On AKS its webhook sets these variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Workload identity")]
pub struct IdentityArgs {
    /// Client id of the managed identity.
    #[arg(long, env = "AZURE_CLIENT_ID", value_name = "UUID")]
    pub azure_client_id: Option<String>,

    /// Its tenant.
    #[arg(long, env = "AZURE_TENANT_ID", value_name = "UUID")]
    pub azure_tenant_id: Option<String>,

    /// The file with the service account's token, read again for every request.
    #[arg(long, env = "AZURE_FEDERATED_TOKEN_FILE", value_name = "PATH")]
    pub azure_federated_token_file: Option<PathBuf>,

    /// The token service, an https URL. Default: https://login.microsoftonline.com.
    #[arg(long, env = "AZURE_AUTHORITY_HOST", value_name = "URL")]
    pub azure_authority_host: Option<Url>,
}

impl IdentityArgs {
    /// What the identity is made from. `patience` is how long a caller waits for a token while the token
    /// service is away.
    pub fn settings(&self, patience: Duration) -> identity::Settings {
        identity::Settings {
            client_id: self.azure_client_id.clone(),
            tenant_id: self.azure_tenant_id.clone(),
            token_file: self.azure_federated_token_file.clone(),
            authority_host: self.azure_authority_host.clone(),
            patience,
            extra_authorities: None,
        }
    }
}
