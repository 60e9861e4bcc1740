//! What all connections share: the queues behind one lock, the journal, the clock's work, and who waits
//! for messages.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::{
    clock::Moment,
    codec,
    faults::{BrokerFaults, Fate, QueueFaults, Verdict},
    journal::{self, Journal},
    message::{self, BATCH_FORMAT, Message},
    queue::{
        self, Counters, Counts, Delivery, Part, Queue, QueueName, QueueSettings, ReceiveMode, Settlement,
    },
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

/// An error for a client, as AMQP condition and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{condition}: {description}")]
pub struct Refusal {
    /// The AMQP condition.
    pub condition: String,
    /// The text.
    pub description: String,
}

impl Refusal {
    /// An error with this condition and text.
    pub fn new(condition: &str, description: impl Into<String>) -> Self {
        Self {
            condition: condition.to_owned(),
            description: description.into(),
        }
    }

    /// There is no such queue.
    pub fn queue_not_found(queue: &QueueName) -> Self {
        Self::new(
            "amqp:not-found",
            format!("The messaging entity '{queue}' could not be found."),
        )
    }

    fn malformed(error: &codec::Error) -> Self {
        Self::new(
            "amqp:decode-error",
            format!("The message is not valid AMQP: {error}."),
        )
    }
}

impl From<queue::Error> for Refusal {
    fn from(error: queue::Error) -> Self {
        let condition = match error {
            queue::Error::LockLost => "com.microsoft:message-lock-lost",
            queue::Error::NotFound(_) => "com.microsoft:message-not-found",
            queue::Error::Encode(_) => "amqp:internal-error",
        };
        Self::new(condition, error.to_string())
    }
}

/// The result of an operation, and what a fault switch makes of the connection.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What to answer, if anything.
    pub result: Result<T, Refusal>,
    /// Whether and when to answer.
    pub fate: Fate,
}

/// All queues and connections.
#[derive(Debug)]
pub struct Broker {
    state: Mutex<State>,
    journal: Journal,
    /// Rings when a deadline may have come nearer.
    deadlines_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<QueueName, Node>,
    faults: BrokerFaults,
    connections: HashMap<ConnectionId, mpsc::UnboundedSender<Command>>,
    counters: ConnectionCounters,
    last_connection: ConnectionId,
}

#[derive(Debug)]
struct Node {
    queue: Queue,
    faults: QueueFaults,
    /// Connections with receivers here, with the number of their links.
    watchers: HashMap<ConnectionId, (Arc<Notify>, usize)>,
}

/// A look at one queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueView {
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: QueueSettings,
    /// What is in it.
    #[serde(flatten)]
    pub counts: Counts,
    /// What happened in it.
    pub counters: Counters,
    /// The switches that are set.
    pub faults: QueueFaults,
}

impl Broker {
    /// A broker with these queues.
    pub fn new(queues: Vec<Queue>, journal: Journal) -> Self {
        let queues = queues
            .into_iter()
            .map(|queue| (queue.name().clone(), Node::new(queue)))
            .collect();
        Self {
            state: Mutex::new(State {
                queues,
                ..State::default()
            }),
            journal,
            deadlines_changed: Notify::new(),
        }
    }

    /// The way to the store.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic half-way through a change runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a queue, then writes down what changed and wakes whom it concerns.
    fn with_node<T>(&self, name: &QueueName, work: impl FnOnce(&mut Node) -> T) -> Result<T, Refusal> {
        let mut state = self.state();
        let node = state
            .queues
            .get_mut(name)
            .ok_or_else(|| Refusal::queue_not_found(name))?;
        let before = node.queue.next_deadline();
        let result = work(node);
        let after = node.queue.next_deadline();
        self.settle_up(name, node);
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.deadlines_changed.notify_one();
        }
        Ok(result)
    }

    fn settle_up(&self, name: &QueueName, node: &mut Node) {
        let changes = node.queue.take_changes();
        if !changes.is_empty() {
            self.journal
                .append(journal::Entry::Changed(name.clone(), changes));
        }
        if node.queue.take_arrivals() {
            for (wake, _) in node.watchers.values() {
                wake.notify_one();
            }
        }
    }

    // ── queues ──────────────────────────────────────────────────────────────────────────────────────

    /// Makes a queue, or gives an existing one new settings. Answers whether it is new.
    pub fn define_queue(&self, name: &QueueName, settings: QueueSettings) -> bool {
        let mut state = self.state();
        self.journal
            .append(journal::Entry::Defined(name.clone(), settings.clone()));
        match state.queues.get_mut(name) {
            Some(node) => {
                node.queue.set_settings(settings);
                false
            }
            None => {
                state
                    .queues
                    .insert(name.clone(), Node::new(Queue::new(name.clone(), settings)));
                true
            }
        }
    }

    /// Deletes a queue and ends its links. Answers whether there was one.
    pub fn delete_queue(&self, name: &QueueName) -> bool {
        let mut state = self.state();
        let existed = state.queues.remove(name).is_some();
        if existed {
            self.journal.append(journal::Entry::Deleted(name.clone()));
            let gone = Refusal::queue_not_found(name);
            state.tell_all(&Command::DetachLinks {
                queue: name.clone(),
                condition: gone.condition,
                description: gone.description,
            });
        }
        existed
    }

    /// Whether there is such a queue.
    pub fn has_queue(&self, name: &QueueName) -> bool {
        self.state().queues.contains_key(name)
    }

    /// A look at one queue.
    pub fn view(&self, name: &QueueName, now: Moment) -> Result<QueueView, Refusal> {
        self.with_node(name, |node| {
            node.queue.tick(now);
            node.view(name)
        })
    }

    /// A look at every queue.
    pub fn views(&self, now: Moment) -> Vec<QueueView> {
        let names: Vec<_> = self.state().queues.keys().cloned().collect();
        // A queue deleted in between is left out.
        names
            .iter()
            .filter_map(|name| self.view(name, now).ok())
            .collect()
    }

    /// Throws a queue's messages away. Answers with how many there were.
    pub fn purge(&self, name: &QueueName) -> Result<usize, Refusal> {
        self.with_node(name, |node| node.queue.purge())
    }

    /// Ends a queue's locks now. Answers with how many there were.
    pub fn expire_locks(&self, name: &QueueName, now: Moment) -> Result<usize, Refusal> {
        self.with_node(name, |node| node.queue.expire_locks(now))
    }

    // ── messages ────────────────────────────────────────────────────────────────────────────────────

    /// Takes in what one transfer brought: a message, or a batch of them, all or none.
    pub fn send(&self, name: &QueueName, payload: &Bytes, format: u32, now: Moment) -> Outcome<()> {
        let sent = self.with_node(name, |node| {
            node.queue.counters_mut().transfers += 1;
            let fate = match node.faults.on_send() {
                Verdict::Go(fate) => fate,
                Verdict::Skip(fate) => return Outcome { result: Ok(()), fate },
                Verdict::Refuse {
                    condition,
                    description,
                    after,
                } => {
                    node.queue.counters_mut().refused += 1;
                    return Outcome {
                        result: Err(Refusal {
                            condition,
                            description,
                        }),
                        fate: Fate::Answer { after },
                    };
                }
            };
            let result = unpack(payload, format).map(|messages| {
                for message in messages {
                    node.queue.enqueue(message, now);
                }
            });
            if result.is_err() {
                node.queue.counters_mut().refused += 1;
            }
            Outcome { result, fate }
        });
        sent.unwrap_or_else(Outcome::refused)
    }

    /// Takes in one message over `$management`, and answers with its number.
    pub fn schedule(&self, name: &QueueName, payload: &Bytes, now: Moment) -> Result<i64, Refusal> {
        let message = Message::parse(payload, Uuid::new_v4()).map_err(|error| Refusal::malformed(&error))?;
        self.with_node(name, |node| match node.queue.enqueue(message, now) {
            queue::Enqueued::Stored(sequence) => sequence,
            queue::Enqueued::Duplicate => 0,
        })
    }

    /// The next message for a receiver, and what a fault switch makes of its connection.
    pub fn receive(
        &self,
        name: &QueueName,
        part: Part,
        mode: ReceiveMode,
        now: Moment,
    ) -> Result<Option<(Delivery, Fate)>, Refusal> {
        self.with_node(name, |node| {
            let delivery = node.queue.receive(part, mode, Uuid::new_v4(), now)?;
            Ok(delivery.map(|delivery| {
                let fate = node.faults.on_delivery();
                (delivery, fate)
            }))
        })?
    }

    /// Settles over a link.
    pub fn settle(&self, name: &QueueName, token: Uuid, settlement: Settlement, now: Moment) -> Outcome<()> {
        let settled = self.with_node(name, |node| match node.faults.on_settle() {
            Verdict::Go(fate) => {
                let result = node.queue.settle(token, settlement, now).map_err(Refusal::from);
                Outcome { result, fate }
            }
            Verdict::Skip(fate) => Outcome { result: Ok(()), fate },
            Verdict::Refuse {
                condition,
                description,
                after,
            } => Outcome {
                result: Err(Refusal {
                    condition,
                    description,
                }),
                fate: Fate::Answer { after },
            },
        });
        settled.unwrap_or_else(Outcome::refused)
    }

    /// Runs a `$management` operation on a queue.
    pub fn manage<T>(
        &self,
        name: &QueueName,
        work: impl FnOnce(&mut Queue) -> Result<T, queue::Error>,
    ) -> Result<T, Refusal> {
        self.with_node(name, |node| work(&mut node.queue))?
            .map_err(Refusal::from)
    }

    // ── time ────────────────────────────────────────────────────────────────────────────────────────

    /// Does what time brings to the queues, for as long as it is polled.
    pub async fn keep_time(&self) {
        loop {
            let next = self.tick(Moment::now());
            match next {
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep(Moment::now().until(at)) => {}
                        () = self.deadlines_changed.notified() => {}
                    }
                }
                None => self.deadlines_changed.notified().await,
            }
        }
    }

    fn tick(&self, now: Moment) -> Option<Moment> {
        let mut state = self.state();
        let mut next: Option<Moment> = None;
        for (name, node) in &mut state.queues {
            if node.queue.next_deadline().is_some_and(|at| at <= now) {
                node.queue.tick(now);
                self.settle_up(name, node);
            }
            next = [next, node.queue.next_deadline()].into_iter().flatten().min();
        }
        next
    }

    // ── connections and links ───────────────────────────────────────────────────────────────────────

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

    // ── fault switches ──────────────────────────────────────────────────────────────────────────────

    /// Sets a queue's switches.
    pub fn set_faults(&self, name: &QueueName, faults: QueueFaults) -> Result<(), Refusal> {
        self.with_node(name, |node| node.faults = faults)
    }

    /// Sets the broker's switches.
    pub fn set_broker_faults(&self, faults: BrokerFaults) {
        self.state().faults = faults;
    }

    /// The broker's switches as they stand.
    pub fn broker_faults(&self) -> BrokerFaults {
        self.state().faults.clone()
    }

    /// Counts a token; the status that it is refused with, when it is.
    pub fn on_token(&self) -> Option<u16> {
        self.state().faults.on_token()
    }
}

impl State {
    fn tell_all(&self, command: &Command) -> usize {
        // A connection whose receiver is gone is just leaving.
        self.connections
            .values()
            .filter(|connection| connection.send(command.clone()).is_ok())
            .count()
    }
}

impl Node {
    fn new(queue: Queue) -> Self {
        Self {
            queue,
            faults: QueueFaults::default(),
            watchers: HashMap::new(),
        }
    }

    fn view(&self, name: &QueueName) -> QueueView {
        QueueView {
            name: name.clone(),
            settings: self.queue.settings().clone(),
            counts: self.queue.counts(),
            counters: *self.queue.counters(),
            faults: self.faults.clone(),
        }
    }
}

impl<T> Outcome<T> {
    fn refused(refusal: Refusal) -> Self {
        Self {
            result: Err(refusal),
            fate: Fate::NOW,
        }
    }
}

fn unpack(payload: &Bytes, format: u32) -> Result<Vec<Message>, Refusal> {
    let messages = if format == BATCH_FORMAT {
        message::unpack_batch(payload).map_err(|error| Refusal::malformed(&error))?
    } else {
        vec![payload.clone()]
    };
    messages
        .iter()
        .map(|message| Message::parse(message, Uuid::new_v4()).map_err(|error| Refusal::malformed(&error)))
        .collect()
}
