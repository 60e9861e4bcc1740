use clap::Args;
use secrecy::SecretString;
use url::Url;

/// The Blob Storage container that holds the finished files.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Blob Storage")]
pub struct BlobArgs {
    /// How to log in.
    #[command(flatten)]
    pub login: BlobLogin,

    /// The container.
    #[arg(
        long,
        env = "BLOB_CONTAINER",
        default_value = "reports",
        value_name = "CONTAINER"
    )]
    pub blob_container: String,

    /// The account's endpoint as the applications reach it, put into download links. Default: the
    /// endpoint that this process uses itself.
    #[arg(long, env = "BLOB_PUBLIC_ENDPOINT", value_name = "URL")]
    pub blob_public_endpoint: Option<Url>,
}

/// Exactly one of the two is given.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct BlobLogin {
    /// Connection string with an account key, or UseDevelopmentStorage=true for Azurite. Secret;
    /// either this or the endpoint is required.
    #[arg(
        long,
        env = "AZURE_STORAGE_CONNECTION_STRING",
        hide_env_values = true,
        value_name = "CONNECTION_STRING"
    )]
    pub azure_storage_connection_string: Option<SecretString>,

    /// The account's endpoint, an https URL whose host is such as example.blob.core.windows.net,
    /// logged in to by workload identity.
    #[arg(long, env = "BLOB_ENDPOINT", value_name = "URL")]
    pub blob_endpoint: Option<Url>,
}

impl BlobLogin {
    /// Whether it is by workload identity.
    pub const fn by_identity(&self) -> bool {
        self.azure_storage_connection_string.is_none()
    }
}
