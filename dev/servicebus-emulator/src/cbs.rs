//! `$cbs`: claims-based security, the way clients show their tokens
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide#claims-based-authorization>.

use std::collections::HashMap;

use serde_amqp::Value;

use crate::{
    broker::Broker,
    clock::Moment,
    faults::Fate,
    keys::{Keys, covers},
    queue::{QueueName, path},
    rpc::{Request, Response},
};

/// What a connection may do, and until when.
#[derive(Debug, Default)]
pub struct Grants {
    until: HashMap<String, Moment>,
}

impl Grants {
    /// Everything, for good.
    pub fn allow_everything(&mut self) {
        self.until.insert(String::new(), Moment::from_millis(i64::MAX));
    }

    /// Whether a queue may be used now.
    pub fn allow(&self, queue: &QueueName, now: Moment) -> bool {
        self.until
            .iter()
            .any(|(path, until)| *until > now && covers(path, queue.as_str()))
    }

    /// When the next grant ends.
    pub fn next_end(&self) -> Option<Moment> {
        self.until
            .values()
            .min()
            .copied()
            .filter(|at| at.as_millis() < i64::MAX)
    }

    /// Forgets what has ended. Answers whether anything had.
    pub fn forget_ended(&mut self, now: Moment) -> bool {
        let before = self.until.len();
        self.until.retain(|_, until| *until > now);
        self.until.len() < before
    }
}

/// Answers a request to `$cbs`.
pub fn handle(request: &Request, grants: &mut Grants, keys: &Keys, broker: &Broker, now: Moment) -> Response {
    if request.operation != "put-token" {
        return refused(
            400,
            format!("The operation '{}' is not supported.", request.operation),
        );
    }
    let Some(audience) = request.property("name") else {
        return refused(400, "The application property 'name' is missing.");
    };
    let Value::String(token) = &request.body else {
        return refused(400, "The body must be an amqp-value string, the token.");
    };
    if let Some(status) = broker.on_token() {
        return refused(status.into(), "Refused by a fault switch of the emulator.");
    }
    match keys.check(token, audience, now) {
        Ok(until) => {
            let path = path(audience);
            // A token for a sub-path is a right on it alone; links name the queue, so the queue is what counts.
            let entity = path.split("/$").next().unwrap_or(&path).to_owned();
            // The service looks for the entity after it has found the token good, so that nobody can probe for names:
            // <https://github.com/Azure/azure-sdk-for-net/issues/44734>. No path at all is the namespace.
            if !entity.is_empty() && !entity.parse().is_ok_and(|queue| broker.has_queue(&queue)) {
                return refused(
                    404,
                    format!("The messaging entity '{audience}' could not be found."),
                );
            }
            grants.until.insert(entity, until);
            Response {
                status: 202,
                description: "Accepted".to_owned(),
                condition: None,
                body: Value::Null,
                fate: Fate::NOW,
            }
        }
        Err(error) => refused(401, error.to_string()),
    }
}

fn refused(status: i32, description: impl Into<String>) -> Response {
    Response {
        status,
        description: description.into(),
        condition: None,
        body: Value::Null,
        fate: Fate::NOW,
    }
}
