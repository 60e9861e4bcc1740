//! One queue and its dead-letter sub-queue: the state machine of a message, without any I/O.
//!
//! The clock, the lock tokens and the fresh ids come in as arguments. What must outlive the process is
//! noted down as [`Change`]s, which the broker hands to the journal.
//!
//! Sources: <https://learn.microsoft.com/azure/service-bus-messaging/message-transfers-locks-settlement>,
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues>.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use crate::{clock::Moment, codec, message::Message};

mod counts;
mod duplicates;
mod moves;
mod name;
mod record;
mod settings;
mod settlement;
mod shelf;
#[cfg(test)]
mod tests;

pub use counts::{Counters, Counts, PartCounts};
pub use name::{Address, InvalidName, Part, QueueName, path};
pub use record::{Change, Record, State};
pub use settings::{InvalidSettings, QueueSettings};
pub use settlement::{Delivery, ReceiveMode, Settlement};

use duplicates::DuplicateWindow;
use shelf::{Deadline, End, Entry, Shelf};

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

/// A queue with its dead-letter sub-queue.
#[derive(Debug)]
pub struct Queue {
    name: QueueName,
    settings: QueueSettings,
    next_sequence: i64,
    main: Shelf,
    dead_letters: Shelf,
    locks: HashMap<Uuid, (Part, i64)>,
    deadlines: BTreeSet<Deadline>,
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
        self.deadlines.first().map(|deadline| deadline.at)
    }

    /// How many messages are where.
    pub fn counts(&self) -> Counts {
        Counts {
            main: self.main.counts(),
            dead_letters: self.dead_letters.counts(),
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
            self.deadlines.remove(&Deadline {
                at: before,
                part,
                sequence,
                end: End::Lock,
            });
        }
        self.deadlines.insert(Deadline {
            at: until,
            part,
            sequence,
            end: End::Lock,
        });
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
        while self.deadlines.first().is_some_and(|next| next.at <= now)
            && let Some(Deadline {
                part, sequence, end, ..
            }) = self.deadlines.pop_first()
        {
            match end {
                End::Lock => self.lose_lock(part, sequence, now),
                End::Waiting => self.activate(sequence, now),
                // One that somebody holds is looked at again when the lock ends.
                End::Life => {
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
}
