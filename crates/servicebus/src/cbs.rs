//! Claims-based security: tokens put to `$cbs`, and renewed for as long as the connection lives.
//!
//! <https://docs.oasis-open.org/amqp/amqp-cbs/v1.0/amqp-cbs-v1.0.html>; the names of the properties are those
//! of <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide#claims-based-authorization>.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fe2o3_amqp_types::primitives::{SimpleValue, Timestamp as AmqpTimestamp, Value};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::error::{Cause, Error};
use crate::health::Reporter;
use crate::request::{Request, Requester};
use crate::settings::{Endpoint, Settings, Transport};
use crate::token::{Token, renewal_delay};

/// The entities that one connection may use.
#[derive(Debug)]
pub(crate) struct Claims {
    settings: Arc<Settings>,
    tasks: TaskTracker,
    reporter: Reporter,
    requester: Requester,
    /// Entities for which a token was put, each with what stops its renewal.
    authorised: Mutex<HashMap<String, CancellationToken>>,
}

impl Claims {
    pub(crate) fn new(settings: Arc<Settings>, tasks: TaskTracker, reporter: Reporter) -> Self {
        Self {
            settings,
            tasks,
            reporter,
            requester: Requester::new("$cbs"),
            authorised: Mutex::default(),
        }
    }

    /// Puts a token for `entity` unless that was done before, and starts its renewal. Tells whether it was
    /// put now.
    pub(crate) async fn ensure(&self, connection: &Arc<Connection>, entity: &str) -> Result<bool, Error> {
        let mut authorised = self.authorised.lock().await;
        if authorised.contains_key(entity) {
            return Ok(false);
        }
        let token = self.put(connection, entity).await?;
        let stop = connection.closed().child_token();
        if let Some(expires_at) = token.expires_at.filter(|_| token.renewable) {
            let renewal = renew(Arc::downgrade(connection), entity.to_owned(), expires_at);
            let stopped = stop.clone();
            self.tasks
                .spawn(async move { stopped.run_until_cancelled(renewal).await });
        }
        authorised.insert(entity.to_owned(), stop);
        Ok(true)
    }

    /// The broker no longer takes the token; the next [`Claims::ensure`] puts a new one.
    pub(crate) async fn forget(&self, entity: &str) {
        if let Some(renewal) = self.authorised.lock().await.remove(entity) {
            renewal.cancel();
        }
    }

    /// Puts a token for `entity`, whether or not that was done before.
    pub(crate) async fn put(&self, connection: &Arc<Connection>, entity: &str) -> Result<Token, Error> {
        let allowed = self.settings.timeouts.request;
        let audience = audience(&self.settings.endpoint, entity);
        let lifetime = self.settings.sas_lifetime;
        let token = self
            .settings
            .credential
            .token(&audience, Timestamp::now(), lifetime);
        let token = timeout(allowed, token).await.unwrap_or_else(|_| {
            Err(Error::GetToken {
                source: Cause::TimedOut(allowed),
            })
        })?;
        let expiration = token.expires_at.map_or(SimpleValue::Null, |at| {
            SimpleValue::Timestamp(AmqpTimestamp::from_milliseconds(at.as_millisecond()))
        });
        let request = Request {
            operation: "put-token",
            properties: vec![
                ("type", SimpleValue::String(token.kind.to_owned())),
                ("name", SimpleValue::String(audience)),
                ("expiration", expiration),
            ],
            body: Value::String(token.text.expose_secret().to_owned()),
        };
        match self.requester.call(connection, request, allowed).await {
            Ok(_) => Ok(token),
            Err(source) => Err(Error::Authorise {
                entity: entity.to_owned(),
                source,
            }),
        }
    }
}

/// Renews an entity's token for as long as the connection is there. Failures are tried again without end:
/// the broker detaches the links when the token has run out, and their owners then report it.
async fn renew(connection: Weak<Connection>, entity: String, mut expires_at: Timestamp) {
    let mut pause = renewal_delay(Timestamp::now(), expires_at);
    let mut failures = 0;
    loop {
        sleep(pause).await;
        let Some(connection) = connection.upgrade() else {
            return;
        };
        let claims = connection.claims();
        match claims.put(&connection, &entity).await {
            Ok(token) => {
                tracing::debug!(entity, "token renewed");
                failures = 0;
                expires_at = token.expires_at.unwrap_or(expires_at);
                pause = renewal_delay(Timestamp::now(), expires_at);
            }
            Err(error) => {
                failures += 1;
                pause = claims.settings.pause(failures, error.cause());
                claims.reporter.failed("token not renewed", error);
            }
        }
    }
}

/// The resource that a token is for. The port is left out when it is the usual one, as in the SDKs.
fn audience(endpoint: &Endpoint, entity: &str) -> String {
    let usual = match endpoint.transport {
        Transport::Tls => Endpoint::TLS_PORT,
        Transport::Plain => Endpoint::PLAIN_PORT,
    };
    if endpoint.port == usual {
        format!("sb://{}/{entity}", endpoint.host)
    } else {
        format!("sb://{}/{entity}", endpoint.address())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::azure(
        "ns.servicebus.windows.net",
        5671,
        Transport::Tls,
        "sb://ns.servicebus.windows.net/q"
    )]
    #[case::emulator("localhost", 5672, Transport::Plain, "sb://localhost/q")]
    #[case::other_port("localhost", 49152, Transport::Plain, "sb://localhost:49152/q")]
    #[case::tls_on_the_plain_port("host", 5672, Transport::Tls, "sb://host:5672/q")]
    fn audience_names_host_and_queue(
        #[case] host: &str,
        #[case] port: u16,
        #[case] transport: Transport,
        #[case] expected: &str,
    ) {
        let endpoint = Endpoint {
            host: host.into(),
            port,
            transport,
        };

        assert_eq!(audience(&endpoint, "q"), expected);
    }
}
