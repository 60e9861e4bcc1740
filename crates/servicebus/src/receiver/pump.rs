//! The task behind a receiver: keeps a link attached and never asks for more messages than there are places.

use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::Delivery;
use fe2o3_amqp::link::delivery::DeliveryInfo;
use fe2o3_amqp::link::{CreditMode, RecvError};
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp_types::definitions::{self, ErrorCondition};
use fe2o3_amqp_types::messaging::Body;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connection::Connection;
use crate::decode;
use crate::error::{Cause, Condition, Error, chain};
use crate::receiver::inbox::Inbox;
use crate::supervisor::{SETTLED_AFTER, Shared};

/// The place that a received message occupies; free again when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    delivery: LinkDelivery,
    notices: mpsc::UnboundedSender<Notice>,
}

/// A delivery, as its link knows it.
#[derive(Debug, Clone)]
pub(crate) struct LinkDelivery {
    /// Which of the receiver's links brought it; deliveries of earlier ones mean nothing to the present one.
    generation: u64,
    info: DeliveryInfo,
}

impl Held {
    pub(crate) fn delivery(&self) -> LinkDelivery {
        self.delivery.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The pump may be gone; then nobody counts places any more.
        drop(self.notices.send(Notice::Freed));
    }
}

/// What the pump is told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A place is free again.
    Freed,
    /// The link may forget a delivery: it was settled through `$management`, or nobody will look at it and
    /// the broker shall give it to somebody else.
    Release(LinkDelivery),
}

/// How long a delivery that has arrived may take on its way through the AMQP library's tasks.
const HAND_OVER: Duration = Duration::from_millis(20);

pub(crate) struct Pump {
    pub shared: Arc<Shared>,
    pub queue: Arc<str>,
    /// How many messages may be held at a time.
    pub limit: u32,
    pub inbox: Arc<Inbox>,
    pub notices: mpsc::UnboundedSender<Notice>,
    pub incoming: mpsc::UnboundedReceiver<Notice>,
    pub stop: CancellationToken,
    pub held: u32,
    pub generation: u64,
}

/// An attached receiving link, on a session of its own.
pub(crate) struct Link {
    receiver: fe2o3_amqp::Receiver,
    connection: Arc<Connection>,
    // After the link, so that it is dropped second.
    session: SessionHandle<()>,
}

impl Pump {
    pub(crate) async fn run(mut self) {
        self.keep_receiving().await;
        drop(self.inbox.close());
    }

    /// Returns when the receiver is closed.
    async fn keep_receiving(&mut self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let attached = tokio::select! {
                () = self.stop.cancelled() => return,
                attached = Link::attach(&self.shared, &self.queue, None) => attached,
            };
            let error = match attached {
                Ok(mut link) => {
                    self.inbox.clear_refusal();
                    self.generation += 1;
                    tracing::debug!(queue = %self.queue, "receiving");
                    let since = Instant::now();
                    let Some(cause) = self.serve(&mut link).await else {
                        return self.wind_up(link).await;
                    };
                    let error = self.lost(cause, &link);
                    if since.elapsed() >= SETTLED_AFTER {
                        failures = 0;
                        continue;
                    }
                    error
                }
                Err(error) => {
                    self.shared
                        .reporter
                        .failed("receiving link not attached", error.clone());
                    if !error.is_retriable() {
                        self.inbox.refuse(error.clone());
                    }
                    error
                }
            };
            failures += 1;
            let pause = self.shared.settings.pause(failures, error.cause());
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Receives until the link is lost (`Some`) or the receiver is closed (`None`).
    async fn serve(&mut self, link: &mut Link) -> Option<Cause> {
        // The library's own count of credit is not kept while draining; this one is exact.
        let mut credit = 0;
        loop {
            if let Some(wanted) = top_up(self.limit, self.held, credit) {
                if let Err(error) = link.receiver.set_credit(wanted).await {
                    return Some(link.connection.explain(error.into()).await);
                }
                credit = wanted;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                // The pump holds a sender itself, so there is always a next notice to wait for.
                Some(notice) = self.incoming.recv() => self.note(notice, link).await,
                delivery = link.receiver.recv::<Body<Value>>() => {
                    credit = credit.saturating_sub(1);
                    match delivery {
                        Ok(delivery) => self.deliver(delivery, link).await,
                        Err(RecvError::MessageDecode(error)) => {
                            self.refuse(error.info, error.source.to_string(), link).await;
                        }
                        Err(error) => return Some(link.connection.explain(error.into()).await),
                    }
                }
                () = link.connection.closed().cancelled() => return Some(link.connection.end()),
            }
        }
    }

    async fn deliver(&mut self, delivery: Delivery<Body<Value>>, link: &Link) {
        let (info, message) = delivery.into_parts();
        self.held += 1;
        let held = Held {
            delivery: LinkDelivery {
                generation: self.generation,
                info: info.clone(),
            },
            notices: self.notices.clone(),
        };
        match decode::received(message, info.delivery_tag(), Timestamp::now(), held) {
            Ok(message) => {
                if !self.inbox.put(message) {
                    link.release(info).await;
                }
            }
            Err(error) => self.refuse(info, error.to_string(), link).await,
        }
    }

    /// Dead-letters what cannot be read: it would be as unreadable the next time.
    async fn refuse(&self, info: DeliveryInfo, why: String, link: &Link) {
        tracing::error!(queue = %self.queue, why, "message cannot be read; dead-lettered");
        let details = [
            ("DeadLetterReason", "MessageNotReadable"),
            ("DeadLetterErrorDescription", why.as_str()),
        ];
        let details = details.map(|(name, text)| (Symbol::from(name), Value::String(text.to_owned())));
        let error = definitions::Error::new(
            ErrorCondition::Custom(Symbol::from("com.microsoft:dead-letter")),
            Some(why.clone()),
            Some(details.into_iter().collect()),
        );
        if let Err(error) = link.receiver.reject(info, error).await {
            tracing::debug!(%error, "message not rejected; the link is lost");
        }
    }

    async fn note(&mut self, notice: Notice, link: &Link) {
        match notice {
            Notice::Freed => self.held = self.held.saturating_sub(1),
            Notice::Release(delivery) if delivery.generation == self.generation => {
                link.release(delivery.info).await;
            }
            Notice::Release(_) => {}
        }
    }

    fn lost(&self, cause: Cause, link: &Link) -> Error {
        let queue = &self.queue;
        let forced = matches!(&cause, Cause::Broker { condition, .. } if condition.as_str() == Condition::DETACH_FORCED);
        let error = Error::Receive {
            entity: queue.to_string(),
            source: cause,
        };
        if link.connection.closed().is_cancelled() {
            // The supervisor reports why.
            tracing::debug!(%queue, "receiving link lost with its connection");
        } else if forced {
            // The service does this to links that lie idle, and when it moves a queue.
            tracing::info!(%queue, error = chain(&error), "receiving link detached by the broker");
        } else {
            self.shared.reporter.failed("receiving link lost", error.clone());
        }
        error
    }

    /// Gives back what was fetched and not handed out, and closes link and session in order.
    async fn wind_up(&mut self, mut link: Link) {
        let queue = Arc::clone(&self.queue);
        let allowed = self.shared.settings.timeouts.close;
        let closing = async {
            if let Err(error) = link.receiver.set_credit(0).await {
                tracing::debug!(%error, "credit not withdrawn; the link is lost");
            }
            for message in self.inbox.close() {
                self.note(Notice::Release(message.held.delivery()), &link).await;
            }
            while let Ok(notice) = self.incoming.try_recv() {
                self.note(notice, &link).await;
            }
            // What the broker sent before it heard of the credit's end would stay locked unseen. It is here
            // when the broker has answered a request that was made later.
            if let Err(error) = link.connection.claims().put(&link.connection, &self.queue).await {
                tracing::debug!(error = chain(&error), "no answer while closing");
            }
            while let Ok(Ok(delivery)) = timeout(HAND_OVER, link.receiver.recv::<Body<Value>>()).await {
                link.release(delivery.into_parts().0).await;
            }
            link.close(allowed).await;
        };
        if timeout(allowed, closing).await.is_err() {
            tracing::debug!(%queue, "receiving link not closed within the time allowed");
        }
    }
}

impl Link {
    /// Authorises and attaches, with no credit yet, on a connection that is waited for until `deadline`
    /// (`None`: for as long as it takes).
    pub(crate) async fn attach(
        shared: &Shared,
        queue: &str,
        deadline: Option<Instant>,
    ) -> Result<Self, Error> {
        let connection = shared.connection(deadline).await?;
        let allowed = shared.settings.timeouts.attach;
        let token_is_new = connection.authorise(queue).await?;
        match Self::try_attach(&connection, queue, allowed).await {
            // The token that was put earlier is no longer good.
            Err(error) if error.is_unauthorised() && !token_is_new => {
                connection.claims().forget(queue).await;
                connection.authorise(queue).await?;
                Self::try_attach(&connection, queue, allowed).await
            }
            attached => attached,
        }
    }

    async fn try_attach(connection: &Arc<Connection>, queue: &str, allowed: Duration) -> Result<Self, Error> {
        let mut session = connection.session().await?;
        let attaching = fe2o3_amqp::Receiver::builder()
            .name(format!("{queue}-receiver-{}", Uuid::new_v4().simple()))
            .source(queue)
            .credit_mode(CreditMode::Manual)
            .attach(&mut session);
        let attached = tokio::select! {
            attached = timeout(allowed, attaching) => match attached {
                Ok(attached) => attached.map_err(Cause::from),
                Err(_) => Err(Cause::TimedOut(allowed)),
            },
            () = connection.closed().cancelled() => Err(connection.end()),
        };
        let receiver = attached.map_err(|source| Error::Attach {
            entity: queue.to_owned(),
            source,
        })?;
        Ok(Self {
            receiver,
            connection: Arc::clone(connection),
            session,
        })
    }

    /// Closes link and session in order, within `allowed`.
    pub(crate) async fn close(self, allowed: Duration) {
        let Self {
            receiver,
            mut session,
            ..
        } = self;
        let closing = async {
            if let Err(error) = receiver.close().await {
                tracing::debug!(%error, "receiving link closed with an error");
            }
            if let Err(error) = session.end().await {
                tracing::debug!(%error, "session ended with an error");
            }
        };
        if timeout(allowed, closing).await.is_err() {
            tracing::debug!("receiving link not closed within the time allowed");
        }
    }

    /// Settles a delivery on the link as released. For one that `$management` has settled this only clears
    /// the link's books: its lock is gone, so the broker has nothing to release.
    async fn release(&self, info: DeliveryInfo) {
        if let Err(error) = self.receiver.release(info).await {
            tracing::debug!(%error, "delivery not released; the link is lost");
        }
    }
}

/// The credit to set, if any: what is free of `limit`, once that is at least half more than the broker has.
fn top_up(limit: u32, held: u32, credit: u32) -> Option<u32> {
    let free = limit.saturating_sub(held);
    let grown = free.saturating_sub(credit);
    (grown > 0 && (credit == 0 || grown >= limit.div_ceil(2))).then_some(free)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::at_the_start(10, 0, 0, Some(10))]
    #[case::nothing_new(10, 0, 10, None)]
    #[case::all_held(10, 10, 0, None)]
    #[case::one_place_free_and_no_credit(10, 9, 0, Some(1))]
    #[case::few_places_free(10, 2, 4, None)]
    #[case::half_free(10, 2, 3, Some(8))]
    #[case::single_place(1, 0, 0, Some(1))]
    #[case::single_place_held(1, 1, 0, None)]
    #[case::more_held_than_allowed(2, 3, 0, None)]
    fn credit_never_exceeds_the_free_places(
        #[case] limit: u32,
        #[case] held: u32,
        #[case] credit: u32,
        #[case] expected: Option<u32>,
    ) {
        assert_eq!(top_up(limit, held, credit), expected);
    }
}
