//! A sending link, and one round of batches over it.
//!
//! The AMQP library leaves the outcome of a delivery pending for ever when the connection dies under it, as
//! long as its `Sender` lives. So outcomes are never awaited alone: the link's detach, the connection's end
//! and a deadline are watched beside them, and on any of these the `Sender` is dropped and what has no outcome
//! yet is unknown.

use std::collections::HashMap;
use std::sync::Arc;

use fe2o3_amqp::link::SendError;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp_types::messaging::Outcome as Delivered;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::connection::Connection;
use crate::encode::{Encoded, transfer};
use crate::error::{Cause, Condition, Error, Recovery};
use crate::request::accepted;
use crate::sender::Outcome;
use crate::settings::Timeouts;

/// An attached sending link, on a session of its own.
#[derive(Debug)]
pub(crate) struct Link {
    queue: Arc<str>,
    connection: Arc<Connection>,
    sender: fe2o3_amqp::Sender,
    // After the link, so that it is dropped second.
    session: SessionHandle<()>,
}

/// How a round went.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What became of the messages, by their places.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Messages of batches that the broker refused as a whole, for a reason that may lie in one of them.
    pub suspects: Vec<usize>,
    /// Why the link is no longer usable.
    pub broken: Option<Error>,
    /// Places of messages that were not sent because of that.
    pub unsent: Vec<usize>,
}

impl Link {
    /// Authorises and attaches.
    pub(crate) async fn attach(
        connection: &Arc<Connection>,
        queue: &Arc<str>,
        timeouts: &Timeouts,
    ) -> Result<Self, Error> {
        let token_is_new = connection.authorise(queue).await?;
        match Self::try_attach(connection, queue, timeouts).await {
            // The token that was put earlier is no longer good.
            Err(error) if error.is_unauthorised() && !token_is_new => {
                connection.claims().forget(queue).await;
                connection.authorise(queue).await?;
                Self::try_attach(connection, queue, timeouts).await
            }
            attached => attached,
        }
    }

    async fn try_attach(
        connection: &Arc<Connection>,
        queue: &Arc<str>,
        timeouts: &Timeouts,
    ) -> Result<Self, Error> {
        let mut session = connection.session().await?;
        let attaching = fe2o3_amqp::Sender::builder()
            .name(format!("{queue}-sender-{}", Uuid::new_v4().simple()))
            .target(queue.as_ref())
            .attach(&mut session);
        let attached = tokio::select! {
            attached = timeout(timeouts.attach, attaching) => match attached {
                Ok(attached) => attached.map_err(Cause::from),
                Err(_) => Err(Cause::TimedOut(timeouts.attach)),
            },
            () = connection.closed().cancelled() => Err(connection.end()),
        };
        let sender = attached.map_err(|source| Error::Attach {
            entity: queue.to_string(),
            source,
        })?;
        Ok(Self {
            queue: Arc::clone(queue),
            connection: Arc::clone(connection),
            sender,
            session,
        })
    }

    /// The most bytes of one transfer. Zero and nothing both mean no limit.
    pub(crate) fn max_message_size(&self) -> usize {
        self.sender
            .max_message_size()
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX)
    }

    /// Sends `batches` (places in `messages`), at most `in_flight` at a time, until `deadline`. When the round
    /// breaks the link, the caller must drop it.
    pub(crate) async fn send(
        &mut self,
        messages: &[Option<Encoded>],
        batches: Vec<Vec<usize>>,
        in_flight: usize,
        deadline: Instant,
    ) -> Round {
        let allowed = deadline.saturating_duration_since(Instant::now());
        let mut round = Round::default();
        let mut unconfirmed = HashMap::new();
        let mut outcomes = FuturesUnordered::new();
        let mut batches = batches.into_iter().enumerate();
        let broken = loop {
            if unconfirmed.len() < in_flight
                && let Some((number, batch)) = batches.next()
            {
                let group: Vec<_> = batch
                    .iter()
                    .filter_map(|place| messages.get(*place)?.as_ref())
                    .collect();
                // Waits for credit; earlier outcomes that come meanwhile are kept. It is cancelled only to
                // drop the link, since half a delivery may be on the wire by then.
                let sent = tokio::select! {
                    biased;
                    sent = self.sender.send_batchable(transfer(&group)) => sent,
                    () = self.connection.closed().cancelled() => {
                        unconfirmed.insert(number, batch);
                        break Some(self.connection.end());
                    }
                    () = sleep_until(deadline) => {
                        unconfirmed.insert(number, batch);
                        break Some(Cause::TimedOut(allowed));
                    }
                };
                match sent {
                    Ok(outcome) => {
                        unconfirmed.insert(number, batch);
                        outcomes.push(outcome.map(move |outcome| (number, outcome)));
                    }
                    Err(SendError::MessageSizeExceeded(size)) => {
                        let (bytes, limit) = (size.size, size.max_size);
                        round.all(batch, &Outcome::Refused(Error::MessageTooLarge { bytes, limit }));
                    }
                    Err(error) => {
                        round.unsent.extend(batch);
                        break Some(self.connection.explain(error.into()).await);
                    }
                }
            } else if unconfirmed.is_empty() {
                break None;
            } else {
                tokio::select! {
                    biased;
                    Some((number, outcome)) = outcomes.next() => {
                        let batch = unconfirmed.remove(&number).unwrap_or_default();
                        self.record(&mut round, batch, outcome);
                    }
                    detach = self.sender.on_detach() => break Some(self.connection.explain(detach.into()).await),
                    () = self.connection.closed().cancelled() => break Some(self.connection.end()),
                    () = sleep_until(deadline) => break Some(Cause::TimedOut(allowed)),
                }
            }
        };
        if let Some(cause) = broken {
            // Outcomes that came before the break can be had at once; nobody will bring the others.
            while let Some(Some((number, outcome))) = outcomes.next().now_or_never() {
                let batch = unconfirmed.remove(&number).unwrap_or_default();
                self.record(&mut round, batch, outcome);
            }
            for batch in unconfirmed.into_values() {
                round.all(batch, &Outcome::Unknown(self.error(cause.clone())));
            }
            round.unsent.extend(batches.flat_map(|(_, batch)| batch));
            round.broken = Some(self.error(cause));
        }
        round
    }

    fn record(&self, round: &mut Round, batch: Vec<usize>, outcome: Result<Delivered, SendError>) {
        match outcome.map(accepted) {
            Ok(Ok(())) => round.all(batch, &Outcome::Accepted),
            Ok(Err(cause)) if batch.len() > 1 && may_lie_in_one_message(&cause) => {
                round.suspects.extend(batch);
            }
            Ok(Err(cause)) => round.all(batch, &Outcome::Refused(self.error(cause))),
            // It was sent, and the link ended before the broker said what became of it.
            Err(error) => round.all(batch, &Outcome::Unknown(self.error(error.into()))),
        }
    }

    fn error(&self, source: Cause) -> Error {
        Error::Send {
            entity: self.queue.to_string(),
            source,
        }
    }

    /// Closes link and session in order.
    pub(crate) async fn close(self, timeouts: &Timeouts) {
        let Self {
            sender, mut session, ..
        } = self;
        let closing = async {
            if let Err(error) = sender.close().await {
                tracing::debug!(%error, "sending link closed with an error");
            }
            if let Err(error) = session.end().await {
                tracing::debug!(%error, "session ended with an error");
            }
        };
        if timeout(timeouts.close, closing).await.is_err() {
            tracing::debug!("sending link not closed within the time allowed");
        }
    }
}

impl Round {
    fn all(&mut self, batch: Vec<usize>, outcome: &Outcome) {
        self.outcomes
            .extend(batch.into_iter().map(|place| (place, outcome.clone())));
    }
}

/// Whether a refused batch is worth taking apart: not when the reason lies in the queue or the sender.
fn may_lie_in_one_message(cause: &Cause) -> bool {
    match cause {
        Cause::Broker { condition, .. } => {
            cause.recovery() == Recovery::Never
                && !matches!(
                    condition.as_str(),
                    Condition::NOT_FOUND
                        | Condition::UNAUTHORIZED_ACCESS
                        | "amqp:resource-limit-exceeded"
                        | "com.microsoft:entity-disabled"
                )
        }
        _ => false,
    }
}
