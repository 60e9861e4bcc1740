//! The way from the state machine to the store: changes are handed over in order, written by one thread in
//! groups, and nothing that depends on them goes out to a client before they are safe.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use tokio::sync::watch;

use crate::{
    queue::{Change, QueueName, QueueSettings},
    store::{self, Store},
};

/// Something to write, all of it or nothing.
#[derive(Debug)]
pub enum Entry {
    /// A queue is there, with these settings.
    Defined(QueueName, QueueSettings),
    /// A queue is gone, with all that was in it.
    Deleted(QueueName),
    /// What happened in a queue, in this order.
    Changed(QueueName, Vec<Change>),
}

/// How far the store has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this position is safe.
    Safe(u64),
    /// The store refused a write; nothing later will be safe.
    Failed,
}

/// Hands changes to the store; without one, everything counts as safe at once.
#[derive(Debug)]
pub struct Journal {
    writer: Option<Writer>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug)]
struct Writer {
    tail: Mutex<Tail>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Tail {
    /// Of the last change handed over.
    position: u64,
    /// Where to hand over the next; gone when the journal is closed.
    entries: Option<Sender<(u64, Entry)>>,
}

impl Writer {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// A journal that keeps nothing.
    pub fn in_memory() -> Self {
        Self {
            writer: None,
            progress: watch::channel(Progress::Safe(0)).1,
        }
    }

    /// A journal in front of a store, with its writing thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(store: Store) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let (report, progress) = watch::channel(Progress::Safe(0));
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_until_closed(&store, &receiver, &report))?;
        let writer = Writer {
            tail: Mutex::new(Tail {
                position: 0,
                entries: Some(sender),
            }),
            thread: Mutex::new(Some(thread)),
        };
        Ok(Self {
            writer: Some(writer),
            progress,
        })
    }

    /// Hands changes over. The caller sees to the order, by holding the lock under which they happened.
    pub fn append(&self, entry: Entry) {
        let Some(writer) = &self.writer else { return };
        let mut tail = writer.tail();
        tail.position += 1;
        if let Some(entries) = &tail.entries {
            // A writer that is gone has reported `Progress::Failed`, which ends the emulator.
            let _ = entries.send((tail.position, entry));
        }
    }

    /// The position of the last change handed over.
    pub fn position(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.tail().position)
    }

    /// Where to learn how far the store has got.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Returns when everything handed over so far is on disk; `false` when that failed.
    pub async fn safe(&self) -> bool {
        let position = self.position();
        let reached = |progress: &Progress| match *progress {
            Progress::Safe(safe) => safe >= position,
            Progress::Failed => true,
        };
        match self.progress().wait_for(reached).await {
            Ok(progress) => *progress != Progress::Failed,
            // The writer has ended. It does so only after it has written everything.
            Err(_) => matches!(*self.progress.borrow(), Progress::Safe(safe) if safe >= position),
        }
    }

    /// Writes what is left and lets go of the store. Blocks.
    pub fn close(&self) {
        let Some(writer) = &self.writer else { return };
        writer.tail().entries = None;
        let thread = writer
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }
}

fn write_until_closed(store: &Store, entries: &Receiver<(u64, Entry)>, report: &watch::Sender<Progress>) {
    // More than this in one transaction gains nothing and keeps the first sender waiting.
    const GROUP: usize = 1_000;

    while let Ok(first) = entries.recv() {
        let group: Vec<_> = std::iter::once(first)
            .chain(entries.try_iter().take(GROUP))
            .collect();
        let position = group.last().map_or(0, |(position, _)| *position);
        match store.write(group.iter().map(|(_, entry)| entry)) {
            Ok(()) => {
                report.send_replace(Progress::Safe(position));
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store refused a write"
                );
                report.send_replace(Progress::Failed);
                return;
            }
        }
    }
}

impl From<store::Error> for std::io::Error {
    fn from(error: store::Error) -> Self {
        std::io::Error::other(error)
    }
}
