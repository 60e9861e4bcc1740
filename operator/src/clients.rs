//! The clients of everything outside, made from the options alike for the operator and for its commands.

use std::sync::Arc;
use std::time::Duration;

use blob::{BlobConfig, BlobStore, RetryProfile, TokenCredential};
use identity::Identity;
use kube::Client;
use runtime::{BlobArgs, DatabaseArgs, IdentityArgs, ServiceBusArgs};
use secrecy::ExposeSecret;

/// How long a call waits for a token while the token service is away.
const TOKEN_PATIENCE: Duration = Duration::from_secs(3);
/// How long a TCP connection to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a client cannot be made: an option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Service Bus connection string.
    #[error("SERVICEBUS_CONNECTION_STRING cannot be used")]
    ServiceBus(#[from] servicebus::ConnectionStringError),
    /// Workload identity is asked for and not there.
    #[error("workload identity cannot be used")]
    Identity(#[from] identity::ConfigurationError),
    /// Neither way to log in to Service Bus.
    #[error("neither SERVICEBUS_CONNECTION_STRING nor SERVICEBUS_NAMESPACE is given; give one of them")]
    NoServiceBus,
    /// The Service Bus namespace.
    #[error("SERVICEBUS_NAMESPACE cannot be used")]
    Namespace(#[from] servicebus::InvalidNamespace),
    /// Blob storage.
    #[error("the blob options cannot be used")]
    Blob(#[from] blob::ConfigurationError),
    /// The cluster.
    #[error("no Kubernetes cluster is configured: neither KUBECONFIG nor a Pod's service account")]
    InferCluster(#[source] kube::config::InferConfigError),
    /// The cluster's client.
    #[error("the Kubernetes client cannot be made")]
    Client(#[source] kube::Error),
}

/// The Pod's identity, when one of the logins is by it.
///
/// # Errors
/// [`Error::Identity`]
pub fn identity(
    args: &IdentityArgs,
    database: Option<&DatabaseArgs>,
    servicebus: Option<&ServiceBusArgs>,
    blob: Option<&BlobArgs>,
) -> Result<Option<Identity>, Error> {
    let wanted = database.is_some_and(DatabaseArgs::by_identity)
        || servicebus.is_some_and(|args| args.login.by_identity())
        || blob.is_some_and(|args| args.login.by_identity());
    Ok(wanted
        .then(|| Identity::new(&args.settings(TOKEN_PATIENCE)))
        .transpose()?)
}

/// The cluster of the Pod's service account, or of KUBECONFIG.
///
/// # Errors
/// [`Error::InferCluster`] and [`Error::Client`]
pub async fn cluster() -> Result<Client, Error> {
    let mut config = kube::Config::infer().await.map_err(Error::InferCluster)?;
    // Every caller has its own idea of when to try again; the client's own retries last for minutes.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(Error::Client)
}

/// The container.
///
/// # Errors
/// [`Error::Blob`]
pub fn blob_store(args: &BlobArgs, identity: Option<&Identity>) -> Result<BlobStore, Error> {
    let credential = blob::Credential::choose(
        args.login.azure_storage_connection_string.clone(),
        args.login.blob_endpoint.clone(),
        tokens(identity),
    )?;
    let config = BlobConfig {
        retry: RetryProfile::Interactive,
        ..BlobConfig::new(credential, args.blob_container.clone())
    };
    Ok(BlobStore::new(config)?)
}

/// The broker.
///
/// # Errors
/// [`Error::ServiceBus`], [`Error::Namespace`] and [`Error::NoServiceBus`]
pub fn servicebus(args: &ServiceBusArgs, identity: Option<&Identity>) -> Result<servicebus::Client, Error> {
    let settings = match (
        &args.login.servicebus_connection_string,
        &args.login.servicebus_namespace,
        tokens(identity),
    ) {
        (Some(text), _, _) => text
            .expose_secret()
            .parse::<servicebus::ConnectionString>()?
            .into_settings(),
        (None, Some(namespace), Some(credential)) => {
            servicebus::Settings::from_namespace(namespace, credential)?
        }
        (None, _, _) => return Err(Error::NoServiceBus),
    };
    Ok(servicebus::Client::new(settings))
}

fn tokens(identity: Option<&Identity>) -> Option<Arc<dyn TokenCredential>> {
    identity
        .cloned()
        .map(|identity| Arc::new(identity) as Arc<dyn TokenCredential>)
}
