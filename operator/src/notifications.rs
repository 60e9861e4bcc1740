//! Hears what the rows do, and wakes the controller.

use std::time::Duration;

use domain::ReportId;
use sqlx::PgPool;
use store::{Notification, reports};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use runtime::Backoff;

use crate::context::Wakes;
use crate::error_chain::error_chain;

/// The pauses between attempts to listen.
const LISTEN_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// Runs until the token is cancelled.
pub async fn run(database: PgPool, wakes: Wakes, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(hear(&database, &wakes)).await;
}

async fn hear(database: &PgPool, wakes: &Wakes) {
    let mut failures = 0_u32;
    loop {
        match reports::listen(database).await {
            Ok(mut subscribed) => {
                // what happened before we listened
                wakes.wake_all();
                loop {
                    match subscribed.recv().await {
                        Ok(heard) => {
                            failures = 0;
                            wake(wakes, &heard);
                        }
                        Err(error) => {
                            tracing::warn!(error = error_chain(&error), "notifications of reports were lost");
                            sleep(LISTEN_AGAIN.random_delay(failures)).await;
                            failures = failures.saturating_add(1);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = error_chain(&error),
                    "notifications of reports cannot be heard now"
                );
                sleep(LISTEN_AGAIN.random_delay(failures)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

fn wake(wakes: &Wakes, heard: &Notification) {
    match heard {
        Notification::Missed => wakes.wake_all(),
        Notification::Payload(text) => match text.parse::<ReportId>() {
            Ok(report) => wakes.wake([report]),
            Err(_) => tracing::warn!(payload = text, "a notification that names no report"),
        },
    }
}
