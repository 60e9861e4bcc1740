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
    faults::{BrokerFaults, Fate, QueueFaults, Verdict},
    journal::{self, Journal},
    message::{self, BATCH_FORMAT, Message},
    queue::{
        self, Counters, Counts, Delivery, Part, Queue, QueueName, QueueSettings, ReceiveMode, Settlement,
    },
};

mod connections;
mod refusal;

pub use connections::{Command, ConnectionCounters, ConnectionId};
pub use refusal::Refusal;

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
