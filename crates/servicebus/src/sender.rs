//! Sending: encoded in batches, confirmed by the broker one by one.

mod call;
mod link;

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::{Cause, Condition, Error, chain};
use crate::message::Outgoing;
use crate::sender::call::Call;
pub(crate) use crate::sender::link::Link;
use crate::supervisor::Shared;

/// A sender to one queue, from [`crate::Client::sender`].
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    queue: Arc<str>,
    options: SenderOptions,
    state: Mutex<State>,
}

/// What outlives a call.
#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    /// Until when the broker wants to be left alone.
    busy_until: Option<Instant>,
}

/// How a [`Sender`] groups and repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderOptions {
    /// The most messages in one batch. A batch is taken or refused as a whole.
    pub batch_messages: NonZeroUsize,
    /// The most batches sent and not yet confirmed.
    pub in_flight: NonZeroUsize,
    /// How often messages that were certainly not stored are sent again within one call. Messages of unknown
    /// outcome never are.
    pub retries: u32,
}

impl Default for SenderOptions {
    /// 100 messages, 2 batches, 3 retries (the retries of the official SDKs).
    fn default() -> Self {
        Self {
            batch_messages: NonZeroUsize::MIN.saturating_add(99),
            in_flight: NonZeroUsize::MIN.saturating_add(1),
            retries: 3,
        }
    }
}

/// What became of one message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The broker has stored it.
    Accepted,
    /// It was sent, and no answer came: the broker may or may not have stored it. Sending it again under the
    /// same message id is safe when duplicates are detected or harmless.
    Unknown(Error),
    /// The broker has not stored it; [`Error::is_retriable`] tells whether it may later.
    Refused(Error),
}

/// The outcomes of one [`Sender::send`], in the order of the messages.
#[derive(Debug)]
pub struct SendReport {
    /// One for each message.
    pub outcomes: Vec<Outcome>,
}

impl SendReport {
    /// Whether every message was accepted.
    pub fn all_accepted(&self) -> bool {
        self.outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Accepted))
    }

    /// The first outcome that is not [`Outcome::Accepted`], with its message's place.
    pub fn first_failure(&self) -> Option<(usize, &Error)> {
        self.outcomes
            .iter()
            .enumerate()
            .find_map(|(place, outcome)| match outcome {
                Outcome::Accepted => None,
                Outcome::Unknown(error) | Outcome::Refused(error) => Some((place, error)),
            })
    }
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>, queue: &str, options: SenderOptions) -> Self {
        Self {
            shared,
            queue: queue.into(),
            options,
            state: Mutex::default(),
        }
    }

    /// Sends messages and reports what became of each, within [`crate::Timeouts::send`]. Never hangs when
    /// the peer dies: what was under way is then [`Outcome::Unknown`].
    ///
    /// Calls on one sender run one after the other. A single message goes as it is, several as batches.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what became of its messages is unknown; the sender stays usable.
    pub async fn send(&self, messages: Vec<Outgoing>) -> SendReport {
        let allowed = self.shared.settings.timeouts.send;
        let deadline = Instant::now() + allowed;
        let mut call = Call::new(messages);
        match timeout_at(deadline, self.state.lock()).await {
            Ok(mut state) => self.run(&mut state, &mut call, deadline).await,
            Err(_) => call.refuse_rest(&self.error(Cause::TimedOut(allowed))),
        }
        call.into_report()
    }

    /// Rounds, until every message has an outcome or it is too late for another round.
    async fn run(&self, state: &mut State, call: &mut Call, deadline: Instant) {
        let mut retries = 0;
        while call.is_unfinished() {
            if let Some(until) = state.busy_until.filter(|until| *until > Instant::now()) {
                if until >= deadline {
                    return call.refuse_rest(&self.busy());
                }
                sleep_until(until).await;
            }
            state.busy_until = None;
            if Instant::now() >= deadline {
                let allowed = self.shared.settings.timeouts.send;
                return call.refuse_rest(&self.error(Cause::TimedOut(allowed)));
            }
            let reused = state.link.is_some();
            let Some(error) = self.round(state, call, deadline).await else {
                continue;
            };
            if reused && state.link.is_none() {
                // The link was lost while it lay idle (the service detaches it after ten minutes) or under
                // way. What was not sent goes over a new one at once; this is neither a failure nor a retry.
                tracing::debug!(queue = %self.queue, error = chain(&error), "link was lost");
                continue;
            }
            self.shared.reporter.failed("sending failed", error.clone());
            retries += 1;
            let again = Instant::now() + self.shared.settings.pause(retries, error.cause());
            if error.retry_after().is_some() {
                // Holds for the next call, too.
                state.busy_until = Some(again);
            }
            if !error.is_retriable() || retries > self.options.retries || again >= deadline {
                return call.refuse_rest(&error);
            }
            sleep_until(again).await;
        }
    }

    /// Sends once what has no outcome yet, and tells why some of it still has none.
    async fn round(&self, state: &mut State, call: &mut Call, deadline: Instant) -> Option<Error> {
        // Taken out meanwhile: should this future be dropped, the link goes with it, since half a delivery may
        // be on the wire.
        let mut link = match state.link.take() {
            Some(link) => link,
            None => match self.attach(deadline).await {
                Ok(link) => link,
                Err(error) => return Some(error),
            },
        };
        let batches = call.batches(link.max_message_size(), self.options.batch_messages);
        let in_flight = self.options.in_flight.get();
        let round = link.send(call.messages(), batches, in_flight, deadline).await;
        // A broken link is dropped and not closed: the peer may be gone, and a close would wait for it.
        state.link = round.broken.is_none().then_some(link);
        call.take(round)
    }

    async fn attach(&self, deadline: Instant) -> Result<Link, Error> {
        let timeouts = &self.shared.settings.timeouts;
        let connection = self.shared.connection(Some(deadline)).await?;
        timeout_at(deadline, Link::attach(&connection, &self.queue, timeouts))
            .await
            .unwrap_or_else(|_| {
                Err(Error::Attach {
                    entity: self.queue.to_string(),
                    source: Cause::TimedOut(timeouts.send),
                })
            })
    }

    fn error(&self, source: Cause) -> Error {
        Error::Send {
            entity: self.queue.to_string(),
            source,
        }
    }

    fn busy(&self) -> Error {
        self.error(Cause::Broker {
            condition: Condition::new(Condition::SERVER_BUSY),
            description: "the broker asked for a pause, which is not over".to_owned(),
        })
    }

    /// Closes the link. A later send attaches anew.
    pub async fn close(&self) {
        if let Some(link) = self.state.lock().await.link.take() {
            link.close(&self.shared.settings.timeouts).await;
        }
    }
}
