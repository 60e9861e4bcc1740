//! One queue and its dead-letter sub-queue: the state machine of a message, without any I/O.
//!
//! The clock, the lock tokens and the fresh ids come in as arguments. What must outlive the process is
//! noted down as [`Change`]s, which the broker hands to the journal.
//!
//! Sources: <https://learn.microsoft.com/azure/service-bus-messaging/message-transfers-locks-settlement>,
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues>.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_amqp::Value;
use uuid::Uuid;

use crate::{
    clock::Moment,
    codec,
    message::{Map, Message, Stamp},
};

mod counts;
mod duplicates;
mod name;
mod settings;
#[cfg(test)]
mod tests;

pub use counts::{Counters, Counts, PartCounts};
pub use name::{Address, InvalidName, Part, QueueName, path};
pub use settings::{InvalidSettings, QueueSettings};

use duplicates::DuplicateWindow;

const DEAD_LETTER_REASON: &str = "DeadLetterReason";
const DEAD_LETTER_DESCRIPTION: &str = "DeadLetterErrorDescription";

/// What the queue knows about a message beside its content. This is what the store keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it became available; for a scheduled one, when it was handed in.
    pub enqueued: Moment,
    /// Failed deliveries so far.
    pub delivery_count: u32,
    /// Whether receivers get it.
    pub state: State,
    /// When its time to live ends.
    pub expires: Option<Moment>,
    /// Its number before it was dead-lettered.
    pub enqueue_sequence: Option<i64>,
    /// The queue that it was dead-lettered from.
    pub dead_letter_source: Option<String>,
}

/// Whether receivers get a message. A lock is not a state of its own: it is lost when the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In its place in the queue.
    Active,
    /// Put aside; only receive-by-sequence-number finds it.
    Deferred,
    /// Not yet in the queue.
    Scheduled {
        /// When it appears.
        at: Moment,
    },
}

/// Something that must outlive the process.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A message came in, or its content changed.
    Content {
        /// In which part of the queue.
        part: Part,
        /// Its number there.
        sequence: i64,
        /// All of it.
        message: Arc<Message>,
    },
    /// What is known about a message changed.
    Record {
        /// In which part of the queue.
        part: Part,
        /// Its number there.
        sequence: i64,
        /// All of it.
        record: Record,
    },
    /// A message left.
    Removed {
        /// From which part of the queue.
        part: Part,
        /// Its number there.
        sequence: i64,
    },
    /// The next message gets this number.
    NextSequence(i64),
    /// Duplicate detection remembers this message-id.
    Remembered {
        /// When it came in.
        at: Moment,
        /// The message-id.
        id: String,
    },
    /// Duplicate detection forgets this message-id.
    Forgotten {
        /// When it had come in.
        at: Moment,
        /// The message-id.
        id: String,
    },
}

/// A message on its way to a receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its number.
    pub sequence: i64,
    /// The lock token; in receive-and-delete mode only a delivery tag.
    pub token: Uuid,
    /// The message, encoded and stamped.
    pub payload: Vec<u8>,
}

/// How a receiver takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    /// Locked until settled.
    PeekLock,
    /// Gone at once.
    ReceiveAndDelete,
}

/// What becomes of a locked message.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// It is done with.
    Complete,
    /// Back to its place, one failed delivery more.
    Abandon {
        /// Application properties to set.
        modify: Map,
    },
    /// Back to its place, as if it had not been delivered.
    Release,
    /// Put aside.
    Defer {
        /// Application properties to set.
        modify: Map,
    },
    /// To the dead-letter sub-queue.
    DeadLetter {
        /// Application properties to set, reason and description among them.
        modify: Map,
    },
}

impl Settlement {
    /// Dead-lettering with the customary properties.
    pub fn dead_letter(reason: Option<&str>, description: Option<&str>, mut modify: Map) -> Self {
        if let Some(reason) = reason {
            modify.insert(Value::from(DEAD_LETTER_REASON), Value::from(reason));
        }
        if let Some(description) = description {
            modify.insert(Value::from(DEAD_LETTER_DESCRIPTION), Value::from(description));
        }
        Self::DeadLetter { modify }
    }
}

/// What became of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the queue, or scheduled, under this number.
    Stored(i64),
    /// Its message-id was seen within the window: accepted and dropped.
    Duplicate,
}

/// Why the queue refuses an operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock ran out, the message was settled already, or the token was never given out.
    #[error("the lock supplied is invalid: it expired, or the message was already removed from the queue")]
    LockLost,
    /// No message with that number that the operation may take.
    #[error("no such message: sequence number {0}")]
    NotFound(i64),
    /// A message could not be encoded.
    #[error("failed to encode a message")]
    Encode(#[source] codec::Error),
}

#[derive(Debug, Clone, Copy)]
struct Lock {
    token: Uuid,
    until: Moment,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    record: Record,
    lock: Option<Lock>,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<i64, Entry>,
    /// Active and not locked, in the order of delivery.
    ready: BTreeSet<i64>,
}

/// A queue with its dead-letter sub-queue.
#[derive(Debug)]
pub struct Queue {
    name: QueueName,
    settings: QueueSettings,
    next_sequence: i64,
    main: Shelf,
    dead_letters: Shelf,
    locks: HashMap<Uuid, (Part, i64)>,
    /// When a lock, a time to live or a schedule needs a look. Each is checked when its time has come.
    deadlines: BTreeSet<(Moment, Part, i64)>,
    duplicates: DuplicateWindow,
    counters: Counters,
    changes: Vec<Change>,
    arrivals: bool,
}

impl Queue {
    /// An empty queue.
    pub fn new(name: QueueName, settings: QueueSettings) -> Self {
        Self {
            name,
            settings,
            next_sequence: 1,
            main: Shelf::default(),
            dead_letters: Shelf::default(),
            locks: HashMap::new(),
            deadlines: BTreeSet::new(),
            duplicates: DuplicateWindow::default(),
            counters: Counters::default(),
            changes: Vec::new(),
            arrivals: false,
        }
    }

    /// Puts back what the store kept. Nothing is locked afterwards.
    pub fn restore(
        &mut self,
        next_sequence: i64,
        messages: Vec<(Part, i64, Record, Message)>,
        seen: Vec<(Moment, String)>,
    ) {
        self.next_sequence = next_sequence;
        for (part, sequence, record, message) in messages {
            self.insert(part, sequence, record, Arc::new(message));
        }
        for (at, id) in seen {
            self.duplicates.remember(at, id);
        }
    }

    /// What it is called.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// Whether messages became ready for receivers since the last call.
    pub fn take_arrivals(&mut self) -> bool {
        std::mem::take(&mut self.arrivals)
    }

    /// The settings in force.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// New settings, which hold for what happens from now on.
    pub fn set_settings(&mut self, settings: QueueSettings) {
        self.settings = settings;
    }

    /// What happened here since the process began.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The same, to count what the queue itself does not see.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// What must be written down since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// When [`Queue::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// How many messages are where.
    pub fn counts(&self) -> Counts {
        let of = |shelf: &Shelf| {
            let mut counts = PartCounts::default();
            for entry in shelf.entries.values() {
                match (entry.record.state, entry.lock) {
                    (_, Some(_)) => counts.locked += 1,
                    (State::Active, None) => counts.active += 1,
                    (State::Deferred, None) => counts.deferred += 1,
                    (State::Scheduled { .. }, None) => counts.scheduled += 1,
                }
            }
            counts
        };
        Counts {
            main: of(&self.main),
            dead_letters: of(&self.dead_letters),
        }
    }

    /// Takes a message in.
    pub fn enqueue(&mut self, message: Message, now: Moment) -> Enqueued {
        if let Some(window) = self.settings.duplicate_detection {
            for (at, id) in self.duplicates.forget_before(now, window) {
                self.changes.push(Change::Forgotten { at, id });
            }
            if self.duplicates.contains(message.id()) {
                self.counters.duplicates += 1;
                return Enqueued::Duplicate;
            }
            self.duplicates.remember(now, message.id().to_owned());
            self.changes.push(Change::Remembered {
                at: now,
                id: message.id().to_owned(),
            });
        }
        self.counters.sent += 1;
        let scheduled_for = message.scheduled_for().filter(|at| *at > now);
        let record = Record {
            enqueued: now,
            delivery_count: 0,
            state: scheduled_for.map_or(State::Active, |at| State::Scheduled { at }),
            expires: self.expiry(&message, scheduled_for.unwrap_or(now)),
            enqueue_sequence: None,
            dead_letter_source: None,
        };
        Enqueued::Stored(self.append(Part::Main, record, Arc::new(message)))
    }

    /// The next message for a receiver; `token` becomes its lock token.
    ///
    /// # Errors
    /// [`Error::Encode`]; the message stays where it is.
    pub fn receive(
        &mut self,
        part: Part,
        mode: ReceiveMode,
        token: Uuid,
        now: Moment,
    ) -> Result<Option<Delivery>, Error> {
        while let Some(&sequence) = self.shelf(part).ready.first() {
            if self.expire(part, sequence, now) {
                continue;
            }
            return self.hand_out(part, sequence, mode, token, now).map(Some);
        }
        Ok(None)
    }

    /// A deferred message by its number; `token` becomes its lock token.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, or it is not deferred or locked already.
    pub fn receive_deferred(
        &mut self,
        part: Part,
        sequence: i64,
        mode: ReceiveMode,
        token: Uuid,
        now: Moment,
    ) -> Result<Delivery, Error> {
        match self.shelf(part).entries.get(&sequence) {
            Some(entry) if entry.record.state == State::Deferred && entry.lock.is_none() => {
                self.hand_out(part, sequence, mode, token, now)
            }
            _ => Err(Error::NotFound(sequence)),
        }
    }

    /// Settles a locked message.
    ///
    /// # Errors
    /// [`Error::LockLost`].
    pub fn settle(&mut self, token: Uuid, settlement: Settlement, now: Moment) -> Result<(), Error> {
        let Some((part, sequence)) = self.held(token, now) else {
            self.counters.lock_lost += 1;
            return Err(Error::LockLost);
        };
        match settlement {
            Settlement::Complete => {
                self.counters.completed += 1;
                self.remove(part, sequence);
            }
            Settlement::Abandon { modify } => {
                self.counters.abandoned += 1;
                self.modify(part, sequence, modify);
                self.give_back(part, sequence, now);
            }
            Settlement::Release => {
                self.counters.released += 1;
                self.unlock(part, sequence);
                self.expire(part, sequence, now);
            }
            Settlement::Defer { modify } => {
                self.counters.deferred += 1;
                self.modify(part, sequence, modify);
                self.unlock(part, sequence);
                self.update(part, sequence, |record| {
                    record.state = State::Deferred;
                    record.delivery_count += 1;
                });
            }
            Settlement::DeadLetter { modify } => match part {
                Part::Main => self.dead_letter(sequence, modify),
                // There is nothing below the dead-letter queue: the message stays in its place.
                Part::DeadLetter => self.unlock(part, sequence),
            },
        }
        Ok(())
    }

    /// Prolongs a lock to a full lock duration from now.
    ///
    /// # Errors
    /// [`Error::LockLost`].
    pub fn renew(&mut self, token: Uuid, now: Moment) -> Result<Moment, Error> {
        let Some((part, sequence)) = self.held(token, now) else {
            self.counters.lock_lost += 1;
            return Err(Error::LockLost);
        };
        self.counters.renewed += 1;
        let until = now.plus(self.settings.lock_duration);
        let lock = self
            .shelf_mut(part)
            .entries
            .get_mut(&sequence)
            .and_then(|entry| entry.lock.as_mut());
        if let Some(before) = lock.map(|lock| std::mem::replace(&mut lock.until, until)) {
            self.deadlines.remove(&(before, part, sequence));
        }
        self.deadlines.insert((until, part, sequence));
        Ok(until)
    }

    /// Up to `count` messages from a number on, whatever their state, untouched.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn peek(&self, part: Part, from: i64, count: usize) -> Result<Vec<Vec<u8>>, Error> {
        self.shelf(part)
            .entries
            .range(from..)
            .take(count)
            .map(|(sequence, entry)| {
                entry
                    .message
                    .encode(&entry.stamp(*sequence, None))
                    .map_err(Error::Encode)
            })
            .collect()
    }

    /// Takes a scheduled message out again.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not scheduled (any more).
    pub fn cancel_scheduled(&mut self, sequence: i64) -> Result<(), Error> {
        match self.main.entries.get(&sequence) {
            Some(Entry {
                record:
                    Record {
                        state: State::Scheduled { .. },
                        ..
                    },
                ..
            }) => {
                self.counters.cancelled += 1;
                self.remove(Part::Main, sequence);
                Ok(())
            }
            _ => Err(Error::NotFound(sequence)),
        }
    }

    /// Does what time has brought: ends locks, lets scheduled messages appear, ends lives.
    pub fn tick(&mut self, now: Moment) {
        while let Some(&deadline) = self.deadlines.first().filter(|(at, ..)| *at <= now) {
            self.deadlines.remove(&deadline);
            let (_, part, sequence) = deadline;
            let Some(entry) = self.shelf(part).entries.get(&sequence) else {
                continue;
            };
            match (entry.record.state, entry.lock) {
                (_, Some(lock)) if lock.until <= now => self.lose_lock(part, sequence, now),
                (State::Scheduled { at }, None) if at <= now => self.activate(sequence, now),
                _ => {
                    self.expire(part, sequence, now);
                }
            }
        }
    }

    /// Ends every lock now, as if its time had run out. Answers with how many there were.
    pub fn expire_locks(&mut self, now: Moment) -> usize {
        let held: BTreeSet<_> = self.locks.values().copied().collect();
        for &(part, sequence) in &held {
            self.lose_lock(part, sequence, now);
        }
        held.len()
    }

    /// Throws every message away, the dead letters too. Duplicate detection keeps its memory.
    pub fn purge(&mut self) -> usize {
        let all: Vec<_> = [Part::Main, Part::DeadLetter]
            .into_iter()
            .flat_map(|part| {
                self.shelf(part)
                    .entries
                    .keys()
                    .map(move |sequence| (part, *sequence))
            })
            .collect();
        for &(part, sequence) in &all {
            self.remove(part, sequence);
        }
        all.len()
    }

    fn shelf(&self, part: Part) -> &Shelf {
        match part {
            Part::Main => &self.main,
            Part::DeadLetter => &self.dead_letters,
        }
    }

    fn shelf_mut(&mut self, part: Part) -> &mut Shelf {
        match part {
            Part::Main => &mut self.main,
            Part::DeadLetter => &mut self.dead_letters,
        }
    }

    fn expiry(&self, message: &Message, from: Moment) -> Option<Moment> {
        // The queue's own time to live is the default and the limit.
        let ttl = match (message.ttl(), self.settings.ttl) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        };
        ttl.map(|ttl| from.plus(ttl))
    }

    fn append(&mut self, part: Part, record: Record, message: Arc<Message>) -> i64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.changes.push(Change::NextSequence(self.next_sequence));
        self.changes.push(Change::Content {
            part,
            sequence,
            message: Arc::clone(&message),
        });
        self.changes.push(Change::Record {
            part,
            sequence,
            record: record.clone(),
        });
        self.insert(part, sequence, record, message);
        sequence
    }

    fn insert(&mut self, part: Part, sequence: i64, record: Record, message: Arc<Message>) {
        if let State::Scheduled { at } = record.state {
            self.deadlines.insert((at, part, sequence));
        } else if let Some(at) = record.expires {
            self.deadlines.insert((at, part, sequence));
        }
        let shelf = self.shelf_mut(part);
        let active = record.state == State::Active;
        if active {
            shelf.ready.insert(sequence);
        }
        shelf.entries.insert(
            sequence,
            Entry {
                message,
                record,
                lock: None,
            },
        );
        self.arrivals |= active;
    }

    /// Takes an entry out of every index.
    fn take(&mut self, part: Part, sequence: i64) -> Option<Entry> {
        let shelf = self.shelf_mut(part);
        shelf.ready.remove(&sequence);
        let entry = shelf.entries.remove(&sequence)?;
        if let Some(lock) = entry.lock {
            self.locks.remove(&lock.token);
            self.deadlines.remove(&(lock.until, part, sequence));
        }
        if let Some(at) = entry.record.expires {
            self.deadlines.remove(&(at, part, sequence));
        }
        if let State::Scheduled { at } = entry.record.state {
            self.deadlines.remove(&(at, part, sequence));
        }
        Some(entry)
    }

    fn remove(&mut self, part: Part, sequence: i64) -> Option<Entry> {
        let entry = self.take(part, sequence)?;
        self.changes.push(Change::Removed { part, sequence });
        Some(entry)
    }

    fn update(&mut self, part: Part, sequence: i64, change: impl FnOnce(&mut Record)) {
        if let Some(entry) = self.shelf_mut(part).entries.get_mut(&sequence) {
            change(&mut entry.record);
            let record = entry.record.clone();
            if record.state != State::Active {
                self.shelf_mut(part).ready.remove(&sequence);
            }
            self.changes.push(Change::Record {
                part,
                sequence,
                record,
            });
        }
    }

    fn modify(&mut self, part: Part, sequence: i64, changes: Map) {
        if changes.is_empty() {
            return;
        }
        if let Some(entry) = self.shelf_mut(part).entries.get_mut(&sequence) {
            Arc::make_mut(&mut entry.message).modify_properties(changes);
            let message = Arc::clone(&entry.message);
            self.changes.push(Change::Content {
                part,
                sequence,
                message,
            });
        }
    }

    fn hand_out(
        &mut self,
        part: Part,
        sequence: i64,
        mode: ReceiveMode,
        token: Uuid,
        now: Moment,
    ) -> Result<Delivery, Error> {
        let until = (mode == ReceiveMode::PeekLock).then(|| now.plus(self.settings.lock_duration));
        let shelf = self.shelf_mut(part);
        let entry = shelf
            .entries
            .get_mut(&sequence)
            .ok_or(Error::NotFound(sequence))?;
        let mut stamp = entry.stamp(sequence, until);
        if entry.record.state == State::Deferred {
            stamp.lock_token = until.map(|_| token);
        }
        let payload = entry.message.encode(&stamp).map_err(Error::Encode)?;
        if let Some(until) = until {
            entry.lock = Some(Lock { token, until });
            shelf.ready.remove(&sequence);
            self.locks.insert(token, (part, sequence));
            self.deadlines.insert((until, part, sequence));
        } else {
            self.remove(part, sequence);
        }
        self.counters.delivered += 1;
        Ok(Delivery {
            sequence,
            token,
            payload,
        })
    }

    /// Where the message with this lock is, while the lock holds.
    fn held(&mut self, token: Uuid, now: Moment) -> Option<(Part, i64)> {
        self.tick(now);
        self.locks.get(&token).copied()
    }

    fn unlock(&mut self, part: Part, sequence: i64) {
        let shelf = self.shelf_mut(part);
        let Some(entry) = shelf.entries.get_mut(&sequence) else {
            return;
        };
        let active = entry.record.state == State::Active;
        if active {
            shelf.ready.insert(sequence);
        }
        if let Some(lock) = entry.lock.take() {
            self.locks.remove(&lock.token);
            self.deadlines.remove(&(lock.until, part, sequence));
        }
        self.arrivals |= active;
    }

    fn lose_lock(&mut self, part: Part, sequence: i64, now: Moment) {
        self.counters.locks_expired += 1;
        self.give_back(part, sequence, now);
    }

    /// One failed delivery more: back to its place, or to the dead letters when it was the last.
    fn give_back(&mut self, part: Part, sequence: i64, now: Moment) {
        self.unlock(part, sequence);
        self.update(part, sequence, |record| record.delivery_count += 1);
        let failed = self
            .shelf(part)
            .entries
            .get(&sequence)
            .map_or(0, |entry| entry.record.delivery_count);
        let limit = self.settings.max_delivery_count.get();
        if part == Part::Main && failed >= limit {
            let description = format!("Message could not be consumed after {limit} delivery attempts.");
            self.dead_letter(sequence, reasons("MaxDeliveryCountExceeded", &description));
        } else {
            self.expire(part, sequence, now);
        }
    }

    /// Ends the life of a message whose time has come, unless somebody holds it. Dead letters do not expire.
    fn expire(&mut self, part: Part, sequence: i64, now: Moment) -> bool {
        let over = part == Part::Main
            && self.main.entries.get(&sequence).is_some_and(|entry| {
                entry.lock.is_none()
                    && !matches!(entry.record.state, State::Scheduled { .. })
                    && entry.record.expires.is_some_and(|at| at <= now)
            });
        if over {
            self.counters.expired += 1;
            if self.settings.dead_letter_expired {
                let description = "The message expired and was dead lettered.";
                self.dead_letter(sequence, reasons("TTLExpiredException", description));
            } else {
                self.remove(Part::Main, sequence);
            }
        }
        over
    }

    /// A scheduled message is appended as if it had just been sent, with a new number:
    /// <https://learn.microsoft.com/azure/service-bus-messaging/message-sequencing>.
    fn activate(&mut self, sequence: i64, now: Moment) {
        if let Some(entry) = self.remove(Part::Main, sequence) {
            let record = Record {
                state: State::Active,
                enqueued: now,
                ..entry.record
            };
            self.append(Part::Main, record, entry.message);
        }
    }

    fn dead_letter(&mut self, sequence: i64, properties: Map) {
        if let Some(mut entry) = self.remove(Part::Main, sequence) {
            self.counters.dead_lettered += 1;
            Arc::make_mut(&mut entry.message).modify_properties(properties);
            let record = Record {
                state: State::Active,
                expires: None,
                enqueue_sequence: Some(sequence),
                dead_letter_source: Some(self.name.to_string()),
                ..entry.record
            };
            self.append(Part::DeadLetter, record, entry.message);
        }
    }
}

impl Entry {
    fn stamp(&self, sequence: i64, locked_until: Option<Moment>) -> Stamp {
        Stamp {
            delivery_count: self.record.delivery_count,
            enqueued: self.record.enqueued,
            sequence,
            locked_until,
            state: match self.record.state {
                State::Active => 0,
                State::Deferred => 1,
                State::Scheduled { .. } => 2,
            },
            enqueue_sequence: self.record.enqueue_sequence,
            dead_letter_source: self.record.dead_letter_source.clone(),
            lock_token: None,
        }
    }
}

fn reasons(reason: &str, description: &str) -> Map {
    [
        (DEAD_LETTER_REASON, reason),
        (DEAD_LETTER_DESCRIPTION, description),
    ]
    .into_iter()
    .map(|(key, value)| (Value::from(key), Value::from(value)))
    .collect()
}
