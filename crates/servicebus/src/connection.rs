//! One AMQP connection: open, sessions, claims, and how it ends.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Connection as Amqp, Session};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::cbs::Claims;
use crate::error::{Cause, Error};
use crate::health::Reporter;
use crate::settings::{Settings, Timeouts};
use crate::transport;

/// The service's own maximum; a larger frame would only make it wait for more.
const MAX_FRAME_SIZE: u32 = 65_536;

/// An open connection. Dropping the last reference closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    begin: mpsc::Sender<oneshot::Sender<Result<SessionHandle<()>, Error>>>,
    timeouts: Timeouts,
    closed: CancellationToken,
    end: Arc<OnceLock<Cause>>,
    claims: Claims,
}

impl Connection {
    /// Connects and opens, within [`Timeouts::connect`]. `stop` closes the connection again.
    pub(crate) async fn open(
        settings: &Arc<Settings>,
        tasks: &TaskTracker,
        reporter: &Reporter,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let address = settings.endpoint.address();
        let allowed = settings.timeouts.connect;
        let handle = match timeout(allowed, open(settings)).await {
            Ok(result) => result?,
            Err(_) => {
                let source = Cause::TimedOut(allowed);
                return Err(Error::Connect { address, source });
            }
        };
        let (begin, requests) = mpsc::channel(8);
        let closed = CancellationToken::new();
        let end = Arc::new(OnceLock::new());
        let driver = Driver {
            handle,
            requests,
            stop,
            closed: closed.clone(),
            end: Arc::clone(&end),
            timeouts: settings.timeouts.clone(),
        };
        tasks.spawn(driver.run());
        Ok(Arc::new(Self {
            begin,
            timeouts: settings.timeouts.clone(),
            closed,
            end,
            claims: Claims::new(Arc::clone(settings), tasks.clone(), reporter.clone()),
        }))
    }

    /// Begins a session, within [`Timeouts::attach`].
    pub(crate) async fn session(&self) -> Result<SessionHandle<()>, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::BeginSession { source: self.end() };
        self.begin.send(reply).await.map_err(|_| gone())?;
        match timeout(self.timeouts.attach, answer).await {
            Ok(answer) => answer.map_err(|_| gone())?,
            Err(_) => Err(Error::BeginSession {
                source: Cause::TimedOut(self.timeouts.attach),
            }),
        }
    }

    /// Makes sure that the broker has a valid token for `entity` on this connection, and keeps it valid.
    /// Tells whether the token was put now.
    pub(crate) async fn authorise(self: &Arc<Self>, entity: &str) -> Result<bool, Error> {
        self.claims.ensure(self, entity).await
    }

    /// The tokens put on this connection.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Ends when the connection has.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// A link's error, or what is behind it: a link whose connection ended knows no more than that.
    pub(crate) async fn explain(&self, cause: Cause) -> Cause {
        match cause {
            Cause::Disconnected => match timeout(END_IS_KNOWN_WITHIN, self.closed.cancelled()).await {
                Ok(()) => self.end(),
                Err(_) => cause,
            },
            _ if self.closed.is_cancelled() => self.end(),
            _ => cause,
        }
    }

    /// Why the connection ended.
    pub(crate) fn end(&self) -> Cause {
        self.end.get().cloned().unwrap_or(Cause::Disconnected)
    }
}

/// How long the end of a connection may take to be known here after its links have noticed it.
const END_IS_KNOWN_WITHIN: Duration = Duration::from_millis(500);

async fn open(settings: &Settings) -> Result<ConnectionHandle<()>, Error> {
    let endpoint = &settings.endpoint;
    let address = endpoint.address();
    let stream = transport::connect(settings)
        .await
        .map_err(|source| Error::Connect {
            address: address.clone(),
            source,
        })?;
    let idle = u32::try_from(settings.timeouts.idle.as_millis()).unwrap_or(u32::MAX);
    Amqp::builder()
        .container_id(format!("popularity-reports-{}", Uuid::new_v4().simple()))
        .hostname(endpoint.host.as_str())
        // TLS, when there is any, is already beneath the stream.
        .scheme("amqp")
        .max_frame_size(MAX_FRAME_SIZE)
        .idle_time_out(idle)
        .sasl_profile(SaslProfile::Anonymous)
        .open_with_stream(stream)
        .await
        .map_err(|error| Error::Open {
            address,
            source: error.into(),
        })
}

/// Owns the library's handle: it alone may begin sessions, and tells when the connection is over.
struct Driver {
    handle: ConnectionHandle<()>,
    requests: mpsc::Receiver<oneshot::Sender<Result<SessionHandle<()>, Error>>>,
    stop: CancellationToken,
    closed: CancellationToken,
    end: Arc<OnceLock<Cause>>,
    timeouts: Timeouts,
}

impl Driver {
    async fn run(mut self) {
        let end = loop {
            tokio::select! {
                biased;
                ended = self.handle.on_close() => {
                    break ended.err().map_or(Cause::Disconnected, Cause::from);
                }
                () = self.stop.cancelled() => break self.close().await,
                request = self.requests.recv() => match request {
                    Some(reply) => {
                        let session = self.begin().await;
                        // Nobody waits any more: dropping the session ends it.
                        drop(reply.send(session));
                    }
                    None => break self.close().await,
                },
            }
        };
        tracing::debug!(cause = %end, "connection ended");
        // Only this task sets the cell, and only once.
        drop(self.end.set(end));
        self.closed.cancel();
    }

    async fn begin(&mut self) -> Result<SessionHandle<()>, Error> {
        let allowed = self.timeouts.attach;
        match timeout(allowed, Session::begin(&mut self.handle)).await {
            Ok(result) => result.map_err(|error| Error::BeginSession { source: error.into() }),
            Err(_) => Err(Error::BeginSession {
                source: Cause::TimedOut(allowed),
            }),
        }
    }

    async fn close(&mut self) -> Cause {
        match timeout(self.timeouts.close, self.handle.close()).await {
            Ok(Ok(())) => Cause::Disconnected,
            Ok(Err(error)) => error.into(),
            Err(_) => Cause::TimedOut(self.timeouts.close),
        }
    }
}
