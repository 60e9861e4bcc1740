//! Claims-based security: tokens put to `$cbs`, and renewed for as long as the connection lives.
//!
//! <https://docs.oasis-open.org/amqp/amqp-cbs/v1.0/amqp-cbs-v1.0.html>; the names of the properties are those
//! of <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide#claims-based-authorization>.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use fe2o3_amqp_types::primitives::{SimpleValue, Timestamp as AmqpTimestamp, Value};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
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
    /// Entities whose token is valid, or being renewed.
    authorised: Mutex<HashSet<String>>,
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

    /// Puts a token for `entity` unless that was done before; starts its renewal.
    pub(crate) async fn ensure(&self, connection: &Arc<Connection>, entity: &str) -> Result<(), Error> {
        let mut authorised = self.authorised.lock().await;
        if authorised.contains(entity) {
            return Ok(());
        }
        let token = self.put(connection, entity).await?;
        authorised.insert(entity.to_owned());
        if let Some(expires_at) = token.expires_at.filter(|_| token.renewable) {
            let renewal = renew(Arc::downgrade(connection), entity.to_owned(), expires_at);
            self.tasks.spawn(renewal);
        }
        Ok(())
    }

    async fn put(&self, connection: &Arc<Connection>, entity: &str) -> Result<Token, Error> {
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

    /// Puts a new token, and tells when that one expires.
    async fn put_again(
        &self,
        connection: &Arc<Connection>,
        entity: &str,
    ) -> Result<Option<Timestamp>, Error> {
        let token = self.put(connection, entity).await?;
        tracing::debug!(entity, "token renewed");
        Ok(token.expires_at)
    }
}

/// Renews an entity's token until the connection ends. Failures are tried again without end: the broker
/// detaches the links when the token has run out, and their owners then report it.
async fn renew(connection: Weak<Connection>, entity: String, mut expires_at: Timestamp) {
    let mut failures = 0;
    loop {
        let pause = {
            let Some(connection) = connection.upgrade() else {
                return;
            };
            match failures {
                0 => renewal_delay(Timestamp::now(), expires_at),
                _ => connection
                    .claims()
                    .settings
                    .reconnect
                    .pause(failures, rand::random()),
            }
        };
        let Some(closed) = connection.upgrade().map(|connection| connection.closed().clone()) else {
            return;
        };
        tokio::select! {
            () = closed.cancelled() => return,
            () = sleep(pause) => {}
        }
        let Some(connection) = connection.upgrade() else {
            return;
        };
        match connection.claims().put_again(&connection, &entity).await {
            Ok(Some(at)) => {
                failures = 0;
                expires_at = at;
            }
            Ok(None) => return,
            Err(error) => {
                failures += 1;
                connection.claims().reporter.failed("token not renewed", error);
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
