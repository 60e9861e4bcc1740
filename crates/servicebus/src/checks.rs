//! Whether a queue can be used, told without touching its messages.

use checks::Check;

use crate::client::Client;
use crate::error::{Cause, Condition, Error, chain};
use crate::settings::{Credential, Settings};

/// Names of the checks here.
pub mod names {
    /// A sending link.
    pub const SEND: &str = "queue send";
    /// A receiving link.
    pub const RECEIVE: &str = "queue receive";
}

/// What one way of using the queue needs.
struct Way {
    name: &'static str,
    verb: &'static str,
    /// The built-in role
    /// (<https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/integration>).
    role: &'static str,
    /// The right of a shared access policy.
    right: &'static str,
}

const SEND: Way = Way {
    name: names::SEND,
    verb: "send to",
    role: "Azure Service Bus Data Sender",
    right: "Send",
};
const RECEIVE: Way = Way {
    name: names::RECEIVE,
    verb: "receive from",
    role: "Azure Service Bus Data Receiver",
    right: "Listen",
};

/// Attaches a link each way and closes it again. No message is sent, handed out or locked.
pub async fn queue(client: &Client, queue: &str) -> Vec<Check> {
    let (send, receive) = tokio::join!(client.probe(queue), client.probe_receiving(queue));
    let settings = client.settings();
    vec![
        judge(&SEND, queue, settings, send),
        judge(&RECEIVE, queue, settings, receive),
    ]
}

fn judge(way: &Way, queue: &str, settings: &Settings, outcome: Result<(), Error>) -> Check {
    let host = &settings.endpoint.host;
    let namespace = host.split('.').next().unwrap_or(host);
    let Err(error) = outcome else {
        return Check::ok(way.name, format!("{} {queue} at {host}", way.verb));
    };
    let words = chain(&error);
    if error.is_not_found() {
        return Check::missing(
            way.name,
            format!("there is no queue {queue} at {host}"),
            format!(
                "az servicebus queue create --resource-group <resource-group> --namespace-name {namespace} --name \
                 {queue} --enable-duplicate-detection true --duplicate-detection-history-time-window PT10M \
                 --lock-duration PT1M --max-delivery-count 10 --enable-dead-lettering-on-message-expiration true"
            ),
        );
    }
    match (&settings.credential, is_refusal(&error)) {
        (Credential::Token(_), true) => Check::missing(
            way.name,
            format!(
                "the identity may not {} queue {queue}, it lacks role '{}': {words}",
                way.verb, way.role
            ),
            format!(
                "az role assignment create --assignee <client-id> --role '{}' --scope /subscriptions/<subscription>/\
                 resourceGroups/<resource-group>/providers/Microsoft.ServiceBus/namespaces/{namespace}/queues/{queue}",
                way.role
            ),
        ),
        (Credential::SharedAccessKey { name, .. }, true) => Check::missing(
            way.name,
            format!(
                "key {name} is not accepted for queue {queue}, or lacks the right {}: {words}",
                way.right
            ),
            format!(
                "az servicebus namespace authorization-rule keys list --resource-group <resource-group> \
                 --namespace-name {namespace} --name {name} --query primaryConnectionString; put it into the \
                 Secret as SERVICEBUS_CONNECTION_STRING"
            ),
        ),
        (Credential::SharedAccessSignature(_), true) => Check::missing(
            way.name,
            format!(
                "the signature is not accepted for queue {queue}, or lacks the right {}: {words}",
                way.right
            ),
            "put a new connection string into the Secret as SERVICEBUS_CONNECTION_STRING",
        ),
        (_, false) => Check::unavailable(
            way.name,
            format!("{host} does not answer: {words}"),
            format!(
                "see that it runs and that no NetworkPolicy is between: nc -vz {host} {}",
                settings.endpoint.port
            ),
        ),
    }
}

/// Whether somebody has to change something, as told by the broker or by the identity's own service.
fn is_refusal(error: &Error) -> bool {
    let denied = error
        .condition()
        .is_some_and(|condition| condition.as_str() == Condition::UNAUTHORIZED_ACCESS);
    denied
        || match error {
            Error::Authorise { source, .. } => matches!(
                source,
                Cause::Status {
                    status: 401 | 403,
                    ..
                }
            ),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::settings::{Endpoint, Transport};

    fn attach(condition: &str) -> Error {
        Error::Attach {
            entity: "orders".to_owned(),
            source: Cause::Broker {
                condition: Condition::new(condition),
                description: "words".to_owned(),
            },
        }
    }

    fn settings(credential: Credential) -> Settings {
        let endpoint = Endpoint {
            host: "music.servicebus.windows.net".to_owned(),
            port: Endpoint::TLS_PORT,
            transport: Transport::Tls,
        };
        Settings::new(endpoint, credential)
    }

    #[derive(Debug)]
    struct Identity;

    #[async_trait::async_trait]
    impl azure_core::credentials::TokenCredential for Identity {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<azure_core::credentials::TokenRequestOptions<'_>>,
        ) -> azure_core::Result<azure_core::credentials::AccessToken> {
            Err(azure_core::Error::new(
                azure_core::error::ErrorKind::Credential,
                "never asked",
            ))
        }
    }

    #[rstest]
    #[case::to_send(&SEND, "--role 'Azure Service Bus Data Sender'")]
    #[case::to_receive(&RECEIVE, "--role 'Azure Service Bus Data Receiver'")]
    fn an_identity_without_its_role_is_told_the_assignment(#[case] way: &Way, #[case] role: &str) {
        let settings = settings(Credential::Token(std::sync::Arc::new(Identity)));

        let check = judge(
            way,
            "orders",
            &settings,
            Err(attach(Condition::UNAUTHORIZED_ACCESS)),
        );

        assert!(check.is_missing(), "{check}");
        let remedy = check.remedy.unwrap();
        assert!(remedy.contains(role), "{remedy}");
        assert!(remedy.ends_with("/namespaces/music/queues/orders"), "{remedy}");
    }

    #[test]
    fn a_failure_that_passes_is_not_called_missing() {
        let key = Credential::SharedAccessKey {
            name: "Root".to_owned(),
            key: "hunter2".into(),
        };

        let check = judge(
            &SEND,
            "orders",
            &settings(key),
            Err(attach(Condition::SERVER_BUSY)),
        );

        assert!(check.failed() && !check.is_missing(), "{check}");
        assert!(!check.to_string().contains("hunter2"));
    }
}
