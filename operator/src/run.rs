//! Wires the parts together, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::Identity;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::events::{Recorder, Reporter};
use kubernetes::OwnPod;
use prometheus_client::registry::Registry;
use runtime::health::{self, Health};
use runtime::needs::{Needs, Watch};
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
use crate::startup::{self, Dependencies};
use crate::{clients, controller, notifications};

/// The name under which PostgreSQL shows the connections.
const APPLICATION: &str = "popularity-reports-operator";
/// The name that `operator doctor --as` has for it.
const PROGRAM: &str = "operator";
/// How long the parts have to finish what they are at. Kubernetes kills a Pod after 30 s unless told otherwise.
const GRACE: Duration = Duration::from_secs(20);
/// How often the backlog gauges are read: they come from an index.
const BACKLOG_EVERY: Duration = Duration::from_secs(15);

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
    /// A client.
    #[error(transparent)]
    Client(#[from] clients::Error),
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
    pod: Option<OwnPod>,
    create_container: bool,
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
            blob_create_container,
            identity,
            kubernetes,
            exporter,
            health_listen,
            pod,
            telemetry: _,
        } = config;
        let client = clients::cluster().await?;
        let identity = clients::identity(&identity, Some(&database), Some(&servicebus), Some(&blob))?;
        let login: Login = database.passwords(identity.as_ref()).into();
        let pool = store::pool::connect(
            &database.reports_database_url,
            &login,
            database.reports_database_max_connections.get(),
            APPLICATION,
        )?;
        let blobs = clients::blob_store(&blob, identity.as_ref())?;
        let queue = servicebus.servicebus_queue.clone();
        let servicebus = clients::servicebus(&servicebus, identity.as_ref())?;

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
            pod: OwnPod::new(&pod, PROGRAM),
            create_container: blob_create_container,
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
            pod,
            create_container,
        } = self;
        let namespace = kubernetes.reports_namespace;
        tracing::info!(%local_addr, namespace, queue, "the operator runs");
        let (leading, mut led) = watch::channel(false);
        let lease_over = CancellationToken::new();
        let health_over = CancellationToken::new();

        let watch = Watch::new(PROGRAM, &[]);
        let needs = watch.needs();
        let mut checks = checks(&context.database, &servicebus, &led, &needs, registry, &shutdown);
        if let Some(identity) = identity {
            checks = checks.require("identity", move || {
                std::future::ready(identity.health().map_err(|error| error.to_string()))
            });
        }
        let router = checks.router();
        let mut health = tokio::spawn(health::serve(listener, router, health_over.clone()));

        let dependencies = Dependencies {
            database: context.database.clone(),
            servicebus: servicebus.clone(),
            queue: queue.clone(),
            blobs: context.blobs.clone(),
            create_container,
            client: context.client.clone(),
            namespace: namespace.clone(),
            lease: kubernetes.lease_name.clone(),
        };
        let client = context.client.clone();
        let look = move |begun| {
            let dependencies = dependencies.clone();
            async move { dependencies.look(begun).await }
        };
        let tell = move |note: String| {
            let (pod, client) = (pod.clone(), client.clone());
            async move { startup::tell(pod.as_ref(), &client, &note).await }
        };
        let candidate = Candidate::new(
            Api::namespaced(context.client.clone(), &namespace),
            kubernetes.lease_name,
            format!("{}_{}", kubernetes.identity, Uuid::new_v4()),
        );

        // Without a token, or with something missing, every part would fail, each with log lines of its own.
        // And who cannot do the work had better not lead.
        let mut parts = JoinSet::new();
        let begin = async {
            login.ready().await;
            parts.spawn(watch.run(look, tell, shutdown.clone()));
            needs.met().await;
        };
        let _: Option<()> = shutdown.run_until_cancelled(begin).await;
        let mut election = tokio::spawn(candidate.run(leading, lease_over.clone()));
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

/// Ready means: able to move reports as soon as it leads, with nothing missing. A queue that is away is waited
/// for.
fn checks(
    database: &PgPool,
    servicebus: &servicebus::Client,
    led: &watch::Receiver<bool>,
    needs: &Needs,
    registry: Registry,
    shutdown: &CancellationToken,
) -> Health {
    let database = database.clone();
    let servicebus = servicebus.clone();
    let led = led.clone();
    let needs = needs.clone();
    Health::new(registry, shutdown.clone())
        .require("needs", move || {
            let needs = needs.clone();
            async move { needs.ready().await }
        })
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

/// The exporter writes into the container that the operator deletes from, whatever its Secret says.
fn with_container(mut exporter: ExporterArgs, container: &str) -> ExporterArgs {
    exporter.exporter_env.push(Pair::new("BLOB_CONTAINER", container));
    exporter
}

fn listen(address: SocketAddr) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Listen { address, source }
}
