//! How many messages are where, and what happened to them.

use serde::Serialize;

/// How many messages are in which state, in one part of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PartCounts {
    /// Waiting for a receiver.
    pub active: usize,
    /// Held by a receiver.
    pub locked: usize,
    /// Put aside.
    pub deferred: usize,
    /// Not yet in the queue.
    pub scheduled: usize,
}

/// How many messages are in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In the queue itself.
    #[serde(flatten)]
    pub main: PartCounts,
    /// In its dead-letter sub-queue.
    pub dead_letters: PartCounts,
}

/// What happened in a queue since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Messages stored, scheduled ones included, duplicates not.
    pub sent: u64,
    /// Messages accepted and dropped because their message-id was seen before.
    pub duplicates: u64,
    /// Transfers that senders made (a batch is one).
    pub transfers: u64,
    /// Sends answered with an error, by a fault switch or because they were malformed.
    pub refused: u64,
    /// Messages handed to receivers.
    pub delivered: u64,
    /// Settled as done.
    pub completed: u64,
    /// Given back as failed.
    pub abandoned: u64,
    /// Given back unseen.
    pub released: u64,
    /// Put aside.
    pub deferred: u64,
    /// Moved to the dead letters, by a receiver or by the broker.
    pub dead_lettered: u64,
    /// Ended by their time to live.
    pub expired: u64,
    /// Locks that ran out.
    pub locks_expired: u64,
    /// Settlements and renewals refused because the lock was gone.
    pub lock_lost: u64,
    /// Locks prolonged.
    pub renewed: u64,
    /// Scheduled messages taken out again.
    pub cancelled: u64,
}
