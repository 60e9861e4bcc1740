//! The controller: watches PopularityReports and their Jobs, hears what the rows do, and reconciles.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::ReportId;
use futures::stream::{self, Stream, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::{Action, Config, Controller, Error as ControllerError};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crds::{PopularityReport, names};
use runtime::Backoff;

use crate::context::{Context, Wake};
use crate::error_chain::error_chain;
use crate::places::Place;
use crate::report::{self, reconcile};
use crate::sweep;

/// How many reports are reconciled at once. Each holds at most one database connection at a time.
const CONCURRENCY: u16 = 8;
/// How long after a failure the same report is tried again: short, because ten seconds after a dependency's
/// return all work must go on.
const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(4));
/// The same after a conflict, where only another look is needed.
const AFTER_CONFLICT: Duration = Duration::from_millis(200);
/// The pauses between attempts to watch or list.
const WATCH_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
/// How often the places are counted again by the Jobs themselves.
const RESYNC: Duration = Duration::from_secs(30);
/// The longest that a list of the Jobs may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Controls and sweeps until the token is cancelled, then lets the reconciles under way finish. Dropping the
/// future stops everything at once.
pub async fn run(context: Context, namespace: &str, shutdown: CancellationToken) {
    let context = Arc::new(context);
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = count_places_at_start(&context, namespace) => {}
    }
    let objects: Api<PopularityReport> = Api::namespaced(context.client.clone(), namespace);
    let controller = Controller::new(objects, watcher::Config::default());
    let store = controller.store();
    let woken = woken(context.wakes.listen(), store.clone());
    let reconciles = controller
        .owns(
            jobs(&context, namespace),
            watcher::Config::default().labels(&of_exporters()),
        )
        .reconcile_on(woken)
        .trigger_backoff(WatchAgain::default())
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(timed, error_policy, Arc::clone(&context))
        .for_each(async |outcome| log(outcome));
    tokio::select! {
        () = reconciles => {}
        () = keep_counting_places(&context, namespace) => {}
        () = sweep::run(&context, namespace, &store) => {}
    }
}

fn jobs(context: &Context, namespace: &str) -> Api<Job> {
    Api::namespaced(context.client.clone(), namespace)
}

fn of_exporters() -> String {
    format!(
        "{}={},{}={}",
        names::APP_NAME_LABEL,
        names::EXPORTER_APP_NAME,
        names::MANAGED_BY_LABEL,
        names::MANAGED_BY
    )
}

async fn timed(object: Arc<PopularityReport>, context: Arc<Context>) -> Result<Action, report::Error> {
    let started = Instant::now();
    let outcome = reconcile(object, Arc::clone(&context)).await;
    let reason = outcome.as_ref().err().map(report::Error::reason);
    context.metrics.reconciled(started.elapsed(), reason);
    context.metrics.places_taken(context.places.taken());
    outcome
}

fn error_policy(object: Arc<PopularityReport>, error: &report::Error, _context: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(AFTER_CONFLICT);
    }
    tracing::warn!(
        name = object.name_any(),
        error = error_chain(error),
        "the reconcile failed and is tried again"
    );
    Action::requeue(AFTER_FAILURE.random_delay(0))
}

type Reconciled =
    Result<(ObjectRef<PopularityReport>, Action), ControllerError<report::Error, watcher::Error>>;

/// Logs what the error policy has not logged.
fn log(outcome: Reconciled) {
    match outcome {
        Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
        Err(ControllerError::ObjectNotFound(object)) => {
            tracing::debug!(%object, "gone before it was reconciled");
        }
        Err(error) => tracing::warn!(error = error_chain(&error), "watching failed and is tried again"),
    }
}

/// The objects of the reports that are to be looked at again. One that is not in the store yet will come by
/// the watch.
fn woken(
    wakes: broadcast::Receiver<Wake>,
    store: Store<PopularityReport>,
) -> impl Stream<Item = ObjectRef<PopularityReport>> + Send + 'static {
    stream::unfold(wakes, async |mut wakes| {
        let wake = match wakes.recv().await {
            Ok(wake) => wake,
            Err(broadcast::error::RecvError::Lagged(_)) => Wake::All,
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((wake, wakes))
    })
    .flat_map(move |wake| {
        let objects = store.state().into_iter().filter(move |object| match wake {
            Wake::All => true,
            Wake::Report(report) => {
                object.labelled_report() == Some(report) || object.own_report() == Some(report)
            }
        });
        stream::iter(
            objects
                .map(|object| ObjectRef::from_obj(&*object))
                .collect::<Vec<_>>(),
        )
    })
}

/// Before the first reconcile may give a place away, the Jobs of the leader before us are counted.
async fn count_places_at_start(context: &Context, namespace: &str) {
    let mut failures = 0;
    while let Err(error) = count_places(context, namespace).await {
        tracing::warn!(
            error = error_chain(&error),
            "the exporter Jobs cannot be counted now"
        );
        sleep(WATCH_AGAIN.random_delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

async fn keep_counting_places(context: &Context, namespace: &str) {
    loop {
        sleep(RESYNC).await;
        if let Err(error) = count_places(context, namespace).await {
            tracing::warn!(
                error = error_chain(&error),
                "the exporter Jobs cannot be counted now"
            );
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("failed to list the exporter Jobs")]
    List(#[source] kube::Error),
    #[error("the API server did not answer within {} s", LIST_TIMEOUT.as_secs())]
    TimedOut,
}

async fn count_places(context: &Context, namespace: &str) -> Result<(), CountError> {
    let api = jobs(context, namespace);
    let parameters = ListParams::default().labels(&of_exporters());
    let list = timeout(LIST_TIMEOUT, api.list(&parameters))
        .await
        .map_err(|_| CountError::TimedOut)?
        .map_err(CountError::List)?;
    let live: HashMap<ReportId, Place> = list
        .iter()
        .filter_map(|job| {
            let report = job.labels().get(names::REPORT_ID_LABEL)?.parse().ok()?;
            Some((report, Place::of(job)?))
        })
        .collect();
    context.wakes.wake(context.places.resync(live, Instant::now()));
    context.metrics.places_taken(context.places.taken());
    Ok(())
}

/// [`WATCH_AGAIN`] as the watches take it.
#[derive(Default)]
struct WatchAgain {
    failures: u32,
}

impl Iterator for WatchAgain {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = WATCH_AGAIN.random_delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(delay)
    }
}

impl kube::runtime::utils::Backoff for WatchAgain {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
