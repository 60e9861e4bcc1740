//! Wires the parts together, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blob::{BlobConfig, BlobStore, RetryProfile, TokenCredential};
use identity::Identity;
use jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use kube::runtime::events::{Recorder, Reporter};
use prometheus_client::registry::Registry;
use runtime::health::{self, Health};
use runtime::{BlobArgs, ServiceBusArgs};
use secrecy::ExposeSecret;
use servicebus::SenderOptions;
use sqlx::{Connection, PgPool};
use store::outbox;
use store::pool::Login;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Config, ExporterArgs, Pair};
use crate::consumer::{CREDIT, Consumer};
use crate::context::{Context, Wakes};
use crate::error_chain::error_chain;
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::relay::Relay;
use crate::{controller, notifications};

/// The name under which PostgreSQL shows the connections.
const APPLICATION: &str = "popularity-reports-operator";
/// How long the parts have to finish what they are at. Kubernetes kills a Pod after 30 s unless told otherwise.
const GRACE: Duration = Duration::from_secs(20);
/// How often the backlog gauges are read: they come from an index.
const BACKLOG_EVERY: Duration = Duration::from_secs(15);
/// How long a call waits for a token while the token service is away.
const TOKEN_PATIENCE: Duration = Duration::from_secs(3);
/// How long a TCP connection to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the operator cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The health endpoint's address.
    #[error("failed to listen on {address} for health and metrics")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The reports' database URL.
    #[error("REPORTS_DATABASE_URL cannot be used")]
    Database(#[from] store::pool::InvalidUrl),
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
    /// The health endpoint ended.
    #[error("the health endpoint failed")]
    Health(#[source] std::io::Error),
    /// A part ended by a panic, or without having been told to.
    #[error("a part of the operator ended by itself")]
    PartEnded(#[source] Option<tokio::task::JoinError>),
}

/// An operator that is ready to run, and listens for health checks already.
pub struct Operator {
    listener: TcpListener,
    local_addr: SocketAddr,
    registry: Registry,
    context: Context,
    servicebus: servicebus::Client,
    identity: Option<Identity>,
    login: Login,
    queue: String,
    kubernetes: crate::config::KubernetesArgs,
}

impl Operator {
    /// Makes every client and takes the health address. Nothing is connected yet but that: a dependency that
    /// is away now is met as one that goes away later.
    ///
    /// # Errors
    /// [`Error`]: an option cannot be used.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let Config {
            database,
            servicebus,
            blob,
            identity,
            kubernetes,
            exporter,
            health_listen,
            telemetry: _,
        } = config;
        let client = cluster().await?;
        let by_identity =
            database.by_identity() || servicebus.login.by_identity() || blob.login.by_identity();
        let identity = by_identity
            .then(|| Identity::new(&identity.settings(TOKEN_PATIENCE)))
            .transpose()?;
        let login: Login = database.passwords(identity.as_ref()).into();
        let pool = store::pool::connect(
            &database.reports_database_url,
            &login,
            database.reports_database_max_connections.get(),
            APPLICATION,
        )?;
        let blobs = blob_store(&blob, identity.as_ref())?;
        let queue = servicebus.servicebus_queue.clone();
        let servicebus = servicebus_client(&servicebus, identity.as_ref())?;

        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let reporter = Reporter {
            controller: crds::names::REPORTER.to_owned(),
            instance: Some(kubernetes.identity.clone()),
        };
        let listener = TcpListener::bind(health_listen)
            .await
            .map_err(listen(health_listen))?;
        let local_addr = listener.local_addr().map_err(listen(health_listen))?;
        Ok(Self {
            listener,
            local_addr,
            registry,
            context: Context {
                recorder: Recorder::new(client.clone(), reporter),
                client,
                database: pool,
                blobs,
                exporter: Arc::new(with_container(exporter, &blob.blob_container)),
                places: Arc::new(Places::new(kubernetes.max_in_flight)),
                wakes: Wakes::new(),
                metrics,
                clock: Timestamp::now,
            },
            servicebus,
            identity,
            login,
            queue,
            kubernetes,
        })
    }

    /// Where health checks are answered.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Runs until the token is cancelled, and then stops in order: first the parts, each of which finishes
    /// what it is at; then the Lease is given back; last the health endpoint.
    ///
    /// # Errors
    /// [`Error::Health`] or [`Error::PartEnded`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            listener,
            local_addr,
            registry,
            context,
            servicebus,
            identity,
            login,
            queue,
            kubernetes,
        } = self;
        let namespace = kubernetes.reports_namespace;
        tracing::info!(%local_addr, namespace, queue, "the operator runs");
        let (leading, mut led) = watch::channel(false);
        let lease_over = CancellationToken::new();
        let health_over = CancellationToken::new();

        let mut checks = checks(&context.database, &servicebus, &led, registry, &shutdown);
        if let Some(identity) = identity {
            checks = checks.require("identity", move || {
                std::future::ready(identity.health().map_err(|error| error.to_string()))
            });
        }
        let router = checks.router();
        let mut health = tokio::spawn(health::serve(listener, router, health_over.clone()));

        let candidate = Candidate::new(
            Api::namespaced(context.client.clone(), &namespace),
            kubernetes.lease_name,
            format!("{}_{}", kubernetes.identity, Uuid::new_v4()),
        );
        let mut election = tokio::spawn(candidate.run(leading, lease_over.clone()));

        // without a token every part would fail, each with a log line of its own
        let _: Option<()> = shutdown.run_until_cancelled(login.ready()).await;
        let mut parts = JoinSet::new();
        let relay = Relay::new(
            context.database.clone(),
            servicebus.sender(&queue, SenderOptions::default()),
            context.metrics.clone(),
        );
        parts.spawn(relay.run(shutdown.clone()));
        let consumer = Consumer::new(
            context.database.clone(),
            servicebus.receiver(&queue, CREDIT),
            context.wakes.clone(),
            context.metrics.clone(),
        );
        parts.spawn(consumer.run(shutdown.clone()));
        parts.spawn(notifications::run(
            context.database.clone(),
            context.wakes.clone(),
            shutdown.clone(),
        ));
        parts.spawn(watch_backlog(
            context.database.clone(),
            context.metrics.clone(),
            shutdown.clone(),
        ));
        let most = kubernetes.max_in_flight;
        let stop = shutdown.clone();
        parts.spawn(async move {
            while !stop.is_cancelled() {
                let term = context.with_places(most);
                lead(&term, &namespace, &mut led, &stop).await;
            }
        });

        let ended_early = tokio::select! {
            () = shutdown.cancelled() => None,
            part = parts.join_next() => Some(Error::PartEnded(part.and_then(Result::err))),
            ended = &mut health => Some(match ended {
                Ok(Err(error)) => Error::Health(error),
                Ok(Ok(())) => Error::PartEnded(None),
                Err(error) => Error::PartEnded(Some(error)),
            }),
            ended = &mut election => Some(Error::PartEnded(ended.err())),
        };
        shutdown.cancel();
        let stopped = timeout(GRACE, async { while parts.join_next().await.is_some() {} }).await;
        if stopped.is_err() {
            tracing::warn!(
                "some parts did not finish within {} s; stopping them",
                GRACE.as_secs()
            );
            parts.shutdown().await;
        }
        lease_over.cancel();
        if !election.is_finished()
            && let Err(error) = election.await
        {
            tracing::warn!(error = error_chain(&error), "the election ended badly");
        }
        servicebus.close().await;
        health_over.cancel();
        if !health.is_finished() {
            match health.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Error::Health(error)),
                Err(error) => return Err(Error::PartEnded(Some(error))),
            }
        }
        tracing::info!("the operator has stopped");
        ended_early.map_or(Ok(()), Err)
    }
}

/// Waits for the leadership, and controls for as long as it lasts. A leader who is deposed stops at once: the
/// reconciles under way are dropped where they stand.
async fn lead(
    context: &Context,
    namespace: &str,
    led: &mut watch::Receiver<bool>,
    shutdown: &CancellationToken,
) {
    let elected = tokio::select! {
        () = shutdown.cancelled() => return,
        elected = led.wait_for(|leading| *leading) => elected.is_ok(),
    };
    if !elected {
        // the candidate is gone, and with it the process
        return shutdown.cancelled().await;
    }
    context.metrics.leading(true);
    tokio::select! {
        () = controller::run(context.clone(), namespace, shutdown.clone()) => {}
        _ = led.wait_for(|leading| !*leading) => {}
    }
    context.metrics.leading(false);
    context.metrics.places_taken(0);
}

async fn watch_backlog(database: PgPool, metrics: Metrics, shutdown: CancellationToken) {
    let watching = async {
        loop {
            match outbox::backlog(&database).await {
                Ok(backlog) => {
                    let age = backlog
                        .oldest
                        .map_or(0, |oldest| Timestamp::now().duration_since(oldest).as_secs());
                    metrics.backlog(backlog.count, age);
                }
                Err(error) => tracing::debug!(error = error_chain(&error), "the backlog cannot be read now"),
            }
            sleep(BACKLOG_EVERY).await;
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(watching).await;
}

/// Ready means: able to move reports as soon as it leads. A queue that is away is waited for.
fn checks(
    database: &PgPool,
    servicebus: &servicebus::Client,
    led: &watch::Receiver<bool>,
    registry: Registry,
    shutdown: &CancellationToken,
) -> Health {
    let database = database.clone();
    let servicebus = servicebus.clone();
    let led = led.clone();
    Health::new(registry, shutdown.clone())
        .require("database", move || {
            let database = database.clone();
            async move {
                let answer = async { database.acquire().await?.ping().await };
                answer
                    .await
                    .map_err(|_| "the reports' database does not answer".to_owned())
            }
        })
        .observe("servicebus", move || {
            let connected = servicebus.health().connected;
            async move {
                connected
                    .then_some(())
                    .ok_or_else(|| "not connected; trying again".to_owned())
            }
        })
        .observe("leader", move || {
            let leading = *led.borrow();
            async move { leading.then_some(()).ok_or_else(|| "standing by".to_owned()) }
        })
}

/// A client of the cluster that this process runs in, or that KUBECONFIG names.
///
/// # Errors
/// [`Error::InferCluster`], [`Error::Client`].
pub async fn cluster() -> Result<Client, Error> {
    let mut config = kube::Config::infer().await.map_err(Error::InferCluster)?;
    // Every caller has its own idea of when to try again; the client's own retries last for minutes.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(Error::Client)
}

fn tokens(identity: Option<&Identity>) -> Option<Arc<dyn TokenCredential>> {
    identity
        .cloned()
        .map(|identity| Arc::new(identity) as Arc<dyn TokenCredential>)
}

fn blob_store(args: &BlobArgs, identity: Option<&Identity>) -> Result<BlobStore, Error> {
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

fn servicebus_client(
    args: &ServiceBusArgs,
    identity: Option<&Identity>,
) -> Result<servicebus::Client, Error> {
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

/// The exporter writes into the container that the operator deletes from, whatever its Secret says.
fn with_container(mut exporter: ExporterArgs, container: &str) -> ExporterArgs {
    exporter.exporter_env.push(Pair::new("BLOB_CONTAINER", container));
    exporter
}

fn listen(address: SocketAddr) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Listen { address, source }
}
