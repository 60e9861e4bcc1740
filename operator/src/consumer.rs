//! The consumer: Service Bus → row.
//!
//! It records that the report's message came through, wakes the controller, and only then completes the
//! message. It never holds a message while an export waits or runs.

use std::time::Duration;

use domain::{EventError, ExportRequested, ReportId, State};
use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use servicebus::{Received, Receiver};
use sqlx::PgPool;
use store::reports::{self, Transition};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use runtime::{Backoff, crash_point};

use crate::context::Wakes;
use crate::error_chain::error_chain;
use crate::metrics::Metrics;

/// How many messages are worked on at once, and held at most.
pub const CREDIT: u32 = 8;
/// The pauses while the database is away.
const DATABASE_AWAY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
/// How long before its end a lock is renewed.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_secs(15);
/// The pauses after an error of the queue that does not pass by itself.
const QUEUE_UNUSABLE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
/// How often a settlement is tried, while the lock lasts.
const SETTLE_TRIES: u32 = 3;

/// Reasons on dead-lettered messages.
pub mod dead_letter {
    /// The body is no message of ours.
    pub const MALFORMED: &str = "MalformedMessage";
    /// A later version of the product wrote it.
    pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
    /// It names no row.
    pub const UNKNOWN_REPORT: &str = "UnknownReport";
}

/// Takes messages from the queue.
pub struct Consumer {
    database: PgPool,
    receiver: Receiver,
    wakes: Wakes,
    metrics: Metrics,
}

/// What is to become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did its work: complete it.
    Dispatched(ReportId),
    /// The report was further on already: complete it.
    Superseded(ReportId, State),
    /// Nobody can use it: dead-letter it, with a reason and a description.
    Dead(&'static str, String),
    /// The database is away. The message is held until it answers, and goes back when that cannot be.
    NotNow,
}

impl Verdict {
    /// The word for it, in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Dispatched(_) => "dispatched",
            Self::Superseded(..) => "superseded",
            Self::Dead(..) => "dead_lettered",
            Self::NotNow => "abandoned",
        }
    }
}

impl Consumer {
    /// A consumer of the receiver's queue.
    pub const fn new(database: PgPool, receiver: Receiver, wakes: Wakes, metrics: Metrics) -> Self {
        Self {
            database,
            receiver,
            wakes,
            metrics,
        }
    }

    /// Runs until the token is cancelled; the messages under way are settled first.
    pub async fn run(self, shutdown: CancellationToken) {
        stream::iter(0..CREDIT)
            .for_each_concurrent(None, async |_| self.work(&shutdown).await)
            .await;
        self.receiver.close().await;
    }

    async fn work(&self, shutdown: &CancellationToken) {
        let mut failures = 0;
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => return,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(message) => {
                    failures = 0;
                    self.handle(&message, shutdown).await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = error_chain(&error),
                        "the queue cannot be used until somebody changes something"
                    );
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = sleep(QUEUE_UNUSABLE.random_delay(failures)) => {}
                    }
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Acts on one message and settles it.
    pub async fn handle(&self, message: &Received, shutdown: &CancellationToken) {
        let verdict = self.verdict(message, shutdown).await;
        match &verdict {
            Verdict::Dispatched(report) => {
                tracing::info!(report.id = %report, message.id = message.message_id, "dispatched");
                self.wakes.wake([*report]);
                crash_point("consumer.after-dispatch");
            }
            Verdict::Superseded(report, state) => {
                tracing::info!(report.id = %report, message.id = message.message_id, %state, "superseded");
            }
            Verdict::Dead(reason, description) => {
                tracing::error!(
                    message.id = message.message_id,
                    reason,
                    description,
                    "the message goes to the dead-letter queue"
                );
            }
            Verdict::NotNow => {}
        }
        self.metrics.consumed(verdict.as_str());
        self.settle(message, &verdict).await;
    }

    /// Judges the message until the database answers. The message is held meanwhile: each time that it went
    /// back to the queue, it would come nearer to the broker's most deliveries and the dead letters.
    async fn verdict(&self, message: &Received, shutdown: &CancellationToken) -> Verdict {
        let mut failures = 0;
        let mut locked_until = message.locked_until;
        loop {
            let now = Timestamp::now();
            let verdict = self.judge(&message.body, now).await;
            if verdict != Verdict::NotNow {
                return verdict;
            }
            tokio::select! {
                () = shutdown.cancelled() => return verdict,
                () = sleep(DATABASE_AWAY.random_delay(failures)) => {}
            }
            failures = failures.saturating_add(1);
            if Timestamp::now().duration_since(locked_until) < -RENEW_BEFORE {
                continue;
            }
            match self.receiver.renew_lock(message).await {
                Ok(until) => locked_until = until,
                Err(error) => {
                    tracing::warn!(
                        message.id = message.message_id,
                        error = error_chain(&error),
                        "the message cannot be held any longer and comes again"
                    );
                    return verdict;
                }
            }
        }
    }

    /// Records the dispatch, and says what is to become of the message.
    pub async fn judge(&self, body: &[u8], now: Timestamp) -> Verdict {
        let event = match ExportRequested::from_slice(body) {
            Ok(event) => event,
            Err(error @ EventError::UnsupportedVersion(_)) => {
                return Verdict::Dead(dead_letter::UNSUPPORTED_VERSION, error.to_string());
            }
            Err(EventError::Malformed(cause)) => {
                let description = format!("the body is not an ExportRequested message: {cause}");
                return Verdict::Dead(dead_letter::MALFORMED, description);
            }
        };
        let report = event.report_id;
        match reports::dispatch(&self.database, report, now).await {
            Ok(Transition::Applied(_)) => Verdict::Dispatched(report),
            Ok(Transition::Superseded(state)) => Verdict::Superseded(report, state),
            Ok(Transition::Unknown) => Verdict::Dead(
                dead_letter::UNKNOWN_REPORT,
                format!("there is no report {report} in the database"),
            ),
            // written, and what cannot be read is the controller's to say
            Err(reports::Error::InvalidParameters { .. } | reports::Error::Inconsistent { .. }) => {
                Verdict::Dispatched(report)
            }
            Err(error) => {
                tracing::warn!(
                    report.id = %report,
                    error = error_chain(&error),
                    "the message cannot be recorded now"
                );
                Verdict::NotNow
            }
        }
    }

    /// A message that cannot be settled comes again, and is then superseded.
    async fn settle(&self, message: &Received, verdict: &Verdict) {
        for _ in 0..SETTLE_TRIES {
            let outcome = match verdict {
                Verdict::Dispatched(_) | Verdict::Superseded(..) => self.receiver.complete(message).await,
                Verdict::Dead(reason, description) => {
                    self.receiver.dead_letter(message, reason, description).await
                }
                Verdict::NotNow => self.receiver.abandon(message).await,
            };
            match outcome {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(
                        message.id = message.message_id,
                        error = error_chain(&error),
                        "the message could not be settled"
                    );
                    if !error.is_retriable() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus_client::registry::Registry;
    use rstest::rstest;
    use servicebus::{Outgoing, SenderOptions};
    use servicebus_emulator::Running;
    use store::testing::{TestDatabase, database};

    use super::*;
    use crate::context::Wake;
    use crate::testing::{QUEUE, adopt, broker, noon, noon_and, report_id};

    struct Here {
        database: TestDatabase,
        _broker: Running,
        client: servicebus::Client,
        wakes: Wakes,
        consumer: Consumer,
    }

    async fn here() -> Here {
        let database = database().await;
        let (broker, client) = broker().await;
        let wakes = Wakes::new();
        let consumer = Consumer::new(
            database.operator_pool.clone(),
            client.receiver(QUEUE, 1),
            wakes.clone(),
            Metrics::register(&mut Registry::default()),
        );
        Here {
            database,
            _broker: broker,
            client,
            wakes,
            consumer,
        }
    }

    fn body() -> Vec<u8> {
        let event = ExportRequested::new(report_id(), domain::Parameters::default(), noon());
        serde_json::to_vec(&event).unwrap()
    }

    impl Here {
        /// Sends a message and lets the consumer handle it.
        async fn handles(&self, body: Vec<u8>) {
            let message = Outgoing {
                message_id: "m".to_owned(),
                body: Bytes::from(body),
                ..Outgoing::default()
            };
            let sender = self.client.sender(QUEUE, SenderOptions::default());
            assert!(sender.send(vec![message]).await.all_accepted());
            let received = self.consumer.receiver.recv().await.unwrap();
            self.consumer.handle(&received, &CancellationToken::new()).await;
        }
    }

    #[tokio::test]
    async fn a_message_dispatches_its_report_and_wakes_the_controller() {
        let here = here().await;
        adopt(&here.database.operator_pool).await;
        let mut woken = here.wakes.listen();

        here.handles(body()).await;

        let row = reports::get(&here.database.operator_pool, report_id())
            .await
            .unwrap()
            .unwrap();
        assert!(row.dispatched_at.is_some());
        assert_eq!(woken.try_recv(), Ok(Wake::Report(report_id())));
    }

    #[tokio::test]
    async fn a_second_message_for_the_same_report_is_superseded() {
        let here = here().await;
        adopt(&here.database.operator_pool).await;

        let first = here.consumer.judge(&body(), noon_and(2)).await;
        let second = here.consumer.judge(&body(), noon_and(3)).await;

        assert_eq!(first, Verdict::Dispatched(report_id()));
        assert_eq!(second, Verdict::Superseded(report_id(), State::Pending));
    }

    #[rstest]
    #[case::no_json(b"hello".to_vec(), dead_letter::MALFORMED)]
    #[case::another_thing(br#"{"version":1,"reportId":"no uuid"}"#.to_vec(), dead_letter::MALFORMED)]
    #[case::a_later_version(br#"{"version":2,"what":"ever"}"#.to_vec(), dead_letter::UNSUPPORTED_VERSION)]
    #[case::no_such_report(body(), dead_letter::UNKNOWN_REPORT)]
    #[tokio::test]
    async fn a_message_that_nobody_can_use_is_dead_lettered_with_a_reason(
        #[case] body: Vec<u8>,
        #[case] reason: &str,
    ) {
        let here = here().await;

        here.handles(body).await;

        let dead = here.client.receiver(&format!("{QUEUE}/$DeadLetterQueue"), 1);
        let message = dead.recv().await.unwrap();
        assert_eq!(message.dead_letter_reason(), Some(reason));
        assert!(
            message
                .dead_letter_description()
                .is_some_and(|words| !words.is_empty())
        );
    }

    #[tokio::test]
    async fn a_message_is_held_while_the_database_is_away_and_goes_back_on_shutdown() {
        let here = here().await;
        here.database.operator_pool.close().await;
        let shutdown = CancellationToken::new();
        let message = Outgoing {
            message_id: "m".to_owned(),
            body: Bytes::from(body()),
            ..Outgoing::default()
        };
        let sender = here.client.sender(QUEUE, SenderOptions::default());
        assert!(sender.send(vec![message]).await.all_accepted());
        let received = here.consumer.receiver.recv().await.unwrap();

        {
            let mut handling = std::pin::pin!(here.consumer.handle(&received, &shutdown));
            let held = tokio::time::timeout(Duration::from_secs(2), handling.as_mut()).await;
            assert!(held.is_err(), "it went back before it had to");
            shutdown.cancel();
            handling.await;
        }
        drop(received);

        let again = here.consumer.receiver.recv().await.unwrap();
        assert_eq!(again.delivery_count, 1);
    }

    #[tokio::test]
    async fn the_consumer_stops_when_it_is_told_to() {
        let here = here().await;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(here.consumer.run(shutdown.clone()));

        shutdown.cancel();

        tokio::time::timeout(Duration::from_secs(10), running)
            .await
            .unwrap()
            .unwrap();
    }
}
