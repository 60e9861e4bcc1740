//! Which connections there are, what they are told, and which of them wait for messages.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use super::{Broker, Refusal, State};
use crate::{
    faults::Verdict,
    queue::{QueueName, QueueSettings},
};

/// Names a connection within this process.
pub type ConnectionId = u64;

/// What the admin port and the fault switches tell a connection to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// End the links of one queue with an error.
    DetachLinks {
        /// Whose links.
        queue: QueueName,
        /// The AMQP condition.
        condition: String,
        /// The text.
        description: String,
    },
    /// Close the connection with an error.
    Close {
        /// The AMQP condition.
        condition: String,
        /// The text.
        description: String,
    },
    /// Drop the connection without a word.
    Drop,
}

/// What happened to connections since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionCounters {
    /// Taken and served.
    pub accepted: u64,
    /// Closed by a fault switch before a byte was read.
    pub refused: u64,
    /// Ended by a fault switch.
    pub dropped: u64,
    /// Open now.
    pub open: usize,
}

impl Broker {
    /// Whether a new connection is served; counts it either way.
    pub fn admit(&self) -> Option<(ConnectionId, mpsc::UnboundedReceiver<Command>)> {
        let mut state = self.state();
        if state.faults.refuse_connections {
            state.counters.refused += 1;
            return None;
        }
        state.counters.accepted += 1;
        state.last_connection += 1;
        let id = state.last_connection;
        let (sender, receiver) = mpsc::unbounded_channel();
        state.connections.insert(id, sender);
        Some((id, receiver))
    }

    /// A connection is over.
    pub fn leave(&self, id: ConnectionId) {
        let mut state = self.state();
        state.connections.remove(&id);
        for node in state.queues.values_mut() {
            node.watchers.remove(&id);
        }
    }

    /// Counts a connection that a fault switch ended.
    pub fn count_dropped(&self) {
        self.state().counters.dropped += 1;
    }

    /// Asks every connection to do something. Answers with how many there are.
    pub fn tell_all(&self, command: &Command) -> usize {
        self.state().tell_all(command)
    }

    /// How connections fared.
    pub fn connection_counters(&self) -> ConnectionCounters {
        let state = self.state();
        ConnectionCounters {
            open: state.connections.len(),
            ..state.counters
        }
    }

    /// Counts an attach to a queue, and refuses it when the queue is not there or a switch says so.
    pub fn attach(&self, name: &QueueName) -> Result<QueueSettings, Refusal> {
        self.with_node(name, |node| match node.faults.on_attach() {
            Some(Verdict::Refuse {
                condition,
                description,
                ..
            }) => Err(Refusal {
                condition,
                description,
            }),
            _ => Ok(node.queue.settings().clone()),
        })?
    }

    /// From now on `wake` rings when messages may be ready in a queue.
    pub fn watch(&self, name: &QueueName, id: ConnectionId, wake: &Arc<Notify>) {
        if let Some(node) = self.state().queues.get_mut(name) {
            node.watchers.entry(id).or_insert_with(|| (Arc::clone(wake), 0)).1 += 1;
        }
    }

    /// One link fewer that waits for messages.
    pub fn unwatch(&self, name: &QueueName, id: ConnectionId) {
        if let Some(node) = self.state().queues.get_mut(name)
            && let Some((_, links)) = node.watchers.get_mut(&id)
        {
            *links -= 1;
            if *links == 0 {
                node.watchers.remove(&id);
            }
        }
    }
}

impl State {
    pub(super) fn tell_all(&self, command: &Command) -> usize {
        // A connection whose receiver is gone is just leaving.
        self.connections
            .values()
            .filter(|connection| connection.send(command.clone()).is_ok())
            .count()
    }
}
