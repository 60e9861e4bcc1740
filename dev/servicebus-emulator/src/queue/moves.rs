//! The moves of a message from one place or state to another, which the operations of a queue are made of.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Change, Delivery, Error, Part, Queue, ReceiveMode, Record, State,
    settlement::reasons,
    shelf::{Deadline, End, Entry, Lock, Shelf},
};
use crate::{
    clock::Moment,
    message::{Map, Message},
};

impl Queue {
    pub(super) fn shelf(&self, part: Part) -> &Shelf {
        match part {
            Part::Main => &self.main,
            Part::DeadLetter => &self.dead_letters,
        }
    }

    pub(super) fn shelf_mut(&mut self, part: Part) -> &mut Shelf {
        match part {
            Part::Main => &mut self.main,
            Part::DeadLetter => &mut self.dead_letters,
        }
    }

    pub(super) fn expiry(&self, message: &Message, from: Moment) -> Option<Moment> {
        // The queue's own time to live is the default and the limit.
        let ttl = match (message.ttl(), self.settings.ttl) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        };
        ttl.map(|ttl| from.plus(ttl))
    }

    pub(super) fn append(&mut self, part: Part, record: Record, message: Arc<Message>) -> i64 {
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

    pub(super) fn insert(&mut self, part: Part, sequence: i64, record: Record, message: Arc<Message>) {
        if let State::Scheduled { at } = record.state {
            self.deadlines.insert(Deadline {
                at,
                part,
                sequence,
                end: End::Waiting,
            });
        } else if let Some(at) = record.expires {
            self.deadlines.insert(Deadline {
                at,
                part,
                sequence,
                end: End::Life,
            });
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
    pub(super) fn take(&mut self, part: Part, sequence: i64) -> Option<Entry> {
        let shelf = self.shelf_mut(part);
        shelf.ready.remove(&sequence);
        let entry = shelf.entries.remove(&sequence)?;
        if let Some(lock) = entry.lock {
            self.locks.remove(&lock.token);
            self.deadlines.remove(&Deadline {
                at: lock.until,
                part,
                sequence,
                end: End::Lock,
            });
        }
        if let Some(at) = entry.record.expires {
            self.deadlines.remove(&Deadline {
                at,
                part,
                sequence,
                end: End::Life,
            });
        }
        if let State::Scheduled { at } = entry.record.state {
            self.deadlines.remove(&Deadline {
                at,
                part,
                sequence,
                end: End::Waiting,
            });
        }
        Some(entry)
    }

    pub(super) fn remove(&mut self, part: Part, sequence: i64) -> Option<Entry> {
        let entry = self.take(part, sequence)?;
        self.changes.push(Change::Removed { part, sequence });
        Some(entry)
    }

    pub(super) fn update(&mut self, part: Part, sequence: i64, change: impl FnOnce(&mut Record)) {
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

    pub(super) fn modify(&mut self, part: Part, sequence: i64, changes: Map) {
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

    pub(super) fn hand_out(
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
            self.deadlines.insert(Deadline {
                at: until,
                part,
                sequence,
                end: End::Lock,
            });
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
    pub(super) fn held(&mut self, token: Uuid, now: Moment) -> Option<(Part, i64)> {
        self.tick(now);
        self.locks.get(&token).copied()
    }

    pub(super) fn unlock(&mut self, part: Part, sequence: i64) {
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
            self.deadlines.remove(&Deadline {
                at: lock.until,
                part,
                sequence,
                end: End::Lock,
            });
        }
        self.arrivals |= active;
    }

    pub(super) fn lose_lock(&mut self, part: Part, sequence: i64, now: Moment) {
        self.counters.locks_expired += 1;
        self.give_back(part, sequence, now);
    }

    /// One failed delivery more: back to its place, or to the dead letters when it was the last.
    pub(super) fn give_back(&mut self, part: Part, sequence: i64, now: Moment) {
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
    pub(super) fn expire(&mut self, part: Part, sequence: i64, now: Moment) -> bool {
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
    pub(super) fn activate(&mut self, sequence: i64, now: Moment) {
        if let Some(entry) = self.remove(Part::Main, sequence) {
            let record = Record {
                state: State::Active,
                enqueued: now,
                ..entry.record
            };
            self.append(Part::Main, record, entry.message);
        }
    }

    pub(super) fn dead_letter(&mut self, sequence: i64, properties: Map) {
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
