//! Where the messages of a queue, or of its dead letters, lie in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::{Part, PartCounts, Record, State};
use crate::{
    clock::Moment,
    message::{Message, Stamp},
};

/// A receiver's hold on a message.
#[derive(Debug, Clone, Copy)]
pub struct Lock {
    pub token: Uuid,
    pub until: Moment,
}

/// When something about a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    pub at: Moment,
    pub part: Part,
    pub sequence: i64,
    pub end: End,
}

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Lock,
    Life,
    Waiting,
}

/// A message in its place.
#[derive(Debug)]
pub struct Entry {
    pub message: Arc<Message>,
    pub record: Record,
    pub lock: Option<Lock>,
}

/// The messages of one part of a queue.
#[derive(Debug, Default)]
pub struct Shelf {
    pub entries: BTreeMap<i64, Entry>,
    /// Active and not locked, in the order of delivery.
    pub ready: BTreeSet<i64>,
}

impl Shelf {
    pub fn counts(&self) -> PartCounts {
        let mut counts = PartCounts::default();
        for entry in self.entries.values() {
            match (entry.record.state, entry.lock) {
                (_, Some(_)) => counts.locked += 1,
                (State::Active, None) => counts.active += 1,
                (State::Deferred, None) => counts.deferred += 1,
                (State::Scheduled { .. }, None) => counts.scheduled += 1,
            }
        }
        counts
    }
}

impl Entry {
    pub fn stamp(&self, sequence: i64, locked_until: Option<Moment>) -> Stamp {
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
