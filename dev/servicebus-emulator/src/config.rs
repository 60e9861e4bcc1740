//! What an emulator is started with.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

use crate::{
    keys::JwtIssuer,
    queue::{QueueName, QueueSettings},
};

/// The name of the key in the customary connection string of an emulator.
pub const DEFAULT_KEY_NAME: &str = "RootManageSharedAccessKey";
/// The key in the customary connection string of an emulator.
pub const DEFAULT_KEY: &str = "SAS_KEY_VALUE";
/// What the service says in its `open`.
pub const DEFAULT_IDLE_TIME_OUT: Duration = Duration::from_secs(120);

/// Where messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// They end with the process.
    Memory,
    /// In this directory, where they survive the process, however it ends.
    Directory(PathBuf),
}

/// What an emulator is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses for AMQP; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// The address of the admin port; port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// Where messages are kept.
    pub storage: Storage,
    /// The name of the shared access key.
    pub key_name: String,
    /// The shared access key.
    pub key: SecretString,
    /// Whether Entra ID tokens are let in, their signature unchecked.
    pub accept_jwt: bool,
    /// Whose Entra ID tokens are let in, their signature checked.
    pub jwt_issuer: Option<JwtIssuer>,
    /// After how much silence a client should say that it is alive.
    pub idle_time_out: Duration,
    /// The queues to begin with. Those in the store are there as well, with the settings they had.
    pub queues: BTreeMap<QueueName, QueueSettings>,
}

impl Config {
    /// In memory, on free ports of the loopback address, with the customary key and no queues: for tests.
    pub fn in_memory() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: vec![any_port],
            admin_listen: any_port,
            storage: Storage::Memory,
            key_name: DEFAULT_KEY_NAME.to_owned(),
            key: DEFAULT_KEY.into(),
            accept_jwt: false,
            jwt_issuer: None,
            idle_time_out: DEFAULT_IDLE_TIME_OUT,
            queues: BTreeMap::new(),
        }
    }

    /// The same, with a queue.
    #[must_use]
    pub fn with_queue(mut self, name: QueueName, settings: QueueSettings) -> Self {
        self.queues.insert(name, settings);
        self
    }

    /// The same, with messages kept in a directory.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.storage = Storage::Directory(directory.into());
        self
    }
}
