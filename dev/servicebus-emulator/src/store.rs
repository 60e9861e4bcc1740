//! Messages on disk, in one `redb` file: queues, message contents, what is known about them, and the
//! memory of duplicate detection. Locks are not kept, so a restart releases them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use uuid::Uuid;

use crate::{
    clock::Moment,
    codec,
    journal::Entry,
    message::Message,
    queue::{Change, Part, Queue, QueueName, QueueSettings, Record},
};

/// Settings by queue, as JSON.
const QUEUES: TableDefinition<&str, &str> = TableDefinition::new("queues");
/// The number that the next message gets, by queue.
const NEXT_SEQUENCE: TableDefinition<&str, i64> = TableDefinition::new("next_sequence");
/// Encoded messages by queue, dead-letter flag and number.
const CONTENTS: TableDefinition<(&str, bool, i64), &[u8]> = TableDefinition::new("contents");
/// What is known about messages, as JSON, under the same keys.
const RECORDS: TableDefinition<(&str, bool, i64), &str> = TableDefinition::new("records");
/// Remembered message-ids by queue and time, in milliseconds since the Unix epoch.
const SEEN: TableDefinition<(&str, i64, &str), ()> = TableDefinition::new("seen");

const FILE_NAME: &str = "messages.redb";

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be made.
    #[error("failed to create the data directory {0}")]
    CreateDirectory(PathBuf, #[source] std::io::Error),
    /// The file cannot be opened; another process may have it.
    #[error("failed to open {0}")]
    Open(PathBuf, #[source] redb::DatabaseError),
    /// Reading failed.
    #[error("failed to read the store")]
    Read(#[source] redb::Error),
    /// Writing failed.
    #[error("failed to write to the store")]
    Write(#[source] redb::Error),
    /// A kept message cannot be decoded.
    #[error("message {sequence} of queue {queue} in the store is damaged")]
    Content {
        /// Whose message.
        queue: QueueName,
        /// Its number.
        sequence: i64,
        /// Why.
        #[source]
        source: codec::Error,
    },
    /// A message cannot be encoded.
    #[error("failed to encode a message for the store")]
    Encode(#[source] codec::Error),
    /// A record, settings or a name cannot be decoded or encoded.
    #[error("failed to convert {0}")]
    Json(&'static str, #[source] serde_json::Error),
    /// A record has no content.
    #[error("message {sequence} of queue {queue} has no content in the store")]
    Missing {
        /// Whose message.
        queue: QueueName,
        /// Its number.
        sequence: i64,
    },
}

/// The open file. Only one process can have it.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the store in a directory, and makes both when they are not there.
    ///
    /// # Errors
    /// [`Error::CreateDirectory`] and [`Error::Open`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::CreateDirectory(directory.to_owned(), error))?;
        let path = directory.join(FILE_NAME);
        match Database::create(&path) {
            Ok(database) => Ok(Self { database }),
            Err(error) => Err(Error::Open(path, error)),
        }
    }

    /// All queues as they were when the last process ended, nothing locked.
    ///
    /// # Errors
    /// [`Error::Read`], or one that names what is damaged.
    pub fn load(&self) -> Result<Vec<Queue>, Error> {
        let transaction = self.database.begin_read().map_err(read)?;
        let Some(queues) = existing(transaction.open_table(QUEUES))? else {
            return Ok(Vec::new());
        };
        let next_sequence = existing(transaction.open_table(NEXT_SEQUENCE))?;
        let contents = existing(transaction.open_table(CONTENTS))?;
        let records = existing(transaction.open_table(RECORDS))?;
        let seen = existing(transaction.open_table(SEEN))?;

        let mut loaded = Vec::new();
        for row in queues.iter().map_err(read)? {
            let (name, settings) = row.map_err(read)?;
            let name = name.value();
            let queue: QueueName = from_json("a queue's name", &serde_json::Value::from(name).to_string())?;
            let settings: QueueSettings = from_json("a queue's settings", settings.value())?;

            let mut messages = Vec::new();
            if let (Some(records), Some(contents)) = (&records, &contents) {
                for row in records
                    .range((name, false, i64::MIN)..=(name, true, i64::MAX))
                    .map_err(read)?
                {
                    let (key, record) = row.map_err(read)?;
                    let (_, dead, sequence) = key.value();
                    let record: Record = from_json("a message's record", record.value())?;
                    let content = contents
                        .get((name, dead, sequence))
                        .map_err(read)?
                        .ok_or_else(|| Error::Missing {
                            queue: queue.clone(),
                            sequence,
                        })?;
                    let message = Message::parse(&Bytes::copy_from_slice(content.value()), Uuid::nil())
                        .map_err(|source| Error::Content {
                            queue: queue.clone(),
                            sequence,
                            source,
                        })?;
                    messages.push((
                        if dead { Part::DeadLetter } else { Part::Main },
                        sequence,
                        record,
                        message,
                    ));
                }
            }
            let mut ids = Vec::new();
            if let Some(seen) = &seen {
                for row in seen
                    .range((name, i64::MIN, "")..(name, i64::MAX, ""))
                    .map_err(read)?
                {
                    let (key, ()) = {
                        let (key, value) = row.map_err(read)?;
                        (key, value.value())
                    };
                    let (_, at, id) = key.value();
                    ids.push((Moment::from_millis(at), id.to_owned()));
                }
            }
            let next = match &next_sequence {
                Some(table) => table.get(name).map_err(read)?.map_or(1, |next| next.value()),
                None => 1,
            };
            let mut restored = Queue::new(queue, settings);
            restored.restore(next, messages, ids);
            loaded.push(restored);
        }
        Ok(loaded)
    }

    /// Writes entries in one transaction. When it returns, they are on disk.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Encode`] and [`Error::Json`]; nothing is written then.
    pub fn write<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), Error> {
        let transaction = self.database.begin_write().map_err(write)?;
        {
            let mut queues = transaction.open_table(QUEUES).map_err(write)?;
            let mut next_sequence = transaction.open_table(NEXT_SEQUENCE).map_err(write)?;
            let mut contents = transaction.open_table(CONTENTS).map_err(write)?;
            let mut records = transaction.open_table(RECORDS).map_err(write)?;
            let mut seen = transaction.open_table(SEEN).map_err(write)?;
            for entry in entries {
                match entry {
                    Entry::Defined(queue, settings) => {
                        let settings = to_json("a queue's settings", settings)?;
                        queues.insert(queue.as_str(), settings.as_str()).map_err(write)?;
                    }
                    Entry::Deleted(queue) => {
                        let name = queue.as_str();
                        queues.remove(name).map_err(write)?;
                        next_sequence.remove(name).map_err(write)?;
                        let all = (name, false, i64::MIN)..=(name, true, i64::MAX);
                        contents.retain_in(all.clone(), |_, _| false).map_err(write)?;
                        records.retain_in(all, |_, _| false).map_err(write)?;
                        seen.retain_in((name, i64::MIN, "")..(name, i64::MAX, ""), |_, ()| false)
                            .map_err(write)?;
                    }
                    Entry::Changed(queue, changes) => {
                        let name = queue.as_str();
                        for change in changes {
                            match change {
                                Change::Content {
                                    part,
                                    sequence,
                                    message,
                                } => {
                                    let content = message.encode_bare().map_err(Error::Encode)?;
                                    contents
                                        .insert(key(name, *part, *sequence), &*content)
                                        .map_err(write)?;
                                }
                                Change::Record {
                                    part,
                                    sequence,
                                    record,
                                } => {
                                    let record = to_json("a message's record", record)?;
                                    records
                                        .insert(key(name, *part, *sequence), &*record)
                                        .map_err(write)?;
                                }
                                Change::Removed { part, sequence } => {
                                    contents.remove(key(name, *part, *sequence)).map_err(write)?;
                                    records.remove(key(name, *part, *sequence)).map_err(write)?;
                                }
                                Change::NextSequence(next) => {
                                    next_sequence.insert(name, next).map_err(write)?;
                                }
                                Change::Remembered { at, id } => {
                                    seen.insert((name, at.as_millis(), id.as_str()), ())
                                        .map_err(write)?;
                                }
                                Change::Forgotten { at, id } => {
                                    seen.remove((name, at.as_millis(), id.as_str())).map_err(write)?;
                                }
                            }
                        }
                    }
                }
            }
        }
        transaction.commit().map_err(write)
    }
}

fn key(queue: &str, part: Part, sequence: i64) -> (&str, bool, i64) {
    (queue, part == Part::DeadLetter, sequence)
}

/// A table that no transaction has written to yet does not exist, which is no error.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(read(error)),
    }
}

fn read(error: impl Into<redb::Error>) -> Error {
    Error::Read(error.into())
}

fn write(error: impl Into<redb::Error>) -> Error {
    Error::Write(error.into())
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|error| Error::Json(what, error))
}

fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Json(what, error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        queue::{Enqueued, ReceiveMode},
        testing::message,
    };

    const NOON: Moment = Moment::from_millis(1_700_000_000_000);

    fn name(name: &str) -> QueueName {
        name.parse().unwrap()
    }

    fn write_all(store: &Store, queue: &mut Queue) {
        let defined = Entry::Defined(queue.name().clone(), queue.settings().clone());
        let changed = Entry::Changed(queue.name().clone(), queue.take_changes());
        store.write([defined, changed].iter()).unwrap();
    }

    #[test]
    fn a_new_store_is_empty() {
        let directory = tempfile::tempdir().unwrap();

        assert!(
            Store::open(&directory.path().join("deep/down"))
                .unwrap()
                .load()
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn queues_come_back_each_with_its_own_messages_settings_and_memory() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let settings = QueueSettings {
            duplicate_detection: Some(Duration::from_secs(60)),
            ..QueueSettings::default()
        };
        // Names that begin alike, so that a range over one must not reach into the other.
        for queue in ["a", "a-b", "a/b"] {
            let mut queue = Queue::new(name(queue), settings.clone());
            queue.enqueue(message("1").build(), NOON);
            write_all(&store, &mut queue);
        }
        drop(store);

        let mut loaded = Store::open(directory.path()).unwrap().load().unwrap();

        assert_eq!(
            loaded
                .iter()
                .map(|queue| queue.name().as_str())
                .collect::<Vec<_>>(),
            ["a", "a-b", "a/b"]
        );
        for queue in &mut loaded {
            assert_eq!(*queue.settings(), settings);
            assert_eq!(queue.counts().main.active, 1);
            assert_eq!(queue.enqueue(message("1").build(), NOON), Enqueued::Duplicate);
            assert_eq!(queue.enqueue(message("2").build(), NOON), Enqueued::Stored(2));
        }
    }

    #[test]
    fn a_message_that_left_does_not_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut queue = Queue::new(name("q"), QueueSettings::default());
        queue.enqueue(message("1").build(), NOON);
        write_all(&store, &mut queue);

        queue
            .receive(Part::Main, ReceiveMode::ReceiveAndDelete, Uuid::nil(), NOON)
            .unwrap()
            .unwrap();
        write_all(&store, &mut queue);

        assert_eq!(store.load().unwrap()[0].counts().main.active, 0);
    }

    #[test]
    fn a_deleted_queue_takes_its_messages_with_it_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for queue in ["q", "q2"] {
            let mut queue = Queue::new(name(queue), QueueSettings::default());
            queue.enqueue(message("1").build(), NOON);
            write_all(&store, &mut queue);
        }

        store
            .write(
                [
                    Entry::Deleted(name("q")),
                    Entry::Defined(name("q"), QueueSettings::default()),
                ]
                .iter(),
            )
            .unwrap();

        let counts: Vec<_> = store
            .load()
            .unwrap()
            .iter()
            .map(|queue| queue.counts().main.active)
            .collect();
        assert_eq!(counts, [0, 1]);
    }

    #[test]
    fn a_second_process_cannot_open_the_same_store() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::open(directory.path()).unwrap();

        assert!(matches!(Store::open(directory.path()), Err(Error::Open(..))));
    }
}
