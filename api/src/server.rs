//! Puts the parts together and serves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blob::{BlobConfig, BlobStore, Credential, RetryProfile, TokenCredential};
use identity::Identity;
use kubernetes::OwnPod;
use prometheus_client::registry::Registry;
use runtime::health::Health;
use runtime::needs::Watch;
use runtime::{BlobArgs, health};
use sqlx::PgPool;
use store::pool::Login;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::{Tokens, TokensConfigError};
use crate::config::Config;
use crate::custom_resources::CustomResources;
use crate::downloads::Downloads;
use crate::metrics::Metrics;
use crate::routes;
use crate::service::{Parts, Service};
use crate::startup;

/// How long a request waits for a token while the token service is away.
const TOKEN_PATIENCE: Duration = Duration::from_secs(3);

/// Why the service cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Tokens cannot be checked.
    #[error("the token options cannot be used")]
    Tokens(#[from] TokensConfigError),
    /// The database URL is none.
    #[error("REPORTS_DATABASE_URL cannot be used")]
    Database(#[from] store::pool::InvalidUrl),
    /// Workload identity is asked for and not there.
    #[error("workload identity cannot be used")]
    Identity(#[from] identity::ConfigurationError),
    /// The storage options are wrong.
    #[error("the Blob Storage options cannot be used")]
    Blob(#[from] blob::ConfigurationError),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The listener failed.
    #[error("failed to serve")]
    Serve(#[source] io::Error),
}

/// The service, listening and not yet answering.
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    service: Service,
    identity: Option<Identity>,
    login: Login,
    registry: Registry,
    shutdown_grace: Duration,
    pod: Option<OwnPod>,
}

impl Server {
    /// Reads the configuration and takes the address. Nothing that the service talks to has to be up:
    /// what is away is met by the first request that needs it.
    ///
    /// # Errors
    /// [`ServerError`] for options that can never work, and an address that is taken.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let Config {
            api_listen: address,
            report_retention_seconds: retention,
            max_unfinished_per_user,
            download_url_seconds,
            request_timeout_seconds: request_timeout,
            shutdown_grace_seconds: shutdown_grace,
            auth,
            database,
            blob,
            identity,
            kubernetes,
            pod,
            telemetry: _,
        } = config;
        let identity = (database.by_identity() || blob.login.by_identity())
            .then(|| Identity::new(&identity.settings(TOKEN_PATIENCE)))
            .transpose()?;
        let login: Login = database.passwords(identity.as_ref()).into();
        let mut registry = Registry::with_prefix("api");
        let metrics = Arc::new(Metrics::register(&mut registry));
        let service = Service::new(Parts {
            pool: store::pool::connect(
                &database.reports_database_url,
                &login,
                database.reports_database_max_connections.get(),
                "popularity-reports-api",
            )?,
            tokens: Tokens::new(&auth)?,
            downloads: Downloads::new(blob_store(blob, identity.as_ref())?, download_url_seconds),
            custom_resources: CustomResources::new(&kubernetes, Arc::clone(&metrics)).await,
            metrics,
            retention,
            most_unfinished: max_unfinished_per_user.get(),
            request_timeout,
        });
        let listen = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        Ok(Self {
            listener,
            local_addr,
            service,
            identity,
            login,
            registry,
            shutdown_grace,
            pod: OwnPod::new(&pod, startup::PROGRAM),
        })
    }

    /// The address, with the port that was chosen when 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until the token is cancelled; then takes no new connection, lets the requests under way
    /// finish within the grace time, and the custom resources being created with them.
    ///
    /// # Errors
    /// [`ServerError::Serve`]
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self {
            listener,
            local_addr,
            service,
            identity,
            login,
            registry,
            shutdown_grace,
            pod,
        } = self;
        let pool = service.pool.clone();
        let watch = Watch::new(startup::PROGRAM, startup::ONLY_TO_BEGIN);
        let needs = watch.needs();
        let mut checks = Health::new(registry, shutdown.clone())
            .require("database", move || database_answers(pool.clone()))
            .require("needs", move || {
                let needs = needs.clone();
                async move { needs.ready().await }
            });
        if let Some(identity) = identity {
            checks = checks.require("identity", move || {
                std::future::ready(identity.health().map_err(|error| error.to_string()))
            });
        }
        let router = routes::router(service.clone()).merge(routes::with_problems(checks.router()));
        tracing::info!(address = %local_addr, "listening");

        let watching = startup::watch(watch, service.clone(), pod, shutdown.clone());
        let stop = shutdown.clone();
        let watching = tokio::spawn(async move {
            // without a token everything would seem to be missing, and the identity has said why already
            if stop.run_until_cancelled(login.ready()).await.is_some() {
                watching.await;
            }
        });
        let grace_is_over = async {
            shutdown.cancelled().await;
            tokio::time::sleep(shutdown_grace).await;
        };
        tokio::select! {
            served = health::serve(listener, router, shutdown.clone()) => served.map_err(ServerError::Serve)?,
            () = grace_is_over => tracing::warn!("requests were still under way when the grace time ended"),
        }
        if let Err(error) = watching.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what is needed was not looked at to the end"
            );
        }
        service.custom_resources.finish().await;
        service.pool.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

fn blob_store(args: BlobArgs, identity: Option<&Identity>) -> Result<BlobStore, blob::ConfigurationError> {
    let BlobArgs {
        login,
        blob_container,
        blob_public_endpoint,
    } = args;
    let credential = Credential::choose(
        login.azure_storage_connection_string,
        login.blob_endpoint,
        identity
            .cloned()
            .map(|identity| Arc::new(identity) as Arc<dyn TokenCredential>),
    )?;
    BlobStore::new(BlobConfig {
        public_endpoint: blob_public_endpoint,
        retry: RetryProfile::Interactive,
        ..BlobConfig::new(credential, blob_container)
    })
}

async fn database_answers(pool: PgPool) -> Result<(), String> {
    match store::pool::ping(&pool).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the database does not answer"
            );
            Err("the database does not answer".to_owned())
        }
    }
}
