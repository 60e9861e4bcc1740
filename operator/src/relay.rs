//! The relay: outbox → Service Bus.
//!
//! It may run in any number of processes at once: a claimed message is locked in the database. A message is
//! marked only after the broker has accepted it, and its id is the outbox id, so that a crash in between
//! sends the same message again. Nothing is ever dropped.

use std::time::Duration;

use bytes::Bytes;
use domain::OutboxId;
use jiff::{SignedDuration, Timestamp};
use servicebus::{Outcome, Outgoing, Sender};
use sqlx::PgPool;
use store::outbox::{self, OutboxMessage};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use runtime::{Backoff, crash_point};

use crate::error_chain::error_chain;
use crate::metrics::Metrics;

/// The most messages in one claim.
const BATCH: u32 = 200;
/// How long to wait for a notification before looking anyway: it can be lost.
const POLL: Duration = Duration::from_secs(2);
/// The pauses after failures, of the loop and of a single message: short, because ten seconds after the
/// broker's return all work must go on.
const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
/// The pauses of a message that the broker can never take, such as one that is too large for the queue,
/// until somebody changes the queue.
const AFTER_REFUSAL: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(300));

/// How long the batch under way may take when the process is to end.
const LAST_BATCH: Duration = Duration::from_secs(5);

/// The content type of the messages.
const CONTENT_TYPE: &str = "application/json";
/// The application property with the W3C trace context
/// (<https://w3c.github.io/trace-context-amqp/>).
const TRACEPARENT: &str = "traceparent";

/// Moves messages from the outbox to the queue.
pub struct Relay {
    database: PgPool,
    sender: Sender,
    metrics: Metrics,
}

/// What one pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// How many messages were claimed.
    pub claimed: usize,
    /// How many of them the broker accepted.
    pub accepted: usize,
}

impl Relay {
    /// A relay to the sender's queue.
    pub const fn new(database: PgPool, sender: Sender, metrics: Metrics) -> Self {
        Self {
            database,
            sender,
            metrics,
        }
    }

    /// Runs until the token is cancelled; the batch under way is finished first, if the broker answers soon.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut notifications = None;
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            // while the broker refuses, one message at a time is enough to find out
            let limit = if failures == 0 { BATCH } else { 1 };
            let outcome = tokio::select! {
                outcome = self.pass(limit, Timestamp::now()) => outcome,
                // a broker that does not answer keeps nobody waiting: what was sent is sent again
                () = out_of_patience(&shutdown) => break,
            };
            let pause = match outcome {
                Ok(pass) if pass.accepted < pass.claimed => Some(pass),
                Ok(pass) => {
                    failures = 0;
                    // a full claim, or the first one after an outage: there is more
                    if pass.claimed > 0 && pass.claimed >= limit as usize {
                        continue;
                    }
                    None
                }
                Err(error) => {
                    tracing::warn!(error = error_chain(&error), "the outbox cannot be relayed now");
                    Some(Pass {
                        claimed: 0,
                        accepted: 0,
                    })
                }
            };
            let wait = async {
                if pause.is_some() {
                    sleep(AFTER_FAILURE.random_delay(failures)).await;
                } else {
                    self.notified(&mut notifications).await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = wait => {}
            }
            if pause.is_some() {
                failures = failures.saturating_add(1);
            }
        }
        self.sender.close().await;
    }

    /// Waits for the next notification, or for [`POLL`].
    async fn notified(&self, notifications: &mut Option<store::Notifications>) {
        if notifications.is_none() {
            match outbox::listen(&self.database).await {
                // what was written before we listened is found by the pass that follows at once
                Ok(subscribed) => {
                    *notifications = Some(subscribed);
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        error = error_chain(&error),
                        "notifications cannot be heard now; polling"
                    );
                    return sleep(POLL).await;
                }
            }
        }
        let Some(subscribed) = notifications else {
            return;
        };
        match timeout(POLL, subscribed.recv()).await {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = error_chain(&error), "notifications were lost; polling");
                sleep(POLL).await;
            }
        }
    }

    /// Claims up to `limit` due messages, sends them and marks each by what became of it.
    ///
    /// # Errors
    /// The database failed; what was sent and not marked is sent again, with the same ids.
    ///
    /// # Cancel safety
    /// Dropping the future gives the claim back; what was sent is sent again.
    pub async fn pass(&self, limit: u32, now: Timestamp) -> Result<Pass, outbox::Error> {
        let mut claim = outbox::claim(&self.database, limit, now).await?;
        let messages: Vec<OutboxMessage> = claim.messages().to_vec();
        if messages.is_empty() {
            return Ok(Pass {
                claimed: 0,
                accepted: 0,
            });
        }
        let report = self.sender.send(messages.iter().map(outgoing).collect()).await;
        let mut accepted: Vec<OutboxId> = Vec::new();
        for (message, outcome) in messages.iter().zip(&report.outcomes) {
            match outcome {
                Outcome::Accepted => accepted.push(message.id),
                Outcome::Unknown(error) | Outcome::Refused(error) => {
                    tracing::warn!(
                        report.id = %message.report_id,
                        message.id = %message.id,
                        attempts = message.attempts,
                        error = error_chain(error),
                        "the message was not accepted and stays in the outbox"
                    );
                    let available_at = put_off(now, message.attempts, error);
                    let words = servicebus::chain(error);
                    claim.mark_failed(&[message.id], &words, available_at).await?;
                }
            }
        }
        if !accepted.is_empty() {
            crash_point("relay.after-accept");
            claim.mark_processed(&accepted, now).await?;
        }
        claim.commit().await?;
        self.metrics
            .relayed(accepted.len(), messages.len() - accepted.len());
        Ok(Pass {
            claimed: messages.len(),
            accepted: accepted.len(),
        })
    }
}

async fn out_of_patience(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(LAST_BATCH).await;
}

/// The message as it is sent.
fn outgoing(message: &OutboxMessage) -> Outgoing {
    let trace = message
        .traceparent
        .iter()
        .map(|parent| (TRACEPARENT.to_owned(), parent.as_str().into()));
    Outgoing {
        message_id: message.id.to_string(),
        body: Bytes::from(message.payload.clone()),
        content_type: Some(CONTENT_TYPE.to_owned()),
        subject: Some(message.event_type.clone()),
        correlation_id: Some(message.report_id.to_string()),
        application_properties: trace.collect(),
    }
}

/// When to try the message again.
fn put_off(now: Timestamp, attempts: u32, error: &servicebus::Error) -> Timestamp {
    let about_the_message = matches!(
        error,
        servicebus::Error::MessageTooLarge { .. } | servicebus::Error::Encode { .. }
    );
    let backoff = if about_the_message {
        AFTER_REFUSAL
    } else {
        AFTER_FAILURE
    };
    let delay = SignedDuration::try_from(backoff.random_delay(attempts)).unwrap_or(SignedDuration::ZERO);
    now.checked_add(delay).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use servicebus::SenderOptions;
    use servicebus_emulator::{QueueFaults, Refusals, Running};
    use store::testing::{TestDatabase, database};

    use super::*;
    use crate::testing::{QUEUE, adopt, broker, noon, noon_and, outbox_id, report_id};

    struct Here {
        database: TestDatabase,
        broker: Running,
        client: servicebus::Client,
        relay: Relay,
    }

    async fn here() -> Here {
        let database = database().await;
        let (broker, client) = broker().await;
        let options = SenderOptions {
            retries: 0,
            ..SenderOptions::default()
        };
        let relay = Relay::new(
            database.operator_pool.clone(),
            client.sender(QUEUE, options),
            Metrics::register(&mut Registry::default()),
        );
        Here {
            database,
            broker,
            client,
            relay,
        }
    }

    impl Here {
        async fn waiting(&self) -> u64 {
            outbox::backlog(&self.database.operator_pool).await.unwrap().count
        }
    }

    #[tokio::test]
    async fn a_message_carries_its_outbox_id_and_is_marked_once_it_is_accepted() {
        let here = here().await;
        adopt(&here.database.operator_pool).await;

        let pass = here.relay.pass(BATCH, noon_and(1)).await.unwrap();

        assert_eq!(
            pass,
            Pass {
                claimed: 1,
                accepted: 1
            }
        );
        assert_eq!(here.waiting().await, 0);
        let message = here.client.receiver(QUEUE, 1).recv().await.unwrap();
        assert_eq!(message.message_id, outbox_id().to_string());
        assert_eq!(message.subject.as_deref(), Some("ExportRequested"));
        assert_eq!(message.correlation_id, Some(report_id().to_string()));
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert!(
            message
                .text(TRACEPARENT)
                .unwrap()
                .starts_with("00-0af7651916cd43dd")
        );
        let event = domain::ExportRequested::from_slice(&message.body).unwrap();
        assert_eq!(event.report_id, report_id());
        let row = store::reports::get(&here.database.operator_pool, report_id())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.relayed_at, Some(noon_and(1)));
    }

    #[tokio::test]
    async fn nothing_is_sent_when_nothing_waits() {
        let here = here().await;

        let pass = here.relay.pass(BATCH, noon()).await.unwrap();

        assert_eq!(
            pass,
            Pass {
                claimed: 0,
                accepted: 0
            }
        );
    }

    #[tokio::test]
    async fn a_message_that_is_refused_stays_and_is_put_off() {
        let here = here().await;
        adopt(&here.database.operator_pool).await;
        let faults = QueueFaults {
            refuse_sends: Some(Refusals {
                next: 1,
                condition: "com.microsoft:server-busy".to_owned(),
                description: "busy".to_owned(),
            }),
            ..QueueFaults::default()
        };
        here.broker.set_faults(&QUEUE.parse().unwrap(), faults).unwrap();

        let refused = here.relay.pass(BATCH, noon_and(1)).await.unwrap();
        let too_early = here.relay.pass(BATCH, noon_and(1)).await.unwrap();
        let again = here.relay.pass(BATCH, noon_and(10)).await.unwrap();

        assert_eq!(
            refused,
            Pass {
                claimed: 1,
                accepted: 0
            }
        );
        assert_eq!(
            too_early,
            Pass {
                claimed: 0,
                accepted: 0
            }
        );
        assert_eq!(
            again,
            Pass {
                claimed: 1,
                accepted: 1
            }
        );
    }

    #[tokio::test]
    async fn a_message_whose_outcome_is_unknown_is_sent_again_under_the_same_id() {
        let here = here().await;
        adopt(&here.database.operator_pool).await;
        let faults = QueueFaults {
            drop_after_sends: 1,
            ..QueueFaults::default()
        };
        here.broker.set_faults(&QUEUE.parse().unwrap(), faults).unwrap();

        let unknown = here.relay.pass(BATCH, noon_and(1)).await.unwrap();
        let again = here.relay.pass(BATCH, noon_and(10)).await.unwrap();

        assert_eq!(
            unknown,
            Pass {
                claimed: 1,
                accepted: 0
            }
        );
        assert_eq!(
            again,
            Pass {
                claimed: 1,
                accepted: 1
            }
        );
        let receiver = here.client.receiver(QUEUE, 2);
        let ids = [
            receiver.recv().await.unwrap().message_id,
            receiver.recv().await.unwrap().message_id,
        ];
        assert_eq!(ids, [outbox_id().to_string(), outbox_id().to_string()]);
    }

    #[tokio::test]
    async fn two_relays_share_the_work_and_send_each_message_once() {
        let here = here().await;
        adopt(&here.database.operator_pool).await;
        let first = outbox::claim(&here.database.operator_pool, BATCH, noon_and(1))
            .await
            .unwrap();

        let second = here.relay.pass(BATCH, noon_and(1)).await.unwrap();

        assert_eq!(first.messages().len(), 1);
        assert_eq!(
            second,
            Pass {
                claimed: 0,
                accepted: 0
            }
        );
    }

    #[tokio::test]
    async fn a_written_message_is_relayed_without_waiting_for_the_poll() {
        let here = here().await;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(here.relay.run(shutdown.clone()));
        let receiver = here.client.receiver(QUEUE, 1);

        adopt(&here.database.operator_pool).await;
        let message = timeout(Duration::from_secs(20), receiver.recv())
            .await
            .unwrap()
            .unwrap();

        assert_eq!(message.message_id, outbox_id().to_string());
        shutdown.cancel();
        running.await.unwrap();
    }

    #[test]
    fn a_message_that_the_queue_can_never_take_is_not_tried_every_few_seconds() {
        let too_large = servicebus::Error::MessageTooLarge {
            bytes: 300_000,
            limit: 262_144,
        };

        let soon = put_off(noon(), 0, &servicebus::Error::Closed);
        let later = put_off(noon(), 9, &too_large);

        assert!(soon <= noon_and(5));
        assert!(later >= noon_and(150));
    }
}
